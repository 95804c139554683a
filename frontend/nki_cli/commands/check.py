"""``nki-sim check FILE...``: everything wrong with the kernels of files, in one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nki.compiler.checker.check import check_file, kernels_of_file
from nki.compiler.checker.scope import Definition
from nki.rendering import summary
from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FormatOption,
    NoSpillOption,
    OwnLanguageOption,
    TargetOption,
    TracebackOption,
    read_language,
    read_target,
)
from nki_cli.screen import ERRORS, Format, Screen
from nki_cli.script import Outcome, Prints, files_of, run_script
from nki_cli.session import readable
from nki_isa.diagnostics import Diagnostic, Label, Severity, Span
from nki_sim.words import counted


@dataclass(frozen=True)
class CheckedFile:
    """What the check of one file gave.

    Attributes:
        file: its path.
        found: what is wrong with it.
        outcome: what running it gave; None if it was not run.
        kernels: how many kernels it has.
        reached: how many of them were called, or were called by one that was.
    """

    file: str
    found: list[Diagnostic]
    outcome: Outcome | None
    kernels: int
    reached: int

    @property
    def errors(self) -> int:
        """How many of what was found stop a kernel."""
        return sum(d.severity is Severity.error for d in self.found)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": self.file,
            "diagnostics": [d.as_dict() for d in self.found],
            "errors": self.errors,
            "warnings": sum(d.severity is Severity.warning for d in self.found),
            "kernels": self.kernels,
            "kernels_reached": self.reached,
            "launches": len(self.outcome.launches) if self.outcome else 0,
        }


def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Python files, or folders: all their Python files that import nki.",
            show_default=False,
        ),
    ],
    static: Annotated[
        bool, typer.Option("--static", help="Check the text only; do not run the file.")
    ] = False,
    require_launch: Annotated[
        bool,
        typer.Option("--require-launch", help="A kernel that is not called is an error.", show_default=False),
    ] = False,
    language: OwnLanguageOption = None,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Report every error of the kernels of files: their text, then shapes, instructions and memory.

    The second half runs each file with the arithmetic left out, to learn the shapes its kernels get, and
    makes the checks of `run` that shapes decide. What depends on values is checked by `run`.
    """
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    profile = read_language(language)
    paths = [path for name in files for path in files_of(name)]
    for path in paths:
        readable(screen, path)
    options = (
        None
        if static
        else Options(target=chosen, profile=profile, data=False, check="all", spill=not no_spill)
    )
    checked = []
    for path in paths:
        one = _check(path, profile, options, require_launch, traceback)
        checked.append(one)
        if screen.format is not Format.json:
            _show(screen, one, chosen.name)
    errors = sum(one.errors for one in checked)
    if screen.format is Format.json:
        head = {"command": "check", "target": chosen.name}
        if len(checked) == 1:
            screen.json({**head, **checked[0].as_dict()})
        else:
            screen.json({**head, "files": [one.as_dict() for one in checked], "errors": errors})
    elif screen.is_text and len(checked) != 1:
        screen.out.print(f"{counted(errors, 'error')} in {counted(len(checked), 'file')}", soft_wrap=True)
    screen.advise(d for one in checked for d in one.found)
    if errors:
        raise typer.Exit(ERRORS)


def _check(
    file: str, language: str, options: Options | None, require_launch: bool, traceback: bool
) -> CheckedFile:
    """Check the text of `file`, and unless `options` is None or the text has errors, run it."""
    found = list(check_file(file, language))
    kernels = kernels_of_file(file)
    if options is None or any(d.severity is Severity.error for d in found):
        return CheckedFile(file, found, None, len(kernels), 0)
    outcome = run_script(file, options, prints=Prints.nowhere, whole_traceback=traceback)
    fresh = dict.fromkeys((*outcome.caught, *outcome.diagnostics))
    known = {*map(_what_and_where, found)}
    found += [d for d in fresh if _what_and_where(d) not in known]
    place = str(Path(file).resolve())
    missed = [kernel for first, kernel in kernels.items() if (place, first) not in outcome.reached]
    if not outcome.errors and (missed or not (kernels or outcome.reached)):
        told = _not_reached(file, missed)
        found.append(replace(told, severity=Severity.error) if require_launch else told)
    return CheckedFile(file, found, outcome, len(kernels), len(kernels) - len(missed))


def _what_and_where(found: Diagnostic) -> tuple[str, Span | None, str]:
    """What makes two diagnostics one: a file goes by its whole path when it runs."""
    span = found.span
    return found.code, span and replace(span, file=str(Path(span.file).resolve())), found.message


def _not_reached(file: str, missed: list[Definition]) -> Diagnostic:
    """NKI-L027, a note, for kernels that nothing called; for a file without kernels, that none was called."""
    names = ", ".join(kernel.name for kernel in missed)
    what = f"{names} {'are' if len(missed) > 1 else 'is'} not" if missed else "no kernel is"
    return Diagnostic(
        "NKI-L027",
        f"{what} called when {file} runs",
        span=missed[0].heading if missed else None,
        help="call it with arrays at the end of the file, or check the file that calls it",
        notes=("its shapes, instructions and memory were not checked: they depend on the call",),
        labels=tuple(Label(kernel.heading, "not called either") for kernel in missed[1:]),
        severity=Severity.note,
    )


def _show(screen: Screen, checked: CheckedFile, target: str) -> None:
    """Write what was found in one file, and in text what was checked."""
    outcome = checked.outcome
    if outcome and outcome.traceback and screen.is_text:
        screen.remark(outcome.traceback)
    screen.diagnostics(checked.found, result=True)
    if screen.is_text:
        reached = ", ".join(_reached(checked, target))
        told = summary(checked.found, checked.file) + (f" ({reached})" if reached else "")
        screen.out.print(told, soft_wrap=True)
        if outcome and outcome.errors:
            screen.remark("What the file does after the refused call was not checked.")


def _reached(checked: CheckedFile, target: str) -> Iterator[str]:
    """How much of a file was checked, in words."""
    if checked.outcome is None:
        if not checked.errors:
            yield "text only"
        return
    if checked.reached < checked.kernels and not checked.outcome.errors:
        yield f"{checked.reached} of {counted(checked.kernels, 'kernel')} reached"
    if checked.outcome.launches and not checked.errors:
        yield f"{counted(len(checked.outcome.launches), 'kernel call')} checked for {target}"
