"""Runs a placed Program on bytes.

Every instruction is bound to the memory once, when the Program first runs (:mod:`nki_sim.execution.binding`).
Instructions run one after the other in the user's order, which is what the hardware's semaphores make of any
correct schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import NkiError, error, interrupted_at, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.binding import Binder, Steps
from nki_sim.execution.engine_state import EngineState
from nki_sim.execution.matrices import SharedMatrices
from nki_sim.execution.memory import ZEROS, Addresses, Memory
from nki_sim.execution.result import ExecutionResult, written_inputs
from nki_sim.execution.skipping import Skipped, Skips
from nki_sim.execution.together import together
from nki_sim.observe import Listener, hooks
from nki_sim.process import positive_setting

Array = NDArray[Any]
#: The environment's limit of turns.
MAX_TURNS = "NKI_SIM_MAX_TURNS"


def max_turns() -> int:
    """The turns that the device loops of a run may take: ``$NKI_SIM_MAX_TURNS``, or the default.

    Raises:
        NkiError: NKI-L032 for a setting that is not a positive number.
    """
    return positive_setting(MAX_TURNS, 300_000)


@dataclass(slots=True)
class _LoopPlan:
    loop: Loop
    body: list[_Plan]


@dataclass(slots=True)
class _WhilePlan:
    loop: While
    body: list[_Plan]


@dataclass(slots=True)
class _Stretch:
    """Instructions without a loop or meeting between them, of which only the last may write registers.

    Attributes:
        steps: each with what runs it.
        together: what does the same where nobody looks on.
    """

    steps: Steps
    together: Steps


_Plan: TypeAlias = "_Stretch | _LoopPlan | _WhilePlan | Meeting"
"""A stretch, a loop, or a meeting with other cores."""


class Machine:
    """One core with a Program loaded; :mod:`nki_sim.cores.device` runs one or several.

    Args:
        repeated: True where it may run often: from the second run on it pays to look for what can be executed
            together.

    Attributes:
        program: what it runs.
        memory: the bytes and registers.
        state: what engines keep between instructions.
        executed: number of instructions run so far.
    """

    def __init__(
        self,
        program: Program,
        placement: Addresses,
        *,
        fill: int = ZEROS,
        target: Target | None = None,
        repeated: bool = False,
    ):
        target = target or as_target(program.target)
        self.program = program
        self.memory = Memory(target, program, placement, fill=fill)
        self.state = EngineState(target)
        self.executed = 0
        self._placement = placement
        self._together_in = 2 if repeated else -1  # runs until instructions are brought together
        self._loops = any(not isinstance(node, Instruction) for node in program.body)
        self._most = self._turns = 0  # that loops may take, and that are left of these
        self._multiplies = any(i.on is Engine.tensor for i in program.walk())
        self._matrices: list[SharedMatrices] = []
        self._skips = Skips(self.memory)
        self._binder = Binder(self.memory, self.state, self._skips)
        self._ahead: list[Callable[..., None]] = []  # told of an instruction before values are there
        self._before: list[Callable[..., None]] = []
        self._after: list[Callable[..., None]] = []
        self._plans: list[_Plan] | None = None  # made by the first run
        self._inputs: list[Array] = []  # views, by the first load
        self._written = written_inputs(program)
        self._results: tuple[list[Array], list[tuple[int, Array]]] | None = None  # by the first result

    def load(self, inputs: Sequence[Array]) -> None:
        """Copy `inputs` into the input storages, byte by byte.

        Raises:
            NkiInternalError: NKI-I002, their number or sizes differ from the Program's.
        """
        self._inputs = self._inputs or [self.memory.bind(tensor) for tensor in self.program.inputs]
        views = self._inputs
        if len(views) == len(inputs) and all(
            [a.dtype == v.dtype and a.shape == v.shape for a, v in zip(inputs, views, strict=True)]
        ):
            for view, array in zip(views, inputs, strict=True):
                np.copyto(view, array)
            return
        for view, octets in zip(views, self._octets(inputs), strict=True):
            view[...] = octets.view(view.dtype).reshape(view.shape)

    def borrow(self, inputs: Sequence[Array], written: tuple[int, ...]) -> None:
        """As :meth:`load`, before the first run; inputs that are not `written` are read where they are.

        Args:
            written: positions of the inputs that a Program of this or another core writes: to be copied,
                and updated in the result.

        Raises:
            NkiInternalError: NKI-I002, as :meth:`load`.
        """
        self._written = written
        for position, octets in enumerate(self._octets(inputs)):
            tensor = self.program.inputs[position]
            if position in written or not _is_whole(tensor):
                view = self.memory.bind(tensor)
                view[...] = octets.view(view.dtype).reshape(view.shape)
            else:
                octets.flags.writeable = False
                self.memory.share(tensor.storage, octets)

    def _octets(self, inputs: Sequence[Array]) -> list[Array]:
        """The bytes of each input: a view of them, or a copy where they do not lie in order."""
        expected = self.program.inputs
        if len(inputs) != len(expected):
            raise error("NKI-I002", f"{self.program.name} takes {len(expected)} inputs, it got {len(inputs)}")
        for tensor, array in zip(expected, inputs, strict=True):
            if array.nbytes != tensor.size * tensor.dtype.itemsize:
                raise error(
                    "NKI-I002",
                    f"{tensor.name} is {tensor.dtype}{list(tensor.shape)}, the array given for it "
                    f"{array.dtype}{list(array.shape)}",
                )
        return [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in inputs]

    @property
    def skipped(self) -> dict[Hashable, Skipped]:
        """What was left out, by the line that did."""
        return self._skips.by_line

    def listen(self, *told: tuple[int, Sequence[Listener]]) -> None:
        """Tell these listeners, and no others, what runs from now on.

        Args:
            told: listeners, and the number that this core has for them.
        """
        self._ahead, self._before, self._after = [], [], []
        for core, some in told:
            for one in some:
                before = self._before if one.needs_values else self._ahead
                before += [partial(hook, core) for hook in hooks([one], "before")]
                self._after += [partial(hook, core) for hook in hooks([one], "after")]

    def tell(self, instruction: Instruction) -> None:
        """Tell listeners that `instruction` is about to run: a collective, when all have met in it."""
        for told in (*self._ahead, *self._before):
            told(instruction, self.memory.registers)

    def put(self, tensor: NkiTensor, values: Array) -> None:
        """Store `values` in `tensor`, rounded to its data type."""
        self._binder.output(tensor)(values)

    def run(self) -> Iterator[Meeting]:
        """Run the Program; yields each instruction that waits for other cores: the device carries it out."""
        if self._plans is None:
            self._plans = self._plan(self.program.body)
        self._together_in -= 1
        if not self._together_in:
            self._bring_together(self._plans)
        for matrices in self._matrices:
            matrices.forget()
        self._most = self._turns = max_turns() if self._loops else 0
        yield from self._run(self._plans)

    def result(self) -> ExecutionResult:
        """Outputs and updated inputs, copied out."""
        if self._results is None:
            bind, program = self.memory.bind, self.program
            updated = [(i, bind(program.inputs[i])) for i in self._written]
            self._results = [bind(tensor) for tensor in program.outputs], updated
        outputs, updated = self._results
        return ExecutionResult(
            [view.copy() for view in outputs],
            [(i, view.copy()) for i, view in updated],
            self.executed,
        )

    # --- running

    def _run(self, plans: list[_Plan]) -> Iterator[Meeting]:
        for plan in plans:
            if type(plan) is _Stretch:
                self._run_stretch(plan)
                self.executed += len(plan.steps)
            elif isinstance(plan, Meeting):
                if not plan.listened_together:
                    self.tell(plan)
                yield plan
                for told_after in self._after:
                    told_after(plan)
                self.executed += 1
            elif type(plan) is _LoopPlan:
                registers, loop = self.memory.registers, plan.loop
                start, stop = self._integer(loop.start), self._integer(loop.stop)
                for value in range(start, stop, loop.step):
                    self._turn(loop)
                    registers[loop.index.index] = value
                    yield from self._run(plan.body)
            elif type(plan) is _WhilePlan:
                registers, condition = self.memory.registers, plan.loop.condition.index
                while registers[condition]:
                    self._turn(plan.loop)
                    yield from self._run(plan.body)

    def _run_stretch(self, stretch: _Stretch) -> None:
        instruction = None
        registers = self.memory.registers
        try:
            for told in self._ahead:
                for _, instruction in stretch.steps:
                    told(instruction, registers)
            if self._before or self._after:
                for step, instruction in stretch.steps:
                    for told in self._before:
                        told(instruction, registers)
                    step()
                    for told_after in self._after:
                        told_after(instruction)
            else:
                for step, instruction in stretch.together:  # noqa: B007 (told to the handlers)
                    step()
        except KeyboardInterrupt as stopped:
            raise interrupted_at(stopped, instruction.stack if instruction else ()) from None
        except NkiError as found:
            raise _placed(found, instruction) from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as found:
            unexpected = error("NKI-I002", f"{instruction!r} failed with {type(found).__name__}: {found}")
            raise _placed(unexpected, instruction) from found

    def _turn(self, loop: Loop | While) -> None:
        """Take one of the turns that the loops of a run have.

        Raises:
            NkiError: NKI-H014, there is none left.
        """
        self._turns -= 1
        if self._turns < 0:
            found = error(
                "NKI-H014",
                f"this loop on the device has not ended after {self._most:,} turns of all loops",
                help="change the register of its condition, or its bounds, so that it ends; for a kernel "
                f"that needs more turns, set {MAX_TURNS}={2 * self._most}",
            )
            raise found.at(span_of(loop.stack), loop.stack)

    def _integer(self, value: int | VirtualRegister) -> int:
        return self.memory.registers[value.index] if isinstance(value, VirtualRegister) else value

    # --- planning

    def _plan(self, body: list[Node], *, repeats: bool = False) -> list[_Plan]:
        """What runs `body`; `repeats` says that it is that of a loop."""
        plans: list[_Plan] = []
        steps: Steps | None = None
        matrices: SharedMatrices | None = None
        for node in body:
            if isinstance(node, Instruction):
                if isinstance(node, Meeting):
                    plans.append(node)
                    steps = None
                    continue
                if steps is None:
                    steps = []
                    plans.append(_Stretch(steps, steps))
                    matrices = SharedMatrices(self.memory) if self._multiplies and not repeats else None
                    self._matrices += [matrices] if matrices else []
                steps.append((self._binder.step(node, matrices), node))
                if matrices is not None:
                    matrices.passed(node)
                if (node.form is None or node.form.has_registers) and node.registers_written:
                    steps = None
                continue
            steps = None
            inner = self._plan(node.body, repeats=True)
            plans.append(_LoopPlan(node, inner) if isinstance(node, Loop) else _WhilePlan(node, inner))
        return plans

    def _bring_together(self, plans: list[_Plan]) -> None:
        for plan in plans:
            if type(plan) is _Stretch:
                plan.together = together(plan.steps, self.memory, self._placement, self._binder.step)
            elif isinstance(plan, (_LoopPlan, _WhilePlan)):
                self._bring_together(plan.body)


def _is_whole(tensor: NkiTensor) -> bool:
    """True for all of an HBM storage, in order."""
    storage = tensor.storage
    octets = tensor.size * tensor.dtype.itemsize
    return storage.region.is_hbm and octets == storage.row_bytes and tensor.is_contiguous()


def _placed(found: NkiError, instruction: Instruction | None) -> NkiError:
    if instruction is None or not instruction.stack:
        return found
    return found.at(instruction.stack[-1].span, instruction.stack)
