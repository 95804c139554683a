"""Diagnostics for people, programs and editors: coloured text, ``file:line:column`` lines, annotations."""

from __future__ import annotations

from rich.text import Text

from nki.rendering import layout
from nki_isa.diagnostics import Diagnostic, Severity
from nki_isa.diagnostics.codes import CODES
from nki_sim import words

_STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold cyan",
    "strong": "bold",
    "gutter": "blue",
    "primary": "bold red",
    "secondary": "cyan",
}


def rich_text(diagnostic: Diagnostic) -> Text:
    """A diagnostic in colour; the text is what :func:`nki.rendering.plain` gives."""
    own = {**_STYLES, "primary": _STYLES[diagnostic.severity.value]}
    lines = []
    for pieces in layout(diagnostic):
        line = Text()
        for text, style in pieces:
            line.append(text, own.get(style))
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)


def editor_line(diagnostic: Diagnostic) -> str:
    """One line an editor's error parser reads: ``file:line:column: error[CODE]: message``."""
    place = f"{diagnostic.span}: " if diagnostic.span else ""
    message = " ".join(diagnostic.message.split())
    return f"{place}{diagnostic.severity.value}[{diagnostic.code}]: {message}"


_ANNOTATIONS = {Severity.error: "error", Severity.warning: "warning", Severity.note: "notice"}


def github_line(diagnostic: Diagnostic) -> str:
    """One workflow command of GitHub Actions, which shows it at the line of a pull request."""
    span = diagnostic.span
    fields = {"title": f"{diagnostic.code} {CODES[diagnostic.code].title}"}
    if span is not None:
        fields = {
            "file": words.path(span.file),
            "line": str(span.line),
            "endLine": str(span.end_line),
            "col": str(span.column),
            "endColumn": str(span.end_column),
            **fields,
        }
    message = diagnostic.message
    if diagnostic.help:
        message += f"\nhelp: {diagnostic.help}"
    shown = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in fields.items())
    return f"::{_ANNOTATIONS[diagnostic.severity]} {shown}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """`text` with the characters that end a part of a workflow command as ``%XX``."""
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
