"""Refits the figures of the machine that were set with calibration rows: ``python
benchmarks/fidelity/fit.py``.

Each figure whose evidence is ``fitted`` stands here with the rows that set it, in groups. It is refitted
alone, the others as they are: the value with the least sum of squared logarithms of simulated over
measured. Then each group is left out in turn: what the figure would be without it, and how far off the rows
left out are then. ``fit.csv`` gets a line for each; ``page.py`` prints it into docs/fidelity.md. Rows that
check the model (``evaluate.py``) have no part in this.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

import timing_accuracy  # noqa: E402

from nki_isa.machine.targets import as_target  # noqa: E402

FIELDS = (
    "generation",
    "figure",
    "value",
    "refitted",
    "rows",
    "error",
    "left_out",
    "without",
    "error_left_out",
)
_AROUND = (0.6, 0.8, 1.0, 1.2, 1.4)  # of the value: a time is a broken line of the figure between these


@dataclass(frozen=True)
class Fitted:
    """A figure of a generation, and the rows it is fitted on.

    Attributes:
        generation: such as ``"trn2"``.
        figure: its name in :class:`~nki_isa.machine.target.Target`.
        groups: names of rows, by what they have in common; left out together.
        slow: its rows are whole kernels and take minutes.
        paired: each group is a kernel of ``nki_library.csv`` on one core and on two, and another on one and
            on two that lacks what is fitted. The second launch is fitted, less what it is off by for other
            reasons: what the first is off by, and what the fourth is more than the third. Simulated times
            are those of ``results.csv``, in the compiler's order.
    """

    generation: str
    figure: str
    groups: Mapping[str, Sequence[str]]
    slow: bool = False
    paired: bool = False

    @property
    def rows(self) -> list[str]:
        """The names of all its rows."""
        return [name for names in self.groups.values() for name in names]


_COPIES = "vector copy PSUM fp32 512", "vector copy PSUM fp32 128"
_MLP_CTE, _NO_CP = "MLP_CTE_UNIT_TEST_CASES_GATE_BIAS_FALSE", "attention_cte_no_cp_vnc"
_NORM = "rmsnorm_tkg_lnc_perms L203", "rmsnorm_tkg_lnc_perms L210"
_SCALES = "vector scale PSUM fp32 128", "vector scale SBUF fp32 512"

FITTED = (
    Fitted(
        "trn2",
        "tensor_interval",
        {
            "bf16": ("nc_matmul bf16 512 interval", "nc_matmul bf16 128 interval"),
            "fp32": ("nc_matmul fp32 512 interval", "nc_matmul fp32 128 interval"),
        },
    ),
    Fitted(
        "trn2",
        "tensor_latency",
        {"512 columns": ("nc_matmul bf16 512",), "128 columns": ("nc_matmul bf16 128",)},
    ),
    Fitted(
        "trn2",
        "tensor_latency_throttled",
        {"512 columns": ("nc_matmul bf16 512 throttled",), "128 columns": ("nc_matmul bf16 128 throttled",)},
    ),
    Fitted(
        "trn2",
        "vector_interval",
        {
            "copies": ("vector copy PSUM fp32 512 interval",),
            "reductions": ("vector reduce fp32 512 interval",),
        },
    ),
    Fitted(
        "trn2",
        "vector_latency",
        {
            "copies from PSUM": _COPIES,
            "copies in SBUF": ("vector copy SBUF fp32 512",),
            "reductions": (
                "vector reduce fp32 512",
                "vector reduce PSUM fp32 512",
                "vector reduce fp32 4",
            ),
        },
    ),
    Fitted(
        "trn2",
        "vector_pointer_interval",
        {
            "from PSUM": ("vector scale PSUM fp32 128 interval",),
            "in SBUF": ("vector scale SBUF fp32 512 interval",),
        },
    ),
    Fitted("trn2", "vector_pointer_latency", {"from PSUM": _SCALES[:1], "in SBUF": _SCALES[1:]}),
    Fitted(
        "trn2",
        "scalar_interval",
        {
            "512 elements": ("scalar copy PSUM fp32 512 interval",),
            "128 elements": ("scalar copy PSUM fp32 128 interval",),
        },
    ),
    Fitted(
        "trn2",
        "scalar_latency",
        {
            "512 elements": ("scalar copy PSUM fp32 512",),
            "128 elements": ("scalar copy PSUM fp32 128",),
        },
    ),
    Fitted("trn2", "scalar_bias_interval_psum", {"exp": ("scalar exp PSUM 512 interval",)}),
    Fitted("trn2", "scalar_bias_interval_sbuf", {"exp": ("scalar exp SBUF 512 interval",)}),
    Fitted("trn2", "scalar_bias_latency_psum", {"exp": ("scalar exp PSUM 512",)}),
    Fitted("trn2", "scalar_bias_latency_sbuf", {"exp": ("scalar exp SBUF 512",)}),
    Fitted(
        "trn2",
        "dma_row_ns",
        {
            "512 B": ("dma row 512 B load",),
            "2 KiB": ("dma row 2 KiB load",),
            "4 KiB": ("dma row 4 KiB load", "dma store 128 x 4 KiB"),
            "256 B": ("dma row 256 B load",),
            "joined": ("dma row 1 KiB load, joined", "dma row 2 KiB load, joined"),
            "apart": (
                "dma row 256 B store, apart",
                "dma row 512 B store, apart",
                "dma row 512 B store, apart, 8",
                "dma row 512 B to 256 B store, converted",
            ),
        },
    ),
    Fitted("trn2", "dma_hwdge_issue", {"interval": ("dma, hardware DGE interval",)}),
    Fitted("trn2", "dma_hwdge_start_load", {"first byte": ("dma load, hardware DGE to first byte",)}),
    Fitted("trn2", "dma_hwdge_start_store", {"first byte": ("dma store, hardware DGE to first byte",)}),
    Fitted(
        "trn2",
        "dma_swdge_interval",
        {"interval": ("dma, software DGE interval",), "tiled": ("matmul float32 tiled",)},
        slow=True,
    ),
    Fitted(
        "trn2",
        "dma_swdge_build",
        {
            "loads": ("dma load, software DGE to first byte",),
            "stores": ("dma store, software DGE to first byte",),
        },
    ),
    Fitted("trn2", "vector_fp32_two_input_rate", {"add": ("vector add fp32 2000",)}),
    Fitted(
        "trn2",
        "vector_reciprocal_rate",
        {"4 elements": ("vector reciprocal fp32 4",), "8 elements": ("vector reciprocal fp32 8",)},
    ),
    Fitted(
        "trn1",
        "tensor_latency",
        {
            "matmuls": ("nc_matmul bf16 128 x 96", "nc_matmul bf16 128 x 1"),
            "transposes": ("nc_transpose bf16 128 x 128",),
        },
    ),
    Fitted("trn1", "scalar_latency", {"one element": ("scalar copy 1",)}),
    Fitted("trn1", "same_engine_ns", {"one element": ("scalar copy 1, of its result",)}),
    Fitted("trn1", "dma_row_floor_ns", {"4 B": ("dma row 4 B load",)}),
    Fitted(
        "trn1",
        "dma_small_row_bytes_per_ns",
        {
            "tiled": ("matmul bfloat16 tiled",),
            "hoisted": ("matmul bfloat16 hoisted",),
            "blocked free": ("matmul bfloat16 blocked free",),
        },
        slow=True,
    ),
    Fitted(
        "trn2",
        "program_pair_start",
        {
            "mlp_cte": (f"{_MLP_CTE} L281", f"{_MLP_CTE} L283", *_NORM),
            "attention_cte": (f"{_NO_CP}_param_unit_perms L684", f"{_NO_CP}_param_unit_perms L682", *_NORM),
        },
        paired=True,
    ),
)
"""Every fitted figure."""

_TKG = "nki_tkg_fused_norm_mlp_kernel"
READ: dict[tuple[str, str], tuple[str, ...]] = {
    ("trn2", "moving_min"): (f"{_TKG}_spmd_vnc2_swap_perms L277", f"{_TKG}_spmd_skip_gate L295"),
    ("trn2", "hbm_efficiency"): (
        f"{_TKG}_spmd_vnc2_params L233",
        f"{_TKG}_spmd_vnc2_params L236",
        f"{_TKG}_separation_pass_params L454",  # L236 again
    ),
    ("trn2", "dma_transpose_local"): (
        "attention_cte_no_cp_unit_perms L487",
        f"{_NO_CP}_param_unit_perms L675",
    ),
    ("trn2", "program_single_lead"): _NORM,
    ("trn1", "vector_reciprocal_rate"): ("silu M4096 N7168",),
    ("trn1", "dma_small_row_bytes"): ("rope_single_freq_apply B1 H64 N4096 D128",),
}
"""Figures read off times of whole kernels, or shares of them, which check nothing then."""


def of_whole_kernels() -> set[str]:
    """The rows of whole kernels, not of ``timing_accuracy.py``, that set a figure."""
    paired = {name for fitted in FITTED if fitted.paired for name in fitted.rows}
    return paired.union(*READ.values())


@dataclass(frozen=True)
class Curve:
    """What a row takes at values of a figure, between which it is a broken line."""

    measured: float
    values: np.ndarray
    times: np.ndarray

    def error(self, value: float | np.ndarray) -> np.ndarray:
        """log(simulated / measured) at `value`."""
        found: np.ndarray = np.log(np.interp(value, self.values, self.times) / self.measured)
        return found


def curves(fitted: Fitted) -> dict[str, Curve]:
    """The curve of each of its rows."""
    if fitted.paired:
        return _paired(fitted)
    machine = as_target(fitted.generation)
    known = {row.name: row for row in timing_accuracy.ROWS if row.target == fitted.generation}
    values = np.array(_AROUND[1:-1] if fitted.slow else _AROUND) * float(getattr(machine, fitted.figure))
    times: dict[str, list[float]] = {name: [] for name in fitted.rows}
    for value in values:
        with timing_accuracy.on_machine(replace(machine, **{fitted.figure: float(value)})):
            for name in fitted.rows:
                times[name].append(known[name].simulated())
    return {name: Curve(known[name].measured, values, np.array(found)) for name, found in times.items()}


def _paired(fitted: Fitted) -> dict[str, Curve]:
    with (HERE / "results.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    value = float(getattr(as_target(fitted.generation), fitted.figure))
    values = np.array(_AROUND) * value
    found = {}
    for names in fitted.groups.values():
        one, two, other, other_two = (1e3 * _excess(rows[name]) for name in names)
        measured = 1e3 * float(rows[names[1]]["measured"])
        others = one + other_two - other
        found[names[1]] = Curve(measured, values, measured + two - others - value + values)
    return found


def _excess(row: Mapping[str, str]) -> float:
    """What the compiler's order takes more than was measured."""
    return float(row["compiler"]) - float(row["measured"])


def best(chosen: Sequence[Curve]) -> float:
    """The value that fits these rows best."""
    values = np.linspace(chosen[0].values[0], chosen[0].values[-1], 4001)
    return float(values[int(np.argmin(sum(curve.error(values) ** 2 for curve in chosen)))])


def error(chosen: Sequence[Curve], value: float) -> float:
    """The mean error of these rows at `value`, in percent."""
    return float(np.mean([abs(np.expm1(curve.error(value))) for curve in chosen]) * 100)


def refit(fitted: Fitted) -> list[dict[str, Any]]:
    """The lines of ``fit.csv`` of a figure: one for each group that can be left out, or one."""
    found = curves(fitted)
    everything = list(found.values())
    value = float(getattr(as_target(fitted.generation), fitted.figure))
    whole = {
        "generation": fitted.generation,
        "figure": fitted.figure,
        "value": f"{value:.4g}",
        "refitted": f"{best(everything):.4g}",
        "rows": len(everything),
        "error": f"{error(everything, value):.2f}",
    }
    if len(fitted.groups) < 2:
        return [{**whole, "left_out": "", "without": "", "error_left_out": ""}]
    lines = []
    for group, names in fitted.groups.items():
        rest = best([curve for name, curve in found.items() if name not in names])
        lines.append(
            {
                **whole,
                "left_out": group,
                "without": f"{rest:.4g}",
                "error_left_out": f"{error([found[name] for name in names if name in found], rest):.2f}",
            }
        )
    return lines


def main() -> None:
    """Refit and write ``fit.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="keep the lines of figures whose rows are kernels"
    )
    asked = parser.parse_args()
    path = HERE / "fit.csv"
    kept: list[dict[str, Any]] = []
    slow = {(fitted.generation, fitted.figure) for fitted in FITTED if fitted.slow}
    if asked.quick:
        with path.open() as file:
            kept = [row for row in csv.DictReader(file) if (row["generation"], row["figure"]) in slow]
    lines = [line for fitted in FITTED if not (asked.quick and fitted.slow) for line in refit(fitted)]
    with path.open("w", newline="\n") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, *kept])
    for line in [*lines, *kept]:
        print(", ".join(str(v) for v in line.values()))


if __name__ == "__main__":
    main()
