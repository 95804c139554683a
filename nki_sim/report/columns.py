"""Long lists inside a page: typed arrays, deflated and in base64, which a browser unpacks by itself."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

#: The typed array of JavaScript that holds each numpy dtype.
_ARRAYS = {"int8": "Int8Array", "int32": "Int32Array", "float32": "Float32Array", "float64": "Float64Array"}

Column = dict[str, str]


def column(values: Any, dtype: str) -> Column:
    """Numbers as a column of `dtype`: int8, int32, float32 or float64."""
    octets = np.asarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
    return {"array": _ARRAYS[dtype], "packed": _packed(octets)}


def texts(values: Sequence[str]) -> Column:
    """Strings as a column."""
    return {"array": "texts", "packed": _packed(json.dumps(list(values)).encode())}


def unpacked(found: Column) -> Any:
    """The values of a column: a numpy array, or a list of strings."""
    octets = zlib.decompress(base64.b64decode(found["packed"]))
    if found["array"] == "texts":
        return json.loads(octets)
    dtype = next(name for name, array in _ARRAYS.items() if array == found["array"])
    return np.frombuffer(octets, np.dtype(dtype).newbyteorder("<"))


def _packed(octets: bytes) -> str:
    return base64.b64encode(zlib.compress(octets, 6)).decode("ascii")
