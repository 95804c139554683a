"""``nki-sim explain CODE``: what a diagnostic code means."""

from __future__ import annotations

import difflib
import re
from typing import Annotated

import typer
from rich.text import Text

from nki_cli.options import ColorOption, FormatOption
from nki_cli.screen import Format, Screen
from nki_isa.codes import CODES, Code
from nki_isa.diagnostics import Diagnostic


def explain(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="For example NKI-V103, or V103.", show_default=False)
    ],
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
) -> None:
    """Say what a diagnostic code means and which rule it stands for."""
    screen = Screen.open(format, no_color)
    row = find(code)
    if row is None:
        near = difflib.get_close_matches(_spelled(code), CODES, 3)
        remedy = f"did you mean {', '.join(near)}?" if near else "a code looks like NKI-V103"
        screen.fail([Diagnostic("NKI-L032", f"{code!r} is not a diagnostic code", help=remedy)])
    if screen.format is Format.json:
        screen.json({"code": row.code, "category": row.category.value, "title": row.title, "rule": row.rule})
    else:
        screen.show(Text.assemble((row.code, "bold"), f" ({row.category.value}): {row.title}"), "", row.rule)


def find(code: str) -> Code | None:
    """The row of a code, written with or without ``NKI-``, in any case."""
    return CODES.get(_spelled(code))


def _spelled(code: str) -> str:
    short = re.sub(r"^NKI[-_ ]?", "", code.strip().upper())
    return f"NKI-{short}"
