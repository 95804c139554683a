"""``nki-sim step FILE``: what each instruction did, to which partitions."""

from __future__ import annotations

from typing import Annotated

import typer

from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    NoSpillOption,
    ScheduleMode,
    ScheduleOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_sim.report.terminal import launch_line
from nki_tools.launches import launch_facts
from nki_tools.step import MOST, Stepping


def step(
    file: FileArgument,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="LINE|OPCODE", help="Show only steps of this line or opcode.", show_default=False
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", metavar="N", min=0, help="Steps shown of a launch.")] = MOST,
    schedule: ScheduleOption = ScheduleMode.program,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Run a script and show what each instruction of its kernels did: tensors, partitions, values."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    stepping = Stepping(at, most)
    options = Options(
        target=chosen,
        check="none",
        schedule=schedule.value,
        spill=not no_spill,
        listeners=(stepping,),
    )
    outcome = launches_of(screen, file, options, whole_traceback=traceback)
    pairs = list(zip(outcome.launches, stepping.launches, strict=False))  # a run that ended early has none
    if screen.format is Format.json:
        launches = [
            {**launch_facts(launch), "steps": [one.as_dict() for one in steps], "left": steps.left}
            for launch, steps in pairs
        ]
        screen.json(as_json("step", file, chosen, outcome, launches))
    elif screen.is_text:
        for launch, steps in pairs:
            screen.show(launch_line(launch.program), "", str(steps), "")
    finish(screen, outcome)
