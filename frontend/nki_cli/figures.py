"""How the figures of a generation are shown: their units, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable

from nki_isa.machine.target import Target

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


__all__ = ["sources", "unit"]
