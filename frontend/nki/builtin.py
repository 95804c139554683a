"""Importable, because test code of published kernels imports it; it holds no public name."""

__all__: list[str] = []
