"""What the checks found: one diagnostic for each kind and pair of lines, however often it happened."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

from nki_isa.diagnostics import Diagnostic, Frame, Label, Severity, Span, span_of
from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import Instruction
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor

#: Kinds of findings kept; a kernel wrong in more places than this is reported for the first of them.
_MOST = 200

#: Notes on what may well be meant, which never count as errors.
_ADVICE = frozenset({"NKI-N002"})


def described(storage: Storage) -> str:
    """Name, data type and shape."""
    return f"{storage.name} {storage.dtype}[{', '.join(map(str, storage.shape))}]"


def allocated(storage: Storage) -> tuple[Label, ...]:
    """The line a tensor comes from."""
    span = span_of(storage.stack)
    origin = "is a kernel argument" if storage.kind == "input" else "is allocated here"
    callers = [f.span for f in storage.stack if span is not None and f.span.file != span.file]
    if callers:  # an allocator's line says little without who asked it
        origin += f", for {callers[-1]}"
    return (Label(span, f"{described(storage)} {origin}"),) if span else ()


def label_at(span: Span | None, what: str) -> tuple[Label, ...]:
    """A label, where there is a line to put it at."""
    return (Label(span, what),) if span else ()


def done_by(instruction: Instruction | None, what: str) -> tuple[Label, ...]:
    """The line of another instruction that has to do with it."""
    return label_at(span_of(instruction.stack) if instruction is not None else None, what)


def operand_of(instruction: Instruction, tensor: NkiTensor, *, written: bool = False) -> str:
    """The name of the operand `tensor` is, with what it belongs to: ``data1=t[128, 512]``.

    Args:
        written: True for what the instruction writes, False for what it reads.
    """
    shape = ", ".join(map(str, tensor.shape))
    text = f"{tensor.name}[{shape}]"
    other = Role.read if written else Role.write
    operands = [(o.name, value) for o, value in instruction.operands() if o.role is not other]
    for name, value in operands:
        if value is tensor:
            return f"{name}={text}"
        if isinstance(value, (list, tuple)) and any(v is tensor for v in value):
            return f"{name} {text}"
    for name, value in operands:  # a part of an operand, or its bytes as another data type
        if isinstance(value, NkiTensor) and value.storage is tensor.storage:
            return f"{name}={text}"
    return f"the index {text}"


def site(instruction: Instruction, storage: Storage) -> Hashable:
    """The pair of lines a finding stands for; where there are no lines, the things themselves."""
    return span_of(instruction.stack) or instruction, span_of(storage.stack) or storage.index


def pair_of(one: Storage, other: Storage) -> Hashable:
    """Two tensors, told apart by the lines that allocate them."""
    return frozenset(span_of(s.stack) or s.index for s in (one, other))


@dataclass(slots=True)
class Findings:
    """Diagnostics in the order they were found, the first of each key.

    Attributes:
        by_key: the diagnostics.
        counts: how often each was found.
        conflicts: pairs of allocation lines of tensors that overwrote each other.
        turns: such pairs by the key of a finding about their order.
        notes: diagnostics that others made, told last.
    """

    by_key: dict[Hashable, Diagnostic] = field(default_factory=dict)
    counts: dict[Hashable, int] = field(default_factory=dict)
    conflicts: set[Hashable] = field(default_factory=set)
    turns: dict[Hashable, Hashable] = field(default_factory=dict)
    notes: tuple[Diagnostic, ...] = ()

    def known(self, key: Hashable) -> bool:
        """Count another occurrence of `key`; True if it need not be described again."""
        if key in self.counts:
            self.counts[key] += 1
            return True
        self.counts[key] = 1
        return len(self.by_key) >= _MOST

    def add(
        self,
        key: Hashable,
        code: str,
        message: str,
        *,
        stack: tuple[Frame, ...],
        labels: Iterable[Label] = (),
        help: str | None = None,
        notes: Iterable[str] = (),
        severity: Severity = Severity.error,
    ) -> None:
        """Keep a finding whose key was not known."""
        self.by_key[key] = Diagnostic(
            code,
            message,
            span=span_of(stack),
            help=help,
            notes=tuple(notes),
            labels=tuple(labels),
            stack=stack,
            severity=severity,
        )

    def drop_turns(self) -> None:
        """Leave out what is said about the order of tensors that are known to overwrite each other."""
        for key, pair in self.turns.items():
            if pair in self.conflicts:
                self.by_key.pop(key, None)

    def lower(self, key: Hashable, severity: Severity, why: str) -> None:
        """Make a finding less severe, saying why."""
        found = self.by_key[key]
        self.by_key[key] = replace(found, severity=severity, notes=(*found.notes, why))

    def diagnostics(self, *, strict: bool = False) -> tuple[Diagnostic, ...]:
        """All of them, errors first; `strict` makes every one an error but for advice."""
        if not self.by_key:
            return self.notes
        told = []
        for key, found in self.by_key.items():
            again = self.counts.get(key, 1) - 1
            if again:
                found = replace(
                    found,
                    notes=(*found.notes, f"the same happened {again} more time{'s' * (again > 1)} here"),
                )
            if strict and found.code not in _ADVICE:
                found = replace(found, severity=Severity.error)
            told.append(found)
        order = list(Severity)
        return *sorted(told, key=lambda d: order.index(d.severity)), *self.notes
