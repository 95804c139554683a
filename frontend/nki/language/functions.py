"""Functions on tiles: each makes a new SBUF tile and lowers to the instructions named here.

An operator such as ``nl.add`` is both a value (``op=nl.add``) and a function
(``nl.add(x, y)``): :class:`Function` is the operator with a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from nki_isa.diagnostics import error
from nki_isa.dtypes import as_dtype
from nki_isa.instruction import REGISTRY
from nki_isa.operators import OPERATORS, Operator
from nki_isa.tensor import MemoryRegion, NkiTensor

from nki.compiler.recorder import current
from nki.language.creation import ndarray

_LANES = 32  # partitions of a quadrant, the reach of nc_stream_shuffle


def emit(opcode: str, *operands: Any, **attributes: Any) -> None:
    """Append one instruction to the Program."""
    current().emit(REGISTRY[opcode](*operands, **attributes))


def tile_like(x: NkiTensor, dtype: Any = None, shape: Sequence[int] | None = None) -> NkiTensor:
    """An unset SBUF tile of the shape of `x` (or `shape`) and of its dtype unless another is given."""
    return ndarray(x.shape if shape is None else shape, x.dtype if dtype is None else dtype)


class Function(Operator):
    """An operator that can be called on tiles.

    ``f(x, dtype=None)`` for operators of one argument (one ``activation``, or a
    ``tensor_scalar`` for bitwise ones) and ``f(x, y, dtype=None)`` for the others
    (one ``tensor_tensor``, or a ``tensor_scalar`` where one side is a number). Free
    dimensions of size 1 are broadcast. The result has the dtype of the first tile
    unless `dtype` is given.
    """

    def __call__(self, x: Any, y: Any = None, dtype: Any = None) -> NkiTensor:
        if "unary" in self.kinds or "activation" in self.kinds:
            if dtype is None and y is not None and not isinstance(y, NkiTensor):
                dtype = y  # the second parameter of a function of one argument
            return self._unary(x, dtype)
        return self._binary(x, y, dtype)

    def _unary(self, x: Any, dtype: Any) -> NkiTensor:
        self._require_tile(x)
        result = tile_like(x, dtype)
        if "activation" in self.kinds:
            emit("activation", result, self, x)
        else:
            emit("tensor_scalar", result, x, self, 0)
        return result

    def _binary(self, x: Any, y: Any, dtype: Any) -> NkiTensor:
        if isinstance(x, NkiTensor) and isinstance(y, NkiTensor):
            shape = common_shape(self.name, x, y)
            result = tile_like(x, dtype, shape)
            emit("tensor_tensor", result, broadcast_to(x, shape), broadcast_to(y, shape), self)
            return result
        tile, number, reverse = (x, y, False) if isinstance(x, NkiTensor) else (y, x, True)
        self._require_tile(tile)
        if number is None:
            raise error("NKI-L012", f"nl.{self.name} takes two arguments", help=f"write nl.{self.name}(x, y)")
        result = tile_like(tile, dtype)
        emit("tensor_scalar", result, tile, self, number, reverse)
        return result

    def _require_tile(self, x: Any) -> None:
        if not isinstance(x, NkiTensor):
            raise error(
                "NKI-V100",
                f"nl.{self.name} got {x!r}, which is no tile",
                help="load the data into SBUF first; for plain numbers use Python's own operators and math",
            )


FUNCTIONS: dict[str, Function] = {
    name: Function(**{field.name: getattr(row, field.name) for field in fields(Operator) if field.init})
    for name, row in OPERATORS.items()
}


def common_shape(name: str, x: NkiTensor, y: NkiTensor) -> tuple[int, ...]:
    """The shape two tiles broadcast to: equal sizes, or 1 on one side.

    Raises:
        NkiError: NKI-V103 where they do not fit.
    """
    if x.ndim == y.ndim and all(a == b or 1 in (a, b) for a, b in zip(x.shape, y.shape)):
        return tuple(max(a, b) for a, b in zip(x.shape, y.shape))
    raise error(
        "NKI-V103",
        f"nl.{name} got shapes {x.shape} and {y.shape}, which do not broadcast to one shape",
        help="give both the same dimensions, with size 1 where one is to be repeated",
    )


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: Any = None) -> NkiTensor:
    """`x` repeated along its dimensions of size 1 to `shape`, of the same number of dimensions.

    Free dimensions are repeated by a view with stride 0; a repeated partition is
    copied by ``nc_stream_shuffle``, one quadrant of 32 partitions at a time.

    Raises:
        NkiError: NKI-V103 where a size is neither 1 nor the wanted one.
    """
    wanted = tuple(shape)
    if len(wanted) != x.ndim or any(have not in (1, want) for have, want in zip(x.shape, wanted)):
        raise error(
            "NKI-V103",
            f"shape {x.shape} does not broadcast to {wanted}",
            help="the number of dimensions stays, and only sizes of 1 grow",
        )
    view = x
    for dim in range(1, x.ndim):
        if view.shape[dim] != wanted[dim]:
            view = view.broadcast(dim, wanted[dim])
    if x.shape[0] != wanted[0]:
        repeated = tile_like(x, None, wanted)
        for first in range(0, wanted[0], _LANES):
            last = min(first + _LANES, wanted[0])
            emit("nc_stream_shuffle", repeated[first:last], view, [0] * _LANES)
        view = repeated
    return copy(view, dtype) if dtype is not None and as_dtype(dtype) != x.dtype else view


def copy(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """`x` in a new SBUF tile (``tensor_copy``, or a DMA from HBM)."""
    result = tile_like(x, dtype)
    emit("dma_copy" if x.buffer.is_hbm else "tensor_copy", result, x)
    return result


def load(src: NkiTensor, dtype: Any = None) -> NkiTensor:
    """An HBM tensor in a new SBUF tile (``dma_copy``)."""
    if not src.buffer.is_hbm:
        raise error(
            "NKI-V101", f"nl.load got {src!r}, which is not in HBM", help="copy on-chip tiles with nisa.tensor_copy"
        )
    return copy(src, dtype)


def store(dst: NkiTensor, value: NkiTensor) -> NkiTensor:
    """Write an SBUF tile to an HBM tensor of the same number of elements (``dma_copy``)."""
    emit("dma_copy", dst, value)
    return dst


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """The view of `x` with a dimension of size 1 at `axis`."""
    return x.expand_dim(axis + x.ndim + 1 if axis < 0 else axis)


def transpose(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A 2-D tile with partitions and free dimension exchanged, in PSUM (``nc_transpose``)."""
    if x.ndim != 2:
        raise error("NKI-V112", f"nl.transpose got {x!r}, which is not 2-D", help="reshape it to two dimensions")
    result = ndarray((x.shape[1], x.shape[0]), x.dtype if dtype is None else dtype, MemoryRegion.psum)
    emit("nc_transpose", result, x)
    return result


def matmul(x: NkiTensor, y: NkiTensor, transpose_x: bool = False) -> NkiTensor:
    """``x @ y``, or ``x.T @ y``, in fp32 in PSUM (``nc_matmul``).

    Args:
        x: [K, M] with `transpose_x`, else [M, K], which is transposed first; K and M at most 128.
        y: [K, N], N at most 512.
        transpose_x: True if `x` comes transposed, as the tensor engine wants it.
    """
    stationary = x if transpose_x else copy(transpose(x))
    result = ndarray((stationary.shape[1], y.shape[1]), "float32", MemoryRegion.psum)
    emit("nc_matmul", result, stationary, y)
    return result


def _reduction(name: str, operator: str, what: str) -> Any:
    def reduce(x: NkiTensor, axis: Any, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
        return _reduce(operator, x, axis, dtype, keepdims)

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = f"""The {what} of a tile along its last free dimensions (``tensor_reduce``).

    Args:
        x: a tile in SBUF or PSUM.
        axis: an int or several: the last dimensions, not the partition dimension.
        dtype: of the result; that of `x` unless given.
        keepdims: keep reduced dimensions with size 1.
    """
    return reduce


def _axes(x: NkiTensor, axis: Any) -> tuple[int, ...]:
    several = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted(a + x.ndim if a < 0 else a for a in several))


def _reduce(operator: str, x: NkiTensor, axis: Any, dtype: Any, keepdims: bool) -> NkiTensor:
    axes = _axes(x, axis)
    kept = [1 if dim in axes else size for dim, size in enumerate(x.shape)]
    result = tile_like(x, dtype, kept)
    emit("tensor_reduce", result, FUNCTIONS[operator], x, axes, keepdims=True)
    if keepdims:
        return result
    shape = [size for dim, size in enumerate(x.shape) if dim not in axes]
    return result.reshape(tuple(shape) if len(shape) > 1 else (shape[0], 1))


REDUCTIONS: dict[str, Any] = {
    name: _reduction(name, operator, what)
    for name, operator, what in (
        ("sum", "add", "sum"),
        ("prod", "multiply", "product"),
        ("max", "maximum", "maximum"),
        ("min", "minimum", "minimum"),
        ("all", "logical_and", "conjunction"),
    )
}
