"""Stand-in for the unpublished package ``neuron_dtypes``: casts between numpy arrays of NKI's data types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nki_isa.machine import dtypes
from tests.upstream.library.packed_dtypes import PACKED, pack, unpack

bfloat16 = ml_dtypes.bfloat16
float8_e4m3fn_x4 = dtypes.DTYPES["float8_e4m3fn_x4"]
float8_e5m2_x4 = dtypes.DTYPES["float8_e5m2_x4"]
float4_e2m1fn_x4 = dtypes.DTYPES["float4_e2m1fn_x4"]


def static_cast(array: Any, dtype: Any) -> np.ndarray:
    """`array` converted to `dtype`; the last axis holds four times as many lanes as packed elements.

    Plain types convert as numpy converts them.
    """
    array = np.asarray(array)
    source = _row(array.dtype)
    target = _row(dtype)
    if target is None:
        return array.astype(dtype)
    if source is not None and source.lanes > 1:
        if target == source:
            return array
        lanes = dtypes.to_float32(unpack(np.ascontiguousarray(array)), source)
        return dtypes.cast(lanes, target)
    if target.lanes > 1:
        lanes = array if array.dtype == target.lane_numpy else array.astype(np.float32)
        return pack(dtypes.cast(lanes, target), target)
    return array.astype(target.numpy)


def sizeinbytes(dtype: Any) -> int:
    """Width of one element in bytes."""
    return dtypes.as_dtype(dtype).itemsize


def is_float_type(dtype: Any) -> bool:
    """True for every floating-point type, those of 8 bits included."""
    row = _row(dtype)
    return row.kind == "float" if row is not None else np.issubdtype(dtype, np.floating)


def finfo(dtype: Any) -> Any:
    """Machine limits of a floating-point type, its numpy dtype among them."""
    return ml_dtypes.finfo(dtypes.as_dtype(dtype).numpy)


def _row(dtype: Any) -> dtypes.DType | None:
    try:
        return dtypes.as_dtype(str(dtype) if isinstance(dtype, np.dtype) else dtype)
    except TypeError:  # float64, int64: numpy has them, the NeuronCore does not
        return None


__all__ = [
    "PACKED",
    "bfloat16",
    "finfo",
    "float4_e2m1fn_x4",
    "float8_e4m3fn_x4",
    "float8_e5m2_x4",
    "is_float_type",
    "sizeinbytes",
    "static_cast",
]
