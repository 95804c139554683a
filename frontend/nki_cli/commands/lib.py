"""``nki-sim lib``: the kernels of the library; ``nki-sim lib NAME`` runs one against its reference."""

from __future__ import annotations

import ast
import enum
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.table import Table

from nki.compiler.source.kernel_source import signature_of
from nki_cli.options import ColorOption, FormatOption, TargetOption, read_target
from nki_cli.reports import HtmlOption, write_report
from nki_cli.screen import ERRORS, Format, Screen
from nki_isa.diagnostics import Diagnostic, NkiError
from nki_isa.machine.dtypes import DTYPES
from nki_sim.report.facts import which
from nki_sim.report.html import write_html
from nki_sim.report.profile import Profile
from nki_sim.report.terminal import launch_line, profile_tables
from nki_sim.words import time
from nki_tools.launches import elapsed, launch_facts
from nkilib.registry import Difference, Example, KernelResult, Row, difference, rows

#: The parameters of the kernel are options of the command too.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def lib(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME] [--OPTION VALUE]...",
            help="A kernel, then options of it by the names of its parameters; omit to list all kernels.",
            show_default=False,
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option("--example", help="Which of its examples. Default: the first.", show_default=False),
    ] = None,
    lnc: Annotated[
        int | None,
        typer.Option("--lnc", help="Programs of the launch. Default: the example's.", show_default=False),
    ] = None,
    html: HtmlOption = None,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
) -> None:
    """List the kernel library, or run one of its kernels on generated inputs: its error and its profile."""
    screen = Screen.open(format, no_color)
    if name is None:
        _list(screen)
        return
    row = _row(screen, name)
    chosen = _example(screen, row, example)
    arguments = {**chosen.arguments(), **_options(screen, row, chosen, context.args)}
    grid = chosen.lnc[0] if lnc is None else lnc
    where = read_target(target, screen).name if target else chosen.targets[0]
    expected = row.expected(arguments, grid)
    try:
        outcome = row.run(arguments, grid, where, timing=True)
    except NkiError as refused:
        screen.fail(refused.diagnostics, ERRORS)
    found = [difference(a, b, row.tolerance) for a, b in zip(outcome.results, expected)]
    if html is not None:
        write_report(
            screen, html, lambda path: write_html(path, [outcome.launch.cores]), "open it in a browser"
        )
    right = len(outcome.results) == len(expected) and all(one.allowed for one in found)
    if screen.format is Format.json:
        screen.json(_as_json(row, chosen, grid, where, outcome, found))
    elif screen.is_text:
        _show(screen, row, chosen, outcome, found)
    if not right:
        raise typer.Exit(ERRORS)


def _list(screen: Screen) -> None:
    if screen.format is Format.json:
        screen.json(
            {
                "command": "lib",
                "kernels": [
                    {
                        "name": row.name,
                        "entry": f"{row.entry.__module__}.{row.entry.__name__}",
                        "summary": row.summary,
                        "examples": [one.name for one in row.examples],
                    }
                    for row in rows().values()
                ],
            }
        )
        return
    table = Table("kernel", "what it computes", "examples", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows().values():
        table.add_row(row.name, row.summary, ", ".join(one.name for one in row.examples))
    screen.show(table, "nki-sim lib NAME runs one; docs/library has a page on each.")


def _row(screen: Screen, name: str) -> Row:
    """The row of this name, or of the entry of this name."""
    for row in rows().values():
        if name.lower() in (row.name.lower(), row.entry.__name__.lower()):
            return row
    _unknown(screen, f"the kernel library has no {name!r}", rows())


def _example(screen: Screen, row: Row, name: str | None) -> Example:
    try:
        return row.example(name)
    except KeyError:
        _unknown(screen, f"{row.name} has no example {name!r}", [one.name for one in row.examples])


def _options(screen: Screen, row: Row, example: Example, words: Sequence[str]) -> dict[str, Any]:
    """``--name value`` pairs as arguments of the kernel."""
    arrays = example.arguments().keys() - example.options.keys()
    parameters = {n: p for n, p in signature_of(row.kernel).parameters.items() if n not in arrays}
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in parameters:
            _unknown(screen, f"{row.name} has no option {flag!r}", [f"--{known}" for known in parameters])
        if not equals:
            if not rest:
                _unknown(screen, f"{flag} has no value", ())
            value = rest.pop(0)
        default = example.options.get(name, parameters[name].default)
        given[name] = _value(screen, flag, value, default)
    return given


def _value(screen: Screen, flag: str, text: str, default: Any) -> Any:
    """The value of an option: a member of the enumeration of its default, a dtype, or a Python literal."""
    if isinstance(default, enum.Enum):
        members = type(default).__members__
        if text not in members:
            _unknown(screen, f"{flag} has no value {text!r}", members)
        return members[text]
    if text in DTYPES:
        return DTYPES[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unknown(screen: Screen, message: str, known: Any) -> NoReturn:
    help = f"choose one of {', '.join(known)}" if known else "write --option value"
    screen.fail([Diagnostic("NKI-L032", message, help=help)])


def _show(
    screen: Screen, row: Row, example: Example, outcome: KernelResult, found: Sequence[Difference]
) -> None:
    launch = outcome.launch
    screen.show(
        f"{row.name}: {row.summary}. Example {example.name}{f': {example.about}' if example.about else ''}"
    )
    for number, (result, one) in enumerate(zip(outcome.results, found)):
        verdict = "within" if one.allowed else "NOT within"
        screen.show(
            f"  result {number} {result.dtype}{list(result.shape)}: largest difference to the reference "
            f"{one.absolute:.2g} of {one.scale:.2g}, {verdict} the tolerance ({row.tolerance.reason})"
        )
    screen.show(f"  {time(elapsed(launch) or 0.0)} simulated", "")
    for number, core in enumerate(launch.cores):
        if core.timeline is not None:
            heading = launch_line(core.program, core.timeline.total, which(number, len(launch.cores)))
            screen.show(heading, "", *profile_tables(Profile.of(core.timeline), core.placement), "")


def _as_json(
    row: Row, example: Example, lnc: int, target: str, outcome: KernelResult, found: Sequence[Difference]
) -> dict[str, Any]:
    return {
        "command": "lib",
        "kernel": row.name,
        "example": example.name,
        "lnc": lnc,
        "target": target,
        "results": [
            {"largest_difference": one.absolute, "largest_magnitude": one.scale, "allowed": one.allowed}
            for one in found
        ],
        "launch": launch_facts(outcome.launch),
    }
