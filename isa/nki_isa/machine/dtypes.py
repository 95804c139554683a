"""Data types of the NeuronCore: one table, and the casts between its rows.

Sources (AWS Neuron SDK 2.32, NKI 0.6.0):

- the rows: "Supported Data Types" in ``nki/api/nki.api.shared.rst`` and the dtypes of ``nki.language``;
- the packed types: ``nki.isa.quantize_mx`` (four 8-bit values in 32 bits) and the packing helpers of the
  MX deep dive (``mx_cpu_utils.py``: value 0 in the lowest bits, 4-bit values two to a byte);
- rounding: "Rounding Modes" in the Neuron data-types page: nearest, ties to even, by default;
- float32 to integers: NKI 0.6.0 release notes: nearest, ties to even, saturating;
- 8-bit floats: the vendor's simulator stores them as ``ml_dtypes``, so overflow gives infinity where the
  type has one and NaN in ``float8_e4m3fn``, which has none; ``nki.isa.range_select`` documents -inf for
  -max(float32) written as FP16, BF16 or FP8.

Not documented, decided here: NaN becomes integer 0; integer to narrower integer saturates, as it does on
the documented path through float32.

A :class:`DType` is a ``str`` equal to its own name, because kernels and numpy both treat NKI dtypes as names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class DType(str):
    """A data type by name, with its row of the table as attributes.

    Attributes:
        bits: width of one element in bits.
        itemsize: width in bytes.
        numpy: the numpy dtype that stores one element.
        kind: ``"float"``, ``"int"``, ``"uint"``, ``"bool"`` or ``"packed"``.
        lanes: values in one element: 4 for the packed ``_x4`` types, else 1.
        max: the largest finite value (of one lane).
        lane_numpy: the numpy dtype of one lane of a packed type, else `numpy`.
    """

    __slots__ = ("bits", "itemsize", "kind", "lane_numpy", "lanes", "max", "numpy")

    bits: int
    itemsize: int
    numpy: np.dtype[Any]
    kind: str
    lanes: int
    max: float
    lane_numpy: np.dtype[Any]

    def __eq__(self, other: object) -> bool:
        """True for its name, and for numpy's data type of that name: kernels compare with either."""
        if isinstance(other, (np.dtype, type)):
            try:
                other = as_dtype(other)
            except TypeError:
                return False
        return str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return (as_dtype, (str(self),))


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    bits: int
    numpy: Any
    kind: str
    max: float
    lane: Any = None  # numpy type of one lane of a packed type


_TABLE = (
    _Row("bool", 8, np.bool_, "bool", 1),
    _Row("int8", 8, np.int8, "int", 127),
    _Row("int16", 16, np.int16, "int", 32767),
    _Row("int32", 32, np.int32, "int", 2**31 - 1),
    _Row("int64", 64, np.int64, "int", 2**63 - 1),
    _Row("uint8", 8, np.uint8, "uint", 255),
    _Row("uint16", 16, np.uint16, "uint", 65535),
    _Row("uint32", 32, np.uint32, "uint", 2**32 - 1),
    _Row("uint64", 64, np.uint64, "uint", 2**64 - 1),
    _Row("float16", 16, np.float16, "float", 65504.0),
    _Row("float32", 32, np.float32, "float", float(np.finfo(np.float32).max)),
    _Row("bfloat16", 16, ml_dtypes.bfloat16, "float", float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)),
    _Row("tfloat32", 32, np.float32, "float", (2 - 2.0**-10) * 2.0**127),
    _Row("float8_e4m3", 8, ml_dtypes.float8_e4m3, "float", 240.0),
    _Row("float8_e4m3fn", 8, ml_dtypes.float8_e4m3fn, "float", 448.0),
    _Row("float8_e5m2", 8, ml_dtypes.float8_e5m2, "float", 57344.0),
    _Row("float8_e8m0fnu", 8, ml_dtypes.float8_e8m0fnu, "float", 2.0**127),
    _Row("float8_e4m3fn_x4", 32, np.uint32, "packed", 448.0, ml_dtypes.float8_e4m3fn),
    _Row("float8_e5m2_x4", 32, np.uint32, "packed", 57344.0, ml_dtypes.float8_e5m2),
    _Row("float4_e2m1fn_x4", 16, np.uint16, "packed", 6.0, ml_dtypes.float4_e2m1fn),
)

# Other spellings: `nl.bool_`, and the compiler's own names, which kernels compare `str(dtype)` with.
_ALIASES = {"bool_": "bool", "float8e4": "float8_e4m3", "float8e5": "float8_e5m2"}


def _make(row: _Row) -> DType:
    dtype = DType(row.name)
    dtype.bits, dtype.itemsize, dtype.kind, dtype.max = row.bits, row.bits // 8, row.kind, row.max
    dtype.numpy = np.dtype(row.numpy)
    dtype.lanes = 4 if row.kind == "packed" else 1
    dtype.lane_numpy = np.dtype(row.lane) if row.lane is not None else dtype.numpy
    return dtype


DTYPES: dict[str, DType] = {row.name: _make(row) for row in _TABLE}


def as_dtype(value: Any) -> DType:
    """The row `value` names: a DType, a name, a numpy, torch or JAX dtype, or a scalar type.

    Raises:
        TypeError: `value` names no data type of the NeuronCore (float64 among others).
    """
    if type(value) is DType:
        return value
    name = value if isinstance(value, str) else None
    if name is None:
        try:
            name = np.dtype(value).name
        except (TypeError, ValueError):
            name = getattr(value, "name", None)
            name = name if isinstance(name, str) else str(value)
    name = name.rsplit(".", 1)[-1]
    row = DTYPES.get(_ALIASES.get(name, name))
    if row is None or value is None:  # np.dtype(None) is float64, which nobody means
        raise TypeError(f"{value!r} is not a data type of the NeuronCore; known are {', '.join(DTYPES)}")
    return row


MEANT_DTYPES = {
    "float": "float32", "float64": "float32", "double": "float32", "fp32": "float32", "f32": "float32",
    "half": "float16", "fp16": "float16", "f16": "float16", "bf16": "bfloat16", "tf32": "tfloat32",
    "fp8": "float8_e4m3", "float8": "float8_e4m3", "float8_e4m3fnuz": "float8_e4m3",
    "int": "int32", "long": "int32", "short": "int16", "char": "int8", "byte": "uint8", "uint": "uint32",
}  # fmt: skip


def meant_dtype(value: Any) -> str | None:
    """The data type that is meant by what :func:`as_dtype` refuses: a name of elsewhere, or float64."""
    name = value if isinstance(value, str) else getattr(value, "__name__", None) or str(value)
    return MEANT_DTYPES.get(name.rsplit(".", 1)[-1])


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the largest value of an integer data type."""
    return (-int(dtype.max) - 1 if dtype.kind == "int" else 0), int(dtype.max)


def cast(values: Array, dtype: DType) -> Array:
    """`values` rounded to `dtype` and stored as it is stored.

    Floats round to nearest, ties to even; integers saturate; NaN becomes integer 0. A value too large for
    a float type becomes infinity, or NaN in ``float8_e4m3fn``, or 6 in ``float4_e2m1fn``. Integers are cast
    to integers exactly: an instruction that computes in float32 passes float32.

    Args:
        values: any shape. For a packed type, lanes along the last axis, a multiple of four of them.
        dtype: the row to store as.

    Returns:
        An array of ``dtype.numpy``: the shape of `values`, the last axis divided by ``dtype.lanes`` for
        floats packed here. `values` itself, not a copy, where it already is what is asked for.

    Raises:
        ValueError: lanes for a packed type that are not a multiple of four.
    """
    if dtype in _SPECIAL_CASTS:
        return _SPECIAL_CASTS[dtype](values)
    if values.dtype == dtype.numpy:
        return values
    return _CASTS[dtype.kind](values, dtype)


def is_plain(dtype: DType) -> bool:
    """True if an array of the numpy type of `dtype` is stored as it is."""
    return dtype not in _SPECIAL_CASTS


def to_float32(array: Array, dtype: DType) -> NDArray[np.float32]:
    """The values of a stored `array` as float32; lanes of a packed type along the last axis.

    Every value is exact except integers beyond 2**24, which round to nearest even.

    Args:
        array: as stored, of ``dtype.numpy``.
        dtype: how to read it.

    Returns:
        float32, the shape of `array` with the last axis times ``dtype.lanes``. Not a copy where `array`
        is float32.
    """
    if dtype.lanes > 1:
        octets = np.ascontiguousarray(array).view(np.uint8)
        return _lane_table(dtype.lane_numpy).take(octets, mode="wrap").view(np.float32)
    if dtype.kind == "float" and dtype.numpy != np.float32 and dtype != "bfloat16":
        codes = array.view(_UNSIGNED[dtype.itemsize])
        return _widening_table(dtype.numpy).take(codes, mode="wrap")  # every code is in range: skips a check
    return array.astype(np.float32, copy=False)


_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32}


@functools.cache
def _widening_table(numpy_dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """The float32 of every bit pattern: 2 to 9 times faster than astype, which bfloat16 alone has fast."""
    codes = np.arange(1 << (8 * numpy_dtype.itemsize), dtype=_UNSIGNED[numpy_dtype.itemsize])
    return codes.view(numpy_dtype).astype(np.float32)


@functools.cache
def _narrowing_table(numpy_dtype: np.dtype[Any]) -> Array:
    """The 8-bit float nearest to each upper half of a float32.

    Rounding to odd first (any dropped bit sets the lowest kept one) leaves enough bits that rounding again
    to three mantissa bits or fewer gives what rounding once would: 6 times faster than astype.
    """
    words = np.arange(1 << 16, dtype=np.uint32) << 16
    with np.errstate(all="ignore"):
        return words.view(np.float32).astype(numpy_dtype)


@functools.cache
def _lane_table(lane: np.dtype[Any]) -> Array:
    """The lanes in each byte of a packed type: one float32, or for 4-bit lanes two of them as a complex64."""
    if _bits(lane) == 8:
        return _widening_table(lane)
    codes = np.arange(256, dtype=np.uint8)
    nibbles = np.stack([codes & 0xF, codes >> 4], axis=-1)  # low bits first
    return nibbles.view(lane).astype(np.float32).view(np.complex64)[:, 0]


def _bits(lane: np.dtype[Any]) -> int:
    return int(ml_dtypes.finfo(lane).bits)


def _as_float32(values: Array) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _narrow(values: Array, numpy_dtype: np.dtype[Any]) -> Array:
    """Float values to an 8- or 4-bit float type of ml_dtypes."""
    words = _as_float32(values).view(np.uint32)
    return _narrowing_table(numpy_dtype).take((words >> 16) | ((words & 0xFFFF) != 0))


def _cast_float(values: Array, dtype: DType) -> Array:
    if dtype.bits == 8:
        return _narrow(values, dtype.numpy)
    with np.errstate(over="ignore", invalid="ignore"):
        return _as_float32(values).astype(dtype.numpy, copy=False)


def _cast_integer(values: Array, dtype: DType) -> Array:
    low, high = integer_range(dtype)
    if values.dtype.kind in "biu":
        return np.clip(values.astype(np.int64, copy=False), low, high).astype(dtype.numpy)
    bounded = np.asarray(np.clip(np.rint(_as_float32(values)), np.float32(low), np.float32(high)))
    np.copyto(bounded, 0, where=np.isnan(bounded))
    with np.errstate(invalid="ignore"):
        result = bounded.astype(dtype.numpy)
    if dtype.bits >= 32:  # float32 has no 2**31 - 1: its upper bound is one too large for the cast
        np.copyto(result, high, where=bounded == np.float32(high))
    return result


def _cast_packed(values: Array, dtype: DType) -> Array:
    if values.shape[-1] % dtype.lanes:
        raise ValueError(f"{dtype} packs {dtype.lanes} lanes; the last axis has {values.shape[-1]}")
    codes: Array = np.ascontiguousarray(_narrow(values, dtype.lane_numpy)).view(np.uint8)
    if _bits(dtype.lane_numpy) == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes.view(dtype.numpy)


def _cast_bool(values: Array, dtype: DType) -> Array:
    return values != 0


def _cast_tfloat32(values: Array) -> Array:
    """10 mantissa bits in a float32 word."""
    exact = _as_float32(values)
    words = exact.view(np.uint32)
    rounded = np.asarray((words + 0xFFF + ((words >> 13) & 1)) & 0xFFFFE000).view(np.float32)
    np.copyto(rounded, exact, where=np.isnan(exact))
    return rounded


_CASTS: dict[str, Callable[[Array, DType], Array]] = {
    "float": _cast_float,
    "int": _cast_integer,
    "uint": _cast_integer,
    "packed": _cast_packed,
    "bool": _cast_bool,
}

# Types that change an array that already has their numpy dtype.
_SPECIAL_CASTS: dict[str, Callable[[Array], Array]] = {"tfloat32": _cast_tfloat32}
