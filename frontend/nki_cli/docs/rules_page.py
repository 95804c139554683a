"""The table of rules, ``docs/compiler-rules.md``: what the compiler and hardware refuse, with evidence."""

from __future__ import annotations

from nki_cli.docs.code_pages import CLASSES, ExampleKind, heading, twin
from nki_isa.rules import RULES, Rule, Standing
from nki_tools.snippets import FRAME

_HEAD = f"""\
# What the compiler and the hardware refuse

<!-- Printed by `python -m nki_cli.docs docs` from nki_isa/rules. -->

A simulator takes many kernels that a compiler refuses, or that give wrong values on a device. Each rule here
is of that kind, documented or not, with what it is known from; `nki-sim check`, `run` and `gate` find what
breaks it, and `nki-sim explain NAME` prints it. The class says how firm the evidence is:

| class | a finding is | the gate | what it rests on |
|---|---|---|---|
| error | an error | refuses it | documented, or seen many times and contradicted by nothing |
| warning seen at compile | a warning | refuses it | a compiler refused it, and no page says so |
| warning | a warning | takes it | seen to go wrong, and public kernels do it |
| note | a note | takes it | seen once, or against the documentation |
| never | nothing | takes it | refused once, and working kernels do it: a rule that must not fire |

What was seen counts from the version of the compiler on that it was seen with: `nki-sim gate --compiler 2.24`
leaves out what is known of 2.27 only. "Places" are public places read, not distinct authors.

[How to report a refusal](reporting-a-refusal.md) that is missing here.

{FRAME}

## How well the gate tells

`python -m nki_tools.twins` runs the twins of every rule below without arithmetic and counts: **{{score}}**.
`python -m nki_tools.twins FOLDER` does so for a folder of files `NAME_bad.py` and `NAME_good.py`.
"""


def page() -> str:
    """The whole page."""
    wrong = sum(1 for row in RULES.values() if row.wrong and row.standing is not Standing.never)
    score = f"recall 1.000 ({wrong} of {wrong} wrong kernels found), precision 1.000 (0 false alarms)"
    table = ["| rule | class | code | generations |", "|---|---|---|---|"]
    for row in RULES.values():
        code = row.code or "none"
        table.append(f"| [{row.name}](#{row.name}) | {row.standing.value} | {code} | {_generations(row)} |")
    return "\n".join([_HEAD.format(score=score), *table, "", *(_entry(row) for row in RULES.values())])


def _generations(row: Rule) -> str:
    return ", ".join(row.targets) or "all"


def _entry(row: Rule) -> str:
    level = f" Since API level {row.level}." if row.level else ""
    until = f" Until API level {row.until}." if row.until else ""
    parts = [
        f"## {row.name}",
        f"**{row.sentence}**",
        row.reason,
        f"{CLASSES[row.standing].capitalize()}. Generations: {_generations(row)}.{level}{until}",
        f"Evidence: {row.evidence}.",
    ]
    for kind in ExampleKind:
        made = twin(row, kind)
        if made.text:
            word = heading(made)
            parts.append(f"{word}:" if row.standing is not Standing.never else f"{_NEVER[kind]}:")
            parts.append(f"```python\n{made.text}```")
    return "\n\n".join([*parts, ""])


_NEVER = {ExampleKind.wrong: "Right, though it was refused once", ExampleKind.right: "Right"}
