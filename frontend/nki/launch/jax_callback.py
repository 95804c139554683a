"""A kernel call inside ``jax.jit``: a callback to the host, with the shapes of its results known.

Imported only where jax is: by a traced call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nki.launch.cache import Prepared


def launch(prepared: Prepared, inputs: list[Any], run: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The arrays a kernel returns, as results of ``jax.pure_callback``.

    Args:
        prepared: the kernel, specialized for the shapes of `inputs`.
        inputs: its arrays, tracers among them.
        run: runs it on arrays with data.
    """
    outputs = prepared.programs[0].outputs
    shapes = [jax.ShapeDtypeStruct(tensor.shape, tensor.dtype.numpy) for tensor in outputs]

    def call(*given: Any) -> list[Any]:
        return [np.asarray(array) for array in run([np.asarray(array) for array in given])]

    return list(jax.pure_callback(call, shapes, *inputs, vmap_method="sequential"))
