"""``nki-sim profile FILE``: where the time of each kernel call goes."""

from __future__ import annotations

from typing import Annotated

import typer

from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    NoDataOption,
    NoSpillOption,
    ScheduleMode,
    ScheduleOption,
    TargetOption,
    TracebackOption,
    read_mechanisms,
    read_target,
)
from nki_cli.reports import HtmlOption, write_report
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_sim.report.html import write_html
from nki_sim.report.trace import write_trace
from nki_sim.timing.mechanisms import MECHANISMS
from nki_tools.profile import Profiled


def profile(
    file: FileArgument,
    no_data: NoDataOption = False,
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="OUT.json",
            help="Write a timeline that ui.perfetto.dev opens.",
            show_default=False,
        ),
    ] = None,
    html: HtmlOption = None,
    trips: Annotated[
        int | None,
        typer.Option(
            "--trips",
            metavar="N",
            min=0,
            help="With --no-data: turns of each loop on the device that only data bound. Default: 1.",
            show_default=False,
        ),
    ] = None,
    schedule: ScheduleOption = ScheduleMode.program,
    off: Annotated[
        str,
        typer.Option(
            "--without",
            metavar="MECHANISM,...",
            help=f"Mechanisms of the machine to switch off: {', '.join(MECHANISMS)}.",
            show_default=False,
        ),
    ] = "",
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also time each call without each mechanism.", show_default=False)
    ] = False,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Time each kernel call: engines, DMA, memory, and what instructions waited for."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    lacking = read_mechanisms(off, screen)
    options = Options(
        target=chosen,
        data=not no_data,
        timing=True,
        check="none",
        trips=trips,
        schedule=schedule.value,
        spill=not no_spill,
        without=lacking,
    )
    outcome = launches_of(screen, file, options, whole_traceback=traceback)
    calls = [Profiled(launch, lacking, trips) for launch in outcome.launches]
    timed = [call.cores for call in calls]
    if trace is not None and timed:
        write_report(
            screen, trace, lambda path: write_trace(path, timed), "open it in https://ui.perfetto.dev"
        )
    if html is not None and timed:
        write_report(screen, html, lambda path: write_html(path, timed), "open it in a browser")
    if screen.format is Format.json:
        launches = [call.as_dict(ablate=ablate) for call in calls]
        screen.json(as_json("profile", file, chosen, outcome, launches))
    elif screen.is_text:
        for call in calls:
            screen.show(*call.tables(ablate=ablate))
    finish(screen, outcome)
