"""Instructions that would read, or write over, their own output.

A destination lies over a source that is still to be read, or holds an element of its tensor twice (sliding
windows; a stride of 0, which published kernels give results they drop, is left alone).

Each instruction states the order in which it reads and writes (:class:`nki_isa.ir.instruction.Order`). Where
it streams, writing over elements already read is safe, and in place is (which nc_stream_shuffle documents).
The DMA engines move descriptors in any order, so there only the very same view is safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.fields import Role
from nki_isa.ir.form import Form
from nki_isa.ir.instruction import Instruction, Order
from nki_isa.machine.enums import Engine
from nki_isa.tensor.tensor import NkiTensor, box, signature
from nki_sim.execution.memory import Addresses
from nki_sim.observe import Core
from nki_sim.sanitize.check import Check
from nki_sim.sanitize.findings import Findings, allocated, operand_of, site
from nki_sim.sanitize.survey import Survey

Ints = NDArray[np.int64]
_TENSOR = Engine.tensor  # members of an Enum are found slowly


class Aliasing(Check):
    """Looks at each instruction's addresses, where they are static, before the run."""

    name = "aliasing"
    finds = "instructions that would read their own output (NKI-H005)"
    codes = ("NKI-H005",)
    listed = 4

    def start(self, cores: Sequence[Core]) -> None:
        """Look at the Programs."""
        for survey, addresses in zip(self.scene.surveys, self.scene.placements, strict=True):
            _Program(survey, addresses, self.scene.findings)


class _Program:
    """Looks at the instructions of one core: once at each form that says it all."""

    def __init__(self, survey: Survey, addresses: Addresses, findings: Findings):
        self._addresses, self._findings = addresses, findings
        sound: set[Form | None] = set()
        for instruction in survey.program.walk():
            form = instruction.form
            if instruction.on is _TENSOR or (form is not None and form in sound):
                continue
            reads, writes = survey.touches[instruction]
            by_hand = {t.storage for t in (*reads, *writes) if t.storage.address is not None}
            if not self._check(instruction, writes) and len(by_hand) < 2:
                sound.add(form)

    def _check(self, instruction: Instruction, writes: Sequence[NkiTensor]) -> bool:
        """True if something is wrong with `instruction`."""
        found = False
        for dst in writes:
            if dst.dynamic is not None:
                continue
            if self._overlaps_itself(dst):
                found = True
                self._tell_overlap(instruction, dst)
            for field, value in instruction.operands():
                sources = value if field.role is Role.reads else [value] if field.role is Role.read else ()
                for source in sources:
                    found |= self._pair(instruction, dst, source)
        return found

    def _overlaps_itself(self, dst: NkiTensor) -> bool:
        """True if two elements of a view share a place, as in sliding windows; a stride of 0 means it."""
        first = 1 if dst.storage.on_chip else 0
        dims = sorted(
            (abs(stride), size)
            for stride, size in zip(dst.strides[first:], dst.shape[first:], strict=True)
            if size > 1 and stride
        )
        extent = 1
        for stride, size in dims:
            if stride < extent:
                places = np.zeros(1, np.int64)
                for step, count in dims:
                    places = (places[:, None] + np.arange(count) * step).reshape(-1)
                return len(np.unique(places)) < len(places)
            extent += stride * (size - 1)
        return False

    def _tell_overlap(self, instruction: Instruction, dst: NkiTensor) -> None:
        key = ("NKI-H005", site(instruction, dst.storage))
        if self._findings.known(key):
            return
        self._findings.add(
            key,
            "NKI-H005",
            f"{instruction.opcode} writes {operand_of(instruction, dst, written=True)}, whose pattern "
            f"{dst.get_pattern()} holds elements of the tensor more than once: it would write over its own "
            "output",
            stack=instruction.stack,
            labels=allocated(dst.storage),
            help="write each element once: every dimension steps over all that those inside it span",
            notes=("here the last value written to an element stays",),
        )

    def _pair(self, instruction: Instruction, dst: NkiTensor, src: NkiTensor) -> bool:
        """True if `instruction` would write `dst` over parts of `src` that it has yet to read."""
        if src.dynamic is not None or not self._meet(dst, src):
            return False
        order = instruction.order
        same = signature(dst) == signature(src)
        if order is Order.first or (same and order is not Order.shuffled):
            return False
        written, read = self._positions(dst), self._positions(src)
        meets = _reads_back if order is Order.streamed else _share
        if not meets(written, read, dst.dtype.itemsize, src.dtype.itemsize):
            return False
        key = ("NKI-H005", site(instruction, dst.storage))
        if self._findings.known(key):
            return True
        self._findings.add(
            key,
            "NKI-H005",
            f"{instruction.opcode} writes {operand_of(instruction, dst, written=True)} over "
            f"{operand_of(instruction, src)}, which it reads {order.value}: it would read its own output",
            stack=instruction.stack,
            labels=(
                *allocated(dst.storage),
                *(allocated(src.storage) if src.storage is not dst.storage else ()),
            ),
            help="write to another tensor, or in place to the very same view",
            notes=("here every source is read before anything is written, so the numbers do not show it",),
        )
        return True

    def _meet(self, dst: NkiTensor, src: NkiTensor) -> bool:
        """True if the rectangles of both views have bytes in common."""
        if dst.storage.region is not src.storage.region:
            return False
        by_hand = dst.storage.address is not None and src.storage.address is not None
        if dst.storage is not src.storage and not by_hand:
            return False
        a, b = self._rectangle(dst), self._rectangle(src)
        return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]

    def _rectangle(self, tensor: NkiTensor) -> tuple[int, int, int, int]:
        partition, count, start, end = box(tensor)
        base = self._addresses[tensor.storage.index] if tensor.storage.on_chip else (0, 0)
        return base[0] + partition, base[0] + partition + count, base[1] + start, base[1] + end

    def _positions(self, tensor: NkiTensor) -> Ints:
        """The first byte of each element in its partition (in HBM, of the whole), in streaming order."""
        first = 1 if tensor.storage.on_chip else 0
        item = tensor.dtype.itemsize
        row = tensor.storage.row_bytes // item
        at = np.array(tensor.offset % row if first else tensor.offset, np.int64)
        for size, stride in zip(tensor.shape[first:], tensor.strides[first:], strict=True):
            at = at[..., None] + np.arange(size) * stride
        base = self._addresses[tensor.storage.index][1] if first else 0
        return at.reshape(-1) * item + base


def _reads_back(written: Ints, read: Ints, write_item: int, read_item: int) -> bool:
    """True if a byte is written before a source element that holds it is read.

    Element i of n results is written after the first ceil((i + 1) * m / n) of m source elements are read.
    """
    low = int(min(written.min(), read.min()))
    size = int(max(written.max() + write_item, read.max() + read_item)) - low
    latest = np.full(size, -1, np.int64)  # for each byte, the last source element that holds it
    turn = np.arange(len(read))
    for byte in range(read_item):
        np.maximum.at(latest, read - low + byte, turn)
    done = -(-(np.arange(len(written)) + 1) * len(read) // len(written))
    return any(bool((latest[written - low + byte] >= done).any()) for byte in range(write_item))


def _share(written: Ints, read: Ints, write_item: int, read_item: int) -> bool:
    """True if both have a byte in common."""
    unit = math.gcd(write_item, read_item)
    a = (written[:, None] + np.arange(0, write_item, unit)).reshape(-1)
    b = (read[:, None] + np.arange(0, read_item, unit)).reshape(-1)
    return bool(np.isin(a, b).any())
