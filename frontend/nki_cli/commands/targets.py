"""``nki-sim targets``: every figure of every generation, and how it is known."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from nki_cli.options import ColorOption, DataFormat, DataFormatOption, TargetOption, read_target
from nki_cli.screen import Format, Screen
from nki_isa.machine.target import FIGURES, Feature, Target
from nki_isa.machine.targets import TARGETS
from nki_sim.words import size

# The first suffix that fits gives the unit.
_UNITS = (
    ("_bytes_per_ns", "GB/s"),
    ("_bytes", "bytes"),
    ("_ghz", "GHz"),
    ("_cycles", "cycles"),
    ("throttle_rate", "of full clock"),
    ("tensor_rate", "columns/cycle"),
    ("_rate", "elements/cycle"),
    ("_interval", "ns"),
    ("_latency", "ns"),
    ("_latency_throttled", "ns"),
    ("_ns", "ns"),
    ("_psum", "ns"),
    ("_sbuf", "ns"),
    ("throttle_window", "ns"),
    ("_load", "ns"),
    ("_store", "ns"),
    ("_start", "ns"),
    ("_end", "ns"),
    ("_issue", "ns"),
    ("_build", "ns"),
    ("_completion", "ns"),
    ("_to_sync", "ns"),
    ("_to_compute", "ns"),
    ("_to_tensor", "ns"),
)
_NO_UNIT = ("dma_transpose_load",)


def targets(
    target: TargetOption = None,
    format: DataFormatOption = DataFormat.text,
    no_color: ColorOption = False,
) -> None:
    """List hardware parameters with their sources: published (p), measured (m) or assumed (a)."""
    screen = Screen.open(Format(format.value), no_color)
    shown = [read_target(target, screen)] if target else list(TARGETS.values())
    if screen.format is Format.json:
        screen.json({t.name: {f: _as_dict(t, f) for f in FIGURES} | {"features": _named(t)} for t in shown})
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for t in shown:
        table.add_column(t.name, justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for figure in FIGURES:
        cells = [f"{_shown(t, figure)} {t.source(figure).evidence.value[0]}" for t in shown]
        table.add_row(figure, "" if unit(figure) == "bytes" else unit(figure), *cells, sources(figure, shown))
    screen.show("p published, m measured, a assumed", "", table, "", _features(shown))


def _features(shown: list[Target]) -> Table:
    """What the generations can do, and which of them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("feature", no_wrap=True)
    for t in shown:
        table.add_column(t.name, justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for feature in Feature:
        table.add_row(feature.name, *("yes" if feature in t.features else "" for t in shown), feature.value)
    return table


def sources(figure: str, shown: Iterable[Target]) -> str:
    """Where a figure comes from on each of the generations, told once where that is the same."""
    by_source: dict[str, list[str]] = {}
    for target in shown:
        by_source.setdefault(target.source(figure).reference, []).append(target.name)
    if len(by_source) == 1:
        return next(iter(by_source))
    return "; ".join(f"{', '.join(names)}: {source}" for source, names in by_source.items())


def unit(figure: str) -> str:
    """The unit of a figure, nothing for counts, sizes in elements and ratios."""
    if figure in _NO_UNIT:
        return ""
    if "tflops" in figure:
        return "TFLOPS"
    return next((name for suffix, name in _UNITS if figure.endswith(suffix)), "")


def _shown(target: Target, figure: str) -> str:
    value = getattr(target, figure)
    return size(value) if unit(figure) == "bytes" else f"{value:.6g}"


def _named(target: Target) -> list[str]:
    return [feature.name for feature in Feature if feature in target.features]


def _as_dict(target: Target, figure: str) -> dict[str, object]:
    source = target.source(figure)
    return {
        "value": getattr(target, figure),
        "unit": unit(figure),
        "evidence": source.evidence.value,
        "source": source.reference,
    }
