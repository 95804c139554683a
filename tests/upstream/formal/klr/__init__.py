"""Stands in for the formal front end's own package: the base class its test kernels use."""

from nki.language import NKIObject

__all__ = ["NKIObject"]
