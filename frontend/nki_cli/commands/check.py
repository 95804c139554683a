"""``nki-sim check FILE``: everything wrong with a file's kernels, in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from nki.compiler.check import check_file
from nki.rendering import summary
from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    Profile,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import ERRORS, Format, Screen
from nki_cli.script import Outcome, Prints, run_script
from nki_cli.session import readable
from nki_isa.diagnostics import Diagnostic, Severity
from nki_sim.report.words import counted


def check(
    file: FileArgument,
    static: Annotated[
        bool, typer.Option("--static", help="Check the text only; do not run the file.")
    ] = False,
    profile: Annotated[
        Profile, typer.Option("--profile", help="Which Python kernels may use.")
    ] = Profile.strict,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Report every error of a file's kernels: their text, then shapes, instructions and memory.

    The second half runs the file with the arithmetic left out, to learn the shapes its kernels get.
    """
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    readable(screen, file)
    found = list(check_file(file, profile.value))
    outcome = Outcome()
    if not static and not any(d.severity is Severity.error for d in found):
        options = Options(target=chosen, profile=profile.value, data=False, check="none")
        outcome = run_script(file, options, prints=Prints.nowhere, whole_traceback=traceback)
        found += [d for d in outcome.diagnostics if not _is_known(d, found)]
    errors = sum(d.severity is Severity.error for d in found)
    if screen.format is Format.json:
        warnings = sum(d.severity is Severity.warning for d in found)
        screen.json(
            {
                "command": "check",
                "file": file,
                "target": chosen.name,
                "diagnostics": [d.as_dict() for d in found],
                "errors": errors,
                "warnings": warnings,
                "launches": len(outcome.launches),
            }
        )
    else:
        if outcome.traceback and screen.is_text:
            screen.remark(outcome.traceback)
        screen.diagnostics(found, result=True)
    if screen.is_text:
        count = len(outcome.launches)
        reached = (
            f" ({counted(count, 'kernel call')} checked for {chosen.name})" if count and not errors else ""
        )
        screen.out.print(summary(found, file) + reached, soft_wrap=True)
        if outcome.errors:
            screen.remark("What the file does after the refused call was not checked.")
        screen.advise(found)
    if errors:
        raise typer.Exit(ERRORS)


def _is_known(diagnostic: Diagnostic, found: list[Diagnostic]) -> bool:
    """True if the check of the text found it already."""
    return any(
        (d.code, d.span, d.message) == (diagnostic.code, diagnostic.span, diagnostic.message) for d in found
    )
