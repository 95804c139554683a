"""``nki-sim profile FILE``: where the time of each kernel call goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    NoDataOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_isa.diagnostics import Diagnostic
from nki_sim.profile import Profile
from nki_sim.report.html import write_html
from nki_sim.report.terminal import launch_line, profile_tables
from nki_sim.report.trace import Traced, write_trace


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
    html: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="OUT.html",
            help="Write figures, timeline and memory maps as one page.",
            show_default=False,
        ),
    ] = None,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Time each kernel call: engines, DMA, memory, and what instructions waited for."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    outcome = launches_of(
        screen, file, target=chosen, data=not no_data, timing=True, whole_traceback=traceback
    )
    timed = [
        Traced(launch.program, launch.timeline, launch.placement)
        for launch in outcome.launches
        if launch.timeline is not None
    ]
    if screen.format is Format.json:
        found = as_json("profile", file, chosen, outcome)
        for entry, launch in zip(found["launches"], timed, strict=True):
            entry["profile"] = Profile.of(launch.timeline).as_dict()
            entry["memory"] = launch.placement.report()
        screen.json(found)
    elif screen.is_text:
        for launch in timed:
            heading = launch_line(launch.program, launch.timeline.total)
            screen.show(heading, "", *profile_tables(Profile.of(launch.timeline), launch.placement), "")
    if trace and timed:
        _write(screen, trace, write_trace, timed)
        screen.remark(f"{trace} written: open it in https://ui.perfetto.dev")
    if html and timed:
        _write(screen, html, write_html, timed)
        screen.remark(f"{html} written: open it in a browser")
    finish(screen, outcome)


def _write(
    screen: Screen, path: str, write: Callable[[str, list[Traced]], None], launches: list[Traced]
) -> None:
    try:
        write(path, launches)
    except OSError as problem:
        message = f"{path} cannot be written: {problem.strerror}"
        screen.fail([Diagnostic("NKI-L033", message, help="name a file in a folder that can be written")])
