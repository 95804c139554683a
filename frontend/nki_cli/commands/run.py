"""``nki-sim run FILE``: run a script; its kernels run on the simulated core."""

from __future__ import annotations

from typing import Annotated

import typer

from nki.runtime import Options
from nki_cli.options import (
    CheckOption,
    ColorOption,
    FileArgument,
    FillMode,
    FillOption,
    FormatOption,
    LanguageOption,
    LanguageProfile,
    NoSpillOption,
    ScheduleMode,
    ScheduleOption,
    TargetOption,
    TracebackOption,
    WarningsAsErrorsOption,
    read_checks,
    read_target,
)
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_sim.report.terminal import launch_line
from nki_tools.launches import elapsed, launch_facts


def run(
    file: FileArgument,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]", help="Arguments of the script, after --.", show_default=False),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Also time each launch.")] = False,
    language: LanguageOption = LanguageProfile.library,
    check: CheckOption = None,
    warnings_as_errors: WarningsAsErrorsOption = False,
    fill: FillOption = FillMode.zeros,
    schedule: ScheduleOption = ScheduleMode.program,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Run a script; every kernel it calls is compiled, placed and executed on the simulated core."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    checks = read_checks(check, screen)
    options = Options(
        target=chosen,
        profile=language.value,
        timing=time,
        check=checks,
        warnings_as_errors=warnings_as_errors,
        fill=fill.value,
        schedule=schedule.value,
        spill=not no_spill,
    )
    outcome = launches_of(screen, file, options, arguments or (), whole_traceback=traceback)
    if screen.format is Format.json:
        screen.json(as_json("run", file, chosen, outcome, [launch_facts(one) for one in outcome.launches]))
    elif screen.is_text:
        for launch in outcome.launches:
            cores = f", {launch.ranks} ranks" if launch.ranks > 1 else ""
            cores += f", {len(launch.cores)} cores" if len(launch.cores) > launch.ranks else ""
            screen.remark(launch_line(launch.program, elapsed(launch), cores))
            for skipped in launch.skipped:
                screen.remark(f"  {skipped}")
    finish(screen, outcome)
