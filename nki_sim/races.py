"""Finds unordered accesses of several cores to the same bytes of shared HBM.

Cores are ordered against each other only where they meet. Each core carries a
vector clock: its own component counts its meetings, the others what it has learnt
of in them. An access of one core races with one of another if at least one of them
writes, they share a byte, and neither core had heard of the other's access.

For each shared tensor a shadow keeps, per element, the last write and the last read
by each core; an access is compared with the shadow through its own strides, so what
is reported is exact, and an access costs no more than copying its elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nki_isa.diagnostics import Diagnostic, Label, NkiError, Span
from nki_isa.instruction import Instruction
from nki_isa.tensor import MemoryRegion, NkiTensor, Storage
from numpy.typing import NDArray

from nki_sim.execute import Observer
from nki_sim.memory import Memory

_Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Access:
    """One access to shared HBM: who, in which of the core's periods between meetings, by what."""

    core: int
    period: int
    instruction: Instruction
    tensor: NkiTensor


class RaceDetector:
    """Compares the accesses of all cores to shared HBM.

    Args:
        memories: the memory of each core.
        shared: the storages of each core that are the same bytes, in the same order.
    """

    def __init__(self, memories: Sequence[Memory], shared: Sequence[Sequence[Storage]]):
        self._memories = memories
        cores = range(len(memories))
        # clocks[a][b]: the last period of core b that core a has heard the end of, its own the present one
        self._clocks = [[1 if a == b else 0 for b in cores] for a in cores]
        self._accesses: list[_Access] = []
        self._number = [{s: k for k, s in enumerate(storages)} for storages in shared]
        self._shadows: dict[tuple[int, int, bool], _Ids] = {}
        self._found: dict[tuple[Span | None, Span | None], Diagnostic] = {}

    def observer(self, core: int) -> Observer:
        """What to call before each instruction of `core`."""

        def observe(instruction: Instruction, registers: Sequence[int]) -> None:
            if instruction.synchronises:
                return
            for tensor in instruction.reads:
                self._touch(core, instruction, tensor, writes=False)
            for tensor in instruction.writes:
                self._touch(core, instruction, tensor, writes=True)

        return observe

    def meet(self, group: Sequence[tuple[int, Instruction]]) -> None:
        """The cores of `group` hear of all that the others of it did before."""
        cores = [core for core, _ in group]
        joined = [max(self._clocks[core][k] for core in cores) for k in range(len(self._clocks))]
        for core in cores:
            self._clocks[core] = list(joined)
            self._clocks[core][core] += 1

    def finish(self) -> None:
        """Raise every race found: NKI-H021, with both lines."""
        if self._found:
            raise NkiError(self._found.values())

    # --- accesses

    def _touch(self, core: int, instruction: Instruction, tensor: NkiTensor, *, writes: bool) -> None:
        if tensor.storage.region is not MemoryRegion.shared_hbm:
            return
        number = self._number[core][tensor.storage]
        access = _Access(core, self._clocks[core][core], instruction, tensor)
        for other in range(len(self._memories)):
            if other != core:
                for kind in (True, False) if writes else (True,):
                    self._compare(access, number, other, earlier_writes=kind, writes=writes)
        self._accesses.append(access)
        shadow, index = self._elements(core, number, core, writes, tensor)
        if index is None:
            shadow[...] = len(self._accesses)
        else:
            shadow[index] = len(self._accesses)

    def _compare(self, access: _Access, number: int, other: int, *, earlier_writes: bool, writes: bool) -> None:
        """Report the accesses of core `other` that touch the same elements and that `access` has not heard of."""
        if (number, other, earlier_writes) not in self._shadows:
            return
        shadow, index = self._elements(access.core, number, other, earlier_writes, access.tensor)
        ids = shadow if index is None else shadow[index]
        heard = self._clocks[access.core][other]
        last = int(ids.max(initial=0))
        if last == 0 or self._accesses[last - 1].period <= heard:
            return
        for one in np.unique(ids[ids > 0]).tolist():
            earlier = self._accesses[one - 1]
            if earlier.period > heard:
                self._report(earlier, access, earlier_writes, writes)

    def _elements(
        self, core: int, number: int, owner: int, writes: bool, tensor: NkiTensor
    ) -> tuple[Any, NDArray[np.int64] | None]:
        """The shadow of what core `owner` wrote or read, as `tensor` of `core` sees it, and rows it selects."""
        storage = tensor.storage
        key = (number, owner, writes)
        shadow = self._shadows.get(key)
        if shadow is None:
            # One id per byte: views may read the bytes as elements of any width.
            shadow = self._shadows[key] = np.zeros(storage.row_bytes, np.int32)
        memory, shift, index = self._memories[core], 0, None
        if tensor.dynamic is not None:
            if tensor.dynamic.kind == "scalar":
                shift = memory.scalar_shift(tensor) or 0
            else:
                tensor, lines = memory.selection(tensor)
                index = lines[(lines >= 0) & (lines < tensor.shape[0])]
        address = memory.address(tensor, shift)
        width = shadow.itemsize
        shape = (*address.shape, tensor.dtype.itemsize)
        strides = (*(s * width for s in address.strides), width)
        buffer: Any = shadow
        return np.ndarray(shape, np.int32, buffer, address.offset * width, strides), index

    def _report(self, earlier: _Access, later: _Access, earlier_writes: bool, writes: bool) -> None:
        first, second = _place(earlier.instruction), _place(later.instruction)
        if (first, second) in self._found or (second, first) in self._found:
            return
        verbs = ("writes" if writes else "reads", "writes" if earlier_writes else "reads")
        labels = []
        if first is not None:
            labels.append(Label(first, f"core {earlier.core} {verbs[1]} it here, unordered"))
        self._found[first, second] = Diagnostic(
            "NKI-H021",
            f"core {later.core} {verbs[0]} bytes of {later.tensor.name} that core {earlier.core} {verbs[1]} "
            "with nothing to order the two",
            span=second,
            help=f"put nisa.core_barrier({later.tensor.name}, (0, 1)) between them on both cores, "
            "or give each core its own part",
            labels=tuple(labels),
            stack=later.instruction.stack,
        )


def _place(instruction: Instruction) -> Span | None:
    return instruction.stack[-1].span if instruction.stack else None
