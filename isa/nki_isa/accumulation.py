"""Which matmuls overwrite PSUM and which accumulate onto it.

The compiler decides at specialization: the first matmul that writes a PSUM
location overwrites it, later ones accumulate. Writes of other instructions do
not count, because accumulating onto them is undefined before NeuronCore-v4.

Source: SDK ``nki.isa.nc_matmul``, accumulation mode.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import error
from nki_isa.tensor import NkiTensor

_Key = tuple[int, tuple[int, ...], tuple[int, ...], str]
_Extent = tuple[int, int]  # first element in bytes, one past the last


class _Written:
    """The views of one PSUM storage that matmuls have written."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        self.views: dict[_Key, tuple[NkiTensor, _Extent]] = {}

    def add(self, view: NkiTensor) -> tuple[bool, bool]:
        """Note a write of `view`; whether some, and whether all, of its bytes had been written before."""
        key = (view.offset, view.shape, view.strides, str(view.dtype))
        if key in self.views:
            return True, True
        extent = _extent(view)
        near = [v for v, (start, end) in self.views.values() if start < extent[1] and extent[0] < end]
        self.views[key] = view, extent
        if not near:
            return False, False
        before = np.isin(_octets(view), np.concatenate([_octets(v) for v in near]))
        return bool(before.any()), bool(before.all())


# By the recorder of a kernel, then by the index of a storage.
_WRITTEN: WeakKeyDictionary[Any, dict[int, _Written]] = WeakKeyDictionary()


def resolve(recorder: Any, dst: NkiTensor, accumulate: bool | None) -> bool:
    """Whether the next matmul of `recorder` accumulates onto `dst`, which counts as written from now on.

    Args:
        recorder: what collects the Program; its ``target`` decides what is defined.
        accumulate: what the user asked for, None to follow the rule.

    Raises:
        NkiValidationError: NKI-V130, it is to accumulate where no matmul has written (before NeuronCore-v4);
            NKI-V131, a matmul has written a part of `dst` only, so neither answer is right.
    """
    storages = _WRITTEN.setdefault(recorder, {})
    view = dst if dst.dynamic is None else NkiTensor.whole(dst.storage)
    some, every = storages.setdefault(dst.storage.index, _Written()).add(view)
    if accumulate is None:
        if some and not every:
            raise error(
                "NKI-V131",
                f"{dst.name}{list(dst.shape)} was written in part by an earlier matmul, so it can neither "
                "be overwritten nor accumulated onto as a whole",
                help="pass accumulate=False or accumulate=True, or write tiles that do not overlap",
            )
        return every
    if accumulate and not every and recorder.target.nc_version < 4:
        raise error(
            "NKI-V130",
            f"accumulate is True, and no matmul has overwritten {'all' if some else 'any'} of "
            f"{dst.name}{list(dst.shape)} before; on {recorder.target.name} the result is undefined, "
            "also after memset or tensor_copy",
            help="pass accumulate=False to the first matmul of the group (accumulate=(i > 0) in a loop), "
            "or leave it out",
        )
    return accumulate


def _extent(view: NkiTensor) -> _Extent:
    item = view.dtype.itemsize
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    return view.offset * item, (last + 1) * item


def _octets(view: NkiTensor) -> NDArray[np.int64]:
    """Positions of every byte of `view` in its storage."""
    item = view.dtype.itemsize
    positions = np.array(view.offset, np.int64)
    for size, stride in zip(view.shape, view.strides, strict=True):
        positions = positions[..., None] + np.arange(size) * stride
    return (positions.reshape(-1, 1) * item + np.arange(item)).reshape(-1)
