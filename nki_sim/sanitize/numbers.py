"""Where the first NaN or infinity in a result comes from.

A launch whose results are finite costs a look at each of them; so does one whose arguments held what its
results hold. Only otherwise the kernel runs once more, watched, to find the instruction that made it.

The watched run keeps, for each tensor, which instruction made the NaN or infinity in it. One that reads
what it writes hands that on; one that was given a NaN or infinity as a number means it. So what a kernel
fills a mask with, and what never reaches a result, is not reported.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nki_isa.diagnostics import Label, NkiError, Severity, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import DTYPES, DType, to_float32
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Core, Listener
from nki_sim.sanitize.check import Again, Check
from nki_sim.sanitize.findings import Findings, allocated, described, operand_of
from nki_sim.sanitize.survey import Survey


class Special(enum.Enum):
    """What a float is that is not a finite number."""

    nan = "NaN"
    infinity = "infinity"

    def among(self, values: Array) -> Array:
        """Where `values` are this."""
        return np.isnan(values) if self is Special.nan else np.isinf(values)


class Numbers(Check):
    """Looks at the results, and again at the run where they hold what no argument did."""

    name = "nan"
    finds = "where the first NaN or infinity in a result comes from that no argument held (NKI-N002)"
    codes = ("NKI-N002",)
    listed = 12
    needs_data = True

    def judge(self, result: ExecutionResult, again: Again, strict: bool) -> None:
        """Note where it comes from."""
        trace_numbers(self.scene.programs, self.scene.inputs, result, again, self.scene.findings)


def trace_numbers(
    programs: Sequence[Program],
    inputs: Sequence[Array],
    result: ExecutionResult,
    again: Again,
    findings: Findings,
) -> None:
    """Note where the first NaN or infinity of `result` that `inputs` did not hold comes from (NKI-N002).

    Args:
        programs: what each core ran.
        inputs: the arguments, as before the run.
        result: what the run gave.
        again: runs the Programs on `inputs` again, watched.
        findings: gets the note.
    """
    first = programs[0]
    results = [*zip(first.outputs, result.outputs, strict=True)]
    results += [(first.inputs[position], array) for position, array in result.updated_inputs]
    appeared = _held(results)
    if appeared:
        appeared -= _held(zip(first.inputs, inputs, strict=True))
    if appeared:
        origins = _Origins(programs, {tensor.storage for tensor, _ in results})
        again([origins])
        origins.report(appeared, findings)


def _held(arrays: Any) -> set[Special]:
    """What there is among the values of some (tensor, its array)."""
    found: set[Special] = set()
    for tensor, array in arrays:
        dtype = tensor.dtype
        if _is_float(dtype):
            values = to_float32(np.ascontiguousarray(array).view(dtype.numpy), dtype)
            if not np.isfinite(values).all():
                found |= {kind for kind in Special if kind.among(values).any()}
    return found


def _is_float(dtype: DType) -> bool:
    return dtype.kind in ("float", "packed")


@dataclass(frozen=True, slots=True)
class _Operand:
    """A tensor of an instruction and its values before that ran."""

    tensor: NkiTensor
    values: Array

    def holds(self, kind: Special) -> bool:
        """True if `kind` is among the values."""
        return bool(kind.among(self.values).any())


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """An instruction that made a NaN or infinity of other numbers.

    Attributes:
        number: which of the run it was.
        text: what it wrote where, and what it read.
    """

    number: int
    kind: Special
    instruction: Instruction
    tensor: NkiTensor
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class _Arrival:
    """What an origin made has come into a result, as `kind`, by an instruction."""

    origin: _Origin
    kind: Special
    instruction: Instruction
    storage: Storage


@dataclass(frozen=True, slots=True)
class _Pending:
    """An instruction under way: what it reads and what its destinations held."""

    instruction: Instruction
    reads: list[_Operand]
    before: list[_Operand]


class _Origins(Listener):
    """Follows NaN and infinity through the tensors of every core.

    Args:
        programs: what each core runs.
        results: the storages of core 0 that hold results.
    """

    def __init__(self, programs: Sequence[Program], results: set[Storage]):
        self._surveys = [Survey(program) for program in programs]
        self._machines: Sequence[Core] = ()
        self._keys = [_keys(survey, core) for core, survey in enumerate(self._surveys)]
        self._results = {self._keys[0][storage.index]: storage for storage in results}
        self._pending: list[_Pending | None] = [None] * len(programs)
        self._made: dict[tuple[Hashable, Special], _Origin | None] = {}
        self._arrived: list[_Arrival] = []
        self._count = 0

    def start(self, cores: Sequence[Core]) -> None:
        """Watch all cores."""
        self._machines = cores
        for core in cores:
            core.state.silent = True

    def report(self, appeared: set[Special], findings: Findings) -> None:
        """Add the note about the earliest origin of what `appeared` in a result, if there is one."""
        arrived = [one for one in self._arrived if one.kind in appeared]
        if not arrived:
            return
        first = min(arrived, key=lambda one: one.origin.number)
        origin, place = first.origin, span_of(first.instruction.stack)
        labels = list(allocated(origin.tensor.storage))
        if place is not None and first.instruction is not origin.instruction:
            labels.append(Label(place, f"it reaches {described(first.storage)} here"))
        key = ("NKI-N002",)
        findings.known(key)
        findings.add(
            key,
            "NKI-N002",
            origin.text,
            stack=origin.instruction.stack,
            labels=labels,
            help=_remedy(origin),
            severity=Severity.note,
        )

    # --- the run

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """What it reads, and what its destinations hold."""
        reads, writes = self._surveys[core].touches[instruction]
        if any(_is_float(tensor.dtype) for tensor in writes):
            operands = (self._operands(core, tensors) for tensors in (reads, writes))
            self._pending[core] = _Pending(instruction, *operands)

    def _operands(self, core: int, tensors: Sequence[NkiTensor]) -> list[_Operand]:
        found = []
        for tensor in tensors:
            values = self._values(core, tensor)
            if values is not None:
                found.append(_Operand(tensor, values))
        return found

    def _values(self, core: int, tensor: NkiTensor) -> Array | None:
        """A copy of what `tensor` holds; None for integers, and for an index that is skipped."""
        if not _is_float(tensor.dtype):
            return None
        try:
            bound = self._machines[core].memory.bind(tensor)
        except NkiError:
            return None
        return np.array(to_float32(bound, tensor.dtype))

    def after(self, core: int, instruction: Instruction) -> None:
        """What came into its destinations, and from where."""
        pending = self._pending[core]
        if pending is None:
            return
        self._pending[core] = None
        self._count += 1
        for before in pending.before:
            after = self._values(core, before.tensor)
            if after is None or np.isfinite(after).all():
                continue
            for kind in Special:
                new = kind.among(after) & ~_same(after, before.values)
                if new.any():
                    self._follow(core, pending, kind, before.tensor, new)

    def _follow(self, core: int, pending: _Pending, kind: Special, tensor: NkiTensor, new: Array) -> None:
        """`kind` came into the elements `new` of `tensor`."""
        instruction, keys = pending.instruction, self._keys[core]
        origin: _Origin | None
        if instruction.synchronises:  # another core sent it
            origin = next((one for one in reversed(self._made.values()) if one is not None), None)
        else:
            origin = self._read_from(core, pending, kind)
            handed_on = any(read.holds(kind) for read in pending.reads)
            if origin is None and not handed_on and not _is_given(instruction):
                origin = _Origin(self._count, kind, instruction, tensor, _text(pending, kind, tensor, new))
        key = keys[tensor.storage.index]
        self._made[key, kind] = origin
        if origin is not None and key in self._results:
            self._arrived.append(_Arrival(origin, kind, instruction, self._results[key]))

    def _read_from(self, core: int, pending: _Pending, kind: Special) -> _Origin | None:
        """What made the `kind` that an instruction reads, or the infinity that it makes a NaN of."""
        for looked_for in dict.fromkeys((kind, Special.infinity)):
            for read in pending.reads:
                key = self._keys[core][read.tensor.storage.index]
                origin = self._made.get((key, looked_for))
                if origin is not None and read.holds(looked_for):
                    return origin
        return None


def _keys(survey: Survey, core: int) -> dict[int, Hashable]:
    """What each storage is known as: one in shared HBM, which all cores have, by its place among these."""
    found: dict[int, Hashable] = {}
    shared = 0
    for storage in survey.program.storages:
        if storage.region is MemoryRegion.shared_hbm:
            found[storage.index] = shared
            shared += 1
        else:
            found[storage.index] = (core, survey.reread.get(storage.index, storage.index))
    return found


def _same(a: Array, b: Array) -> Array:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _is_given(instruction: Instruction) -> bool:
    """True if a number in the instruction itself is not finite: then its result is meant."""
    return any(
        isinstance(value, (float, np.floating)) and not np.isfinite(value)
        for value in instruction.__dict__.values()
    )


def _text(pending: _Pending, kind: Special, tensor: NkiTensor, new: Array) -> str:
    index = tuple(int(n) for n in np.unravel_index(int(np.argmax(new)), new.shape))
    operand = operand_of(pending.instruction, tensor, written=True)
    count = int(new.sum())
    where = str(list(index))
    if tensor.storage.on_chip:
        where = f"partition {index[0]}, element {list(index[1:])}"
    amount = f" ({count} of {new.size} elements)" if count > 1 else ""
    text = f"{pending.instruction.opcode} writes {kind.value} to {operand}, first at {where}{amount}"
    read = [_read(pending.instruction, one, new.shape, index) for one in pending.reads]
    return f"{text}; it reads {' and '.join(read)}" if read else text


def _read(instruction: Instruction, operand: _Operand, shape: tuple[int, ...], index: tuple[int, ...]) -> str:
    """An operand with its value at the element, or the range of its values."""
    name, values = operand_of(instruction, operand.tensor), operand.values
    if instruction.on is not Engine.tensor:  # which sums up partitions
        if values.shape == shape:
            return f"{name}, {values[index]:.6g} there"
        if values.size == shape[0]:
            return f"{name}, {values.reshape(-1)[index[0]]:.6g} there"
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    return f"{name}, from {low:.6g} to {high:.6g}"


def _remedy(origin: _Origin) -> str:
    dtype = origin.tensor.dtype
    if dtype.max < DTYPES["bfloat16"].max and (origin.kind is Special.infinity or dtype.bits == 8):
        return f"{dtype} holds at most {dtype.max:g}: store bfloat16 or float32, or scale it down first"
    if origin.kind is Special.infinity:
        return (
            "keep divisors and arguments of log and rsqrt above zero, for example by adding a small number, "
            "and subtract the maximum before exp"
        )
    return (
        "keep 0 / 0, infinity - infinity and 0 * infinity out, and arguments of log, sqrt and rsqrt above "
        "zero; a row masked with -infinity throughout gives NaN in softmax"
    )
