"""A table that keeps the entries made last, so that kernels of modules that are gone can go too."""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_LIMIT = 128


class Kept(dict[_K, _V]):
    """A dict of at most :data:`_LIMIT` entries: a new one takes the place of the oldest."""

    def __setitem__(self, key: _K, value: _V) -> None:
        super().__setitem__(key, value)
        while len(self) > _LIMIT:
            self.pop(next(iter(self)), None)
