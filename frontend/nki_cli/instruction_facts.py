"""What is stated of an instruction, as plain values: for its page, the command line and editors."""

from __future__ import annotations

import enum
import inspect
from typing import Any

from nki_cli.figures import unit
from nki_isa.ir.fields import REQUIRED, Field
from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import EvidenceKind, Target
from nki_isa.machine.targets import TARGETS, since
from nki_isa.ops.collective import Collective
from nki_isa.ops.samples import sample

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
        "since": f"NeuronCore-v{since(cls.needs)}",
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
        if not target.has(cls.needs):
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
        return {"figure": figure, "evidence": EvidenceKind.assumed.value, "source": assumption}
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


__all__ = ["PARTS", "as_dict", "costs_of", "signature_of", "summary_of"]
