"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import enum
import os
from typing import Annotated

import typer

from nki.compiler.language import frontends
from nki_cli.screen import Format, Screen
from nki_isa.diagnostics import NkiError
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TARGETS, as_target, default_target
from nki_sim.sanitize import CHECKS, check_classes
from nki_sim.timing.mechanisms import mechanisms


class LanguageProfile(str, enum.Enum):
    """The language profiles."""

    strict = "strict"
    library = "library"


FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A Python script that calls at least one kernel.", show_default=False
    ),
]
LanguageOption = Annotated[
    LanguageProfile, typer.Option("--language", help="Language profile: constructs accepted in kernels.")
]
OwnLanguageOption = Annotated[
    LanguageProfile | None,
    typer.Option(
        "--language",
        help="Language profile: constructs accepted in kernels. Default: strict, or library where they are "
        "traced at need.",
        show_default=False,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="|".join(TARGETS),
        help="The generation, or an alias (inf2, gen3). Default: $NEURON_PLATFORM_TARGET_OVERRIDE, or trn2.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="text to read, json for programs, lines (file:line:column) for editors, github for annotations.",
    ),
]


class DataFormat(str, enum.Enum):
    """How what is not a diagnostic is written."""

    text = "text"
    json = "json"


DataFormatOption = Annotated[DataFormat, typer.Option("--format", help="text to read, json for programs.")]
ColorOption = Annotated[
    bool, typer.Option("--no-color", help="No colour; so does the variable NO_COLOR.", show_default=False)
]
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback",
        help="Full tracebacks, including nki-sim's frames.",
        show_default=False,
    ),
]
NoDataOption = Annotated[
    bool,
    typer.Option(
        "--no-data",
        help="Skip the arithmetic: outputs are zeros; times and memory stay right.",
        show_default=False,
    ),
]


NoSpillOption = Annotated[
    bool,
    typer.Option(
        "--no-spill",
        help="Refuse a kernel that fits SBUF only with spills to HBM.",
        show_default=False,
    ),
]


class ScheduleMode(str, enum.Enum):
    """The order instructions run in."""

    program = "program"
    compiler = "compiler"


ScheduleOption = Annotated[
    ScheduleMode,
    typer.Option(
        "--schedule",
        help="Order of instructions: as the kernel states, or as a compiler that looks ahead would have it.",
    ),
]
CheckOption = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="all|none|CLASS,...",
        help=f"What to check while kernels run: {', '.join(CHECKS)}. Default: $NKI_SIM_CHECK, or all.",
        show_default=False,
    ),
]
WarningsAsErrorsOption = Annotated[
    bool,
    typer.Option(
        "--warnings-as-errors",
        help="Make every warning an error, and every note of a run-time check.",
        show_default=False,
    ),
]


class FillMode(str, enum.Enum):
    """What memory holds before it is written."""

    zeros = "zeros"
    sentinels = "sentinels"


FillOption = Annotated[
    FillMode,
    typer.Option("--fill", help="Unwritten memory: zeros, or NaN and 4 as in the vendor's simulator."),
]


def read_language(language: LanguageProfile | None) -> str:
    """The profile of a check: strict where the parser compiles kernels; the tracer takes all of Python."""
    default = LanguageProfile.library if frontends.takes_python() else LanguageProfile.strict
    return (language or default).value


def read_checks(text: str | None, screen: Screen) -> frozenset[str]:
    """The classes an option names, else the environment's; an unknown one ends the command with status 2."""
    try:
        return check_classes(os.environ.get("NKI_SIM_CHECK", "all") if text is None else text)
    except NkiError as found:
        screen.fail(found.diagnostics)


def read_mechanisms(text: str, screen: Screen) -> frozenset[str]:
    """The mechanisms an option names; an unknown one ends the command with status 2."""
    try:
        return mechanisms(text)
    except NkiError as found:
        screen.fail(found.diagnostics)


def read_target(name: str | None, screen: Screen) -> Target:
    """The target an option names, else the environment's; an unknown name ends the command with status 2."""
    try:
        return as_target(name) if name else default_target()
    except NkiError as found:
        screen.fail(found.diagnostics)
