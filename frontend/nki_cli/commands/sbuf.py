"""``nki-sim sbuf FILE``: will it fit, and who holds SBUF and PSUM when."""

from __future__ import annotations

from typing import Any

from nki.runtime import CoreRun, Options
from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    NoSpillOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.reports import HtmlOption, write_report
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launch_facts, launches_of
from nki_sim.report.facts import which
from nki_sim.report.html import write_html
from nki_sim.report.terminal import launch_line, memory_tables
from nki_sim.report.usage import memory_report


def sbuf(
    file: FileArgument,
    html: HtmlOption = None,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Show SBUF and PSUM over program order: the peak, who holds it, what to shrink first.

    No arithmetic is done. A kernel that does not fit is shown as well, with unlimited memory.
    """
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    options = Options(target=chosen, data=False, check="none", spill=not no_spill)
    outcome = launches_of(screen, file, options, whole_traceback=traceback)
    overfull = [refused.placed() for refused in outcome.overfull]
    shown = [*outcome.launches, *overfull]
    if html is not None and shown:
        cores = [launch.cores for launch in shown]
        write_report(screen, html, lambda path: write_html(path, cores), "open it in a browser")
    if screen.format is Format.json:
        screen.json(
            {
                **as_json("sbuf", file, chosen, outcome, _facts),
                "overfull": [launch_facts(launch, _facts) for launch in overfull],
            }
        )
    elif screen.is_text:
        for launch in shown:
            for number, core in enumerate(launch.cores):
                heading = launch_line(core.program, None, which(number, len(launch.cores)))
                screen.show(heading, "", *memory_tables(core.program, core.placement), "")
    finish(screen, outcome)


def _facts(core: CoreRun) -> dict[str, Any]:
    return {"memory": memory_report(core.program, core.placement)}
