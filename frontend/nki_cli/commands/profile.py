"""``nki-sim profile FILE``: where the time of each kernel call goes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nki.runtime import CoreRun, Launch, Options
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
from nki_sim.report.ablation import Ablated, ablation
from nki_sim.report.facts import which
from nki_sim.report.html import write_html
from nki_sim.report.links import link_rows
from nki_sim.report.profile import Profile
from nki_sim.report.terminal import ablation_table, launch_line, links_table, profile_tables
from nki_sim.report.trace import Traced, write_trace
from nki_sim.report.usage import memory_report
from nki_sim.timing.mechanisms import MECHANISMS


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

    def ablated(launch: Launch) -> list[Ablated]:
        programs, placements = zip(*((core.program, core.placement) for core in launch.cores), strict=True)
        return ablation(programs, placements, ranks=launch.ranks, trips=trips, off=lacking)

    timed = [
        [
            Traced(core.program, core.timeline, core.placement, launch.who(number))
            for number, core in enumerate(launch.cores)
            if core.timeline
        ]
        for launch in outcome.launches
    ]
    if trace is not None and timed:
        write_report(
            screen, trace, lambda path: write_trace(path, timed), "open it in https://ui.perfetto.dev"
        )
    if html is not None and timed:
        write_report(screen, html, lambda path: write_html(path, timed), "open it in a browser")
    if screen.format is Format.json:
        made = as_json("profile", file, chosen, outcome, _facts)
        for launch, described in zip(outcome.launches, made["launches"], strict=True):
            described["without"] = sorted(lacking)
            described["ablation"] = [row.as_dict() for row in ablated(launch)] if ablate else None
        screen.json(made)
    elif screen.is_text:
        order = ", in the compiler's order" if schedule is ScheduleMode.compiler else ""
        if lacking:
            order += f", without {', '.join(sorted(lacking))}"
        for launch, cores in zip(outcome.launches, timed, strict=True):
            for number, core in enumerate(cores):
                who = f", {core.name}" if launch.ranks > 1 else which(number, len(cores))
                heading = launch_line(core.program, core.timeline.total, who + order)
                screen.show(heading, "", *profile_tables(Profile.of(core.timeline), core.placement), "")
            found = link_rows([core.timeline for core in cores]) if cores else None
            if found is not None:
                screen.show(links_table(found), "")
            if ablate:
                screen.show(ablation_table(ablated(launch)), "")
    finish(screen, outcome)


def _facts(core: CoreRun) -> dict[str, Any]:
    profile = Profile.of(core.timeline).as_dict() if core.timeline else None
    return {"profile": profile, "memory": memory_report(core.program, core.placement)}
