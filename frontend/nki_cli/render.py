"""Diagnostics for people, programs and editors: coloured text, JSON, ``file:line:column`` lines."""

from __future__ import annotations

from rich.text import Text

from nki.rendering import layout
from nki_isa.diagnostics import Diagnostic

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
