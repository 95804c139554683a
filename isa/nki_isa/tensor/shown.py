"""What ``repr`` of a tensor says beside its name, shape and memory: nothing, unless somebody knows more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_more: ContextVar[Callable[[Any], str] | None] = ContextVar("more", default=None)


@contextlib.contextmanager
def showing(more: Callable[[Any], str]) -> Iterator[None]:
    """Inside the block, `more` is asked for what follows the text of a tensor."""
    token = _more.set(more)
    try:
        yield
    finally:
        _more.reset(token)


def more_of(tensor: object) -> str:
    """What follows the text of `tensor`."""
    more = _more.get()
    return "" if more is None else more(tensor)
