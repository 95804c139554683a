"""numpy dtypes for the packed MX types, by the names that test code spells.

numpy cannot be given a dtype of a new kind from Python, so a packed type is a record of
its bytes: four 8-bit lanes, or two bytes of two 4-bit lanes each. What test code asks of
one holds: ``np.zeros(shape, "float8_e4m3fn_x4")``, ``str(array.dtype)``, comparison with
the name, views as unsigned integers, and ``astype`` to a number refused.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from nki_isa.machine.dtypes import DTYPES, DType

_BYTES = {d: [(f"byte{k}", "u1") for k in range(d.itemsize)] for d in DTYPES.values() if d.lanes > 1}


def _dtype_of(name: DType) -> np.dtype[Any]:
    # The title of the first byte carries the name: records of equal bytes stay different dtypes.
    first, *rest = _BYTES[name]
    return np.dtype([((str(name), first[0]), first[1]), *rest])


PACKED: MappingProxyType[str, np.dtype[Any]] = MappingProxyType({str(d): _dtype_of(d) for d in _BYTES})
_NAMES = {dtype: name for name, dtype in PACKED.items()}


def install() -> None:
    """Let numpy find the packed types by name, and print them by it."""
    from numpy._core import _dtype, numerictypes

    describe = _dtype._struct_str

    def named(dtype: Any, include_align: Any) -> str:
        return _NAMES.get(dtype) or str(describe(dtype, include_align))

    _dtype._struct_str = named
    for name, dtype in PACKED.items():
        numerictypes.sctypeDict[name] = type(name, (), {"dtype": dtype})


def pack(array: np.ndarray, dtype: DType) -> np.ndarray:
    """`array` of unsigned words as the packed dtype of `dtype`; any other array as it is."""
    return array.view(PACKED[dtype]) if dtype in PACKED and array.dtype != PACKED[dtype] else array


def unpack(array: np.ndarray) -> np.ndarray:
    """The unsigned words of a packed array; any other array as it is."""
    name = _NAMES.get(array.dtype) if array.dtype.names else None
    return array.view(DTYPES[name].numpy) if name else array
