"""What the library's simulation mode calls: ``nki.cpu_simulate(kernel)[lnc](**arguments)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nki
from nki import runtime
from nki_isa.machine.dtypes import DType
from tests.upstream.library.packed_dtypes import PACKED, pack, unpack


class Simulation:
    """A kernel, decorated or not, to be launched on one or two cores."""

    def __init__(self, kernel: Any):
        self._kernel = nki.jit(kernel)

    def __getitem__(self, cores: int) -> Callable[..., list[np.ndarray]]:
        def launch(**arguments: Any) -> list[Any]:
            """The outputs in order, those that are None left out; the caller's arrays stay as they are."""
            copied = {name: copy_argument(value) for name, value in arguments.items()}
            with runtime.session() as ran:
                returned = self._kernel[cores](**copied)
            dtypes = [tensor.dtype for tensor in ran.launches[-1].program.outputs]
            return [_output(array, dtype) for array, dtype in zip(_arrays(returned), dtypes, strict=True)]

        return launch


class _Words(np.ndarray):
    """The unsigned words of a packed array, under the packed dtype's name."""

    name: str

    @property
    def dtype(self) -> Any:
        return self.name


_PACKED = {name: type(name, (_Words,), {"name": name}) for name in PACKED}


def copy_argument(value: Any) -> Any:
    """Kernels write their inputs in place; hardware runs on copies read from files."""
    if not isinstance(value, np.ndarray):
        return value
    copied = np.array(value, order="C")
    return unpack(copied).view(_PACKED[str(copied.dtype)]) if copied.dtype.names else copied


class _Bytes:
    """An output of a packed type: numpy reads its bytes as the dtype it asks for.

    Hardware hands over files of bytes, and the tests say what is in them: the packed type, or
    float32 where they compare bits.
    """

    def __init__(self, packed: np.ndarray):
        self._packed = packed

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._packed if dtype is None else self._packed.view(dtype)


def _output(array: np.ndarray, dtype: DType) -> Any:
    return _Bytes(pack(array, dtype)) if dtype in PACKED else array


def _arrays(returned: Any) -> list[np.ndarray]:
    if isinstance(returned, (list, tuple)):
        return [array for item in returned for array in _arrays(item)]
    return [returned] if isinstance(returned, np.ndarray) else []
