"""Random tiles, and tiles with random zeros."""

from __future__ import annotations

from typing import Any

from nki.compiler.specializer.recorder import current
from nki.language.creation import ndarray, new_tensor
from nki.language.emitting import KNOWN_ISSUES, emit, tensor_scalar, tile_like
from nki.language.movement import retyped, unless_converted
from nki_isa.diagnostics import error
from nki_isa.machine.operators import OPERATORS
from nki_isa.machine.target import Feature
from nki_isa.tensor.kinds import Dtype, Shape
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

_UNUSED_BITS = 8  # a float32 in [0, 1) takes the upper 24 of 32


def random_seed(seed: Any) -> None:
    """Seed the vector engine (``set_rng_seed``), which :func:`rand` and :func:`dropout` draw from.

    Args:
        seed: [1, 1] of a 32-bit type, in SBUF or PSUM.

    Raises:
        NkiError: NKI-V100 for a Python number.
    """
    if not isinstance(seed, NkiTensor):
        number = seed if isinstance(seed, int) else 42
        raise error(
            "NKI-V100",
            f"nl.random_seed got {seed!r}, which is not a tensor",
            help=f"write nl.random_seed(nl.full((1, 1), {number}, dtype=nl.int32))",
            notes=(f"source: {KNOWN_ISSUES}",),
        )
    emit("set_rng_seed", seed)


def rand(shape: Shape, dtype: Dtype, buffer: Any = MemoryRegion.sbuf, name: str = "") -> NkiTensor:
    """A new tensor of uniform random numbers in [0, 1).

    From NeuronCore-v4 on one ``rand2``; before, ``rng`` on the vector engine, a shift to the 24 bits that
    float32 holds exactly, and a multiplication. In HBM, a DMA brings it there. A narrower dtype may round
    up to 1.
    """
    result = ndarray(shape, dtype, buffer, name)
    tile = result if result.buffer.on_chip else new_tensor(shape, dtype, part="tile")
    if Feature.rand2 in current().target.features:
        emit("rand2", tile, 0.0, 1.0)
    else:
        words = tile_like(tile, "uint32", part="words")
        emit("rng", words)
        bits = tensor_scalar(words, "right_shift", _UNUSED_BITS, part="bits")
        emit("tensor_scalar", tile, bits, OPERATORS["multiply"], 2.0 ** (_UNUSED_BITS - 32))
    if tile is not result:
        emit("dma_copy", result, tile)
    return result


def dropout(x: NkiTensor, rate: float | NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """`x` with each element set to 0 with probability `rate`; the others are not rescaled (``dropout``).

    Args:
        x: a tile.
        rate: a number, or a tile of shape (partitions, 1).
        dtype: of the result; that of `x` unless given.
    """
    result = tile_like(x, part=unless_converted(x, dtype))
    emit("dropout", result, x, rate)
    return retyped(result, dtype)
