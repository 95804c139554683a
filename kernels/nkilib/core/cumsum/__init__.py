"""Cumulative sum."""
