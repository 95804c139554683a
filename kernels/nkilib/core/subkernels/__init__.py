"""Kernels that other kernels call on tiles in SBUF."""
