"""Keeps numpy's matrix products on one thread while a kernel runs.

A tile's product is too small to share: on a busy machine, starting and joining
threads costs more than the product. Needs threadpoolctl (the extra ``fast``);
without it numpy's own setting stays.
"""

from __future__ import annotations

import contextlib
import functools
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
    """Matrix products use one thread inside the block, if the library that sets it is installed."""
    controller = _controller()
    if controller is None:
        return contextlib.nullcontext()
    limit: AbstractContextManager[Any] = controller.limit(limits=1, user_api="blas")
    return limit
