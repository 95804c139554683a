"""``nki-sim gate FILE...``: would the compiler take each kernel call, and will the hardware agree?"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from nki.compiler.checker.check import check_file, kernels_of_file
from nki.runtime import Options
from nki_cli import render, sarif
from nki_cli.options import (
    ColorOption,
    LanguageOption,
    LanguageProfile,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.screen import MISUSE, Format, Screen
from nki_cli.script import Outcome, Prints, files_of, run_script
from nki_cli.session import readable
from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.machine.target import Target
from nki_sim.words import counted
from nki_tools.gate import Judgement, Verdict, judge, read_compiler


class GateFormat(str, enum.Enum):
    """How verdicts are written."""

    text = "text"
    json = "json"
    sarif = "sarif"


@dataclass(frozen=True)
class _Judged:
    """The verdicts of one file, and what else there is to say of it."""

    file: str
    launches: list[Judgement]
    diagnostics: list[Diagnostic]

    def as_dict(self) -> dict[str, Any]:
        findings = [reason.finding for launch in self.launches for reason in launch.reasons]
        return {
            "file": self.file,
            "verdict": worst(j.verdict for j in self.launches).value,
            "launches": [launch.as_dict() for launch in self.launches],
            "diagnostics": [d.as_dict() for d in dict.fromkeys((*findings, *self.diagnostics))],
        }


def gate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Python scripts that call kernels, or folders: all their Python files that import nki.",
            show_default=False,
        ),
    ],
    compiler: Annotated[
        str | None,
        typer.Option(
            "--compiler",
            metavar="VERSION",
            help="A version of neuronx-cc, such as 2.27: what was seen only with newer ones does not count. "
            "Default: the newest.",
            show_default=False,
        ),
    ] = None,
    language: LanguageOption = LanguageProfile.library,
    target: TargetOption = None,
    format: Annotated[
        GateFormat, typer.Option("--format", help="text to read, json for programs, sarif for code scanning.")
    ] = GateFormat.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Say of each kernel call whether the compiler takes it, with the rules that decided and their evidence.

    Files run with the arithmetic left out; where a verdict depends on data, the call runs with it. The exit
    status is 0 if every call is taken, 1 if one is refused, 3 if one is unknown.
    """
    screen = Screen.open(Format.text if format is GateFormat.text else Format.json, no_color)
    chosen = read_target(target, screen)
    try:
        version = read_compiler(compiler)
    except NkiError as found:
        screen.fail(found.diagnostics)
    paths = [path for name in files for path in files_of(name)]
    for path in paths:
        readable(screen, path)
    options = Options(target=chosen, profile=language.value, data=False, check="all", decide=True)
    judged = []
    for path in paths:
        one = _judge_file(path, options, chosen, version, traceback)
        judged.append(one)
        if format is GateFormat.text:
            _show(screen, one)
    launches = [launch for one in judged for launch in one.launches]
    if format is GateFormat.sarif:
        screen.json(sarif.log(launches))
    elif format is GateFormat.json:
        head = {"command": "gate", "target": chosen.name, "compiler": version}
        verdict = {"verdict": worst(j.verdict for j in launches).value}
        one_file = judged[0].as_dict() if len(judged) == 1 else {}
        screen.json({**head, **(one_file or {**verdict, "files": [one.as_dict() for one in judged]})})
    if not launches and not any(d.severity is Severity.error for one in judged for d in one.diagnostics):
        raise typer.Exit(MISUSE)
    failed = any(d.severity is Severity.error for one in judged for d in one.diagnostics)
    status = Verdict.refuses.status if failed else worst(j.verdict for j in launches).status
    if status:
        raise typer.Exit(status)


def worst(verdicts: Iterator[Verdict]) -> Verdict:
    """The verdict of several launches: refused if one is, else unknown if one is."""
    found = set(verdicts)
    return next((v for v in (Verdict.refuses, Verdict.unknown) if v in found), Verdict.takes)


def _judge_file(
    file: str, options: Options, target: Target, compiler: str | None, whole_traceback: bool
) -> _Judged:
    """The verdicts of the kernel calls of `file`; of all its kernels, where their text is refused."""
    found = list(check_file(file, options.profile))
    if any(d.severity is Severity.error for d in found):
        names = ", ".join(kernel.name for kernel in kernels_of_file(file).values()) or file
        return _Judged(file, [judge(names, found, (), target, compiler)], [])
    outcome = run_script(file, options, prints=Prints.nowhere, whole_traceback=whole_traceback)
    launches = [
        judge(one.kernel, one.diagnostics, [core.program for core in one.cores], target, compiler)
        for one in outcome.launches
    ]
    launches += [judge(one.kernel, one.error.diagnostics, (), target, compiler) for one in outcome.refused]
    return _Judged(file, launches, list(_others(file, outcome)))


def _others(file: str, outcome: Outcome) -> Iterator[Diagnostic]:
    """What is wrong with the script itself."""
    told = {d for one in outcome.launches for d in one.diagnostics}
    told |= {d for one in outcome.refused for d in one.error.diagnostics}
    messages = {(d.code, d.message) for d in told}
    yield from (d for d in outcome.diagnostics if (d.code, d.message) not in messages)
    if not outcome.launches and not outcome.refused and not outcome.errors:
        yield Diagnostic(
            "NKI-L027",
            f"{file} ran to its end without calling a kernel",
            help="call a function decorated with @nki.jit with arrays, at the end of the file",
            severity=Severity.note,
        )


def _show(screen: Screen, judged: _Judged) -> None:
    screen.diagnostics(judged.diagnostics, result=True)
    told: list[tuple[str, str]] = []
    for launch in judged.launches:
        reasons = [
            r for r in launch.reasons if r.decides or r.rule is not None or r.finding.severity is _ERROR
        ]
        for reason in reasons:
            finding = replace(
                reason.finding, notes=(*_without_source(reason.finding), f"source: {reason.evidence}")
            )
            text = str(finding)
            if (launch.kernel, text) not in told:
                told.append((launch.kernel, text))
                screen.out.print(render.rich_text(finding), soft_wrap=True)
                screen.out.print()
    groups: dict[tuple[str, Verdict, tuple[tuple[str, int], ...]], int] = {}
    for launch in judged.launches:
        key = launch.kernel, launch.verdict, tuple(launch.uncovered.items())
        groups[key] = groups.get(key, 0) + 1
    for (kernel, verdict, uncovered), count in groups.items():
        times = f", {count} calls" if count > 1 else ""
        by = f", neuronx-cc {judged.launches[0].compiler}" if judged.launches[0].compiler else ""
        screen.out.print(
            f"{kernel}: {verdict.value} ({judged.launches[0].target}{by}{times})", soft_wrap=True
        )
        for construct, often in uncovered:
            screen.out.print(f"  no evidence covers: {construct} ({counted(often, 'time')})", soft_wrap=True)


_ERROR = Severity.error


def _without_source(found: Diagnostic) -> tuple[str, ...]:
    return tuple(note for note in found.notes if not note.startswith("source: "))
