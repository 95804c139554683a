"""What the host process leaves aside while a kernel runs, because it costs more than it gives."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # the extra is not installed
    ThreadpoolController = None


@functools.cache
def _controller() -> Any:
    return ThreadpoolController() if ThreadpoolController is not None else None


def one_thread() -> AbstractContextManager[Any]:
    """Matrix products use one thread inside the block.

    A tile's product is too small to share: on a busy machine, starting and joining
    threads costs more than the product. Needs threadpoolctl (the extra ``fast``);
    without it numpy's own setting stays.
    """
    controller = _controller()
    if controller is None:
        return contextlib.nullcontext()
    limit: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return limit


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """The garbage collector rests inside the block.

    Nearly all that running a kernel allocates stays, and looking through it again and
    again costs a quarter of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
