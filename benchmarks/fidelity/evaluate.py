"""Simulates the rows beside what was measured: ``python benchmarks/fidelity/evaluate.py FOLDER``.

FOLDER is what ``collect.py`` fetched. Each row runs in both orders of instructions; ``results.csv`` gets a
line for each, those that did not run with the reason. Nothing is fitted to these rows.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
os.environ.setdefault("NKI_SIM_API", "0.2")  # the level the kernels were written for
sys.path[:0] = [str(HERE), str(HERE.parent)]

from calls import CALLS, Left, Parameters  # noqa: E402

import nki  # noqa: E402
from nki import runtime  # noqa: E402
from nki_isa.diagnostics import NkiError  # noqa: E402

ORDERS = ("program", "compiler")
FIELDS = ("group", "row", "generation", "use", "measured", "unit", *ORDERS, "instructions", "remark")


def library_rows(chosen: str, most: float, limit: float) -> list[dict[str, Any]]:
    """The rows of ``nki_library.csv`` of these kernels, of at most so many microseconds, within `limit` s."""
    began = time.monotonic()
    found = []
    with (HERE / "nki_library.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["microseconds"]))
    known: dict[tuple[str, str], tuple[dict[str, float], int]] = {}
    for row in rows:
        parameters = dict(part.split("=", 1) for part in row["parameters"].split(";"))
        if chosen and row["kernel"] not in chosen.split(","):
            continue
        key = row["kernel"], row["parameters"]
        made: dict[str, Any] = {
            "group": row["kernel"],
            "row": f"{row['list']} L{row['line']}",
            "generation": "trn2",
            "use": "check",
            "measured": float(row["microseconds"]),
            "unit": "us",
        }
        try:
            if row["kernel"] not in CALLS:
                raise Left("not run: calls.py does not call it")
            if float(row["microseconds"]) > most or time.monotonic() - began > limit:
                raise Left("not run: too long")
            if key not in known:
                known[key] = _timed(row["kernel"], parameters)
            times, made["instructions"] = known[key]
            made.update(times)
        except Left as why:
            made["remark"] = str(why)
        except NkiError as refused:
            first = refused.diagnostics[0]
            made["remark"] = f"{first.code}: {first.message}".replace("\n", " ")[:160]
        found.append(made)
        print({k: v for k, v in made.items() if k in ("row", "measured", *ORDERS, "remark")}, flush=True)
    return found


def _timed(name: str, parameters: Parameters) -> tuple[dict[str, float], int]:
    """Microseconds in each order, and instructions of a core."""
    kernel, given = CALLS[name](parameters)
    jitted = nki.jit(getattr(kernel, "function", kernel))
    cores = int(parameters.get("lnc", 2))
    times, count = {}, 0
    for order in ORDERS:
        with runtime.session(data=False, timing=True, check="none", schedule=order) as seen:
            (jitted[cores] if cores > 1 else jitted)(**given)
        launch = seen.launches[-1]
        times[order] = max(core.timeline.total for core in launch.cores if core.timeline) / 1e3
        count = sum(1 for _ in launch.program.walk())
    return times, count


def public_rows(wanted: str) -> list[dict[str, Any]]:
    """The rows of ``benchmarks/timing_accuracy.py``: guides of the vendor and public profiles."""
    from timing_accuracy import ROWS, group_of, in_order

    found = []
    for row in ROWS:
        if wanted in row.name:
            made: dict[str, Any] = {
                "group": group_of(row),
                "row": row.name,
                "generation": row.target,
                "use": row.use,
                "measured": row.measured,
                "unit": row.unit,
            }
            for order in ORDERS:
                with in_order(order):
                    made[order] = row.simulated()
            found.append(made)
            print(made, flush=True)
    return found


def main() -> None:
    """Evaluate and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kernels", default="", help="only these, separated by commas")
    parser.add_argument("--most", type=float, default=1e9, help="only rows of at most so many microseconds")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no row after so many")
    parser.add_argument(
        "--public", metavar="PART", help="rows of timing_accuracy.py with PART in their names"
    )
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    found: list[dict[str, Any]] = public_rows(asked.public) if asked.public is not None else []
    if asked.folder is not None:
        sys.path.insert(0, str(asked.folder / "src"))
        found += library_rows(asked.kernels, asked.most, asked.seconds)
    names = {(row["group"], row["row"]) for row in found}
    kept = []
    if (HERE / "results.csv").exists():
        with (HERE / "results.csv").open() as file:
            kept = [row for row in csv.DictReader(file) if (row["group"], row["row"]) not in names]
    with (HERE / "results.csv").open("w", newline="\n") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in sorted([*kept, *found], key=lambda row: row["group"]):
            writer.writerow({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
