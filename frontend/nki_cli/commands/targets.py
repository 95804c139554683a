"""``nki-sim targets``: every figure of every generation, and how it is known."""

from __future__ import annotations

from rich import box
from rich.table import Table

from nki_cli.options import ColorOption, DataFormat, DataFormatOption, TargetOption, read_target
from nki_cli.screen import Format, Screen
from nki_isa.target import TARGETS, Target, figures
from nki_sim.report.words import size

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
        screen.json({t.name: {figure: _as_dict(t, figure) for figure in figures()} for t in shown})
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for t in shown:
        table.add_column(t.name, justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for figure in figures():
        cells = [f"{_shown(t, figure)} {t.source(figure).evidence.value[0]}" for t in shown]
        sources = dict.fromkeys(t.source(figure).reference for t in shown)
        table.add_row(figure, "" if unit(figure) == "bytes" else unit(figure), *cells, "; ".join(sources))
    screen.show("p published, m measured, a assumed", "", table)


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


def _as_dict(target: Target, figure: str) -> dict[str, object]:
    source = target.source(figure)
    return {
        "value": getattr(target, figure),
        "unit": unit(figure),
        "evidence": source.evidence.value,
        "source": source.reference,
    }
