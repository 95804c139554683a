"""Mixture of experts: kernels for prefill and decode."""
