"""What does each instruction of a kernel call do, to which partitions? The call is run and looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki import runtime
from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.tensor import NkiTensor
from nki_sim import words
from nki_sim.observe import Core, Listener, Memories

if TYPE_CHECKING:
    from nki.kernel import Kernel
    from nki_isa.machine.target import Target

#: Steps kept of a call.
MOST = 1000

_VALUES = 4  # shown of a result
_NAMED = 12  # opcodes and lines, where nothing is of what was asked for


@dataclass(frozen=True)
class TensorWrite:
    """What an instruction did to one tensor.

    Attributes:
        view: the part of the tensor that it writes.
        before, after: its elements, of the shape and data type of `view`.
    """

    view: NkiTensor
    before: NDArray[Any]
    after: NDArray[Any]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """The elements with other bytes than before, of the shape of `view`."""
        old, new = (
            np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8) for values in (self.before, self.after)
        )
        return (old != new).any(axis=1).reshape(self.before.shape)

    @property
    def partitions(self) -> list[int]:
        """Partitions of the tensor in which elements changed, counted from its first; none in HBM."""
        storage = self.view.storage
        if not storage.on_chip:
            return []
        first = self.view.offset // (storage.row_bytes // self.view.dtype.itemsize)
        rows = self.changed.reshape(len(self.before), -1).any(axis=1)
        return [first + int(k) for k in np.flatnonzero(rows)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of the elements, those that are shown."""
        changed = self.changed
        return {
            "tensor": self.view.name,
            "dtype": str(self.view.dtype),
            "shape": list(self.view.shape),
            "partitions": self.partitions,
            "changed": int(changed.sum()),
            "of": int(changed.size),
            "before": [value if math.isfinite(value) else str(value) for value in _first(self.before)],
            "after": [value if math.isfinite(value) else str(value) for value in _first(self.after)],
        }

    def __str__(self) -> str:
        changed = self.changed
        where = f", partitions {_ranges(self.partitions)}" if self.partitions else ""
        shape = ", ".join(map(str, self.view.shape))
        count = f"{int(changed.sum()):,} of {changed.size:,} elements changed{where}"
        values = f"{_shown(self.before)} -> {_shown(self.after)}"
        return f"{self.view.name} {self.view.dtype}[{shape}]: {count}; {values}"


@dataclass(frozen=True)
class InstructionStep:
    """One instruction of a run.

    Attributes:
        number: its place in the run of its core, from 0.
        core: its core; over ranks, cores count through all of them.
        instruction: what ran.
        written: what it did to each tensor that it writes; left out where a run-time index skips it.
    """

    number: int
    core: int
    instruction: Instruction
    written: tuple[TensorWrite, ...]

    @property
    def place(self) -> str:
        """``file:line`` of the kernel, empty where it comes from no line."""
        return words.place(self.instruction.stack)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "number": self.number,
            "core": self.core,
            "opcode": self.instruction.opcode,
            "engine": self.instruction.on.name,
            "place": self.place,
            "operands": words.operands(self.instruction),
            "written": [one.as_dict() for one in self.written],
        }

    def __str__(self) -> str:
        head = (
            f"{self.number}  {self.instruction.opcode} on {self.instruction.on.name}  {self.place}".rstrip()
        )
        return "\n".join([head, *(f"    {one}" for one in self.written)])


@dataclass(frozen=True)
class Steps(Sequence[InstructionStep]):
    """The steps of one launch, in the order in which they ran.

    Attributes:
        kept: the steps.
        left: how many more ran, of which nothing is kept.
        others: opcodes and lines of those that were not asked for, in the order in which they ran first.
    """

    kept: list[InstructionStep] = field(default_factory=list)
    left: int = 0
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, k: Any) -> Any:
        return self.kept[k]

    def __iter__(self) -> Iterator[InstructionStep]:
        return iter(self.kept)

    def __str__(self) -> str:
        if not self.kept and not self.left and self.others:
            named = ", ".join(self.others[:_NAMED]) + (", ..." if len(self.others) > _NAMED else "")
            return f"no step is of what was asked for; there are steps of {named}"
        more = [f"{words.counted(self.left, 'step')} more"] if self.left else []
        return "\n".join([*map(str, self.kept), *more])


class Stepping(Listener):
    """Follows runs and keeps what each instruction does.

    Args:
        at: an opcode, or a line of the kernel as ``"file.py:12"`` or ``"12"``: only such steps are kept.
        most: steps kept of each launch.

    Attributes:
        launches: the steps of each launch so far.
    """

    def __init__(self, at: str | None = None, most: int = MOST):
        self.launches: list[Steps] = []
        self._at, self._most = at, most
        self._cores: Sequence[Core] = ()
        self._counts: list[int] = []
        self._before: dict[int, list[tuple[NkiTensor, NDArray[Any]]]] = {}  # of the instruction of a core
        self._kept: list[InstructionStep] = []
        self._left = 0
        self._others: dict[str, None] = {}

    def start(self, cores: Sequence[Core]) -> None:
        """Another launch."""
        self._cores, self._counts = cores, [0] * len(cores)
        self._before, self._kept, self._left, self._others = {}, [], 0, {}

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """Keep what it is about to overwrite."""
        if self._is_asked(instruction) and len(self._kept) < self._most:
            memory = self._cores[core].memory
            found = ((view, _elements(memory, view)) for view in instruction.writes)
            self._before[core] = [(view, values) for view, values in found if values is not None]

    def after(self, core: int, instruction: Instruction) -> None:
        """Keep what it wrote."""
        number = self._counts[core]
        self._counts[core] += 1
        if not self._is_asked(instruction):
            self._others[instruction.opcode] = None
            self._others.update({f"line {frame.span.line}": None for frame in instruction.stack[-1:]})
            return
        old = self._before.pop(core, None)
        if old is None:
            self._left += 1
            return
        memory = self._cores[core].memory
        found = [(view, values, _elements(memory, view)) for view, values in old]
        written = tuple(TensorWrite(view, values, new) for view, values, new in found if new is not None)
        self._kept.append(InstructionStep(number, core, instruction, written))

    def finish(self) -> None:
        """The launch is over."""
        self.launches.append(Steps(self._kept, self._left, tuple(self._others)))

    def _is_asked(self, instruction: Instruction) -> bool:
        if self._at is None or self._at == instruction.opcode:
            return True
        return any(
            self._at in (str(frame.span.line), f"{words.path(frame.span.file)}:{frame.span.line}")
            for frame in instruction.stack
        )


def step(
    kernel: Kernel,
    *args: Any,
    target: Target | str | None = None,
    at: str | None = None,
    most: int = MOST,
    **kwargs: Any,
) -> Steps:
    """Run ``kernel(*args, **kwargs)`` and keep what each instruction does.

    Args:
        target: the generation; that of the environment if it is None.
        at: an opcode, or a line of the kernel as ``"file.py:12"`` or ``"12"``: only such steps are kept.
        most: steps kept; the others are counted.

    Raises:
        NkiError: the kernel is refused.
    """
    stepping = Stepping(at, most)
    with runtime.session(target=target, check="none", listeners=(stepping,)):
        kernel(*args, **kwargs)
    return stepping.launches[-1]


def _elements(memory: Memories, view: NkiTensor) -> NDArray[Any] | None:
    """A copy of the elements of a view; None where a run-time index leaves its tensor."""
    dynamic = view.dynamic
    if dynamic is not None and dynamic.kind != "scalar":
        return memory.gather(view, skip=True)[0]
    if dynamic is not None and memory.scalar_shift(view) is None:
        return None
    return np.array(memory.bind(view))


def _first(values: NDArray[Any]) -> list[float]:
    return [float(value) for value in values.reshape(-1)[:_VALUES]]


def _shown(values: NDArray[Any]) -> str:
    more = ", ..." if values.size > _VALUES else ""
    return f"[{', '.join(f'{value:.6g}' for value in _first(values))}{more}]"


def _ranges(numbers: Sequence[int]) -> str:
    """``0 to 31, 64``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a} to {b}" if a < b else str(a) for a, b in found)


__all__ = ["MOST", "InstructionStep", "Stepping", "Steps", "TensorWrite", "step"]
