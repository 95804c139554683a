"""``nki-sim isa [NAME]``: the instructions, their operands and rules, as the machine states them."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Annotated

import typer
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nki_cli.instruction_facts import PARTS, as_dict, costs_of, summary_of
from nki_cli.options import ColorOption, DataFormat, DataFormatOption, TargetOption, read_target
from nki_cli.screen import Format, Screen
from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import EvidenceKind, Target
from nki_isa.machine.targets import TARGETS


def isa(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Instruction name; omit to list all.", show_default=False),
    ] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Count what is stated and what is modelled.")
    ] = False,
    target: TargetOption = None,
    format: DataFormatOption = DataFormat.text,
    no_color: ColorOption = False,
) -> None:
    """Show an instruction: signature, operands, engines, rules and figures, with their sources."""
    screen = Screen.open(Format(format.value), no_color)
    chosen = read_target(target, screen)
    if coverage:
        _show_coverage(screen)
    elif name is None:
        _show_list(screen)
    else:
        _show_one(screen, _find(name, screen), chosen)


def _find(name: str, screen: Screen) -> type[Instruction]:
    opcode = name.rpartition(".")[2]
    if opcode not in REGISTRY:
        near = difflib.get_close_matches(opcode, REGISTRY, 3)
        remedy = f"did you mean {', '.join(near)}?" if near else "`nki-sim isa` lists all"
        screen.fail([Diagnostic("NKI-L032", f"nki.isa has no instruction {opcode!r}", help=remedy)])
    return REGISTRY[opcode]


def _show_one(screen: Screen, cls: type[Instruction], target: Target) -> None:
    facts = as_dict(cls, target)
    if screen.format is Format.json:
        screen.json(facts)
        return
    parameters = _table("parameter", "role", "kind", "default")
    for p in facts["parameters"]:
        parameters.add_row(p["name"], p["role"], p["kind"], "required" if p["required"] else p["default"])
    rules = _table("code", "rule", "source")
    for c in facts["constraints"]:
        rules.add_row(c["code"], c["rule"], c["source"])
    figures = _table("figure", "value", "known", "source")
    for f in facts["figures"]:
        figures.add_row(f["figure"], f"{f['value']:.6g} {f['unit']}", f["evidence"], f["source"])
    engines = ", ".join(facts["engines"])
    screen.show(
        Text(facts["signature"], "bold"),
        Padding(Text(facts["description"]), (1, 2)),
        f"engines: {engines}   since: {facts['since']}   source: {facts['source']}",
        "",
    )
    costs = _table("target", "busy ns", "latency ns", "throughput is", "fixed time is")
    for c in facts["costs"]:
        known = ("-" if c[part] is None else c[part]["evidence"] for part in PARTS)
        costs.add_row(c["target"], f"{c['busy_ns']}", f"{c['latency_ns']}", *known)
    sections: list[tuple[str, RenderableType]] = [
        ("Parameters", parameters),
        (f"Rules ({len(facts['constraints'])})", rules),
    ]
    if facts["costs"]:
        sections.append(("Time of a typical call, on tiles of 128 by 128", costs))
    if cls.assumed:
        sections.append(("Nothing is published about its time", f"assumed: {cls.assumed}"))
    if facts["figures"]:
        sections.append((f"Figures of {target.name} it is timed with", figures))
    for title, table in sections:
        screen.show(Text(title, "bold"), table, "")


def _show_list(screen: Screen) -> None:
    rows = [(name, [e.name for e in cls.engines], summary_of(cls)) for name, cls in sorted(REGISTRY.items())]
    if screen.format is Format.json:
        screen.json({"instructions": [{"name": n, "engines": e, "summary": s} for n, e, s in rows]})
        return
    table = _table("instruction", "engines", "what it does")
    for name, engines, text in rows:
        table.add_row(name, ", ".join(engines), text)
    screen.show(table)


def _show_coverage(screen: Screen) -> None:
    classes = list(REGISTRY.values())
    counts = {
        "instructions": len(classes),
        "with numerics": sum(cls.compute is not Instruction.compute for cls in classes),
        "with a cost": sum(cls.cost is not Instruction.cost for cls in classes),
        "constraints": sum(len(cls.constraints) for cls in classes),
        "constraints with a source": sum(bool(c.source) for cls in classes for c in cls.constraints),
    }
    engines = {e.name: sum(e in cls.engines for cls in classes) for e in Engine}
    known = {t: {part: _evidence(classes, t, part) for part in PARTS} for t in TARGETS}
    if screen.format is Format.json:
        plain = {k.replace(" ", "_"): n for k, n in counts.items()}
        screen.json({**plain, "by_engine": engines, "costs": known})
        return
    table = _table("what", "count")
    for what, count in [*counts.items(), *((f"on the {e} engine", n) for e, n in engines.items() if n)]:
        table.add_row(what, str(count))
    costs = _table("costs on", "part", *(e.value for e in EvidenceKind))
    for name, parts in known.items():
        for part, found in parts.items():
            costs.add_row(name, part, *(str(found[e.value]) for e in EvidenceKind))
    screen.show(table, "", costs)


def _evidence(classes: list[type[Instruction]], target: str, part: str) -> dict[str, int]:
    """Of how many instructions a part of the cost has which evidence on a generation."""
    costs = (c for cls in classes for c in costs_of(cls) if c["target"] == target)
    found = Counter(c[part]["evidence"] for c in costs if c[part] is not None)
    return {e.value: found[e.value] for e in EvidenceKind}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    return table
