"""``nki-sim sbuf FILE``: how full SBUF and PSUM get, and who holds them."""

from __future__ import annotations

from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_sim.report.terminal import launch_line, memory_tables


def sbuf(
    file: FileArgument,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Show the use of SBUF and PSUM at its peak: who holds what, allocated where; no arithmetic is done."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    outcome = launches_of(screen, file, target=chosen, data=False, whole_traceback=traceback)
    if screen.format is Format.json:
        found = as_json("sbuf", file, chosen, outcome)
        for entry, launch in zip(found["launches"], outcome.launches, strict=True):
            entry["memory"] = launch.placement.report()
        screen.json(found)
    elif screen.is_text:
        for launch in outcome.launches:
            screen.show(launch_line(launch.program), "", *memory_tables(launch.placement), "")
    finish(screen, outcome)
