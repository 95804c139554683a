"""Specialized and placed Programs, kept for calls that differ in their arrays' values only.

A call's key is what specialization depends on: the function, the launch grid, the target, the language
profile, the API level, shapes and dtypes of arrays, and the values of everything else.
"""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from nki.compiler.language import array_arguments
from nki.compiler.source.kernel_source import KernelSource
from nki.compiler.specializer.purity import Read, Snapshot
from nki.compiler.specializer.specialize import Specialized
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_sim.execution.memory import host_bytes
from nki_sim.execution.replay import can_replay, is_static
from nki_sim.execution.result import written_inputs
from nki_sim.placement.place import Placement
from nki_sim.process import Lock, lazy
from nki_sim.sanitize.replayed import CheckedReplay
from nki_sim.sanitize.static import Looked

_PLAIN = (type(None), bool, int, float, str, enum.Enum, DType, Operator, type, np.dtype)
_LIMIT = 64  # Programs kept

#: The function, then everything else that specialization depends on.
Key = tuple[FunctionType, Hashable]


class NotKept(Exception):
    """An argument whose meaning for the Program is not known."""


def call_key(arguments: Iterable[Any]) -> tuple[Hashable, list[Any]]:
    """What a Program depends on in the arguments of a call, and the arrays among them in order.

    Raises:
        NotKept: an argument is of a kind that has no key.
    """
    parts: list[Any] = []
    inputs: list[Any] = []
    seen: dict[int, int] = {}
    for value in arguments:
        _add(value, parts, inputs, seen)
    return tuple(parts), inputs


def _add(value: Any, parts: list[Any], inputs: list[Any], seen: dict[int, int]) -> None:
    kind = type(value)
    if kind is np.ndarray:
        parts += (kind, value.shape, value.dtype)
        inputs.append(value)
    elif isinstance(value, np.generic):
        parts += (kind, value.item())
    elif isinstance(value, _PLAIN):
        parts += (kind, str(value) if kind is float else value)  # 0.0 and -0.0 are equal, nan is not
    elif isinstance(value, (FunctionType, BuiltinFunctionType)) or array_arguments.is_dtype(value):
        parts.append(value)
    elif isinstance(value, KernelSource):
        parts.append(value.function)
    elif array_arguments.is_array(value):
        shape = tuple([int(n) for n in value.shape])
        parts += (kind, shape, str(value.dtype), *array_arguments.place(value))
        inputs.append(value)
    elif kind in (list, tuple, dict):
        _container(value, kind, parts, inputs, seen)
    else:
        raise NotKept


def _container(value: Any, kind: type, parts: list[Any], inputs: list[Any], seen: dict[int, int]) -> None:
    if kind is not tuple:  # the kernel sees that one list or dict is passed in two places
        if id(value) in seen:
            parts += (kind, "again", seen[id(value)])
            return
        seen[id(value)] = len(seen)
    parts += (kind, len(value))
    for key, item in value.items() if kind is dict else enumerate(value):
        if kind is dict:
            _add(key, parts, inputs, seen)
        _add(item, parts, inputs, seen)


@dataclass
class Prepared:
    """A kernel specialized and placed for one form of call.

    Attributes:
        specialized: for each core, what specialization gave.
        placements: where each core's tensors are.
        passed: the sets of checks that a run of a static Program passed without a finding.
        looked_at: what the checks that need no data found, by the set of them and whether all are errors.
        replay: the loaded machine of a Program that is run again.
        running: held while `replay` runs; another thread, or a child forked meanwhile, does not wait for it.
    """

    specialized: list[Specialized]
    placements: list[Placement]
    passed: set[frozenset[str]] = field(default_factory=set)
    looked_at: dict[tuple[frozenset[str], bool], Looked] = field(default_factory=dict)
    replay: CheckedReplay | None = None
    running: threading.Lock = field(default_factory=threading.Lock)

    @lazy
    def host_bytes(self) -> int:
        """What a run with data takes of the host's memory."""
        return host_bytes(self.programs)

    @lazy
    def written(self) -> tuple[int, ...]:
        """Positions of the arrays that the kernel writes, on any core."""
        return written_inputs(*self.programs)

    @lazy
    def static(self) -> bool:
        """True if every run does the same accesses on one core, so that checks of them find the same."""
        program = self.programs[0]
        return len(self.specialized) == 1 and is_static(program) and can_replay(program)

    @property
    def programs(self) -> list[Program]:
        """The Program of each core."""
        return [one.program for one in self.specialized]

    @property
    def addresses(self) -> list[Mapping[int, tuple[int, int]]]:
        """Where the on-chip storages of each core are, by index: partition and byte."""
        return [placement.addresses for placement in self.placements]


class Cache:
    """Prepared calls by key, the least recently used dropped first."""

    def __init__(self, limit: int = _LIMIT):
        self._limit = limit
        self._kept: OrderedDict[Key, Prepared] = OrderedDict()
        self._read: dict[FunctionType, list[Snapshot]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Prepared | None:
        """What is kept under `key`, if its function still reaches the code it reached then.

        Raises:
            NkiError: NKI-L054, a value that the kernel read from outside has changed.
        """
        function = key[0]
        for snapshot in tuple(self._read.get(function, ())):
            if not snapshot.same():
                if not snapshot.is_code:
                    raise snapshot.changed(function.__name__)
                self.forget(function)
                return None
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Key, prepared: Prepared) -> None:
        """Keep `prepared` under `key`."""
        with self._lock:
            self._kept[key] = prepared
            self._remember(key[0], prepared.specialized[0].reads)
            if len(self._kept) > self._limit:
                oldest = next(iter(self._kept))[0]
                self._kept.popitem(last=False)
                if not any(other[0] is oldest for other in self._kept):
                    self._read.pop(oldest, None)

    def _remember(self, function: FunctionType, reads: Iterable[Read]) -> None:
        known = self._read.setdefault(function, [])
        have = {snapshot.place for snapshot in known}
        known += [made for made in map(Snapshot, reads) if made.place not in have]

    def forget(self, function: FunctionType) -> None:
        """Drop all that is kept of `function`."""
        with self._lock:
            self._read.pop(function, None)
            for key in [key for key in self._kept if key[0] is function]:
                del self._kept[key]
