"""The arrays that a kernel takes: what they are, and which are refused.

torch and jax are never imported here: an array of theirs can only come from a program that did.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.ma import MaskedArray  # here: numpy.ma is imported at each use of np.ma, under a lock

from nki import levels
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType, as_dtype
from nki_isa.tensor.tensor import NkiTensor

_LACKED = "the NeuronCore lacks"


def is_torch(value: Any) -> bool:
    """True for torch tensors."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: Any) -> bool:
    """True for numpy arrays, torch tensors, JAX arrays, and other objects that become a numpy array."""
    if isinstance(value, NkiTensor):
        return False  # its __array__ only refuses
    return isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def is_unsupported(value: Any) -> bool:
    """True for array-like things a kernel cannot take: buffers, matrices of other packages, files."""
    return isinstance(value, (bytearray, memoryview, complex)) or hasattr(value, "__array_interface__")


def is_data(value: Any) -> bool:
    """True for what comes from an array library and holds no code of the user's: arrays and data types."""
    return is_array(value) or is_unsupported(value) or is_dtype(value) or isinstance(value, np.generic)


def is_dtype(value: Any) -> bool:
    """True for the data types of torch and JAX."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.dtype):
        return True
    return isinstance(value, type) and type(value).__module__.partition(".")[0] == "jax"


def dtype_of(value: Any, name: str) -> DType:
    """The NKI dtype that a data type of torch or JAX stands for.

    Raises:
        NkiError: NKI-L024 for one the NeuronCore lacks.
    """
    try:
        return as_dtype(getattr(value, "dtype", value))
    except TypeError as problem:
        help = "pass a dtype of nki.language, such as nl.bfloat16"
        raise error("NKI-L024", f"argument {name!r}: {problem}", help=help) from None


def place(value: Any) -> tuple[Any, ...]:
    """Where and how the elements of a torch tensor are: what :func:`describe` refuses some of."""
    return (value.device, value.layout) if is_torch(value) else ()


def describe(value: Any, name: str) -> tuple[tuple[int, ...], DType]:
    """Shape and NKI dtype of an array; one without dimensions counts as of shape (1,).

    Raises:
        NkiError: NKI-L024 for a dtype the NeuronCore lacks (such as float64, or a byte order other than
            the host's), a masked array, or a tensor that is sparse or on another device than the CPU.
    """
    shape = tuple([int(n) for n in value.shape])
    spelled = str(value.dtype).rsplit(".", 1)[-1]
    try:
        dtype = levels.known_dtype(as_dtype(spelled))
    except TypeError:
        raise lacking(name, value) from None
    if is_torch(value):
        _check_dense(value, name)
    elif isinstance(value, MaskedArray):
        raise error(
            "NKI-L024",
            f"argument {name!r} is a masked array; a kernel reads all elements and knows no mask",
            help=f"pass {name}.filled(0.0), and the mask as an array of its own",
        )
    return shape or (1,), dtype


def lacking(name: str, value: Any) -> NkiError:
    """NKI-L024 for an array of a dtype that no instruction takes, with the conversion to write."""
    spelled = str(value.dtype).rsplit(".", 1)[-1]
    near = "int32" if spelled in ("int64", "long") else "uint32" if spelled == "uint64" else "float32"
    convert = f"{name}.to(torch.{near})" if is_torch(value) else f"{name}.astype(np.{near})"
    why = "the kernel does not read as one" if near != "float32" and not levels.before("0.7") else _LACKED
    problem = f"argument {name!r} has dtype {spelled}, which {why}"
    return error("NKI-L024", problem, help=f"convert it: {convert}")


def _check_dense(value: Any, name: str) -> None:
    """Refuse a torch tensor whose elements are not in the memory of the CPU one after the other."""
    if value.device.type not in ("cpu", "meta"):
        raise error(
            "NKI-L024",
            f"argument {name!r} is on {value.device}; the simulator reads the memory of the CPU",
            help=f"pass {name}.cpu()",
        )
    if str(value.layout) != "torch.strided":
        raise error(
            "NKI-L024",
            f"argument {name!r} is a sparse tensor, of layout {value.layout}",
            help=f"pass {name}.to_dense()",
        )


__all__ = [
    "describe",
    "dtype_of",
    "is_array",
    "is_data",
    "is_dtype",
    "is_torch",
    "is_unsupported",
    "lacking",
    "place",
]
