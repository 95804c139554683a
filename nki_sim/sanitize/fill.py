"""What a tensor holds before anything is written to it, where that is asked for.

The vendor's simulator fills every new tensor with NaN, or with 4 where its data
type has none, so that what is computed from unwritten memory shows in results.
Here a tensor gets its filling when it comes into use, so that it does not matter
whose bytes it has taken over.

Source: SDK guide of ``nki.simulate``, "Uninitialized Memory Detection".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nki_isa.instruction import Instruction
from nki_isa.tensor import NkiTensor, Storage
from nki_sim.device import Watcher
from nki_sim.execute import Machine
from nki_sim.memory import NANS, Memory
from nki_sim.sanitize.survey import Survey

_INTEGER = 4


class Sentinels:
    """Fills new tensors of every core of a run; a :class:`~nki_sim.device.Watcher`."""

    def __init__(self, surveys: Sequence[Survey]):
        self._surveys = surveys

    def start(self, machines: Sequence[Machine]) -> None:
        """Fill HBM, and watch for tensors on chip."""
        for survey, machine in zip(self._surveys, machines, strict=True):
            for storage in survey.program.storages:
                if storage.region.is_hbm and storage.kind == "local":
                    _fill(machine.memory, storage)
            machine.watch(_OnChip(survey, machine.memory))

    def finish(self) -> None:
        """Nothing is left to do."""


class _OnChip:
    """Fills a tensor of SBUF or PSUM before the first instruction that touches it."""

    def __init__(self, survey: Survey, memory: Memory):
        self._survey, self._memory = survey, memory
        self._seen: set[int] = set(survey.reread)  # they hold what an earlier one holds

    def __call__(self, instruction: Instruction, registers: list[int]) -> None:
        for tensors in self._survey.touches[instruction]:
            for tensor in tensors:
                storage = tensor.storage
                if storage.on_chip and storage.kind == "local" and storage.index not in self._seen:
                    self._seen.add(storage.index)
                    _fill(self._memory, storage)


def _fill(memory: Memory, storage: Storage) -> None:
    whole = memory.bind(NkiTensor.whole(storage))
    if storage.dtype.kind in ("int", "uint"):
        whole[...] = _INTEGER
    else:
        octets = bytes([NANS]) * storage.dtype.itemsize
        whole[...] = np.frombuffer(octets, whole.dtype)[0]


class Watchers:
    """Several watchers of one run, in order."""

    def __init__(self, *watchers: Watcher):
        self._watchers = watchers

    def start(self, machines: Sequence[Machine]) -> None:
        """Start each."""
        for watcher in self._watchers:
            watcher.start(machines)

    def finish(self) -> None:
        """Finish each."""
        for watcher in self._watchers:
            watcher.finish()
