"""Sub-kernels whose interface may change."""
