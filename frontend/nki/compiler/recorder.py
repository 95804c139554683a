"""Collects a Program while a kernel is specialized.

One :class:`Recorder` is current at a time; ``nki.isa`` and ``nki.language`` reach
it through :func:`current`. It numbers storages and registers, keeps the nesting of
device loops, attaches the user's call stack to everything, and gathers the
constraint errors of every instruction so that one run reports all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import CodeType, FrameType, TracebackType
from typing import Any

from nki_isa.diagnostics import Collector, Frame, NkiError, Severity, Span, error
from nki_isa.dtypes import DType
from nki_isa.instruction import Instruction
from nki_isa.program import Loop, Node, Program, While
from nki_isa.target import Target
from nki_isa.tensor import MemoryRegion, NkiTensor, Storage, VirtualRegister

# Code objects made from kernel source: only their frames are the user's.
KERNEL_CODES: dict[CodeType, str] = {}
_FRAMES: dict[tuple[CodeType, int], Frame] = {}

_current: Recorder | None = None


def current() -> Recorder:
    """The recorder of the kernel being specialized; NKI-L029 outside of one."""
    if _current is None:
        raise error(
            "NKI-L029",
            "a device operation was called outside of a kernel",
            help="put it in a function decorated with @nki.jit and call that function with arrays",
        )
    return _current


def is_recording() -> bool:
    """True while a kernel is being specialized."""
    return _current is not None


def _frame(code: CodeType, instruction_offset: int) -> Frame:
    key = (code, instruction_offset)
    found = _FRAMES.get(key)
    if found is None:
        line, end_line, column, end_column = _position(code, instruction_offset)
        span = Span(code.co_filename, line, column + 1, end_line, end_column + 1)
        found = _FRAMES[key] = Frame(KERNEL_CODES[code], span)
    return found


def _position(code: CodeType, offset: int) -> tuple[int, int, int, int]:
    """(line, end line, column, end column), columns from 0, of one bytecode of `code`."""
    if hasattr(code, "co_positions"):  # Python 3.11 and later
        for index, position in enumerate(code.co_positions()):
            if index == offset // 2:
                line, end_line, column, end_column = position
                if line is not None and end_line is not None:
                    return line, end_line, column or 0, end_column or 0
    line = code.co_firstlineno
    for start, end, at in code.co_lines():
        if start <= offset < end and at is not None:
            line = at
    return line, line, 0, 0


def stack_of(frame: FrameType | None) -> tuple[Frame, ...]:
    """The user's calls that lead to `frame`, outermost first."""
    found: list[Frame] = []
    while frame is not None:
        if frame.f_code in KERNEL_CODES:
            found.append(_frame(frame.f_code, frame.f_lasti))
        elif frame.f_code is ENTRY:
            break
        frame = frame.f_back
    found.reverse()
    return tuple(found)


def stack_of_traceback(traceback: TracebackType | None) -> tuple[Frame, ...]:
    """The user's calls through which an exception came, outermost first."""
    found: list[Frame] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code in KERNEL_CODES:
            found.append(_frame(code, traceback.tb_lasti))
        traceback = traceback.tb_next
    return tuple(found)


def enter(recorder: Recorder, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `function` with `recorder` current; the outermost frame a stack shows is inside it."""
    global _current
    before, _current = _current, recorder
    try:
        return function(*args, **kwargs)
    finally:
        _current = before


ENTRY = enter.__code__


class Recorder:
    """The Program under construction.

    Attributes:
        program: what has been emitted so far.
        target: the generation it is specialized for.
        grid: number of SPMD programs the kernel is launched with.
        program_id: which of them this is.
        collector: constraint errors found so far.
    """

    def __init__(self, name: str, target: Target, grid: int = 1, program_id: int = 0):
        self.program = Program(name, target.name)
        self.target = target
        self.grid = grid
        self.program_id = program_id
        self.collector = Collector()
        self._body: list[Node] = self.program.body
        self._open: list[Loop | While] = []
        self._reported: set[tuple[str, Span | None]] = set()

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
    ) -> NkiTensor:
        """A new storage and the view of all of it."""
        storages = self.program.storages
        index = len(storages)
        stack = stack_of(sys._getframe(1)) if kind == "local" else ()
        storage = Storage(index, name or f"{region.value}{index}", region, shape, dtype, address, kind, stack, data)
        storages.append(storage)
        return NkiTensor.whole(storage)

    def new_register(self, frozen: bool = False) -> VirtualRegister:
        """A new 32-bit register."""
        index = self.program.registers
        self.program.registers = index + 1
        return VirtualRegister(index, frozen)

    # --- instructions

    def emit(self, instruction: Instruction) -> Instruction:
        """Check `instruction` and append it; its errors are kept, not raised, so the rest is checked too."""
        instruction.stack = stack_of(sys._getframe(1))
        try:
            instruction.check(self.target)
            instruction.specialize(self)
        except NkiError as found:
            self.report(found.at(instruction.stack[-1].span if instruction.stack else None, instruction.stack))
        self._body.append(instruction)
        return instruction

    def report(self, found: NkiError) -> None:
        """Keep the diagnostics of `found`, once for each line and code."""
        for diagnostic in found.diagnostics:
            key = (diagnostic.code, diagnostic.span)
            if key not in self._reported:
                self._reported.add(key)
                self.collector.add(diagnostic)

    def warn(self, found: NkiError) -> None:
        """Keep the diagnostics of `found` as warnings at the user's present line."""
        stack = stack_of(sys._getframe(1))
        span = stack[-1].span if stack else None
        for diagnostic in found.at(span, stack).diagnostics:
            self.collector.add(replace(diagnostic, severity=Severity.warning))

    # --- loops on the device

    def loop(self, start: int | VirtualRegister, stop: int | VirtualRegister, step: int) -> Iterator[VirtualRegister]:
        """Record the body of a counted loop once; yields its induction variable."""
        index = self.new_register(frozen=True)
        yield from self._region(Loop(index, start, stop, step, [], stack_of(sys._getframe(1))), index)

    def while_(self, condition: VirtualRegister) -> Iterator[VirtualRegister]:
        """Record the body of a register-conditioned loop once."""
        yield from self._region(While(condition, [], stack_of(sys._getframe(1))), condition)

    def _region(self, region: Loop | While, value: VirtualRegister) -> Iterator[VirtualRegister]:
        outer = self._body
        outer.append(region)
        self._open.append(region)
        self._body = region.body
        finished = False
        try:
            yield value
            finished = True
        finally:
            self._body = outer
            self._open.pop()
            if not finished and sys.exc_info()[0] is GeneratorExit:
                self.report(
                    error(
                        "NKI-L014",
                        "a loop that runs on the device was left with break or return",
                        help="device loops run their whole body; end a while loop by loading 0 into its register",
                    ).at(region.stack[-1].span if region.stack else None, region.stack)
                )

    @property
    def in_device_loop(self) -> bool:
        """True inside the body of a loop that runs on the device."""
        return bool(self._open)
