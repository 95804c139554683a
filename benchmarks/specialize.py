"""How fast kernels specialize: meta-code against Python running the same code, and instructions per second.

    python benchmarks/specialize.py

Prints, for a meta-program of lists, dicts, classes, strings and loops that emits nothing, the time of its
specialization over the time Python takes for the same function (the goal: below 3), for a first call and for
later ones; and for matmuls the instructions per second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import matmul

import nki
import nki.language as nl
from nki.compiler import specialize

REPEATS = 7


@dataclass
class Tile(nl.NKIObject):
    row: int
    column: int
    size: int = 128

    def area(self):
        return self.row * self.column + self.size


class Plan(nl.NKIObject):
    tiles: list
    names: dict

    def add(self, tile, name):
        self.tiles.append(tile)
        self.names[name] = tile


def metaprogram(n):
    """What kernels' planning code does, many times over."""
    plan = Plan([], {})
    total = 0
    for i in range(n):
        for j in range(16):
            tile = Tile(i, j)
            if tile.area() % 3 == 0 and i > 0:
                plan.add(tile, f"tile_{i}_{j}")
            elif 0 < j < 8:
                total += min(i, j) * 2
            else:
                total -= max(i, j) // 3
        left = i
        while left > 0:
            left //= 2
            total += left
    sizes = []
    for tile in plan.tiles:
        sizes.append(tile.area() if tile.row < tile.column else -1)
    for key in plan.names:
        if key in plan.names and len(key) > 6:
            total += plan.names[key].column
    assert len(sizes) == len(plan.tiles), "every tile has a size"
    return total + sum(sizes)


def best(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    kernel = nki.jit(metaprogram)
    start = time.perf_counter()
    specialize(kernel, 100)
    first = time.perf_counter() - start
    for n in (100, 1000):
        ours, python = best(lambda n=n: specialize(kernel, n)), best(lambda n=n: metaprogram(n))
        print(
            f"meta-program, n = {n}: {ours * 1e3:.1f} ms, Python {python * 1e3:.1f} ms, "
            f"ratio {ours / python:.2f}"
        )
    print(f"first call, which reads, parses and checks this file: {first * 1e3:.0f} ms")

    operand = np.zeros((2048, 2048), ml_dtypes.bfloat16)
    for made in (matmul.matmul_tiled, matmul.matmul_blocked):
        count = sum(1 for _ in specialize(made, operand, operand).walk())
        seconds = best(lambda made=made: specialize(made, operand, operand))
        print(
            f"{made.function.__name__} 2048^3: {count} instructions, {seconds * 1e3:.1f} ms, "
            f"{count / seconds:,.0f}/s"
        )


if __name__ == "__main__":
    main()
