"""Which matmuls overwrite PSUM and which accumulate onto it.

The compiler decides at specialization: the first matmul that writes a PSUM
location overwrites it, later ones accumulate. Where the destinations of matmuls
overlap in part (a convolution), a matmul accumulates onto the part that was
written and overwrites the rest. Writes of other instructions do not count,
because accumulating onto them is undefined before NeuronCore-v4.

Sources: SDK ``nki.isa.nc_matmul``, accumulation mode; overlaps: NKI 0.6.0 release notes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, Label, NkiValidationError, error
from nki_isa.ir.recording import Recording
from nki_isa.machine.dtypes import DType
from nki_isa.machine.target import Feature
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor

Box = tuple[tuple[int, int], ...]
"""A rectangle of elements: (start, stop) of each dimension."""

Accumulate = bool | tuple[Box, ...]
"""Onto all of a destination, onto none of it, or onto these parts; the rest is overwritten."""

_Key = tuple[int, tuple[int, ...], tuple[int, ...], DType]
_Extent = tuple[int, int, int, int]  # partitions, start and stop, and the bytes of each, start and stop


class WrittenParts:
    """The views of one PSUM storage that matmuls have written."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        self.views: dict[_Key, tuple[NkiTensor, _Extent]] = {}

    def add(self, view: NkiTensor) -> Accumulate:
        """Note a write of `view`; whether all, none, or which boxes of it had been written before."""
        key = (view.offset, view.shape, view.strides, view.dtype)
        if key in self.views:
            return True
        extent = _extent(view)
        near = [v for v, other in self.views.values() if _meet(extent, other)]
        self.views[key] = view, extent
        if not near:
            return False
        before = np.isin(_octets(view), np.concatenate([_octets(v) for v in near]))
        if not before.any() or before.all():
            return bool(before.all())
        return tuple(_boxes(before.reshape(*view.shape, -1)[..., 0]))


def resolve(recorder: Recording, dst: NkiTensor, accumulate: bool | None) -> Accumulate:
    """Whether the next matmul of `recorder` accumulates onto `dst`, or onto which parts of it.

    `dst` counts as written from now on.

    Args:
        recorder: what collects the Program; its ``target`` decides what is defined, its ``multiplied`` holds
            what matmuls have written, by the index of a storage.
        accumulate: what the user asked for, None to follow the rule.

    Raises:
        NkiValidationError: NKI-V130, it is to accumulate where no matmul has written (before NeuronCore-v4);
            NKI-V131, `dst` is addressed at run time in a tensor of which a matmul has written a part, so
            that the answer is not known.
    """
    storages: dict[int, WrittenParts] = recorder.multiplied
    view = dst if dst.dynamic is None else NkiTensor.whole(dst.storage)
    written = storages.get(dst.storage.index)
    if written is None:
        written = storages[dst.storage.index] = WrittenParts()
    before = written.add(view)
    if accumulate is None:
        if dst.dynamic is not None and isinstance(before, tuple):
            raise error(
                "NKI-V131",
                f"{dst.name}{list(dst.shape)} is addressed at run time, and earlier matmuls wrote a part of "
                f"its storage {list(dst.storage.shape)} only: whether to overwrite it is not known",
                help="pass accumulate=False or accumulate=True",
            )
        if before is False and recorder.repeats(dst.storage):
            recorder.warn(
                error(
                    "NKI-V132",
                    f"accumulate is not given for {dst.name}{list(dst.shape)}, which is allocated outside of "
                    "the loop that runs on the device: the one instruction overwrites it on every turn",
                    help="to sum over the turns, overwrite with accumulate=False before the loop and pass "
                    "accumulate=True in it; for a new product on every turn pass accumulate=False, or "
                    "allocate the tensor in the loop",
                )
            )
        return before
    if accumulate and before is not True and Feature.sums_onto_any_bytes not in recorder.target.features:
        refused = Diagnostic(
            "NKI-V130",
            f"accumulate is True, and no matmul has overwritten {'all' if before else 'any'} of "
            f"{dst.name}{list(dst.shape)} before; on {recorder.target.name} the result is undefined, "
            "also after memset or tensor_copy",
            help="pass accumulate=False to the first matmul of the group (accumulate=(i > 0) in a loop), "
            "or leave it out",
            labels=tuple(
                Label(frame.span, f"{dst.name} {dst.dtype}{list(dst.storage.shape)} is allocated here")
                for frame in dst.storage.stack[-1:]
            ),
        )
        raise NkiValidationError([refused])
    return accumulate


def _extent(view: NkiTensor) -> _Extent:
    """The partitions that hold `view`, and the bytes of each that it needs."""
    item = view.dtype.itemsize
    row = math.prod(view.storage.shape[1:]) * view.storage.dtype.itemsize
    first = view.offset * item
    apart = view.strides[0] * item
    before, after = (far * item for far in reach(view.shape[1:], view.strides[1:]))
    last = first + (view.shape[0] - 1) * apart + after + item - 1
    start = first % row
    return first // row, last // row + 1, start + before, start + after + item


def _meet(a: _Extent, b: _Extent) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _boxes(mask: NDArray[np.bool_]) -> list[Box]:
    """Disjoint boxes that cover the true elements: runs of equal slices, dimension by dimension."""
    if mask.ndim == 0:
        return [()]
    edges = [k for k in range(1, len(mask)) if not np.array_equal(mask[k], mask[k - 1])]
    return [
        ((start, stop), *inner)
        for start, stop in zip([0, *edges], [*edges, len(mask)], strict=True)
        if mask[start].any()
        for inner in _boxes(mask[start])
    ]


def _octets(view: NkiTensor) -> NDArray[np.int64]:
    """Positions of every byte of `view` in its storage."""
    item = view.dtype.itemsize
    positions = np.array(view.offset, np.int64)
    for size, stride in zip(view.shape, view.strides, strict=True):
        positions = positions[..., None] + np.arange(size) * stride
    return (positions.reshape(-1, 1) * item + np.arange(item)).reshape(-1)
