"""Losses: the forward pass of cross entropy."""

from .cross_entropy import cross_entropy_forward

__all__ = ["cross_entropy_forward"]
