"""Accumulation in PSUM: onto what, until when, and next to what.

An accumulation begins with a matmul that overwrites and goes on with those that
add to the same view. The tensor engine adds to what a matmul has put there; on
NeuronCore-v2 and v3 the result of adding to anything else is undefined. A bank
of 2 KiB per partition holds one accumulation at a time: the eight banks are the
eight accumulations that can be under way. Parts of one tensor that take turns in
a bank without sharing bytes are a warning only: the vendor's kernel library does
so on Trainium 2 (nki-library, attention_bwd, step 5.2).

Sources: SDK ``nki.isa.nc_matmul`` (accumulation mode); architecture guide of
Trainium, section on PSUM; error "SCH713 Violation of accumulation group
interleaving" in the direct allocation guide of SDK 2.26.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.dtypes import DType
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature, Target
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor, box
from nki_sim.execution.memory import Addresses
from nki_sim.observe import Core
from nki_sim.sanitize.check import PerCore
from nki_sim.sanitize.findings import Findings, allocated, described, done_by, operand_of, site
from nki_sim.sanitize.shadow import Written, bytes_of, covers, regions
from nki_sim.sanitize.survey import Survey

_View = tuple[DType, int, tuple[int, ...], tuple[int, ...]]
_PSUM, _TENSOR = MemoryRegion.psum, Engine.tensor  # members of an Enum are found slowly
_QUADRANT = 32  # partitions; accumulations in different quadrants of a bank are apart (column tiling)


@dataclass(slots=True, eq=False)
class _Group:
    """An accumulation: its first matmul, the views it went to, and who read its bytes since the latest."""

    storage: Storage
    first: Instruction
    views: dict[_View, NkiTensor] = field(default_factory=dict)
    reader: tuple[Instruction, NkiTensor] | None = None

    def shares(self, tensor: NkiTensor) -> bool:
        """True if `tensor`, of the same storage, has bytes of it."""
        return any(_share(view, tensor) for view in self.views.values())


class Psum(PerCore):
    """Follows accumulations in PSUM."""

    name = "psum"
    finds = "accumulation onto what no matmul wrote, after a read, or in turns (NKI-H006 to H008)"
    codes = ("NKI-H006", "NKI-H007", "NKI-H008")
    listed = 5

    def observer(self, number: int, core: Core) -> Accumulations:
        """What follows the accumulations of a core."""
        scene = self.scene
        survey, addresses = scene.surveys[number], scene.placements[number]
        return Accumulations(survey, addresses, core.state.target, scene.findings)


class Accumulations:
    """Observes writes and reads of PSUM.

    Args:
        survey: of the Program that runs.
        addresses: where on-chip tensors are.
        target: the generation.
        findings: what is found goes there.
    """

    def __init__(self, survey: Survey, addresses: Addresses, target: Target, findings: Findings):
        self._survey, self._addresses, self._target, self._findings = survey, addresses, target, findings
        self._products: dict[int, Written] = {}
        self._groups: dict[int, list[_Group]] = {}
        self._banks: dict[tuple[int, int], _Group] = {}
        self._others: dict[int, Instruction] = {}

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        """The observer: `instruction` is about to run."""
        reads, writes = self._survey.touches[instruction]
        if instruction.on is not _TENSOR:
            for tensor in reads:
                if tensor.storage.region is _PSUM:
                    self._read(instruction, tensor)
        for tensor in writes:
            if tensor.storage.region is _PSUM and tensor.dynamic is None:
                if _is_product(instruction):
                    added = [t for t in reads if t.storage is tensor.storage]
                    self._product(instruction, tensor, added)
                else:
                    self._overwritten(instruction, tensor)
        for index in self._survey.ends.get(instruction, ()):
            self._products.pop(index, None)
            self._groups.pop(index, None)

    def _read(self, instruction: Instruction, tensor: NkiTensor) -> None:
        for group in self._groups.get(tensor.storage.index, ()):
            if group.shares(tensor):
                group.reader = instruction, tensor

    def _overwritten(self, instruction: Instruction, tensor: NkiTensor) -> None:
        """Something else than a product goes there."""
        index = tensor.storage.index
        self._others[index] = instruction
        state = self._products.get(index)
        if state is not None:
            state.view(tensor)[...] = 0
        self._end(tensor)

    def _end(self, tensor: NkiTensor) -> None:
        """Accumulations whose bytes are all overwritten are over."""
        groups = self._groups.get(tensor.storage.index)
        for group in list(groups or ()):
            for key, view in list(group.views.items()):
                if _contains(tensor, view):
                    del group.views[key]
            if groups and not group.views:
                groups.remove(group)

    def _product(self, instruction: Instruction, tensor: NkiTensor, added: list[NkiTensor]) -> None:
        """A matmul writes `tensor` and accumulates onto the parts `added` of it."""
        storage = tensor.storage
        state = self._products.get(storage.index)
        if state is None:
            state = self._products[storage.index] = Written(storage, None, False)
        defined = Feature.sums_onto_any_bytes in self._target.features
        if not state.full and (not defined or instruction.__dict__.get("inferred")):
            for part in added:
                self._check_start(instruction, part, state, defined)
        state.write(tensor)
        groups, key = self._groups.setdefault(storage.index, []), _key(tensor)
        group = next((g for g in groups if key in g.views), None) if added else None
        if added and group is None:  # it goes on with an accumulation that it overlaps
            group = next((g for g in groups if any(map(g.shares, added))), None)
        if group is None:
            self._end(tensor)
            group = _Group(storage, instruction, {key: tensor})
            groups.append(group)
            for place in self._places(tensor):
                self._banks[place] = group
            return
        group.views[key] = tensor
        if group.reader is not None:
            self._went_on(instruction, tensor, group)
            group.reader = None
        self._go_on(instruction, tensor, group)

    # --- what is wrong

    def _check_start(
        self, instruction: Instruction, tensor: NkiTensor, state: Written, defined: bool
    ) -> None:
        missing = state.missing(tensor)
        if missing is None:
            return
        storage = tensor.storage
        key = ("NKI-H006", site(instruction, storage))
        if self._findings.known(key):
            return
        other = self._others.get(storage.index)
        by = f"the last writer there is {other.opcode}" if other is not None else "nothing was written there"
        self._findings.add(
            key,
            "NKI-H006",
            f"{instruction.opcode} accumulates onto {operand_of(instruction, tensor, written=True)}, of "
            "which "
            f"{regions(missing)} holds no result of a matmul; {by}",
            stack=instruction.stack,
            labels=(
                *allocated(storage),
                *done_by(other, "written here by something else than a matmul"),
            ),
            help="pass accumulate=False for a new sum, or accumulate=True to every matmul to add to what "
            "something else wrote"
            if defined
            else "pass accumulate=False to the first matmul of the accumulation (accumulate=(i > 0) in a "
            "loop), and add other values after copying the sum to SBUF",
            severity=Severity.warning if defined else Severity.error,
            notes=(
                f"on {self._target.name} the sum is defined, and includes what {other.opcode} wrote"
                if defined and other is not None
                else f"on {self._target.name} the result of accumulating onto bytes that no matmul wrote is "
                "undefined",
                "where `accumulate` is left out, the first matmul onto a tensor overwrites, later ones add, "
                "in every round of a loop: only matmuls count, a memset does not start anew",
            ),
        )

    def _went_on(self, instruction: Instruction, tensor: NkiTensor, group: _Group) -> None:
        key = ("NKI-H007", site(instruction, group.storage))
        if self._findings.known(key) or group.reader is None:
            return
        reader, read = group.reader
        self._findings.add(
            key,
            "NKI-H007",
            f"{instruction.opcode} adds to {operand_of(instruction, tensor, written=True)} after "
            f"{reader.opcode} read {described(read.storage)}: what was "
            "read is not the whole sum, and what is added comes on top of it",
            stack=instruction.stack,
            labels=(
                *done_by(reader, "read here"),
                *done_by(group.first, "the accumulation begins here"),
                *allocated(group.storage),
            ),
            help="for a new sum pass accumulate=False to its first matmul, or allocate the PSUM tensor anew "
            "for each sum; for one sum read it after its last matmul",
        )

    def _places(self, tensor: NkiTensor) -> list[tuple[int, int]]:
        """The (bank, quadrant of partitions) that `tensor` touches."""
        base = self._addresses[tensor.storage.index]
        partition, count, start, end = box(tensor)
        size = self._target.psum_bank_bytes
        banks = range((base[1] + start) // size, (base[1] + end - 1) // size + 1)
        low, high = base[0] + partition, base[0] + partition + count - 1
        return [(b, q) for b in banks for q in range(low // _QUADRANT, high // _QUADRANT + 1)]

    def _go_on(self, instruction: Instruction, tensor: NkiTensor, group: _Group) -> None:
        places = self._places(tensor)
        other = next((self._banks[p] for p in places if self._banks.get(p, group) is not group), None)
        for place in places:
            self._banks[place] = group
        if other is None:
            return
        apart = other.storage is group.storage and not any(map(group.shares, other.views.values()))
        key = ("NKI-H008", site(instruction, group.storage), apart)
        if self._findings.known(key):
            return
        whose = "another part of it" if other.storage is group.storage else described(other.storage)
        severity, notes = Severity.error, []
        if apart:
            severity = Severity.warning
            notes.append(
                "the parts share no bytes; kernels of the vendor's library take such turns on Trainium 2, no "
                "page of the SDK allows it"
            )
        self._findings.add(
            key,
            "NKI-H008",
            f"{instruction.opcode} adds to {operand_of(instruction, tensor, written=True)} in PSUM bank "
            f"{places[0][0]} after another accumulation, into {whose}, began in that bank",
            stack=instruction.stack,
            labels=(
                *done_by(other.first, "the other accumulation begins here"),
                *done_by(group.first, "this accumulation begins here"),
                *allocated(group.storage),
            ),
            help="finish one accumulation before the next begins, or give each a bank of its own (2 KiB per "
            "partition)",
            notes=notes,
            severity=severity,
        )


def _key(tensor: NkiTensor) -> _View:
    return tensor.dtype, tensor.offset, tensor.shape, tensor.strides


def _share(one: NkiTensor, other: NkiTensor) -> bool:
    """True if two views of one storage have bytes in common; a run-time offset counts with all its values."""
    partition, count, start, end = box(one)
    partition2, count2, start2, end2 = box(other)
    if partition >= partition2 + count2 or partition2 >= partition + count or start >= end2 or start2 >= end:
        return False
    if one.dynamic is not None or other.dynamic is not None or _key(one) == _key(other):
        return True
    room = np.empty(one.storage.partitions * one.storage.row_bytes, np.uint8)
    return bool(np.shares_memory(_over(one, room), _over(other, room)))


def _over(tensor: NkiTensor, room: NDArray[Any]) -> NDArray[Any]:
    item = tensor.dtype.itemsize
    strides = tuple(s * item for s in tensor.strides)
    return np.ndarray(tensor.shape, f"V{item}", room, tensor.offset * item, strides)


def _contains(outer: NkiTensor, inner: NkiTensor) -> bool:
    """True if every byte of `inner` is one of `outer`, a view of the same storage."""
    if _key(outer) == _key(inner) or covers(outer):
        return True
    return (
        _share(outer, inner) and not (bytes_of(inner, inner.storage) & ~bytes_of(outer, outer.storage)).any()
    )


def _is_product(instruction: Instruction) -> bool:
    """True for a matmul; a transpose on the tensor engine is none."""
    values = instruction.__dict__
    return "stationary" in values and not values.get("is_transpose", False)
