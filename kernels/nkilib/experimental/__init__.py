"""Kernels that the vendor lists as experimental."""
