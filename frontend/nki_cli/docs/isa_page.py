"""The reference page of all instructions, from their classes: ``docs/isa.md``."""

from __future__ import annotations

import inspect
import re
from typing import Any

from nki_cli.figures import sources, unit
from nki_cli.instruction_facts import PARTS, as_dict
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import FIGURES
from nki_isa.machine.targets import TARGETS, default_target

_HEAD = """\
# Instructions

<!-- Printed by `python -m nki_cli.docs docs` from the classes in nki_isa/ops. -->

Every instruction of `nki.isa`: what it computes, what it refuses and what it costs, with the sources.
`nki-sim isa NAME` prints the same for one instruction, `nki-sim isa --coverage` counts them.

*Role* says what the hardware does with a parameter: it reads or writes it; a *scalar* is a number, a tile of
one column or a register; an *attribute* is known at compile time. Rules are checked where the kernel is
compiled; each has a page under [errors](errors.md). *Busy* is how long an engine is held before its next
instruction starts, *latency* how long until the result is visible, both for a typical call on tiles of 128
partitions by 128 elements. Both have a part that grows with the elements (*throughput*) and a *fixed* one; of
each the table says whether it was published, measured on public profiles, fitted to such measurements
([fidelity](fidelity.md)), or assumed, and which of the [figures](#figures) it is.
"""

_FIGURES = """\
## Figures

Every figure of the model: p published, m measured on public profiles, f fitted to such measurements, a
assumed. The costs above name some of them; `nki-sim targets` prints the same for one generation.
"""

#: The sections, by the engine an instruction runs on where the kernel does not say.
_SECTIONS = {
    Engine.tensor: "Tensor engine",
    Engine.vector: "Vector engine",
    Engine.scalar: "Scalar engine",
    Engine.gpsimd: "GpSimd engine",
    Engine.dma: "DMA",
    Engine.sync: "Registers and debugging",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for engine, title in _SECTIONS.items():
        classes = [REGISTRY[name] for name in sorted(REGISTRY) if REGISTRY[name].engines[0] is engine]
        parts.append(f"## {title}\n\n" + " · ".join(f"[{c.opcode}](#{c.opcode})" for c in classes) + "\n")
        parts += [_entry(cls) for cls in classes]
    parts.append(_figures())
    return "\n".join(parts)


def _figures() -> str:
    """All figures, on each generation, with their sources."""
    rows = []
    for figure in FIGURES:
        values = [
            f"{_number(getattr(t, figure))} {t.source(figure).evidence.value[0]}" for t in TARGETS.values()
        ]
        rows.append((f"`{figure}`", unit(figure), *values, sources(figure, TARGETS.values())))
    head = ("figure", "unit", *TARGETS, "source")
    return f"{_FIGURES}\n{_table(head, rows)}\n"


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _entry(cls: type[Instruction]) -> str:
    facts = as_dict(cls, default_target())
    engines = ", ".join(facts["engines"])
    text = [
        f"### {cls.opcode}",
        f"```python\n{facts['signature']}\n```",
        _described(facts["description"]),
        f"Engines: {engines}. Since: {facts['since']}. Source: `{facts['source']}`.",
        _table(
            ("parameter", "role", "kind", "default"),
            [
                (f"`{p['name']}`", p["role"], p["kind"], "required" if p["required"] else f"`{p['default']}`")
                for p in facts["parameters"]
            ],
        ),
        _table(
            ("code", "rule", "source"), [(c["code"], c["rule"], c["source"]) for c in facts["constraints"]]
        ),
    ]
    if facts["costs"]:
        rows = [
            (
                c["target"],
                f"{c['busy_ns']:.1f}",
                f"{c['latency_ns']:.1f}",
                *(_known(c[part]) for part in PARTS),
            )
            for c in facts["costs"]
        ]
        text.append(_table(("target", "busy ns", "latency ns", "throughput", "fixed"), rows))
    return "\n\n".join(text) + "\n"


def _known(part: dict[str, str] | None) -> str:
    return "" if part is None else f"{part['evidence']}, `{part['figure']}`"


def _described(docstring: str) -> str:
    """A docstring as Markdown: references to classes and double backquotes become code."""
    text = re.sub(r":\w+:`~?\.?([\w.]+)`", r"`\1`", inspect.cleandoc(docstring))
    return text.replace("``", "`").replace("*", r"\*")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(
        [*lines, *(f"| {' | '.join(str(x).replace('|', chr(92) + '|') for x in row)} |" for row in rows)]
    )
