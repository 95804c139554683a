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
from nki_sim.report.facts import which
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
        screen.json(as_json("sbuf", file, chosen, outcome, lambda core: {"memory": core.placement.report()}))
    elif screen.is_text:
        for launch in outcome.launches:
            for number, core in enumerate(launch.cores):
                heading = launch_line(core.program, None, which(number, len(launch.cores)))
                screen.show(heading, "", *memory_tables(core.placement), "")
    finish(screen, outcome)
