"""Runs a placed Program on bytes.

Every instruction is planned once, when its region is first entered: static
operands are bound to numpy views of the memory then, so that the body of a loop
repeats with nothing but the numerics. Instructions run one after the other in
the user's order, which is what the hardware's semaphores make of any correct
schedule; an instruction reads all its inputs before it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Frame, NkiError, error, span_of
from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.dtypes import DType, cast, is_plain
from nki_isa.machine.enums import Engine, oob_mode
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.matrices import OwnMatrices, SharedMatrices
from nki_sim.execution.memory import (
    INDIRECTION_GROUP,
    TENSOR_INDIRECTION_GROUP,
    ZEROS,
    Addresses,
    Memory,
    write,
)
from nki_sim.execution.together import Step, Steps, together
from nki_sim.observe import Listener, hooks
from nki_sim.process import positive_setting

Array = NDArray[Any]
#: The environment's limit of turns.
MAX_TURNS = "NKI_SIM_MAX_TURNS"
_Input = tuple[Any, bool]  # (the value, False) or (the function that gives it, True)
_Put = Callable[[Any], None]


@dataclass(slots=True)
class EngineState:
    """What instructions leave behind in engines, outside of the memories.

    Attributes:
        target: the generation that runs.
        accumulators: the accumulator registers of an engine, one float32 per partition.
        rng: states of the random number generators, by engine; the instructions define them.
        arguments: is told the arguments of every activation function that has a valid range.
        rank: the rank of the launch that the core belongs to.
        silent: True where a run is repeated to look into it: what it prints was printed.
    """

    target: Target
    accumulators: dict[Engine, Array] = field(default_factory=dict)
    rng: dict[Engine, Any] = field(default_factory=dict)
    arguments: Callable[[Instruction, Operator, Array], None] | None = None
    silent: bool = False
    rank: int = 0

    def __post_init__(self) -> None:
        for engine in (Engine.vector, Engine.scalar, Engine.gpsimd):
            self.accumulators[engine] = np.zeros(self.target.partitions, np.float32)

    def reset(self) -> None:
        """Back to the state before the first instruction."""
        self.rng.clear()
        for lanes in self.accumulators.values():
            lanes.fill(0)


@dataclass(slots=True)
class Skipped:
    """What the instructions of a line with ``oob_mode.skip`` left out, over all their turns.

    Attributes:
        instruction: the first of them.
        skipped: rows that an index out of bounds left out; whole transfers, for scalar offsets.
        total: how many there were.
    """

    instruction: Instruction
    skipped: int = 0
    total: int = 0

    def __str__(self) -> str:
        vector = any(_is_vector(t) for t in (*self.instruction.reads, *self.instruction.writes))
        place = f"{self.instruction.stack[-1].span}: " if self.instruction.stack else ""
        return (
            f"{place}{self.instruction.opcode} skipped {self.skipped:,} of {self.total:,} "
            f"{'rows' if vector else 'transfers'}, whose run-time index is out of bounds (oob_mode.skip)"
        )


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What a Program gave.

    Attributes:
        outputs: a copy of each output, in order.
        updated_inputs: (position, array) of each input the Program writes: a kernel that updates an
            argument in place returns nothing for it, so the caller copies these back.
        instructions: number of instructions executed.
        skipped: what each line with ``oob_mode.skip`` left out, of those that left out something.
    """

    outputs: list[Array]
    updated_inputs: list[tuple[int, Array]]
    instructions: int
    skipped: tuple[Skipped, ...] = ()


def max_turns() -> int:
    """The turns that the device loops of a run may take: ``$NKI_SIM_MAX_TURNS``, or the default.

    Raises:
        NkiError: NKI-L032 for a setting that is not a positive number.
    """
    return positive_setting(MAX_TURNS, 300_000)


def written_inputs(*programs: Program) -> tuple[int, ...]:
    """The positions of the inputs that any of the Programs of a launch writes."""
    found: set[int] = set()
    for program in programs:
        written: set[Storage] = set()
        forms: dict[Any, bool] = {None: True}  # which may write inputs: what memory they write they all say
        for instruction in program.walk():
            form = instruction.form
            if form not in forms:
                forms[form] = any(tensor.storage.kind == "input" for tensor in form.sample.writes)
            if forms[form]:
                written |= {tensor.storage for tensor in instruction.writes}
        found |= {i for i, tensor in enumerate(program.inputs) if tensor.storage in written}
    return tuple(sorted(found))


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
        self.skipped: dict[Hashable, Skipped] = {}  # by line
        self._loops = any(not isinstance(node, Instruction) for node in program.body)
        self._most = self._turns = 0  # that loops may take, and that are left of these
        self._multiplies = any(i.on is Engine.tensor for i in program.walk())
        self._matrices: list[SharedMatrices] = []
        self._own = OwnMatrices(self.memory)
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
        self._output(tensor, INDIRECTION_GROUP)(values)

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
                steps.append((self._step(node, matrices), node))
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
        step_of = partial(self._step, matrices=None)
        for plan in plans:
            if type(plan) is _Stretch:
                plan.together = together(plan.steps, self.memory, self._placement, step_of)
            elif isinstance(plan, (_LoopPlan, _WhilePlan)):
                self._bring_together(plan.body)

    def _step(self, instruction: Instruction, matrices: SharedMatrices | None) -> Step:
        """What runs `instruction` once, among others whose operands it may share."""
        kind = type(instruction)
        works_in_place = kind.in_place is not Instruction.in_place and kind.compute is kind.stands_for
        if works_in_place and not _indirect(instruction):
            (destination,) = instruction.writes
            operands = matrices or self._own
            works = instruction.in_place(operands.view(destination), operands)
            if works is not None:
                return works
        inputs, outputs = self._operands(instruction)
        compute = instruction.compute
        if instruction.stateful:
            compute = partial(compute, self.state)
        if instruction.__dict__.get("oob_mode") is oob_mode.skip and _indirect(instruction):
            return partial(self._skipping, instruction, compute)
        arguments = [value for value, is_dynamic in inputs]
        if not any(is_dynamic for _, is_dynamic in inputs):
            if len(outputs) == 1:
                put = outputs[0]
                return lambda: put(compute(*arguments))
            return lambda: _put_all(outputs, compute(*arguments))

        def step() -> None:
            values = [value() if is_dynamic else value for value, is_dynamic in inputs]
            results = compute(*values)
            if len(outputs) == 1:
                outputs[0](results)
            else:
                _put_all(outputs, results)

        return step

    def _operands(self, instruction: Instruction) -> tuple[list[_Input], list[_Put]]:
        """Inputs, and what takes each output."""
        inputs: list[_Input] = []
        outputs: list[_Put] = []
        group = TENSOR_INDIRECTION_GROUP if instruction.on is Engine.tensor else INDIRECTION_GROUP
        values = instruction.__dict__
        for name, description in instruction.fields.items():
            role = description.role
            if role is Role.attribute:
                continue
            value = values[name]
            if role is Role.register_write:
                registers = self.memory.registers
                put = registers.__setitem__ if instruction.keeps_width else partial(_put_register, registers)
                outputs.append(partial(put, value.index))
                continue
            if role is not Role.write:
                inputs.append(self._input(value, group))
            if role is Role.write or role is Role.read_write:
                outputs.append(
                    _put_nothing if value is None else self._output(instruction.destination(value), group)
                )
        return inputs, outputs

    def _input(self, value: Any, group: int) -> _Input:
        if isinstance(value, NkiTensor):
            if value.dynamic is not None:
                return partial(self.memory.bind, value, group), True
            return self.memory.view(value), False
        if isinstance(value, VirtualRegister):
            return partial(self.memory.registers.__getitem__, value.index), True
        if isinstance(value, (list, tuple)):
            parts = [self._input(v, group) for v in value]
            if any(is_dynamic for _, is_dynamic in parts):
                return lambda: [v() if is_dynamic else v for v, is_dynamic in parts], True
            return [v for v, _ in parts], False
        return value, False

    def _output(self, tensor: NkiTensor, group: int) -> _Put:
        if tensor.dynamic is not None:
            return partial(self._put_dynamic, tensor, group)
        view, dtype = self.memory.view(tensor), tensor.dtype
        return partial(_put_as_is if is_plain(dtype) else _put, view, dtype)

    def _put_dynamic(self, tensor: NkiTensor, group: int, result: Any) -> None:
        self.memory.store(tensor, _stored(result, tensor.dtype, tensor.shape), None, group)

    # --- out-of-bounds accesses that are skipped

    def _skipping(self, instruction: Any, compute: Callable[..., Any]) -> None:
        """Run a DMA whose out-of-bounds part does not happen (``oob_mode.skip``).

        A scalar offset out of bounds skips the transfer, an index of a vector its row. `instruction.route`
        says where in the destination each source element goes.
        """
        memory = self.memory
        self._count_skipped(instruction)
        arguments: list[Any] = []
        where: Array | None = None
        for description, value in instruction.operands():
            if description.role is Role.write:
                continue
            tensors = value if description.role is Role.reads else (value,)
            arrays = []
            for tensor in tensors:
                if _is_vector(tensor):
                    array, inside = memory.gather(tensor, skip=True)
                    if inside is not None:  # an instruction gathers one source at most
                        where = instruction.route(inside)
                elif memory.scalar_shift(tensor) is None:
                    return
                else:
                    array = memory.bind(tensor)
                arrays.append(array)
            arguments.append(arrays if description.role is Role.reads else arrays[0])
        dst = instruction.dst
        if dst.dynamic is not None and not _is_vector(dst) and memory.scalar_shift(dst) is None:
            return
        values = _stored(compute(*arguments), dst.dtype, dst.shape)
        if _is_vector(dst):
            memory.scatter(dst, values, where, skip=True)
        else:
            memory.store(dst, values, where)

    def _count_skipped(self, instruction: Instruction) -> None:
        dynamic = [t for t in (*instruction.reads, *instruction.writes) if t.dynamic is not None]
        outside = np.zeros(1, np.bool_)
        for mask in map(self.memory.outside, dynamic):
            if mask.size == outside.size or 1 in (mask.size, outside.size):
                outside = outside | mask
        line = instruction.opcode, (instruction.stack[-1].span if instruction.stack else instruction)
        counted = self.skipped.setdefault(line, Skipped(instruction))
        counted.skipped += int(np.count_nonzero(outside))
        counted.total += outside.size


def interrupted_at(stopped: KeyboardInterrupt, stack: Sequence[Frame]) -> KeyboardInterrupt:
    """`stopped` with a text that says which line of a kernel was running, unless it has one."""
    if not stopped.args and stack:
        frame = stack[-1]
        stopped.args = (f"{frame.function} was at {frame.span.file}:{frame.span.line}",)
    return stopped


def _is_vector(tensor: NkiTensor) -> bool:
    return tensor.dynamic is not None and tensor.dynamic.kind == "vector"


def _is_whole(tensor: NkiTensor) -> bool:
    """True for all of an HBM storage, in order."""
    storage = tensor.storage
    octets = tensor.size * tensor.dtype.itemsize
    return storage.region.is_hbm and octets == storage.row_bytes and tensor.is_contiguous()


def _indirect(instruction: Instruction) -> bool:
    if instruction.form is not None:
        return not instruction.form.is_plain
    return any(t.dynamic is not None for t in (*instruction.reads, *instruction.writes))


def _placed(found: NkiError, instruction: Instruction | None) -> NkiError:
    if instruction is None or not instruction.stack:
        return found
    return found.at(instruction.stack[-1].span, instruction.stack)


def _stored(result: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """`result` as it is stored in a tensor of `dtype` and `shape`."""
    values = cast(np.asarray(result), dtype)
    return values if values.shape == shape or values.size == 1 else values.reshape(shape)


def _put_as_is(view: Array, dtype: DType, result: Any) -> None:
    """As :func:`_put`, where a value of the array's data type is stored as it is."""
    if isinstance(result, np.ndarray) and result.dtype == view.dtype:
        np.copyto(
            view, result if result.shape == view.shape or result.size == 1 else result.reshape(view.shape)
        )
    else:
        _put(view, dtype, result)


def _put(view: Array, dtype: DType, result: Any) -> None:
    write(view, _stored(result, dtype, view.shape), None)


def _put_register(registers: list[int], index: int, result: Any) -> None:
    """Keep the low 32 bits, as a signed number."""
    registers[index] = ((int(result) + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _put_nothing(result: Any) -> None:
    """An optional output the user left out."""


def _put_all(outputs: list[_Put], results: Any) -> None:
    """Store several results; those that are views of inputs are copied before the first is written."""
    if not outputs:
        return
    kept = [np.array(r) if isinstance(r, np.ndarray) and r.base is not None else r for r in results]
    for put, result in zip(outputs, kept, strict=True):
        put(result)
