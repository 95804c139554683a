"""Whether a read of unwritten bytes or of an unset register matters: run again with others and compare.

What comes out differently depended on them; what comes out the same, byte for
byte, for several patterns was masked, overwritten or never stored. So a correct
kernel that computes on lanes it does not use is told apart without rules about
single instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Core, Listener
from nki_sim.sanitize.reads import Part, Watch, site_key
from nki_sim.sanitize.registers import Unset
from nki_sim.sanitize.shadow import Bools, Written, bytes_of

Reading = Mapping[Instruction, Sequence[Unset]]
"""What each instruction of a core reads that is not set."""

#: Bytes put in the place of unwritten ones: NaN and -1, then a large finite number.
_PATTERNS = (0xFF, 0x7B)

#: Places tried one by one; of more, all of the rest count as one.
_MOST_SINGLE = 8


class _Astray(Exception):
    """The run does something else than before, for many more instructions."""


class _CorePoison:
    """Puts a pattern in the place of unwritten bytes and unset registers while an instruction reads them."""

    machine: Core

    def __init__(self, watch: Watch, unset: Reading, chosen: set[Hashable], pattern: int, limit: int):
        watch.missing = self._missing
        self.watch = watch
        self._unset = unset
        self._word = np.frombuffer(bytes([pattern] * 4), np.int32)
        self._undo: list[Callable[[], None]] = []
        self._chosen = chosen
        self._pattern = pattern
        self._left = limit
        self._kept: list[tuple[Storage, Array, Bools]] = []
        self._writes: Sequence[NkiTensor] = ()

    def poison(self, instruction: Instruction, registers: list[int]) -> None:
        """`instruction` is about to run."""
        self._left -= 1
        if self._left < 0:
            raise _Astray
        self._writes = self.watch.survey.touches[instruction][1]
        if instruction in self._unset:
            self._poison(instruction, registers)
        self.watch(instruction, registers)

    def _poison(self, instruction: Instruction, registers: list[int]) -> None:
        for read in self._unset[instruction]:
            if read.key not in self._chosen:
                continue
            if isinstance(read.where, VirtualRegister):
                index = read.where.index
                if read.stays:
                    self._undo.append(partial(registers.__setitem__, index, registers[index]))
                registers[index] = int(self._word[0])
            else:
                engine, lanes = read.where
                held = self.machine.state.accumulators[engine]
                if read.stays:
                    self._undo.append(partial(held.__setitem__, lanes, held[lanes].copy()))
                held[lanes] = self._word.view(np.float32)

    def _missing(
        self, instruction: Instruction, tensor: NkiTensor, state: Written, parts: list[Part]
    ) -> None:
        codes = ("NKI-H002", "NKI-H003")
        if not any(site_key(code, instruction, state) in self._chosen for code in codes):
            return
        storage = tensor.storage
        whole = self._bytes(storage)
        for view, elements in parts:
            octets = np.zeros(whole.size, np.bool_)
            item = view.dtype.itemsize
            strides = (*(s * item for s in view.strides), 1)
            chosen = np.ndarray((*view.shape, item), np.bool_, octets, view.offset * item, strides)
            chosen |= elements[..., None]
            mask = octets.reshape(whole.shape)
            self._kept.append((storage, whole.copy(), mask))
            whole[mask] = self._pattern

    def restore(self) -> None:
        """Take the pattern out again where the instruction has not written."""
        while self._undo:
            self._undo.pop()()
        for storage, before, mask in reversed(self._kept):
            for tensor in self._writes:
                if tensor.storage is storage and tensor.dynamic is None:
                    mask = mask & ~bytes_of(tensor, storage).reshape(mask.shape)
            self._bytes(storage)[mask] = before[mask]
        self._kept.clear()

    def _bytes(self, storage: Storage) -> Array:
        """The bytes of a storage, partitions by bytes; no copy."""
        memory = self.watch.memory
        address = memory.address(NkiTensor.whole(storage))
        buffer: Any = memory.buffer(storage)
        strides = (buffer.strides[0], 1) if storage.on_chip else (storage.row_bytes, 1)
        return np.ndarray((storage.partitions, storage.row_bytes), np.uint8, buffer, address.offset, strides)


class _Poison(Listener):
    """:class:`_CorePoison` for every core of a run."""

    def __init__(
        self,
        watches: list[Watch],
        unset: Sequence[Reading],
        chosen: set[Hashable],
        pattern: int,
        limit: int,
    ):
        self._cores = [
            _CorePoison(watch, reading, chosen, pattern, limit)
            for watch, reading in zip(watches, unset, strict=True)
        ]

    def start(self, cores: Sequence[Core]) -> None:
        """Look into the memories."""
        for poison, core in zip(self._cores, cores, strict=True):
            poison.machine = core
            core.state.silent = True
            poison.watch.memory = core.memory

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """Put the pattern in."""
        self._cores[core].poison(instruction, registers)

    def after(self, core: int, instruction: Instruction) -> None:
        """Take it out."""
        self._cores[core].restore()


class Influence:
    """Answers whether results depend on unwritten bytes and unset registers read at some places.

    Args:
        again: runs the Programs on the same inputs, with these listeners.
        watches: makes what follows the written bytes of each core, for a new run.
        unset: what reads unset registers, for each core.
        result: what the run gave.
    """

    def __init__(
        self,
        again: Callable[[Sequence[Listener]], ExecutionResult],
        watches: Callable[[], list[Watch]],
        unset: Sequence[Reading],
        result: ExecutionResult,
    ):
        self._again, self._watches, self._unset, self._result = again, watches, unset, result

    def guilty(self, sites: Sequence[Hashable]) -> set[Hashable]:
        """Those of `sites` that results depend on; all of them where they only matter together."""
        if not sites or not self._matters(set(sites)):
            return set()
        if len(sites) == 1:
            return set(sites)
        single = list(sites[:_MOST_SINGLE])
        rest = set(sites[_MOST_SINGLE:])
        found: set[Hashable] = {s for s in single if self._matters({s})}
        if rest and self._matters(rest):
            found |= rest
        return found or set(sites)

    def _matters(self, chosen: set[Hashable]) -> bool:
        return any(self._differs(chosen, pattern) for pattern in _PATTERNS)

    def _differs(self, chosen: set[Hashable], pattern: int) -> bool:
        limit = 2 * self._result.instructions + 1000
        try:
            result = self._again([_Poison(self._watches(), self._unset, chosen, pattern, limit)])
        except (_Astray, NkiError):
            return True
        return _differ(self._result, result)


def _differ(one: ExecutionResult, other: ExecutionResult) -> bool:
    pairs = list(zip(one.outputs, other.outputs, strict=True))
    pairs += [(a, b) for (_, a), (_, b) in zip(one.updated_inputs, other.updated_inputs, strict=True)]
    return any(a.tobytes() != b.tobytes() for a, b in pairs)
