"""Writing report files from the commands that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from nki_cli.screen import Screen
from nki_isa.diagnostics import Diagnostic

HtmlOption = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="OUT.html",
        help="Write a self-contained HTML report: maps of SBUF and PSUM, and the timeline if timed.",
        show_default=False,
    ),
]


def write_report(screen: Screen, path: str, write: Callable[[str], None], advice: str) -> None:
    """Write a report to `path` and say so; a path that cannot be written ends the command (NKI-L033)."""
    try:
        write(path)
    except (OSError, ValueError) as problem:  # a path may hold what no path holds
        message = f"{path!r} cannot be written: {getattr(problem, 'strerror', None) or problem}"
        screen.fail([Diagnostic("NKI-L033", message, help="name a file in a folder that can be written")])
    screen.remark(f"{path} written: {advice}")
