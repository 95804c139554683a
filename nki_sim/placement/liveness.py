"""When each SBUF and PSUM buffer of a Program holds a value somebody still needs.

Positions count instructions in program order, loop bodies once. A buffer is
live from its first access to its last; a device loop widens that where a value
crosses its back edge: read in the body before the body has written those bytes,
or written only in part (or at run-time offsets, or where a DMA may skip rows) and
used after the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.dependencies import may_skip
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.strides import is_row_major
from nki_isa.tensor.tensor import NkiTensor

NEVER = -1
_TENSOR, _PSUM = Engine.tensor, MemoryRegion.psum  # members of an Enum are found slowly


@dataclass(frozen=True, slots=True)
class Liveness:
    """Live ranges of the on-chip storages of one Program, both ends included.

    Attributes:
        instructions: number of positions, 0 to `instructions` - 1.
        first: position of the first access by storage index, :data:`NEVER` if there is none.
        last: position of the last access by storage index.
        groups: accumulations of the tensor engine as (storage index, first, last): a write of
            a view of a PSUM tensor and the writes that add to it.
    """

    instructions: int
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    groups: list[tuple[int, int, int]]


def liveness(program: Program) -> Liveness:
    """The live ranges of `program`; storages that no instruction touches have none."""
    walker = _Walker(len(program.storages))
    walker.walk(program.body)
    for storage in program.storages:
        # The bytes of a constant are there before the first instruction.
        if storage.data is not None and walker.first[storage.index] != NEVER:
            walker.first[storage.index] = 0
    return Liveness(
        walker.position,
        np.array(walker.first, np.int64),
        np.array(walker.last, np.int64),
        [(index, start, end) for index, start, end in walker.groups if end > start],
    )


@dataclass(slots=True)
class _Scope:
    """A device loop being walked: what its body has surely written this turn, and read before that."""

    start: int
    surely_runs: bool
    written: dict[int, NDArray[np.bool_] | None] = field(default_factory=dict)  # None: every byte
    exposed: set[int] = field(default_factory=set)

    def read(self, tensor: NkiTensor) -> None:
        index = tensor.storage.index
        if index in self.exposed:
            return
        if index not in self.written:
            self.exposed.add(index)
            return
        mask = self.written[index]
        if mask is not None and (tensor.dynamic is not None or not _bytes_of(mask, tensor).all()):
            self.exposed.add(index)

    def write(self, tensor: NkiTensor, is_sure: bool) -> None:
        index = tensor.storage.index
        if index in self.written and self.written[index] is None:
            return
        is_sure = is_sure and tensor.dynamic is None
        if is_sure and covers(tensor):
            self.written[index] = None
            return
        mask = self.written.get(index)
        if mask is None:
            mask = self.written[index] = np.zeros(_total_bytes(tensor.storage), np.bool_)
        if is_sure:
            _bytes_of(mask, tensor)[...] = True
            if mask.all():
                self.written[index] = None


class _Walker:
    def __init__(self, storages: int):
        self.position = 0
        self.first = [NEVER] * storages
        self.last = [NEVER] * storages
        self.groups: list[list[int]] = []
        self._open: dict[int, dict[Any, list[int]]] = {}  # the latest group of each view, by storage
        self._scopes: list[_Scope] = []

    def walk(self, body: Iterable[Node]) -> None:
        partial: list[tuple[int, int, int]] = []
        self._walk(body, partial)
        for index, start, end in partial:
            if self.last[index] > end:
                self.first[index] = min(self.first[index], start)

    def _walk(self, body: Iterable[Node], partial: list[tuple[int, int, int]]) -> None:
        for node in body:
            if isinstance(node, Instruction):
                self._access(node)
                self.position += 1
                continue
            scope = _Scope(self.position, _surely_runs(node))
            self._scopes.append(scope)
            self._walk(node.body, partial)
            self._scopes.pop()
            end = self.position - 1
            for index in scope.exposed:
                self._widen(index, scope.start, end)
            partial += [(i, scope.start, end) for i, mask in scope.written.items() if mask is not None]

    def _widen(self, index: int, start: int, end: int) -> None:
        self.first[index] = min(self.first[index], start)
        self.last[index] = max(self.last[index], end)
        for group in self._open.get(index, {}).values():
            group[1], group[2] = min(group[1], start), max(group[2], end)

    def _access(self, instruction: Instruction) -> None:
        form = instruction.form
        if form is not None and form.is_given:
            reads, writes = form.reads(instruction.__dict__), form.writes(instruction.__dict__)
        else:
            reads, writes = instruction.reads, instruction.writes
        first, last, position = self.first, self.last, self.position
        for tensor in (*reads, *writes):
            storage = tensor.storage
            if storage.on_chip:
                if first[storage.index] == NEVER:
                    first[storage.index] = position
                last[storage.index] = position
        if self._scopes:
            self._note(reads, writes, not may_skip(instruction))
        if instruction.on is _TENSOR:
            for tensor in writes:
                storage = tensor.storage
                if storage.region is _PSUM:
                    self._accumulate(tensor, any([t.storage is storage for t in reads]))

    def _note(self, reads: Iterable[NkiTensor], writes: Iterable[NkiTensor], is_sure: bool) -> None:
        """What an instruction in a loop reads and writes, for the loops around it."""
        for tensor in reads:
            if tensor.storage.on_chip:
                for scope in self._scopes:
                    scope.read(tensor)
        for tensor in writes:
            if tensor.storage.on_chip:
                for scope in reversed(self._scopes):
                    scope.write(tensor, is_sure)
                    if not scope.surely_runs:
                        break

    def _accumulate(self, tensor: NkiTensor, goes_on: bool) -> None:
        views = self._open.setdefault(tensor.storage.index, {})
        key = (tensor.offset, tensor.shape, tensor.strides)
        group = views.get(key)
        if group is None or not goes_on:
            group = views[key] = [tensor.storage.index, self.position, self.position]
            self.groups.append(group)
        group[2] = self.position


def _surely_runs(node: Node) -> bool:
    """True if the body of a loop runs at least once, whatever the registers hold."""
    return (
        isinstance(node, Loop)
        and isinstance(node.start, int)
        and isinstance(node.stop, int)
        and len(range(node.start, node.stop, node.step)) > 0
    )


def _total_bytes(storage: Storage) -> int:
    return storage.partitions * storage.row_bytes


def covers(tensor: NkiTensor) -> bool:
    """True if `tensor` is its whole storage, in order."""
    return (
        tensor.offset == 0
        and tensor.size * tensor.dtype.itemsize == _total_bytes(tensor.storage)
        and is_row_major(tensor.shape, tensor.strides)
    )


def _bytes_of(mask: NDArray[np.bool_], tensor: NkiTensor) -> NDArray[np.bool_]:
    """The entries of `mask`, one per byte of the storage, that `tensor` touches."""
    item = tensor.dtype.itemsize
    shape = (*tensor.shape, item)
    strides = (*(stride * item for stride in tensor.strides), 1)
    return np.ndarray(shape, np.bool_, mask, tensor.offset * item, strides)
