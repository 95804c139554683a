"""Reads of bytes that nothing wrote, and of bytes another tensor has overwritten.

A :class:`Watch` follows a run with a :class:`~nki_sim.sanitize.shadow.Shadow` and
tells what every instruction reads that was not written. Whether such a read
matters is not guessed: the Program runs again with other bytes in those places
(:mod:`nki_sim.sanitize.influence`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np

from nki_isa.ir.dependencies import may_skip
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature, Target
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import INDIRECTION_GROUP, TENSOR_INDIRECTION_GROUP, Addresses, Array
from nki_sim.observe import Memories
from nki_sim.sanitize.findings import Findings, allocated, described, done_by, operand_of, pair_of, site
from nki_sim.sanitize.shadow import _ONES, Bools, Shadow, Written, regions
from nki_sim.sanitize.survey import Survey

Part = tuple[NkiTensor, Bools]
"""A view without run-time offset, and its elements that were not written."""

Missing = Callable[[Instruction, NkiTensor, Written, list[Part]], None]


class Watch:
    """Follows which bytes are written and reports reads of others.

    Args:
        survey: of the Program that runs.
        addresses: where on-chip tensors are.
        missing: is told of each operand with unwritten bytes, before the instruction runs.

    Attributes:
        memory: the machine's memory, for run-time addresses; to be set before the run.
        shadow: what is written.
        survey, missing: as given.
    """

    def __init__(self, survey: Survey, addresses: Addresses, missing: Missing):
        self.shadow = Shadow(survey.program.storages, addresses, survey.reread)
        self.memory: Memories
        self.survey = survey
        self.missing = missing
        self._has_spills = any(storage.kind == "spill" for storage in survey.program.storages)

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        """The observer: `instruction` is about to run."""
        reads, writes = self.survey.touches[instruction]
        states = self.shadow.states
        if self._has_spills and "spill" in (t.storage.kind for t in (*reads, *writes)):
            states[writes[0].storage.index].carry(states[reads[0].storage.index])
            reads = writes = []
        for tensor in reads:
            state = states[tensor.storage.index]
            if state.storage.address is not None:
                self.shadow.enter(state)
            if not state.full:
                parts = self._unwritten(instruction, tensor, state)
                if parts:
                    self.missing(instruction, tensor, state, parts)
        for tensor in writes:
            state = states[tensor.storage.index]
            if state.storage.address is not None:
                self.shadow.enter(state)
            if state.full and not state.rivals:
                state.last = instruction
            elif tensor.dynamic is None and not may_skip(instruction):
                self.shadow.write(state, tensor, instruction)
            else:
                self._write_dynamic(instruction, tensor, state)
        for index in self.survey.ends.get(instruction, ()):
            self.shadow.leave(index)

    # --- reading

    def _unwritten(self, instruction: Instruction, tensor: NkiTensor, state: Written) -> list[Part]:
        parts = []
        for view in self._views(instruction, tensor):
            missing = state.missing(view)
            if missing is not None:
                parts.append((view, missing))
        return parts

    def _views(self, instruction: Instruction, tensor: NkiTensor) -> Iterator[NkiTensor]:
        """What `tensor` addresses now, as views without run-time offset; nothing of what is out of bounds."""
        dynamic = tensor.dynamic
        if dynamic is None:
            yield tensor
        elif dynamic.kind == "scalar":
            shift = self.memory.scalar_shift(tensor)
            if shift is not None:
                yield _moved(tensor, tensor.shape, tensor.strides, shift)
        else:
            axis, stride = dynamic.dim, dynamic.stride
            whole, indices = self.memory.selection(tensor, _group(instruction))
            shape, strides = list(tensor.shape), list(tensor.strides)
            shape[axis], strides[axis] = 1, stride
            for index in np.unique(indices[(indices >= 0) & (indices < whole.shape[axis])]).tolist():
                yield _moved(tensor, tuple(shape), tuple(strides), index * stride)

    # --- writing

    def _write_dynamic(self, instruction: Any, tensor: NkiTensor, state: Written) -> None:
        """A write whose address, or whose extent where accesses out of bounds are skipped, is known now."""
        where: Array | None = None
        if may_skip(instruction):
            for source in self.survey.touches[instruction][0]:
                if source.dynamic is None:
                    continue
                if source.dynamic.kind == "scalar":
                    if self.memory.scalar_shift(source) is None:
                        return
                else:
                    inside = self.memory.gather(source, skip=True)[1]
                    if inside is not None:
                        inside = instruction.route(inside)
                        where = inside if where is None else where & inside
        if where is not None and (tensor.dynamic is None or tensor.dynamic.kind == "scalar"):
            for view in self._views(instruction, tensor):
                state.view(view)[where] = _ONES[view.dtype.itemsize]
                state.wrote(int(np.count_nonzero(where)) * view.dtype.itemsize)
                state.last = instruction
            return
        for view in self._views(instruction, tensor):
            self.shadow.write(state, view, instruction)


def _moved(tensor: NkiTensor, shape: tuple[int, ...], strides: tuple[int, ...], shift: int) -> NkiTensor:
    return NkiTensor(shape, strides, tensor.offset + shift, tensor.dtype, tensor.storage)


def _group(instruction: Instruction) -> int:
    return TENSOR_INDIRECTION_GROUP if instruction.on is Engine.tensor else INDIRECTION_GROUP


# --- what is said


class Reads:
    """Turns what a :class:`Watch` reports into findings.

    Attributes:
        sites: keys of the findings in order, by code: of unwritten bytes and of overwritten ones.
    """

    def __init__(self, findings: Findings, checks: frozenset[str], target: Target):
        self._findings = findings
        self._wanted = {"NKI-H002": "uninitialized" in checks, "NKI-H003": "overlap" in checks}
        self._psum = "psum" in checks and Feature.sums_onto_any_bytes not in target.features  # told there
        self.sites: dict[str, list[Hashable]] = {code: [] for code in self._wanted}

    def missing(self, instruction: Instruction, tensor: NkiTensor, state: Written, parts: list[Part]) -> None:
        """Keep one finding for each pair of lines."""
        taken = next((who for view, _ in parts if (who := state.taker(view)) is not None), None)
        code = "NKI-H002" if taken is None else "NKI-H003"
        if not self._wanted[code] or (taken is None and self._psum and accumulates(instruction, tensor)):
            return
        key = site_key(code, instruction, state)
        if self._findings.known(key):
            return
        self.sites[code].append(key)
        storage = tensor.storage
        elements = parts[0][1]
        count = sum(int(np.count_nonzero(m)) * v.dtype.itemsize for v, m in parts)
        reader = f"{instruction.opcode} reads {operand_of(instruction, tensor)}"
        labels = allocated(storage)
        notes = [f"elements of that view: {regions(elements)}"]
        if len(parts) > 1:
            notes = [f"{len(parts)} rows; of the first one: {regions(elements)}"]
        if taken is None:
            message = f"{reader}: {count} of {_total(tensor)} bytes were never written to {storage.name}"
            help = "write all of it first, for example with nisa.memset, or read only what is written"
            if state.last is not None:
                what = f"{state.last.opcode} wrote to it last, other bytes"
                labels = (*labels, *done_by(state.last, what))
        else:
            writer, thief = taken
            self._findings.conflicts.add(pair_of(storage, thief))
            message = (
                f"{reader}: {count} of {_total(tensor)} bytes were overwritten through {described(thief)}, "
                f"which has bytes in common with {storage.name}"
            )
            help = "give tensors that are needed at the same time addresses that do not overlap"
            labels = (
                *labels,
                *allocated(thief),
                *done_by(writer, f"{writer.opcode} overwrites them here"),
            )
            notes += [_range(state)]
        self._findings.add(key, code, message, stack=instruction.stack, labels=labels, help=help, notes=notes)


def site_key(code: str, instruction: Instruction, state: Written) -> Hashable:
    """The key of a finding about a read."""
    return code, site(instruction, state.storage)


def accumulates(instruction: Instruction, tensor: NkiTensor) -> bool:
    """True if `tensor` is what a matmul adds to: its destination, or a part of it."""
    return instruction.on is Engine.tensor and tensor.storage is instruction.__dict__["dst"].storage


def _total(tensor: NkiTensor) -> int:
    return tensor.size * tensor.dtype.itemsize


def _range(state: Written) -> str:
    assert state.place is not None
    (partition, byte), storage = state.place, state.storage
    span = f"partitions {partition} to {partition + storage.partitions - 1}"
    return f"{storage.name} is at {span}, bytes {byte} to {byte + storage.row_bytes - 1} of each"
