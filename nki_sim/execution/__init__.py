"""Runs a placed Program on bytes."""
