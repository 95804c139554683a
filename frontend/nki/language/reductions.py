"""Reductions of a tile along its last free dimensions (``tensor_reduce``; ``bn_stats`` for the variance)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nki.language.creation import new_tensor
from nki.language.emitting import emit, tensor_scalar, tile_like
from nki.language.regions import tile_size
from nki_isa.diagnostics import error
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.operators import OPERATORS
from nki_isa.tensor.kinds import Dtype
from nki_isa.tensor.tensor import NkiTensor

_FLOAT32 = DTYPES["float32"]
_TRIPLES = 6  # what bn_stats writes: (count, mean, variance * count) of even and of odd elements


def last_axes(function: str, x: NkiTensor, axis: Any) -> tuple[int, ...]:
    """`axis` as dimension numbers in order.

    Raises:
        NkiError: NKI-V141 unless they are the last dimensions, without dimension 0.
    """
    several = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if not any(not isinstance(a, int) for a in several):  # `all` is nl.all in this module
        axes = tuple(sorted(a + x.ndim if a < 0 else a for a in several))
        if axes and axes[0] > 0 and axes == tuple(range(x.ndim - len(axes), x.ndim)):
            return axes
    possible = " or ".join(str(list(range(first, x.ndim))) for first in range(x.ndim - 1, 0, -1))
    raise error(
        "NKI-V141",
        f"nl.{function} of a tile with {x.ndim} dimensions got axis {axis!r}; it can be {possible}",
        help="reorder the free dimensions with x.permute; partitions are reduced by a matmul with ones, "
        "or after nl.transpose",
    )


def reduced_size(function: str, x: NkiTensor, axis: Any) -> int:
    """How many elements one result reduces."""
    return math.prod(x.shape[a] for a in last_axes(function, x, axis))


def reduce_tile(
    function: str, operator: str, x: NkiTensor, axis: Any, dtype: Dtype | None = None, part: str = ""
) -> NkiTensor:
    """`x` reduced, the reduced dimensions kept with size 1."""
    axes = last_axes(function, x, axis)
    result = tile_like(x, dtype, [1 if dim in axes else size for dim, size in enumerate(x.shape)], part)
    emit("tensor_reduce", result, OPERATORS[operator], x, axes, keepdims=True)
    return result


def _shaped(result: NkiTensor, kept: int, keepdims: bool) -> NkiTensor:
    """`result` without the reduced dimensions, of which one stays where it is the only free dimension."""
    if keepdims:
        return result
    return result.reshape(result.shape[:kept] if kept > 1 else (result.shape[0], 1))


def _reduction(name: str, operator: str, what: str) -> Callable[..., NkiTensor]:
    def reduce(x: NkiTensor, axis: Any, dtype: Dtype | None = None, keepdims: bool = False) -> NkiTensor:
        kept = x.ndim - len(last_axes(name, x, axis))
        return _shaped(reduce_tile(name, operator, x, axis, dtype), kept, keepdims)

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = f"""The {what} of a tile along its last free dimensions (``tensor_reduce``).

    Args:
        x: a tile in SBUF or PSUM.
        axis: an int or several: the last dimensions, not the partition dimension.
        dtype: of the result; that of `x` unless given.
        keepdims: keep reduced dimensions with size 1.

    Raises:
        NkiError: NKI-V141 for other dimensions.
    """
    return reduce


sum = _reduction("sum", "add", "sum")
prod = _reduction("prod", "multiply", "product")
max = _reduction("max", "maximum", "maximum")
min = _reduction("min", "minimum", "minimum")


def all(x: NkiTensor, axis: Any, dtype: Dtype | None = None) -> NkiTensor:
    """1 where every element along the last free dimensions is not 0, else 0 (``tensor_reduce``).

    Raises:
        NkiError: NKI-V141 for other dimensions.
    """
    kept = x.ndim - len(last_axes("all", x, axis))
    return _shaped(reduce_tile("all", "logical_and", x, axis, dtype), kept, False)


def mean(x: NkiTensor, axis: Any, dtype: Dtype | None = None, keepdims: bool = False) -> NkiTensor:
    """The mean along the last free dimensions: a float32 sum (``tensor_reduce``) by 1/n (``tensor_scalar``).

    Raises:
        NkiError: NKI-V141 for other dimensions.
    """
    kept = x.ndim - len(last_axes("mean", x, axis))
    total = reduce_tile("mean", "add", x, axis, _FLOAT32, "sum")
    result = tensor_scalar(
        total, "multiply", 1.0 / reduced_size("mean", x, axis), dtype=x.dtype if dtype is None else dtype
    )
    return _shaped(result, kept, keepdims)


def var(x: NkiTensor, axis: Any, dtype: Dtype | None = None, keepdims: bool = False) -> NkiTensor:
    """The variance along the last free dimensions, which stay with size 1 whatever `keepdims` says.

    ``bn_stats`` of up to 512 elements each, one ``bn_aggr`` for each result of a partition.

    Raises:
        NkiError: NKI-V141 for other dimensions; NKI-V019 for a view that cannot be flattened.
    """
    axes = last_axes("var", x, axis)
    kept = [1 if dim in axes else size for dim, size in enumerate(x.shape)]
    result = tile_like(x, dtype, kept)
    count, width = math.prod(kept[1:]), reduced_size("var", x, axis)
    rows, results = x.reshape((x.shape[0], count, width)), result.reshape((x.shape[0], count))
    chunk = tile_size.bn_stats_fmax
    for row in range(count):
        starts = range(0, width, chunk)
        statistics = new_tensor((x.shape[0], len(starts) * _TRIPLES), _FLOAT32, part="statistics")
        for i, start in enumerate(starts):
            end = start + chunk if start + chunk < width else width
            emit("bn_stats", statistics[:, i * _TRIPLES : (i + 1) * _TRIPLES], rows[:, row, start:end])
        moments = new_tensor((x.shape[0], 2), _FLOAT32, part="moments")
        emit("bn_aggr", moments, statistics)
        emit("tensor_copy", results[:, row : row + 1], moments[:, 1:2])
    return result
