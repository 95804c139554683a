"""The arrays people hold: numpy (with ml_dtypes), torch on the CPU, JAX; how their bytes go in and out.

A kernel gives back what it was given: the kind of array of its arguments, the dtype of its tensors.
torch and jax are never imported here: an array of theirs can only come from a program that did.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.ma import MaskedArray  # here: numpy.ma is imported at each use of np.ma, under a lock

from nki import levels
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType, as_dtype

#: torch's dtypes that numpy lacks: (the integer of their width, what reads its bits).
_BITS: dict[str, tuple[str, Any]] = {
    "bfloat16": ("int16", ml_dtypes.bfloat16),
    "float8_e4m3fn": ("uint8", ml_dtypes.float8_e4m3fn),
    "float8_e5m2": ("uint8", ml_dtypes.float8_e5m2),
    "float8_e8m0fnu": ("uint8", ml_dtypes.float8_e8m0fnu),
}


def is_torch(value: Any) -> bool:
    """True for torch tensors."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_jax(value: Any) -> bool:
    """True for JAX arrays."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def traced_by(inputs: Sequence[Any]) -> str | None:
    """``"torch"`` or ``"jax"`` if one of `inputs` stands for an array whose data is not there yet."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    for value in inputs:
        if torch is not None and isinstance(value, torch.Tensor):
            plain = type(value) is torch.Tensor or type(value) is torch.nn.Parameter
            if not plain or value.device.type == "meta":
                return "torch"
        elif jax is not None and isinstance(value, jax.core.Tracer):
            return "jax"
    return None


def is_array(value: Any) -> bool:
    """True for numpy arrays, torch tensors, JAX arrays, and other objects that become a numpy array."""
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


_LACKED = "the NeuronCore lacks"


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


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """`value` as a numpy array of the dtype that stores it; a view of its memory where there is one."""
    if isinstance(value, np.ndarray):
        return value
    if is_torch(value):
        return _torch_to_numpy(value)
    return np.asarray(value)


def _torch_to_numpy(value: Any) -> np.ndarray[Any, Any]:
    torch: Any = sys.modules["torch"]
    value = value.detach().resolve_conj().resolve_neg()
    bits = _BITS.get(str(value.dtype).rsplit(".", 1)[-1])
    if bits is None:
        return value.numpy()
    integer, dtype = bits
    return value.view(getattr(torch, integer)).numpy().view(dtype)


# --- what a kernel writes


def check_writable(kernel: str, name: str, value: Any) -> None:
    """Refuse an argument that the kernel writes and that cannot change in place.

    Raises:
        NkiError: NKI-L055 for JAX arrays, read-only and expanded arrays, and copies of something else.
    """
    why = None
    if is_jax(value):
        why = "is a JAX array, which never changes"
    elif is_torch(value):
        if value.requires_grad and value.is_leaf:
            why = "requires a gradient, which writing in place would lose"
        elif _is_expanded(value.stride(), value.shape):
            why = _EXPANDED
    elif not isinstance(value, np.ndarray):
        why = f"is a {type(value).__name__}, which only gives a copy of its data"
    elif not value.flags.writeable:
        why = "is read-only"
    elif _is_expanded(value.strides, value.shape):
        why = _EXPANDED
    if why is not None:
        raise error(
            "NKI-L055",
            f"{kernel} writes its argument {name!r}, which {why}",
            help="pass a writable numpy array or torch tensor, or return a new nl.shared_hbm tensor instead",
        )


_EXPANDED = "is expanded: several of its elements share one place in memory"


def _is_expanded(strides: Sequence[int], shape: Sequence[int]) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(strides, shape))


def write_back(value: Any, new: np.ndarray[Any, Any]) -> None:
    """Give the caller's array (see :func:`check_writable`) the values its kernel wrote."""
    if is_torch(value):
        value.detach().copy_(_to_torch(new.reshape(tuple(value.shape))))
    else:
        np.copyto(value, new.reshape(value.shape), casting="unsafe")


# --- what a kernel returns


def like(inputs: Sequence[Any], outputs: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
    """`outputs` as the kind of array that `inputs` are: torch if one is, JAX if one is, else numpy.

    Raises:
        NkiError: NKI-L024 for torch tensors beside JAX arrays; NKI-L025 for a dtype that torch lacks.
    """
    torch_given, jax_given = any(map(is_torch, inputs)), any(map(is_jax, inputs))
    if torch_given and jax_given:
        raise error(
            "NKI-L024",
            "the kernel got torch tensors and JAX arrays in one call",
            help="convert one kind, for example torch.from_dlpack(x)",
        )
    if torch_given:
        return [_to_torch(array) for array in outputs]
    if jax_given:
        jax: Any = sys.modules["jax"]
        return [jax.numpy.asarray(array) for array in outputs]
    return list(outputs)


def _to_torch(array: np.ndarray[Any, Any]) -> Any:
    torch: Any = sys.modules["torch"]
    name = array.dtype.name
    kind = getattr(torch, name, None)
    if kind is None:
        raise _lacking(name)
    bits = _BITS.get(name)
    if bits is None:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(bits[0])).view(kind)


def torch_dtype(dtype: DType) -> Any:
    """The torch dtype that stores `dtype`.

    Raises:
        NkiError: NKI-L025, torch has none.
    """
    torch: Any = sys.modules["torch"]
    kind = getattr(torch, dtype.numpy.name, None)
    if kind is None:
        raise _lacking(dtype.numpy.name)
    return kind


def _lacking(name: str) -> NkiError:
    return error(
        "NKI-L025",
        f"the kernel returns a tensor of {name}, which torch lacks",
        help="return a view of its bytes, out.view(nl.uint8), or call the kernel with numpy arrays",
    )
