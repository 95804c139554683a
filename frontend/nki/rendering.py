"""How a diagnostic reads: its message, the source lines with what is meant underlined, rule and help.

The layout is made once, as lines of styled pieces (:func:`layout`). :func:`plain` joins them to text,
the ``nki-sim`` command colours them. Columns are display columns: tabs are expanded and wide
characters take two, so a caret stands under what it means.
"""

from __future__ import annotations

import linecache
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nki_isa.diagnostics import Diagnostic, NkiError, Severity, Span
from nki_sim import words

Piece = tuple[str, str]
"""Text and the name of its style: error, warning, note, strong, gutter, primary, secondary or nothing."""

Line = list[Piece]

_TAB = "    "
_MOST_LINES = 8  # of one span shown; the middle of a longer one is left out
_MOST_CALLS = 8  # of a call chain shown


@dataclass(frozen=True, slots=True)
class _Mark:
    """What to underline on one source line: columns from 1, the end exclusive."""

    line: int
    start: int
    end: int
    style: str
    message: str = ""


# --- whole messages


def plain(found: NkiError | Iterable[Diagnostic]) -> str:
    """Every diagnostic of `found` as readable text without colour, without a newline at the end."""
    diagnostics = found.diagnostics if isinstance(found, NkiError) else found
    return "\n\n".join("\n".join(text_of(line) for line in layout(d)) for d in diagnostics)


def text_of(line: Line) -> str:
    """A line of pieces without its styles."""
    return "".join(text for text, _ in line).rstrip()


def layout(diagnostic: Diagnostic) -> list[Line]:
    """The lines of one diagnostic.

    The message, then the source with carets under the span and dashes under the labels, then one
    ``=`` line each for the rule, further notes, the help and the calls that led there.
    """
    severity = diagnostic.severity.value
    first, *more = diagnostic.message.split("\n")
    lines: list[Line] = [[(f"{severity}[{diagnostic.code}]", severity), (f": {first}", "strong")]]
    lines += [[(text, "")] for text in more]
    marks = _marks(diagnostic)
    width = max((len(str(mark.line)) for _, found in marks for mark in found), default=1)
    for i, (span, found) in enumerate(marks):
        lines.append([(" " * width + ("--> " if i == 0 else "::: "), "gutter"), (shown(span), "")])
        source = list(_source(span.file, found, width))
        if not source:  # a label still says what it has to say
            lines[-1] += [(f": {mark.message}", "") for mark in found if mark.message]
        lines += source
    lines += _remarks(diagnostic, width)
    return lines


def shown(span: Span) -> str:
    """``file:line:column`` with the file relative to the working directory where it lies in it."""
    return f"{words.path(span.file)}:{span.line}:{span.column}"


# --- source lines


def _marks(diagnostic: Diagnostic) -> list[tuple[Span, list[_Mark]]]:
    """The marks of each file, the file of the span first, with the first span that lies in it."""
    files: dict[str, tuple[Span, list[_Mark]]] = {}
    places = [(diagnostic.span, "primary", "")] if diagnostic.span else []
    places += [(label.span, "secondary", label.message) for label in diagnostic.labels]
    for span, style, message in places:
        found = files.setdefault(span.file, (span, []))[1]
        found.extend(_marks_of(span, style, message))
    for _, found in files.values():
        found.sort(key=lambda mark: mark.line)
    return list(files.values())


def _marks_of(span: Span, style: str, message: str) -> Iterator[_Mark]:
    numbers = list(range(span.line, span.end_line + 1))
    if len(numbers) > _MOST_LINES:
        numbers = [*numbers[: _MOST_LINES - 2], *numbers[-1:]]
    for number in numbers:
        text = _line(span.file, number)
        indent = len(text) - len(text.lstrip())
        start = span.column if number == span.line else indent + 1
        last = number == span.end_line
        end = span.end_column if last else len(text.rstrip()) + 1
        if end - 1 <= indent < len(text):  # among the blanks before the text: only the line was known
            start, end = indent + 1, len(text.rstrip()) + 1
        if last or end > start:
            yield _Mark(number, start, max(end, start + 1), style, message if last else "")


def _line(file: str, number: int) -> str:
    return linecache.getline(file, number).rstrip("\r\n")


def _source(file: str, marks: Sequence[_Mark], width: int) -> Iterator[Line]:
    """The lines of one file that carry marks, and the marks under them."""
    if not any(_line(file, mark.line) for mark in marks):
        return
    empty: Line = [(" " * width + " |", "gutter")]
    yield empty
    before = None
    for mark in marks:
        if mark.line != before:
            if before is not None and mark.line == before + 2:
                yield from _numbered(file, before + 1, width)
            elif before is not None and mark.line > before + 2:
                yield [("..." if width < 3 else "...".rjust(width), "gutter")]
            yield from _numbered(file, mark.line, width)
        before = mark.line
        cells = [_cell(c) for c in _line(file, mark.line)]
        blank = sum(_width(cell) for cell in cells[: mark.start - 1])
        length = max(1, sum(_width(cell) for cell in cells[mark.start - 1 : mark.end - 1]))
        sign = "^" if mark.style == "primary" else "-"
        said = f" {mark.message}" if mark.message else ""
        yield [*empty, (" " * (blank + 1), ""), (sign * length + said, mark.style)]
    yield empty


def _numbered(file: str, number: int, width: int) -> Iterator[Line]:
    text = "".join(_cell(c) for c in _line(file, number))
    yield [(f"{number:>{width}} | ", "gutter"), (text, "")]


def _cell(character: str) -> str:
    """What is shown for a character of source: tabs expanded, what would steer a terminal replaced."""
    if character == "\t":
        return _TAB
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in ("Cc", "Cf") else character


def _width(text: str) -> int:
    """Columns a terminal gives `text`."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


# --- rule, help and calls


def _remarks(diagnostic: Diagnostic, width: int) -> Iterator[Line]:
    notes = diagnostic.remarks()
    if diagnostic.help:
        notes.append(("help", diagnostic.help))
    if diagnostic.fix is not None and not _is_said(diagnostic.fix, diagnostic.help or ""):
        notes.append(("fix", f"replace it with `{diagnostic.fix}`"))
    for key, text in notes:
        yield from _remark(key, ": " + text, width)
    callers = [frame for frame in reversed(diagnostic.stack) if frame.span != diagnostic.span]
    hidden = len(callers) - _MOST_CALLS
    for i, frame in enumerate(callers):
        if hidden > 1 and _MOST_CALLS // 2 <= i < _MOST_CALLS // 2 + hidden:
            if i == _MOST_CALLS // 2:
                yield from _remark("called from", f" {hidden} more functions", width)
            continue
        function = "" if frame.function == "<module>" else f" {frame.function} at"
        yield from _remark("called from", f"{function} {shown(frame.span)}", width)


def _is_said(fix: str, help: str) -> bool:
    """True where the help is to write the fix or its beginning: ``write nl.float32``, ``write operand0=``."""
    return help.startswith("write ") and fix.startswith(help.removeprefix("write "))


def _remark(key: str, text: str, width: int) -> Iterator[Line]:
    lead = " " * width + " = "
    first, *more = text.split("\n")
    yield [(lead, "gutter"), (key, "strong"), (first, "")]
    for line in more:
        yield [(" " * len(lead) + line, "")]


# --- several


def summary(diagnostics: Iterable[Diagnostic], where: str) -> str:
    """How many of what: ``3 errors, 1 warning in examples/broken.py``, or ``no errors in ...``."""
    kept = list(diagnostics)
    counts = [(s.value, sum(d.severity is s for d in kept)) for s in (Severity.error, Severity.warning)]
    words = [f"{n} {word}{'s' * (n > 1)}" for word, n in counts if n]
    return f"{', '.join(words) or 'no errors'} in {where}"
