"""Functions that move tiles: to and from HBM, to other shapes and layouts, through the tensor engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nki.language.creation import named_dtype, ndarray, new_tensor
from nki.language.emitting import emit, no_instruction, tile_like
from nki_isa.diagnostics import error
from nki_isa.machine.dtypes import as_dtype
from nki_isa.tensor.kinds import Dtype, Shape
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

_LANES = 32  # partitions of a quadrant, the reach of nc_stream_shuffle


def retyped(x: NkiTensor, dtype: Dtype, part: str = "") -> NkiTensor:
    """`x`, or a copy of it (``tensor_copy``) where `dtype` is given and another."""
    if dtype is None or as_dtype(dtype) == x.dtype:
        return x
    result = tile_like(x, dtype, part=part)
    emit("tensor_copy", result, x)
    return result


def unless_converted(x: NkiTensor, dtype: Any) -> str:
    """What a tile of the dtype of `x` is called that :func:`retyped` makes the result of."""
    return "" if dtype is None or as_dtype(dtype) == x.dtype else str(x.dtype)


def load(src: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """An HBM tensor in a new SBUF tile (``dma_copy``).

    Raises:
        NkiError: NKI-V101 for a tensor on chip.
    """
    _require_hbm("load", src)
    result = tile_like(src, dtype)
    emit("dma_copy", result, src)
    return result


def _require_hbm(function: str, src: NkiTensor) -> None:
    if not src.buffer.is_hbm:
        raise error(
            "NKI-V101",
            f"nl.{function} got {src!r}, which is not in HBM",
            help="copy on-chip tiles with nl.copy or nisa.tensor_copy",
        )


def store(dst: NkiTensor, value: NkiTensor) -> NkiTensor:
    """Write an SBUF tile to an HBM tensor of the same number of elements (``dma_copy``).

    Raises:
        NkiError: NKI-V101 for a tile in PSUM, which DMA does not read.
    """
    if value.buffer is MemoryRegion.psum:
        raise error(
            "NKI-V101",
            f"nl.store got {value!r}, which is in PSUM; DMA does not read PSUM",
            help="copy it to SBUF first: nl.store(dst, nl.copy(value))",
        )
    emit("dma_copy", dst, value)
    return dst


def load_transpose2d(src: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """A 2-D HBM tensor, transposed, in a new SBUF tile (``dma_transpose``).

    Raises:
        NkiError: NKI-V101 for a tensor on chip, NKI-V112 for other than two dimensions.
    """
    _require_hbm("load_transpose2d", src)
    _require_2d("load_transpose2d", src)
    result = new_tensor((src.shape[1], src.shape[0]), src.dtype, part=unless_converted(src, dtype))
    emit("dma_transpose", result, src)
    return retyped(result, dtype)


def _require_2d(function: str, x: NkiTensor) -> None:
    if x.ndim != 2:
        raise error(
            "NKI-V112", f"nl.{function} got {x!r}, which is not 2-D", help="reshape it to two dimensions"
        )


def transpose(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """A 2-D tile with partitions and free dimension exchanged, in PSUM (``nc_transpose``).

    Data types of 8 bits go through bfloat16, which holds each of their values, and back: the tensor engine
    takes no such integers, and writes fp8 in pairs of bytes.
    """
    _require_2d("transpose", x)
    kind = x.dtype if dtype is None else named_dtype(dtype)
    shape = (x.shape[1], x.shape[0])
    if x.dtype.bits == 8:
        turned = new_tensor(shape, "bfloat16", MemoryRegion.psum, part="transposed")
        emit("nc_transpose", turned, retyped(x, "bfloat16", "bfloat16"))
        result = ndarray(shape, kind, MemoryRegion.psum)
        emit("tensor_copy", result, turned)
        return result
    result = ndarray(shape, kind, MemoryRegion.psum)
    emit("nc_transpose", result, x)
    return result


def matmul(x: NkiTensor, y: NkiTensor, transpose_x: bool = False) -> NkiTensor:
    """``x.T @ y`` in fp32 in PSUM (``nc_matmul``).

    Args:
        x: [K, M], K and M at most 128.
        y: [K, N], N at most 512.
        transpose_x: True. Transposing `x` first is documented and does not compile.

    Raises:
        NkiError: NKI-V140 without `transpose_x`.
    """
    if not transpose_x:
        raise no_instruction(
            "matmul",
            "without transpose_x=True does not compile",
            "lay x out as [K, M] and write nl.matmul(x, y, transpose_x=True); "
            "nl.copy(nl.transpose(x)) makes that of [M, K]",
        )
    result = ndarray((x.shape[1], y.shape[1]), "float32", MemoryRegion.psum)
    emit("nc_matmul", result, x, y)
    return result


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """The view of `x` with a dimension of size 1 at `axis`."""
    return x.expand_dim(axis + x.ndim + 1 if axis < 0 else axis)


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: Dtype | None = None) -> NkiTensor:
    """`x` repeated along its dimensions of size 1 to `shape`, of the same number of dimensions.

    Free dimensions are repeated by a view with stride 0; a repeated partition is
    copied by ``nc_stream_shuffle``, one quadrant of 32 partitions at a time.

    Raises:
        NkiError: NKI-V103 where a size is neither 1 nor the wanted one.
    """
    return repeated(x, shape, dtype)


def repeated(x: NkiTensor, shape: Shape, dtype: Dtype | None = None, part: str = "") -> NkiTensor:
    """:func:`broadcast_to`, with what the tile that copies of a partition go to is called."""
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
        copies = tile_like(x, None, wanted, unless_converted(x, dtype) or part)
        for first in range(0, wanted[0], _LANES):
            emit("nc_stream_shuffle", copies[first : min(first + _LANES, wanted[0])], view, [0] * _LANES)
        view = copies
    return retyped(view, dtype, part)


def gather_flattened(
    data: NkiTensor, indices: NkiTensor, axis: int = 0, dtype: Dtype | None = None
) -> NkiTensor:
    """For each partition, the elements of `data` that `indices` number in its flattened free dimensions.

    Args:
        data: an SBUF tile.
        indices: uint32, of the same partitions; its shape is the result's.
        axis: 0, the default; what others mean is not documented.
        dtype: of the result; that of `data` unless given.

    Raises:
        NkiError: NKI-U011 for another axis.
    """
    if axis != 0:
        raise error(
            "NKI-U011",
            f"nl.gather_flattened got axis={axis!r}; what it does along other axes than 0 is not documented",
            help="leave axis out, and reorder the free dimensions of data with permute",
        )
    result = tile_like(data, None, indices.shape, unless_converted(data, dtype))
    emit("nc_n_gather", result, data, indices)
    return retyped(result, dtype)
