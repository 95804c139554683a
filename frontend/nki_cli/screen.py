"""Where a command's output goes: results to standard output, remarks to standard error."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from nki_cli import render
from nki_isa.diagnostics import Diagnostic, Severity
from nki_tools.launches import WIDTH

ERRORS, MISUSE = 1, 2  # exit status: the kernel has errors; the command was used wrongly


class Format(str, enum.Enum):
    """How results are written."""

    text = "text"
    json = "json"
    lines = "lines"
    github = "github"


_LINE_FORMS = {Format.lines: render.editor_line, Format.github: render.github_line}


@dataclass(frozen=True)
class Screen:
    """The two streams of a command, in the format and with the colours asked for.

    Attributes:
        format: of results.
        out: standard output.
        err: standard error.
    """

    format: Format
    out: Console
    err: Console

    @classmethod
    def open(cls, format: Format = Format.text, no_color: bool = False) -> Screen:
        """The streams as they are now; NO_COLOR with any value turns colours off."""
        plain = no_color or bool(os.environ.get("NO_COLOR"))
        return cls(format, _console(sys.stdout, plain), _console(sys.stderr, plain))

    @property
    def is_text(self) -> bool:
        """True for output meant to be read."""
        return self.format is Format.text

    def show(self, *results: RenderableType) -> None:
        """Write results to standard output, tables without blanks at the end of lines where it is a file."""
        if self.out.is_terminal:
            self._print(results)
            return
        with self.out.capture() as captured:
            self._print(results)
        self.out.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))

    def _print(self, results: Iterable[RenderableType]) -> None:
        for result in results:
            self.out.print(result, soft_wrap=isinstance(result, (str, Text)))  # only tables are fitted

    def json(self, value: dict[str, Any]) -> None:
        """Write one JSON object to standard output."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        # A name may hold half of a surrogate pair, which no encoding has; JSON has an escape for it.
        self.out.file.write(text.encode("utf-8", "backslashreplace").decode() + "\n")

    def diagnostics(self, found: Iterable[Diagnostic], *, result: bool = False) -> None:
        """Write diagnostics as text or as editor lines; `result` says they are what the command is for.

        In JSON they are part of the one object a command writes.
        """
        if self.format in _LINE_FORMS:
            for diagnostic in found:
                self.out.file.write(_LINE_FORMS[self.format](diagnostic) + "\n")
        elif self.is_text:
            console = self.out if result else self.err
            for diagnostic in found:
                console.print(render.rich_text(diagnostic), soft_wrap=True)
                console.print()

    def remark(self, text: str | Text) -> None:
        """Write a line about the run to standard error."""
        self.err.print(text, soft_wrap=True)

    def advise(self, found: Iterable[Diagnostic]) -> None:
        """Say once where more is written about the errors among `found`, on standard error."""
        codes = list(dict.fromkeys(d.code for d in found if d.severity is Severity.error))
        if codes and self.is_text:
            which = codes[0] if len(codes) == 1 else "CODE"
            listed = f" for {', '.join(codes)}" if len(codes) > 1 else ""
            self.remark(f"See `nki-sim explain {which}`{listed}")

    def fail(self, found: Iterable[Diagnostic], status: int = MISUSE) -> NoReturn:
        """Write diagnostics in the command's format and end it."""
        kept = list(found)
        if self.format is Format.json:
            self.json({"diagnostics": [d.as_dict() for d in kept]})
        else:
            self.diagnostics(kept)
        raise typer.Exit(status)


def _console(file: Any, plain: bool) -> Console:
    console = Console(
        file=file,
        color_system=None if plain else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    if not console.is_terminal:
        console.width = int(os.environ.get("COLUMNS") or WIDTH)
    return console
