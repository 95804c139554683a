"""API levels and what changed between them, ``docs/migration.md``: from the tables of :mod:`nki.levels`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from nki import levels
from nki.levels import FORMS, INFERRED, LEVELS, MEANINGS, NAMES, NOTICES, Name, OlderForm

_HEAD = """\
# API levels and migration

<!-- Printed by `python -m nki_cli.docs docs` from the tables in nki/levels. -->

A kernel is written for a level of the NKI API. The newest, {newest}, is the default; choose another with

- `nki-sim --api 0.3 run kernel.py`,
- the environment variable `NKI_SIM_API=0.3`, or
- `nki.levels.use("0.3")`, before names are imported from the modules.

The modules then have the names of that level, and functions take its parameters in its order. A name or a
parameter of another level is refused (NKI-L050) with the levels that have it and what to write instead.

Sources: API stubs of Neuron 2.28 to 2.32, the NKI migration guides, the release notes of NKI, and pages of
Neuron 2.33.
"""


_INFERRED = """\
The pages of 0.7 that could be read leave these open. Each is assumed, and has a test of its own, so that it
can be changed in one place.
"""

_FRONT_ENDS = (
    (
        "`auto` (default)",
        "a kernel in the constrained language is parsed, checked and specialized from its text; from 0.7 on "
        "one that needs more of Python is traced, and a note (NKI-L057) names the constructs that only the "
        "tracer takes",
    ),
    (
        "`parser`, `custom`",
        "every kernel is compiled from its text, at any level; `custom` is the vendor's name "
        "of its old front end",
    ),
    ("`tracer`", "every kernel is traced, at any level"),
)

_TWO = """\
## The two front ends

Up to 0.6 a kernel is compiled from its text, which is written in a constrained Python
([language.md](language.md)). From 0.7 on NKI runs the function in Python and records each call of nki: all of
Python may be used. Here both stay:
"""

_DIFFERENCES = """\
What a kernel means is the level's, not the front end's. Two things differ: a kernel that the parser compiles
changes a copy of the lists and objects of its module, one that is traced the objects themselves; and the
Program of a parsed kernel is kept for calls with the same shapes, while a traced kernel runs at each call.

`nki-sim check --api 0.7 OLD.py` shows what changes for a kernel; `--language strict` says what of it the
parser front end would not take.
"""


def page() -> str:
    """The text of the page."""
    parts = [_HEAD.format(newest=levels.NEWEST), _table(["level", "Neuron SDK"], LEVELS.items())]
    known = list(LEVELS)
    parts += [f"## Before {known[0]}\n", *_notices(known[0])]
    for old, new in itertools.pairwise(known):
        parts.append(f"## From {old} to {new}\n")
        parts += _section(old, new)
    parts += ["## What is inferred of 0.7\n", _INFERRED, _inferred()]
    parts += [
        _TWO,
        _table(["`--frontend`, `NKI_COMPILER_FRONTEND`", "what it does"], _FRONT_ENDS),
        _DIFFERENCES,
    ]
    return "\n".join(parts)


def _inferred() -> str:
    rows = ((rule, f"`{test}`") for rule, test in INFERRED)
    return _table(["what 0.7 does here", "its test, in tests/frontend/levels"], rows)


def _section(old: str, new: str) -> Iterator[str]:
    added = [row for row in NAMES if row.since == new]
    gone = [row for row in NAMES if row.until == old]
    forms = [form for form in FORMS if form.until == old]
    meanings = [row for row in MEANINGS if row.until == old]
    if added:
        yield _table(["new name", f"at {old} instead"], _grouped(added))
    if gone:
        yield _table(["name that left", "instead"], _grouped(gone))
    if forms:
        rows = ((f"`{form.module}.{form.name}`", _written(form), form.change) for form in forms)
        yield _table(["function", f"parameters at {old}", "change"], rows)
    if meanings:
        yield _table(
            ["instruction, called the same way", "change"],
            ((f"`nki.isa.{m.name}`", m.change) for m in meanings),
        )
    yield from _notices(new)


def _notices(level: str) -> Iterator[str]:
    rows = [row for row in NOTICES if row.level == level]
    if rows:
        yield _table(["what", "change", "write"], ((n.what, n.change, f"`{n.instead}`") for n in rows))


def _grouped(rows: list[Name]) -> Iterator[tuple[str, str]]:
    """Names with the same advice, in one row."""
    by_advice: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        by_advice.setdefault((row.module, row.instead), []).append(row.name)
    for (module, instead), names in by_advice.items():
        yield f"{module}: " + ", ".join(f"`{name}`" for name in names), instead


def _written(form: OlderForm) -> str:
    return ", ".join(f"`{part.replace('op:', '').replace(':', '.')}`" for part in form.parameters.split())


def _table(head: list[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join([*lines, ""])
