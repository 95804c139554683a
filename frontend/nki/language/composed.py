"""Functions that take several instructions: rounding, cosine and tangent, selection, normalisation.

The vendor publishes what they compute, not their instructions; each docstring gives ours.
"""

from __future__ import annotations

import math
from typing import Any

from nki.language.creation import constant_of, named_dtype
from nki.language.emitting import activation, emit, periodic, tensor_scalar, tensor_tensor, tile_like
from nki.language.movement import repeated, retyped
from nki.language.reductions import reduce_tile, reduced_size
from nki_isa.diagnostics import error
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.operators import OPERATORS
from nki_isa.tensor.kinds import Dtype
from nki_isa.tensor.tensor import NkiTensor

_FLOAT32 = DTYPES["float32"]
_INTEGERS_ONLY = 2.0**23  # from here on every float32 is an integer


def negative(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """``-x`` (``tensor_scalar`` with -1)."""
    return tensor_scalar(x, "multiply", -1.0, dtype=dtype)


def logical_not(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """``x xor 1`` (``tensor_scalar``); `x` holds 0 and 1."""
    return tensor_scalar(x, "logical_xor", 1.0, dtype=dtype)


def cos(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """Cosine of any float32: the sine of ``x + pi / 2``, whose range is reduced (``activation``)."""
    return periodic(x, dtype, bias=math.pi / 2)


def tan(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """Tangent of any float32: sine by the ``reciprocal`` of cosine."""
    inverse = tile_like(x, _FLOAT32, part="inverse")
    emit("reciprocal", inverse, periodic(x, _FLOAT32, bias=math.pi / 2, part="cosine"))
    sine = periodic(x, _FLOAT32, part="sine")
    return tensor_tensor(sine, "multiply", inverse, dtype=x.dtype if dtype is None else dtype)


def floor(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """The largest integer that is not above `x`: rounded to int32, less 1 where that is above `x`."""
    return _rounded("floor", x, dtype, "greater", "subtract")


def ceil(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """The smallest integer that is not below `x`: rounded to int32, plus 1 where that is below `x`."""
    return _rounded("ceil", x, dtype, "less", "add")


def trunc(x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
    """The integer part of `x`: the floor of its size, with its sign."""
    size = activation("abs", x, _FLOAT32, part="size")
    whole = _rounded("trunc", size, _FLOAT32, "greater", "subtract", part="whole")
    sign = activation("sign", x, _FLOAT32, part="sign")
    return tensor_tensor(whole, "multiply", sign, dtype=x.dtype if dtype is None else dtype)


def _rounded(
    function: str, x: NkiTensor, dtype: Dtype, missed: str, correct: str, part: str = ""
) -> NkiTensor:
    """`x` cast to int32, which rounds to nearest, and corrected by 1 where that `missed`.

    Beyond 2**23, where int32 may saturate and every float32 is an integer, `x` stays as it is.
    """
    kind = named_dtype(x.dtype if dtype is None else dtype)
    whole = tile_like(x, "int32", part="int32")
    emit("tensor_copy", whole, x)
    nearest = tile_like(x, _FLOAT32, part="nearest")
    emit("tensor_copy", nearest, whole)
    off = tensor_tensor(nearest, missed, x, part="missed")
    corrected = tensor_tensor(nearest, correct, off, part="corrected")
    result = tile_like(x, _FLOAT32, part=part if kind == _FLOAT32 else "float32")
    emit("tensor_copy", result, x)
    size = activation("abs", x, _FLOAT32, part="size")
    small = tensor_scalar(size, "less", _INTEGERS_ONLY, dtype="uint8", part="predicate")
    emit("tensor_copy_predicated", result, corrected, small)
    return retyped(result, kind, part)


def where(
    condition: NkiTensor, x: NkiTensor | float, y: NkiTensor | float, dtype: Dtype | None = None
) -> NkiTensor:
    """`x` where `condition` is not 0, else `y`; each a tile of the shape of `condition` or a number.

    A ``tensor_scalar`` makes the condition a predicate, a ``tensor_copy`` (``memset`` for a number)
    brings `y`, a ``tensor_copy_predicated`` writes `x` over it. The result has the dtype of `x`, or of
    `y` if `x` is a number.
    """
    typed = next((v for v in (x, y) if isinstance(v, NkiTensor)), condition)
    kind = named_dtype(typed.dtype if dtype is None else dtype)
    predicate = tensor_scalar(condition, "not_equal", 0.0, dtype="uint8", part="predicate")
    result = tile_like(condition, kind)
    if isinstance(y, NkiTensor):
        emit("tensor_copy", result, y)
    else:
        emit("memset", result, constant_of(y, kind))
    chosen = retyped(x, kind, "chosen") if isinstance(x, NkiTensor) else x
    emit("tensor_copy_predicated", result, chosen, predicate)
    return result


def softmax(x: NkiTensor, axis: Any = -1, dtype: Dtype | None = None) -> NkiTensor:
    """``exp(x - max) / sum(exp(x - max))`` over the last free dimensions given by `axis`.

    Two ``tensor_reduce``, an ``activation`` (exp), a ``reciprocal`` and two ``tensor_tensor`` with a
    broadcast view. Intermediate tiles are float32.

    Raises:
        NkiError: NKI-V141 for other dimensions.
    """
    largest = reduce_tile("softmax", "maximum", x, axis, _FLOAT32, "maximum")
    shifted = tile_like(x, _FLOAT32, part="shifted")
    emit("tensor_tensor", shifted, x, repeated(largest, x.shape), OPERATORS["subtract"])
    powers = activation("exp", shifted, part="exp")
    total = reduce_tile("softmax", "add", powers, axis, _FLOAT32, "sum")
    inverse = tile_like(total, part="inverse")
    emit("reciprocal", inverse, total)
    return tensor_tensor(
        powers, "multiply", repeated(inverse, x.shape), dtype=x.dtype if dtype is None else dtype
    )


def rms_norm(
    x: NkiTensor,
    w: NkiTensor,
    axis: Any,
    n: int,
    epsilon: float = 1e-06,
    dtype: Dtype | None = None,
    compute_dtype: Dtype | None = None,
) -> NkiTensor:
    """``x / sqrt(sum(x**2) / n + epsilon) * w``.

    ``activation`` (square), ``tensor_reduce``, ``tensor_scalar``, ``activation`` (rsqrt) and two
    ``tensor_tensor``.

    Args:
        x: a tile.
        w: weights: a tile of the shape of `x`, or of size 1 where they repeat.
        axis: the last free dimensions.
        n: number of values summed.
        epsilon: added to the mean.
        dtype: of the result; that of `x` unless given.
        compute_dtype: of intermediate tiles; float32 unless given.

    Raises:
        NkiError: NKI-V141 for other dimensions; NKI-V103 where `w` does not broadcast to `x`.
    """
    if not 1 <= n < 1 << 31:
        raise error(
            "NKI-V111",
            f"nl.rms_norm got n={n!s:.40}, it must be the number of values summed",
            help="pass the size of the dimensions that axis names",
        )
    inner = _FLOAT32 if compute_dtype is None else compute_dtype
    reduced_size("rms_norm", x, axis)
    squares = activation("square", x, inner, part="squares")
    total = reduce_tile("rms_norm", "add", squares, axis, _FLOAT32, "sum")
    mean = tensor_scalar(total, "multiply", 1.0 / n, "add", epsilon, part="mean")
    root = activation("rsqrt", mean, part="rsqrt")
    scaled = tensor_tensor(x, "multiply", repeated(root, x.shape), inner, "scaled")
    return tensor_tensor(
        scaled, "multiply", repeated(w, x.shape, part="weights"), dtype=x.dtype if dtype is None else dtype
    )
