"""How much faster a sweep is on two processes than on one.

    python benchmarks/sweep.py [ROUNDS]

200 points of a matmul are swept by one process and by two, in turns, ROUNDS times (3 by default); the workers
were started before and have compiled once. Prints each round's times and their ratio, and what the two
processes had of the machine: with other work on it, two get less of two cores than one gets of one. The rows
are compared. Exits with status 1 if the median ratio is below the goal.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import matmul

from nki_tools.sweep import Table, sweep

GOAL = 1.8
SPACE = {
    "tiles_m": [1, 2, 4, 8],
    "tiles_n": [1],
    "tiles_k": [2, 4],
    "lhsT": [("k", 1024)],
    "rhs": [("k", "n")],
    "k": [512, 1024, 1536, 2048, 2560],
    "n": [512, 1024, 1536, 2048, 2560],
}


def timed(jobs: int, space: dict[str, list]) -> tuple[float, Table]:
    """Seconds of a sweep, and its rows."""
    matrix = np.zeros((1, 1), ml_dtypes.bfloat16)
    start = time.perf_counter()
    found = sweep(matmul.matmul_blocked, space, {"lhsT": matrix, "rhs": matrix}, jobs=jobs)
    return time.perf_counter() - start, found


def main(rounds: int = 3) -> int:
    """Measure; 0 if the goal is reached."""
    warm = {**SPACE, "k": [512], "n": [512, 1024]}
    timed(1, warm)
    timed(2, warm)
    ratios = []
    for _ in range(rounds):
        (one, rows), (two, others) = timed(1, SPACE), timed(2, SPACE)
        assert rows.rows == others.rows and len(rows) == 200
        ratios.append(one / two)
        print(f"{len(rows)} points: one process {one:.2f} s, two {two:.2f} s, {one / two:.2f} times as fast")
    median = statistics.median(ratios)
    load = os.getloadavg()[0]
    print(f"median {median:.2f} (goal {GOAL}), {os.cpu_count()} cores, load of the machine {load:.1f}")
    return 0 if median >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
