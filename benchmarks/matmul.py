"""Speed of simulating the matmul example, against numpy's own product in the same run.

    python benchmarks/matmul.py

Prints the time of each step of one 2048^3 bf16 launch, their sum as a multiple of
numpy's float32 product, and the time of a timing-only 4096 x 8192 x 8192 launch.
Goals: the sum is at most 3 times numpy plus 1 s; the timing-only launch at most 5 s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nki.compiler.specializer.specialize import specialize_call
from nki_isa.machine.targets import as_target
from nki_sim.cores.core_times import CoreTimes, simulate
from nki_sim.cores.device import execute
from nki_sim.placement.place import place

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import matmul


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds `function` took, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def launch(target: Any, lhsT: np.ndarray, rhs: np.ndarray, data: bool) -> dict[str, float]:
    """Seconds of each step of one launch of the blocked matmul."""
    steps = {}
    steps["specialize"], made = timed(
        lambda: specialize_call(matmul.matmul_blocked, (lhsT, rhs), {}, target=target)
    )
    steps["place"], placement = timed(lambda: place(made.program, target))
    if data:
        times = CoreTimes(target, [placement])
        arrays = [lhsT, rhs]
        steps["execute and time"], result = timed(
            lambda: execute(made.program, placement.addresses, arrays, listeners=[times])
        )
        steps["timeline"], _ = timed(times.timelines)
        assert result.outputs[0].shape == (lhsT.shape[1], rhs.shape[1])
    else:
        steps["time"], _ = timed(lambda: simulate(made.program, placement))
    return steps


def main() -> None:
    """Print the two measurements."""
    target = as_target("trn2")
    rng = np.random.default_rng(0)
    square = rng.standard_normal((2048, 2048), np.float32)
    other = rng.standard_normal((2048, 2048), np.float32)  # of one matrix with itself numpy computes half
    bf16 = square.astype(ml_dtypes.bfloat16)
    matmul.matmul_blocked(bf16[:, :], bf16)  # warm: parse the source, load the libraries

    numpy_time = min(timed(lambda: square.T @ other)[0] for _ in range(3))
    steps = launch(target, bf16, bf16, data=True)
    total = sum(steps.values())
    print("2048 x 2048 x 2048 bf16, with data")
    for name, seconds in steps.items():
        print(f"  {name:18}{seconds:8.3f} s")
    allowed = 3 * numpy_time + 1
    print(
        f"  {'sum':18}{total:8.3f} s   numpy {numpy_time:.3f} s   "
        f"allowed {allowed:.3f} s   {total / allowed:.0%}"
    )

    steps = launch(
        target,
        np.zeros((8192, 4096), ml_dtypes.bfloat16),
        np.zeros((8192, 8192), ml_dtypes.bfloat16),
        data=False,
    )
    print("4096 x 8192 x 8192 bf16, timing only")
    for name, seconds in steps.items():
        print(f"  {name:18}{seconds:8.3f} s")
    print(f"  {'sum':18}{sum(steps.values()):8.3f} s   allowed 5 s")


if __name__ == "__main__":
    main()
