"""``nki-sim ir FILE``: what the kernels of a script compile to."""

from __future__ import annotations

from typing import Any

from nki.runtime import CoreRun, Options
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
from nki_isa.text.printer import format_program
from nki_tools.launches import launch_facts


def ir(
    file: FileArgument,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Print the Program of each kernel call as IR text; no arithmetic is done."""
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    options = Options(target=chosen, data=False, check="none")
    outcome = launches_of(screen, file, options, whole_traceback=traceback)
    if screen.format is Format.json:
        launches = [launch_facts(launch, _facts) for launch in outcome.launches]
        screen.json(as_json("ir", file, chosen, outcome, launches))
    elif screen.is_text:
        programs = [core.program for launch in outcome.launches for core in launch.cores]
        screen.out.file.write("\n".join(map(format_program, programs)))
    finish(screen, outcome)


def _facts(core: CoreRun) -> dict[str, Any]:
    return {"ir": format_program(core.program)}
