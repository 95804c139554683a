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

from nki.compiler.language.array_arguments import is_torch
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType

#: torch's dtypes that numpy lacks: (the integer of their width, what reads its bits).
_BITS: dict[str, tuple[str, Any]] = {
    "bfloat16": ("int16", ml_dtypes.bfloat16),
    "float8_e4m3fn": ("uint8", ml_dtypes.float8_e4m3fn),
    "float8_e5m2": ("uint8", ml_dtypes.float8_e5m2),
    "float8_e8m0fnu": ("uint8", ml_dtypes.float8_e8m0fnu),
}


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
