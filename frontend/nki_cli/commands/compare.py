"""``nki-sim compare OLD NEW``: what a change of a kernel changed."""

from __future__ import annotations

from typing import Annotated

import typer

from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FormatOption,
    NoDataOption,
    NoSpillOption,
    ScheduleMode,
    ScheduleOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import Format, Screen
from nki_cli.session import finish, launches_of
from nki_sim.words import counted
from nki_tools.compare import compare as compared
from nki_tools.profile import Profiled


def compare(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A Python script that calls kernels.", show_default=False)
    ],
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="Another, that makes the same calls.", show_default=False)
    ],
    no_data: NoDataOption = False,
    schedule: ScheduleOption = ScheduleMode.program,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Time the kernel calls of two scripts and show each call of one beside that of the other."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    options = Options(
        target=chosen,
        data=not no_data,
        timing=True,
        check="none",
        schedule=schedule.value,
        spill=not no_spill,
    )
    before, after = (launches_of(screen, file, options, whole_traceback=traceback) for file in (old, new))
    pairs = [
        compared(Profiled(one), Profiled(other))
        for one, other in zip(before.launches, after.launches, strict=False)
    ]
    if screen.format is Format.json:
        screen.json(
            {
                "command": "compare",
                "files": [old, new],
                "target": chosen.name,
                "launches": [pair.as_dict() for pair in pairs],
                "diagnostics": [d.as_dict() for outcome in (before, after) for d in outcome.told],
            }
        )
    elif screen.is_text:
        for pair in pairs:
            screen.show(*pair.tables())
        more = len(before.launches) - len(after.launches)
        if more:
            file = old if more > 0 else new
            screen.remark(f"{file} makes {counted(abs(more), 'call')} more, which nothing is compared with")
    finish(screen, before)
    finish(screen, after)
