"""Data types of the NeuronCore: one table, and the casts between its rows.

Source: the SDK's NKI data type table (``nki.language`` dtypes) and, for the
packed types, the MX deep dive. A :class:`DType` is a ``str`` equal to its own
name, because kernels and numpy both treat NKI dtypes as names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


class DType(str):
    """A data type by name, with its row of the table as attributes.

    Attributes:
        bits: width of one element in bits.
        itemsize: width in bytes.
        numpy: the numpy dtype that stores one element.
        kind: ``"float"``, ``"int"``, ``"uint"``, ``"bool"`` or ``"packed"``.
        lanes: values in one element: 4 for the packed ``_x4`` types, else 1.
        max: the largest finite value (of one lane).
        lane: the dtype of one lane of a packed type, else the dtype itself.
    """

    __slots__ = ("bits", "itemsize", "numpy", "kind", "lanes", "max", "lane_numpy")

    bits: int
    itemsize: int
    numpy: np.dtype[Any]
    kind: str
    lanes: int
    max: float
    lane_numpy: np.dtype[Any]

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
    _Row("uint8", 8, np.uint8, "uint", 255),
    _Row("uint16", 16, np.uint16, "uint", 65535),
    _Row("uint32", 32, np.uint32, "uint", 2**32 - 1),
    _Row("float16", 16, np.float16, "float", 65504.0),
    _Row("float32", 32, np.float32, "float", float(np.finfo(np.float32).max)),
    _Row("bfloat16", 16, ml_dtypes.bfloat16, "float", float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)),
    _Row("tfloat32", 32, np.float32, "float", float(np.finfo(np.float32).max)),
    _Row("float8_e4m3", 8, ml_dtypes.float8_e4m3, "float", 240.0),
    _Row("float8_e4m3fn", 8, ml_dtypes.float8_e4m3fn, "float", 448.0),
    _Row("float8_e5m2", 8, ml_dtypes.float8_e5m2, "float", 57344.0),
    _Row("float8_e8m0fnu", 8, ml_dtypes.float8_e8m0fnu, "float", 2.0**127),
    _Row("float8_e4m3fn_x4", 32, np.uint32, "packed", 448.0, ml_dtypes.float8_e4m3fn),
    _Row("float8_e5m2_x4", 32, np.uint32, "packed", 57344.0, ml_dtypes.float8_e5m2),
    _Row("float4_e2m1fn_x4", 16, np.uint16, "packed", 6.0, ml_dtypes.float4_e2m1fn),
)


def _make(row: _Row) -> DType:
    dtype = DType(row.name)
    dtype.bits, dtype.itemsize, dtype.kind, dtype.max = row.bits, row.bits // 8, row.kind, row.max
    dtype.numpy = np.dtype(row.numpy)
    dtype.lanes = 4 if row.kind == "packed" else 1
    dtype.lane_numpy = np.dtype(row.lane) if row.lane is not None else dtype.numpy
    return dtype


DTYPES: dict[str, DType] = {row.name: _make(row) for row in _TABLE}


def as_dtype(value: Any) -> DType:
    """The row `value` names: a DType, a name, a numpy dtype or a scalar type.

    Raises:
        TypeError: `value` names no data type of the NeuronCore.
    """
    if type(value) is DType:
        return value
    name = value if isinstance(value, str) else None
    if name is None:
        try:
            name = np.dtype(value).name
        except TypeError:
            name = getattr(value, "name", None) or str(value)
    row = DTYPES.get(name.rsplit(".", 1)[-1])
    if row is None:
        raise TypeError(f"{value!r} is not a data type of the NeuronCore; known are {', '.join(DTYPES)}")
    return row
