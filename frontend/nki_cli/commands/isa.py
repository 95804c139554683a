"""``nki-sim isa [NAME]``: the instructions, their operands and rules, as the machine states them."""

from __future__ import annotations

import difflib
import enum
import inspect
from collections import Counter
from typing import Annotated, Any

import typer
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nki_cli.commands.targets import unit
from nki_cli.options import ColorOption, DataFormat, DataFormatOption, TargetOption, read_target
from nki_cli.screen import Format, Screen
from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.instruction import REGISTRY, REQUIRED, Engine, Field, Instruction
from nki_isa.machine.target import Evidence, Target
from nki_isa.machine.targets import TARGETS
from nki_isa.ops.collective import Collective
from nki_isa.samples import sample

# The figures of `Target` that an engine's instructions are timed with, beside those a cost names.
_FIGURES = {
    Engine.tensor: ("tensor_ghz", "tensor_interval", "tensor_latency", "weight_latency"),
    Engine.vector: ("vector_ghz", "vector_interval", "vector_latency"),
    Engine.scalar: ("scalar_ghz", "scalar_interval", "scalar_latency"),
    Engine.gpsimd: ("gpsimd_ghz", "gpsimd_start_cycles", "minimum_interval_cycles"),
    Engine.dma: ("dma_row_ns", "dma_bytes_per_ns", "dma_completion"),
    Engine.sync: (),
}

_LINKS = ("link_hop_ns", "link_mesh_bytes", "link_rdh_bytes")

#: The two parts of a cost, each known by itself: time that grows with the elements, and time that does not.
PARTS = ("throughput", "fixed")


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


def summary_of(cls: type[Instruction]) -> str:
    """The first sentence of its docstring."""
    return (inspect.getdoc(cls) or "").split("\n")[0]


def as_dict(cls: type[Instruction], target: Target) -> dict[str, Any]:
    """An instruction as plain values."""
    return {
        "name": cls.opcode,
        "signature": signature_of(cls),
        "description": inspect.getdoc(cls) or "",
        "engines": [e.name for e in cls.engines],
        "since": f"NeuronCore-v{cls.since}",
        "source": cls.source,
        "parameters": [
            {
                "name": f.name,
                "role": f.role.value,
                "kind": _kind(f),
                "default": None if f.default is REQUIRED else _spelled(f.default),
                "required": f.default is REQUIRED,
            }
            for f in cls.fields.values()
            if f.public
        ],
        "constraints": [
            {"code": c.code, "rule": c.rule, "help": c.help, "source": c.source} for c in cls.constraints
        ],
        "costs": costs_of(cls),
        "assumed": cls.assumed or None,
        "figures": _figures(cls, target),
    }


def costs_of(cls: type[Instruction]) -> list[dict[str, Any]]:
    """The time of a typical call on every generation that has it, and how its two parts are known.

    Each has ``target``, ``engine``, ``busy_ns``, ``latency_ns`` and for every part ``{figure, evidence,
    source}``, None where nothing is streamed.
    """
    if cls.is_free:
        return []
    call = sample(cls.opcode)
    found = []
    for target in TARGETS.values():
        if target.nc_version < cls.since:
            continue
        cost = call.cost(target)
        found.append(
            {
                "target": target.name,
                "engine": call.on.name,
                "busy_ns": round(cost.busy, 1),
                "latency_ns": round(cost.latency, 1),
                "throughput": _known(cls, target, cost.rate),
                "fixed": _known(cls, target, cost.source),
            }
        )
    return found


def _known(cls: type[Instruction], target: Target, figure: str) -> dict[str, str] | None:
    """Where one part of a cost comes from."""
    if not figure:
        return None
    source = target.source(figure)
    if cls.assumed:
        assumption = f"not published; assumed: {cls.assumed}"
        return {"figure": figure, "evidence": Evidence.assumed.value, "source": assumption}
    return {"figure": figure, "evidence": source.evidence.value, "source": source.reference}


def signature_of(cls: type[Instruction]) -> str:
    """``nki.isa.name(...)``, or where it is in the API, with defaults."""
    given = [
        f.name if f.default is REQUIRED else f"{f.name}={_spelled(f.default)}"
        for f in cls.fields.values()
        if f.public
    ]
    return f"{cls.namespace}.{cls.opcode}({', '.join(given)})"


def _figures(cls: type[Instruction], target: Target) -> list[dict[str, Any]]:
    """What its time on its default engine is made of, on `target`."""
    found = []
    named = [
        cost[part]["figure"]
        for cost in costs_of(cls)
        if cost["target"] == target.name
        for part in PARTS
        if cost[part] is not None
    ]
    own = () if cls.is_free else _LINKS if issubclass(cls, Collective) else _FIGURES.get(cls.engines[0], ())
    for figure in dict.fromkeys([*named, *own]):
        source = target.source(figure)
        found.append(
            {
                "figure": figure,
                "value": getattr(target, figure),
                "unit": unit(figure),
                "evidence": source.evidence.value,
                "source": source.reference,
            }
        )
    return found


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
    costs = _table("costs on", "part", *(e.value for e in Evidence))
    for name, parts in known.items():
        for part, found in parts.items():
            costs.add_row(name, part, *(str(found[e.value]) for e in Evidence))
    screen.show(table, "", costs)


def _evidence(classes: list[type[Instruction]], target: str, part: str) -> dict[str, int]:
    """Of how many instructions a part of the cost is published, measured and assumed on a generation."""
    costs = (c for cls in classes for c in costs_of(cls) if c["target"] == target)
    found = Counter(c[part]["evidence"] for c in costs if c[part] is not None)
    return {e.value: found[e.value] for e in Evidence}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold")
    return table


def _kind(field: Field) -> str:
    if field.kind is None:
        return (
            "tensor or number"
            if field.role.value == "scalar"
            else "register"
            if "register" in field.role.value
            else "tensor"
        )
    return str(getattr(field.kind, "__name__", field.kind))


def _spelled(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else repr(value)
