"""Kernels whose interface may change."""
