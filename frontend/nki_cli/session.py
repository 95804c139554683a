"""What the commands that run a script have in common: check the file, run it, report, end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from nki.runtime import Options
from nki_cli.screen import ERRORS, Format, Screen
from nki_cli.script import Outcome, Prints, run_script, unreadable
from nki_isa.diagnostics import Diagnostic
from nki_isa.machine.target import Target


def readable(screen: Screen, file: str) -> None:
    """End the command with NKI-L026 if `file` cannot be run."""
    problem = unreadable(file)
    if problem:
        screen.fail([problem])


def launches_of(
    screen: Screen,
    file: str,
    options: Options,
    arguments: Sequence[str] = (),
    *,
    whole_traceback: bool = False,
) -> Outcome:
    """Run `file`; a file that cannot run, or that calls no kernel, ends the command (NKI-L026, NKI-L027).

    What the script prints shows where its numbers are real: with data, on standard output beside text,
    on standard error beside the other formats.
    """
    readable(screen, file)
    prints = Prints.nowhere if not options.data else Prints.out if screen.is_text else Prints.err
    outcome = run_script(file, options, arguments, prints=prints, whole_traceback=whole_traceback)
    if not (outcome.launches or outcome.caught or outcome.errors or outcome.status):
        screen.fail(
            [
                Diagnostic(
                    "NKI-L027",
                    f"{file} ran to its end without calling a kernel",
                    help="call a function decorated with @nki.jit with arrays, at the end of the file",
                )
            ]
        )
    return outcome


def as_json(
    command: str, file: str, target: Target, outcome: Outcome, launches: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The object a command writes with ``--format json``; `launches` is what it says of each."""
    return {
        "command": command,
        "file": file,
        "target": target.name,
        "launches": list(launches),
        "diagnostics": [d.as_dict() for d in outcome.told],
    }


def finish(screen: Screen, outcome: Outcome) -> None:
    """Report what went wrong and end with the status it has; what the script caught is for it to judge."""
    if screen.format is not Format.json:
        shown = [
            d for d in outcome.told if not (outcome.traceback and d.code == "NKI-L031" and screen.is_text)
        ]
        if outcome.traceback and screen.is_text:
            screen.remark(outcome.traceback)
        screen.diagnostics(shown)
        screen.advise(shown)
    if outcome.errors:
        raise typer.Exit(ERRORS)
    if outcome.status:
        raise typer.Exit(outcome.status)
