"""Collects a Program while a kernel is specialized.

One :class:`Recorder` is current at a time in each thread or task; ``nki.isa`` and ``nki.language`` reach
it through :func:`current`. It numbers storages and registers, keeps the nesting of
device loops, attaches the user's call stack to everything, and gathers the
constraint errors of every instruction so that one run reports all of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from operator import attrgetter
from types import FunctionType
from typing import Any

from nki import levels
from nki.compiler.specializer import steps
from nki.compiler.specializer.scalars import computed
from nki.compiler.specializer.schedule import Edge, Schedule, apply_schedule
from nki.compiler.specializer.stacks import calls_of, is_kernel_frame, stack_at, stack_of
from nki.compiler.specializer.variables import variable_of
from nki_isa.constraints.accumulation import WrittenParts
from nki_isa.diagnostics import Collector, Diagnostic, Frame, Label, NkiError, Severity, Span, error, span_of
from nki_isa.ir.form import Forms
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.dtypes import DType
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.rules import Rule, memory, programs, rule_of
from nki_isa.tensor.opaque import tolerating
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister, computing
from nki_isa.tensor.strides import contiguous_strides
from nki_isa.tensor.tensor import NkiTensor, assigning
from nki_sim.placement.place import check_alone

_SCALAR = Engine.scalar
_MOST_INSTRUCTIONS = 5_000_000  # of a compiled graph (rules.programs.PROGRAM_SIZE)
_MOST_TABLES = 8  # of activation functions in one set

_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def current() -> Recorder:
    """The recorder of the kernel being specialized; NKI-L029 outside of one."""
    recorder = _current.get()
    if recorder is None:
        raise error(
            "NKI-L029",
            "a device operation was called outside of a kernel",
            help="put it in a function decorated with @nki.jit and call that function with arrays",
        )
    return recorder


def is_recording() -> bool:
    """True while a kernel is being specialized."""
    return _current.get() is not None


def current_or_none() -> Recorder | None:
    """As :func:`current`, None outside of a kernel."""
    return _current.get()


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """`recorder` is current inside the block."""
    token = _current.set(recorder)
    try:
        with (
            tolerating(recorder.tolerate),
            assigning(recorder.assign),
            computing(partial(computed, recorder)),
            levels.refusing_members(is_kernel_frame),
        ):
            yield
    finally:
        _current.reset(token)


class Recorder:
    """The Program under construction.

    Attributes:
        program: what has been emitted so far.
        target: the generation it is specialized for.
        grid: number of SPMD programs the kernel is launched with.
        program_id: which of them this is.
        strict: refuse what published kernels do and the documentation does not allow.
        prints: ``print`` of a tensor shows its values while the kernel runs.
        arrays: what the call hands in, for each of the program's inputs.
        collector: constraint errors found so far.
        steps: what is left of the steps that the kernel may take.
        multiplied: what matmuls have written, by the index of a storage.
        emitted: how many instructions there are, refused ones included.
        collectives: those emitted so far.
        prepared: the preparation of a collective that waits for its trigger, and the device loop it is in.
        forms: those of its instructions.
        is_newest: True at the newest API level.
        inline: while tracing, gives the function of a kernel that the kernel calls.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        grid: int = 1,
        program_id: int = 0,
        *,
        strict: bool = False,
        prints: bool = False,
    ):
        self.program = Program(name, target.name)
        self.strict = strict
        self.prints = prints
        self.target = target
        self.grid = grid
        self.program_id = program_id
        self.arrays: list[Any] = []
        self.collector = Collector()
        self.steps = steps.steps()
        self.multiplied: dict[int, WrittenParts] = {}
        self.emitted = 0
        self.collectives: list[Instruction] = []
        self.prepared: tuple[Any, Loop | While | None] | None = None
        self.inline: Callable[[Any], FunctionType] | None = None
        self._body: list[Node] = self.program.body
        self._open: list[Loop | While] = []
        self._scopes: dict[Loop | While, range] = {}  # the storages allocated in each body that is a function
        self._outside: list[int] = []  # for each open region, how many storages there were before it
        self._reported: set[tuple[str, Span | None]] = set()
        self._left: list[Loop | While] = []  # loops left with break or return
        self.forms = Forms(target)
        self.is_newest = levels.current() == levels.NEWEST
        self._instructions = steps.by_instruction(self.steps)
        self._strides: dict[tuple[Any, ...], tuple[int, ...]] = {}  # of tensors that fit in their memory
        self._named: dict[str, int] = {}  # how many tensors have been called after each variable
        self._given: dict[str, tuple[Frame, ...]] = {}  # names given with name=, and where first
        self._edges: list[Edge] = []
        self._no_reorder = 0  # how many no_reorder blocks are open
        self._before: Instruction | None = None  # the last instruction of the open no_reorder block

    # --- memory

    def allocate(
        self,
        shape: tuple[int, ...],
        dtype: DType,
        region: MemoryRegion,
        name: str = "",
        address: tuple[int, int] | None = None,
        kind: str = "local",
        data: bytes | None = None,
        part: str = "",
    ) -> NkiTensor:
        """A new storage and the view of all of it.

        Args:
            name: the user's name for it. Without one it is called after the variable it is assigned to,
                with ``#2``, ``#3``, ... from the second tensor of that variable on, and where there is no
                variable after its memory and number.
            part: for a tensor that is only a step towards what the user assigns: what it holds.

        Raises:
            NkiMemoryError: NKI-M003, it is larger than its memory; NKI-M004, its address is not in it.
        """
        storages = self.program.storages
        index = len(storages)
        calls = calls_of(sys._getframe(2))  # the user's code calls neither this nor what calls it
        stack = stack_at(calls) if kind == "local" else ()
        given = bool(name)
        if not given:
            variable = variable_of(calls)
            name = f"{variable}:{part}" if variable and part else variable or part or f"{region.value}{index}"
            count = self._named[name] = self._named.get(name, 0) + 1
            if count > 1:
                name = f"{name}#{count}"
        storage = Storage(index, name, region, shape, dtype, address, kind, stack, data)
        strides = self._strides.get((shape, id(dtype), id(region)))
        if strides is None or address is not None:
            check_alone(storage, self.target)
            if address is not None and not storage.on_chip:
                self._check_apart(storage)
            strides = self._strides[shape, id(dtype), id(region)] = contiguous_strides(shape)
        storages.append(storage)
        if given and kind == "local":
            self._name(name, "tensor", stack)
        return NkiTensor(shape, strides, 0, dtype, storage)

    def _check_apart(self, storage: Storage) -> None:
        """Refuse a tensor in HBM whose addresses overlap those of another: not modelled (NKI-U011)."""
        first = storage.address[1] if storage.address else 0
        for other in self.program.storages:
            if other.address is None or other.region is not storage.region:
                continue
            start = other.address[1]
            if first < start + other.row_bytes and start < first + storage.row_bytes:
                raise error(
                    "NKI-U011",
                    f"{storage.name}, at byte {first} of {storage.region.value}, overlaps {other.name}",
                    help="give it an address of its own: tensors that share bytes of HBM are not modelled",
                )

    def new_register(self, frozen: bool = False) -> VirtualRegister:
        """A new 32-bit register."""
        index = self.program.registers
        self.program.registers = index + 1
        return VirtualRegister(index, frozen, stack_of(sys._getframe(1)))

    def share(self, storage: Storage) -> None:
        """Move `storage` to HBM that the cores share."""
        if storage.region is not MemoryRegion.shared_hbm:
            storage.region = MemoryRegion.shared_hbm
            for instruction in self.program.walk():  # their forms say where it was
                instruction.form = None

    # --- instructions

    def emit(
        self,
        instruction: Instruction,
        notes: Callable[[], tuple[str, ...]] = tuple,
        call: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Instruction:
        """Check `instruction` and append it; its errors are kept, not raised, so the rest is checked too.

        Args:
            instruction: one that has a form was made like others that were checked.
            notes: asked for more to say of an instruction that is refused.
            call: the arguments that it was made of, for others to be made like it.
        """
        next(self._instructions)
        self.emitted += 1
        instruction.stack = stack_at(calls_of(sys._getframe(2)))  # as in :meth:`allocate`
        try:
            if instruction.form is None:
                self._check(instruction, notes)
                if call is not None:
                    self.forms.keep(instruction, *call)
            instruction.specialize(self)
            if instruction.settles:
                self.forms.settle(instruction)
        except NkiError as found:
            self.report(found.at(span_of(instruction.stack), instruction.stack))
        if instruction.misfits:  # nothing else can be asked of it
            return instruction
        if instruction.name:
            self._name(instruction.name, instruction.opcode, instruction.stack)
        self._body.append(instruction)
        if self._no_reorder:
            if self._before is not None:
                instruction.after = (self._before,)
            self._before = instruction
        return instruction

    def _check(self, instruction: Instruction, notes: Callable[[], tuple[str, ...]]) -> None:
        try:
            remarks = self.forms.check(instruction)
        except NkiError as found:
            more = notes()
            raise NkiError(replace(d, notes=(*d.notes, *more)) for d in found.diagnostics) from None
        for remark in remarks:
            self._remark(remark, instruction.stack)

    def _name(self, name: str, what: str, stack: tuple[Frame, ...]) -> None:
        """Say that `name`, given to an instruction or a tensor, was given before."""
        before = self._given.get(name)
        if before is None:
            self._given[name] = stack
            return
        span = span_of(stack)
        where = (
            f", at {before[-1].span}" if before and before[-1].span != span else ", in another turn of a loop"
        )
        self.tell(
            programs.NAME_TWICE,
            f"name={name!r} of this {what} was given before{where}",
            help='give each its own name, in a loop with the turn in it: name=f"load_{i}"',
            span=span,
        )

    def is_named(self, storage: Storage) -> bool:
        """True if the kernel gave `storage` its name, or the caller did."""
        return storage.kind != "local" or storage.name in self._given

    def report(self, found: NkiError) -> None:
        """Keep the diagnostics of `found`, once for each line and code."""
        for diagnostic in found.diagnostics:
            key = (diagnostic.code, diagnostic.span)
            if key not in self._reported:
                self._reported.add(key)
                self.collector.add(diagnostic)

    def tell(self, row: Rule, message: str, *, help: str, span: Span | None = None) -> None:
        """Keep a finding about `row`, at `span` or the user's present line, as severe as the row is sure."""
        severity = self._severity(row)
        earlier = levels.taken_before(row.level) if severity is Severity.error else ()
        found = Diagnostic(
            row.code,
            message,
            span,
            help,
            (f"rule: {row.sentence}", f"source: {row.evidence}", *earlier),
            severity=severity,
            known=row.name,
        )
        if row.on(self.target.name):
            self._remark(found, stack_of(sys._getframe(1)))

    def _severity(self, row: Rule) -> Severity:
        tolerated = row.tolerated and not self.strict
        return Severity.warning if tolerated else row.standing.severity or Severity.note

    def _remark(self, found: Diagnostic, stack: tuple[Frame, ...]) -> None:
        row = rule_of(found.code, found.known)
        if row is None or levels.among(row.level, row.until):
            self.report(NkiError([found.at(span_of(stack), stack)]))

    def warn(self, found: NkiError) -> None:
        """Keep the diagnostics of `found` as warnings at the user's present line, once for each line."""
        stack = stack_of(sys._getframe(1))
        span = span_of(stack)
        self.report(
            NkiError(replace(d, severity=Severity.warning) for d in found.at(span, stack).diagnostics)
        )

    def tolerate(self, refused: NkiError) -> bool:
        """True, with a warning: published kernels do this, and it is known what the device does.

        The truth value of a tensor is one such thing: the tensor is there, so it is true.

        Raises:
            NkiError: `refused`, in the strict profile.
        """
        if self.strict:
            raise refused
        self.warn(refused)
        return True

    def assign(self, view: NkiTensor, value: NkiTensor) -> None:
        """``view[...] = value``: a copy, by DMA where one of the two is in HBM."""
        opcode = "dma_copy" if view.buffer.is_hbm or value.buffer.is_hbm else "tensor_copy"
        self.emit(REGISTRY[opcode](view, value))

    # --- collectives in two halves

    def prepare(self, instruction: Any) -> None:
        """`instruction` prepares a collective, for which there is one place.

        Raises:
            NkiError: NKI-V155, the one before was not triggered.
        """
        if self.prepared is not None:
            raise self.untriggered(instruction)
        self.prepared = instruction, self._loop

    def trigger(self, instruction: Any) -> None:
        """`instruction` triggers what was prepared.

        Raises:
            NkiError: NKI-V155, that was triggered before, or is in another device loop.
        """
        prepared, self.prepared = self.prepared, None
        if prepared is None or prepared[0].descriptors.storage is not instruction.prepare_instr.storage:
            raise error(
                "NKI-V155",
                f"{instruction.opcode}: what it triggers was triggered before",
                help="prepare again before each trigger",
            )
        if prepared[1] is not self._loop:
            raise error(
                "NKI-V155",
                f"{instruction.opcode}: it and what prepares it are not in the same device loop",
                help="prepare and trigger in the same turn of a loop",
            )

    def untriggered(self, later: Any = None) -> NkiError:
        """The error that nothing triggers what was prepared, before another preparation or at all."""
        assert self.prepared is not None
        first = self.prepared[0]
        where = f", at {first.stack[-1].span}" if later is not None and first.stack else ""
        told = (
            f"{later.opcode}: {first.opcode}{where}, waits for its trigger"
            if later is not None
            else (f"{first.opcode}: nothing triggers it")
        )
        return error(
            "NKI-V155",
            told,
            help=f"write nki.collectives.{first.trigger}(prepared) before the "
            "next preparation and before the kernel ends",
        )

    @property
    def _loop(self) -> Loop | While | None:
        return self._open[-1] if self._open else None

    # --- scheduling

    @contextlib.contextmanager
    def no_reorder(self) -> Iterator[None]:
        """Instructions emitted inside the block follow one another, in called functions too."""
        self._no_reorder += 1
        try:
            yield
        finally:
            self._no_reorder -= 1
            if not self._no_reorder:
                self._before = None

    def depends_on(self, consumer: Instruction, producers: tuple[Instruction, ...]) -> None:
        """`consumer` runs after each of `producers`; settled by :meth:`finish`."""
        stack = stack_of(sys._getframe(1))
        self._edges += [Edge(consumer, producer, stack) for producer in producers]

    # --- loops on the device

    def open(self, region: Loop | While, *, scoped: bool = False) -> None:
        """Make `region` a part of the Program; what is emitted from now on is its body.

        Args:
            scoped: True for a body that is a function: tensors allocated in it end with it.

        Raises:
            NkiError: NKI-L044 in a no_reorder block.
        """
        region.stack = stack_of(sys._getframe(1))
        if self._open:
            row = programs.NESTED_LOOPS_TRN1
            self.tell(
                row if row.on(self.target.name) else programs.NESTED_LOOPS,
                "a loop that runs on the device stands in another one",
                help="unroll one of them with nl.static_range, or make one loop of both",
            )
        if self._no_reorder:
            raise error(
                "NKI-L044",
                "a loop that runs on the device stands in a no_reorder block",
                help="put `with nl.no_reorder():` inside the loop's body, or unroll it with range",
            )
        if scoped:
            self._scopes[region] = range(len(self.program.storages), sys.maxsize)
        self._body.append(region)
        self._open.append(region)
        self._outside.append(len(self.program.storages))
        self._body = region.body

    def close(self, region: Loop | While) -> None:
        """End the body of `region`; regions inside that are still open were left early."""
        while self._open:
            last = self._open.pop()
            first = self._outside.pop()
            if last in self._scopes:
                self._scopes[last] = range(first, len(self.program.storages))
            self._body = self._open[-1].body if self._open else self.program.body
            if last is region:
                return
            self._left.append(last)

    def abandon(self, region: Loop | While) -> None:
        """`region` was left before its end, by break or return or by an error on its way out."""
        if region in self._open:
            self.close(region)
            self._left.append(region)

    def loop(
        self,
        start: int | VirtualRegister,
        stop: int | VirtualRegister,
        step: int,
        scoped: bool = False,
        index: VirtualRegister | None = None,
    ) -> Iterator[VirtualRegister]:
        """Record the body of a counted loop once; yields its variable, read-only unless `scoped`.

        Args:
            scoped: as for :meth:`open`.
            index: its variable; a new register if it is None.
        """
        index = self.new_register(frozen=not scoped) if index is None else index
        region = Loop(index, start, stop, step)
        self.open(region, scoped=scoped)
        try:
            yield index
        except GeneratorExit:
            self.abandon(region)
            raise
        self.close(region)

    def _check_scopes(self, body: list[Node], inside: tuple[Node, ...]) -> None:
        """Report what instructions of `body` use of loops that they are not `inside` of (NKI-V133)."""
        closed = [made for loop, made in self._scopes.items() if loop not in inside]
        for node in body:
            if not isinstance(node, Instruction):
                self._check_scopes(node.body, (*inside, node))
            elif not node.misfits:
                for tensor in (*node.reads, *node.writes):
                    storage = tensor.storage
                    if storage.data is None and any(storage.index in made for made in closed):
                        place = span_of(node.stack)
                        self.report(_out_of_scope(storage).at(place, node.stack))

    def check_result(self, storage: Storage) -> None:
        """Refuse a result that was allocated in a loop's body function (NKI-V133)."""
        if any(storage.index in made for made in self._scopes.values()):
            raise _out_of_scope(storage).at(span_of(storage.stack), storage.stack)

    def repeats(self, storage: Storage) -> bool:
        """True if what is emitted now runs in a device loop that `storage` is allocated outside of."""
        return bool(self._outside) and storage.index < self._outside[-1]

    @property
    def in_device_loop(self) -> bool:
        """True inside the body of a loop that runs on the device."""
        return bool(self._open)

    # --- the end

    def _judge(self) -> None:
        """Say what compilers were seen to refuse of a whole program."""
        used: set[Storage] = set()
        if any(storage.address is not None for storage in self.program.storages):
            used = {t.storage for i in self.program.walk() for t in (*i.reads, *i.writes)}
        held = [s for s in self.program.storages if s.region is MemoryRegion.sbuf and s in used]
        placed = [s for s in held if s.address is not None]
        if placed and len(placed) < len(held):
            first = placed[0]
            self.tell(
                memory.MIXED_ADDRESSES,
                f"{len(placed)} of {len(held)} tensors in SBUF have addresses, {first.name} among them",
                help="give every tensor in SBUF an address, or none",
                span=span_of(first.stack),
            )
        instructions = list(self.program.walk())
        if len(instructions) > _MOST_INSTRUCTIONS:
            told = f"the program has {len(instructions):,} instructions; {_MOST_INSTRUCTIONS:,} are the most"
            self.tell(programs.PROGRAM_SIZE, told, help="use larger tiles, or a loop that runs on the device")
        forms = set(map(attrgetter("form"), instructions)) - {None}
        samples = (form.sample for form in forms)
        functions = {getattr(i.__dict__.get("op"), "table", None) for i in samples if i.on is _SCALAR}
        functions.discard(None)
        if len(functions) > _MOST_TABLES:
            names = ", ".join(sorted(map(str, functions)))
            told = f"the scalar engine uses {len(functions)} functions with tables ({names})"
            self.tell(
                programs.ACTIVATION_TABLES, told, help="build some of them from others, or split the kernel"
            )

    def finish(self, schedule: Schedule = ()) -> None:
        """Settle what depends on the whole Program: loops left open, and the order of its instructions.

        Args:
            schedule: dependencies by name, from ``kernel.with_schedule``.
        """
        while self._open:
            self.abandon(self._open[-1])
        for region in self._left:
            found = error(
                "NKI-L014",
                "a loop that runs on the device was left with break or return",
                help="device loops run their whole body; end a while loop by loading 0 into its register",
            )
            self.report(found.at(span_of(region.stack), region.stack))
        if self._scopes:
            self._check_scopes(self.program.body, ())
        if not self.collector.errors:
            self._judge()
        try:
            apply_schedule(self.program, schedule, self._edges)
        except NkiError as found:
            for diagnostic in found.diagnostics:
                self.collector.add(diagnostic)


def _out_of_scope(storage: Storage) -> NkiError:
    place = span_of(storage.stack)
    found = Diagnostic(
        "NKI-V133",
        f"{storage.name}{list(storage.shape)} is allocated in the body of a device loop and used outside",
        help=f"allocate {storage.name} before the loop, and write it in the body",
        labels=(Label(place, f"{storage.name} is allocated here, in the body"),) if place else (),
        notes=("source: NKI Migration Guides, 0.5 to 0.6, rules for migrated loops",),
    )
    return NkiError([found])
