"""The values of a constant that a kernel holds: a numpy array, or the path of a ``.npy`` file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nki_isa.diagnostics import error
from nki_isa.machine.dtypes import DType, cast


def read_constant(constant: Any) -> Any:
    """The array that `constant` is, or that the file it names holds.

    Raises:
        NkiError: NKI-L026 for a missing file.
    """
    if not isinstance(constant, (str, os.PathLike)):
        return constant
    if not os.path.exists(constant):
        help = "give the path of a .npy file that exists"
        raise error("NKI-L026", f"no file {os.fspath(constant)!r}", help=help)
    return np.load(constant, allow_pickle=False)


def cast_constant(constant: Any, dtype: DType) -> Any:
    """The values of `constant` in another data type.

    Raises:
        NkiError: NKI-L026 for a missing file.
    """
    return cast(np.asarray(read_constant(constant)), dtype)


__all__ = ["cast_constant", "read_constant"]
