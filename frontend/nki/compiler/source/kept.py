"""Tables that do not grow without end, so that kernels of modules that are gone can go too."""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class Kept(dict[_K, _V]):
    """A dict that keeps the entries made last: a new one takes the place of the oldest.

    Attributes:
        limit: the most entries it has. What is dropped can be made again.
    """

    def __init__(self, limit: int = 128):
        super().__init__()
        self.limit = limit

    def __setitem__(self, key: _K, value: _V) -> None:
        super().__setitem__(key, value)
        while len(self) > self.limit:
            self.pop(next(iter(self)), None)


__all__ = ["Kept"]
