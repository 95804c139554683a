"""The arrays people hold: what counts as one, and how its bytes go in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
from nki_isa.diagnostics import error
from nki_isa.dtypes import DType, as_dtype


def is_array(value: Any) -> bool:
    """True for numpy arrays and for objects that become one (torch CPU tensors, JAX arrays)."""
    return isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def is_unsupported(value: Any) -> bool:
    """True for array-like things a kernel cannot take: buffers, matrices of other packages, files."""
    return isinstance(value, (bytearray, memoryview, complex)) or hasattr(value, "__array_interface__")


def describe(value: Any, name: str) -> tuple[tuple[int, ...], DType]:
    """Shape and NKI dtype of an array.

    Raises:
        NkiError: NKI-L024 for a dtype the NeuronCore lacks (such as float64) or an empty array.
    """
    shape = tuple(int(n) for n in value.shape)
    spelled = str(value.dtype).rsplit(".", 1)[-1]
    try:
        dtype = as_dtype(spelled)
    except TypeError:
        raise error(
            "NKI-L024",
            f"argument {name!r} has dtype {spelled}, which the NeuronCore lacks",
            help=f"convert it, for example {name}.astype(np.float32)",
        ) from None
    if 0 in shape:
        raise error("NKI-L024", f"argument {name!r} is empty: shape {shape}", help="pass at least one element")
    return shape or (1,), dtype


def to_numpy(value: Any) -> np.ndarray:
    """`value` as a numpy array of the dtype that stores it."""
    return np.asarray(value)


def write_back(value: Any, new: np.ndarray) -> None:
    """Give the caller's array the bytes its kernel wrote.

    Raises:
        NkiError: NKI-L024 for an array that cannot be written in place.
    """
    target = np.asarray(value)
    if not target.flags.writeable or not np.shares_memory(target, np.asarray(value)):
        raise error(
            "NKI-L024",
            "the kernel writes an input that is read-only",
            help="pass a writable numpy array, or return a new tensor instead of writing the input",
        )
    np.copyto(target, new.reshape(target.shape))
