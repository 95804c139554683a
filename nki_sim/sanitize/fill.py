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

from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import NANS
from nki_sim.observe import Core, Listener, Memories
from nki_sim.sanitize.survey import Survey

_INTEGER = 4


class Sentinels(Listener):
    """Fills new tensors of every core of a run: HBM at once, those on chip when they come into use."""

    def __init__(self, surveys: Sequence[Survey]):
        self._surveys = surveys
        self._cores: Sequence[Core] = ()
        self._seen: set[tuple[int, int]] = set()

    def start(self, cores: Sequence[Core]) -> None:
        """Fill HBM."""
        self._cores = cores
        for core in cores:
            for storage in core.program.storages:
                if storage.region.is_hbm and storage.kind == "local":
                    _fill(core.memory, storage)

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """Fill what it is the first to touch."""
        for tensors in self._surveys[core].touches[instruction]:
            for tensor in tensors:
                storage = tensor.storage
                key = core, storage.index
                if storage.on_chip and storage.kind == "local" and key not in self._seen:
                    self._seen.add(key)
                    _fill(self._cores[core].memory, storage)


def _fill(memory: Memories, storage: Storage) -> None:
    whole = memory.bind(NkiTensor.whole(storage))
    if storage.dtype.kind in ("int", "uint"):
        whole[...] = _INTEGER
    else:
        octets = bytes([NANS]) * storage.dtype.itemsize
        whole[...] = np.frombuffer(octets, whole.dtype)[0]
