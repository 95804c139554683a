"""What a rejection is: a code, the user's own line, the rule with its numbers, a remedy.

Every floor of the project raises :class:`NkiError`; nothing here knows how a
diagnostic is drawn. Renderers (terminal, JSON, editor lines) live above.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nki_isa.diagnostics.codes import CODES, Category


class Severity(enum.Enum):
    """How much a diagnostic matters; only errors stop a kernel."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of source text.

    Lines and columns count from 1, columns count characters, and the end is
    exclusive, so ``end_column - column`` is the length of a one-line span.
    """

    file: str
    line: int
    column: int = 1
    end_line: int = 0
    end_column: int = 0

    def __post_init__(self) -> None:
        if self.end_line == 0:
            object.__setattr__(self, "end_line", self.line)
        if self.end_column == 0:
            object.__setattr__(self, "end_column", self.column + 1)

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.file, self.line, self.column, other.end_line, other.end_column)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One step of the user's call chain: the function and the place in it."""

    function: str
    span: Span


def span_of(stack: tuple[Frame, ...]) -> Span | None:
    """Where the user wrote what these calls led to: the innermost place, None without calls."""
    return stack[-1].span if stack else None


def interrupted_at(stopped: KeyboardInterrupt, stack: Sequence[Frame]) -> KeyboardInterrupt:
    """`stopped` with a text that says which line of a kernel was running, unless it has one."""
    if not stopped.args and stack:
        frame = stack[-1]
        stopped.args = (f"{frame.function} was at {frame.span.file}:{frame.span.line}",)
    return stopped


@dataclass(frozen=True, slots=True)
class Label:
    """A secondary place a diagnostic points at, with what to say there."""

    span: Span
    message: str


_KEYS = ("rule", "source")  # a note may start with one of these and a colon


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding, as data.

    Attributes:
        code: a key of :data:`nki_isa.diagnostics.codes.CODES`, for example ``"NKI-L012"``.
        message: one sentence with the value received and the limit.
        span: the user's place; ``None`` only where no source exists.
        help: what to write instead.
        notes: further facts, one sentence each.
        labels: secondary places.
        stack: the user's calls, outermost first.
        fix: replacement text for `span`, where a mechanical fix is safe.
        known: the row of :data:`nki_isa.rules.RULES` that says what the rule is known from, if it has one.
    """

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    notes: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    stack: tuple[Frame, ...] = ()
    severity: Severity = Severity.error
    fix: str | None = None
    known: str | None = None

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f"{self.code} is not in the table of codes")

    @property
    def category(self) -> Category:
        """Whose fault it is: the row of the table of codes."""
        return CODES[self.code].category

    def at(self, span: Span | None, stack: Iterable[Frame] = ()) -> Diagnostic:
        """This diagnostic with a place, unless it already has one."""
        if self.span is not None:
            return self
        return replace(self, span=span, stack=tuple(stack))

    def remarks(self) -> list[tuple[str, str]]:
        """What stands under the message before the help, each with its key: rule, note or source.

        A note may begin with ``rule:`` or ``source:``; one that begins with two spaces goes on with the
        one before. Without a rule of its own a diagnostic has the rule of its code.
        """
        found: list[tuple[str, str]] = []
        for note in self.notes:
            key, colon, rest = note.partition(": ")
            if found and note.startswith("  "):
                found[-1] = found[-1][0], f"{found[-1][1]}\n{note}"
            else:
                found.append((key, rest) if colon and key in _KEYS else ("note", note))
        if not any(key == "rule" for key, _ in found) and self.category is not Category.internal:
            found.insert(0, ("rule", CODES[self.code].rule))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the key order is part of the format."""
        remarks = self.remarks()
        texts = {key: "; ".join(text for k, text in remarks if k == key) or None for key in _KEYS}
        return {
            "code": self.code,
            "severity": self.severity.value,
            "category": self.category.value,
            "title": CODES[self.code].title,
            "message": self.message,
            "span": _span_dict(self.span),
            "rule": texts["rule"],
            "source": texts["source"],
            "help": self.help,
            "notes": [text for key, text in remarks if key == "note"],
            "labels": [{"span": _span_dict(x.span), "message": x.message} for x in self.labels],
            "stack": [{"function": f.function, "span": _span_dict(f.span)} for f in self.stack],
            "fix": self.fix,
            **({"known": self.known} if self.known else {}),
        }

    def __str__(self) -> str:
        place = f"{self.span}: " if self.span else ""
        remedy = f" (help: {self.help})" if self.help else ""
        return f"{place}{self.severity.value}[{self.code}]: {self.message}{remedy}"


def _span_dict(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {
        "file": span.file,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
    }


class NkiError(Exception):
    """A kernel, or a use of the tools, was refused; carries every diagnostic found."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))

    def at(self, span: Span | None, stack: Iterable[Frame] = ()) -> NkiError:
        """The same error, with a place for the diagnostics that lack one."""
        frames = tuple(stack)
        return type(self)(d.at(span, frames) for d in self.diagnostics)


class NkiValidationError(NkiError):
    """An instruction or a view breaks a documented rule."""


class RunTimeValueError(NkiValidationError, TypeError):
    """Python asks for a value that is known at run time only: a TypeError too, as NKI's tracer has it."""


class NkiMemoryError(NkiError):
    """SBUF, PSUM or HBM cannot hold what the kernel asks for."""


class NkiUnsupportedError(NkiError):
    """Something real that this project does not model; named, never guessed."""


class NkiInternalError(NkiError):
    """A mistake of this project, not of the kernel."""


_CLASSES: dict[Category, type[NkiError]] = {
    Category.validation: NkiValidationError,
    Category.memory: NkiMemoryError,
    Category.unsupported: NkiUnsupportedError,
    Category.internal: NkiInternalError,
}


def error(
    code: str, message: str, *, help: str | None = None, span: Span | None = None, notes: Iterable[str] = ()
) -> NkiError:
    """One error ready to raise, of the class its category has."""
    diagnostic = Diagnostic(code, message, span=span, help=help, notes=tuple(notes))
    return _CLASSES.get(diagnostic.category, NkiError)([diagnostic])


@dataclass(slots=True)
class Collector:
    """Gathers diagnostics so that one run reports all of them."""

    diagnostics: list[Diagnostic] = field(default_factory=list)

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep `diagnostic`, once."""
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    @property
    def errors(self) -> list[Diagnostic]:
        """Those that stop the kernel."""
        return [d for d in self.diagnostics if d.severity is Severity.error]

    def raise_errors(self) -> None:
        """Raise all diagnostics at once if any of them is an error.

        The exception is of the class the errors share, :class:`NkiValidationError` for one, else
        :class:`NkiError`.
        """
        classes = {_CLASSES.get(d.category, NkiError) for d in self.errors}
        if classes:
            raise (classes.pop() if len(classes) == 1 else NkiError)(self.diagnostics)
