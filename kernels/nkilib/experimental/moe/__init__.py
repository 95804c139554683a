"""Mixture of experts: kernels for training."""
