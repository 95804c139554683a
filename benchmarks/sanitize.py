"""What the run-time checks cost: run time with ``--check=all`` against ``--check=none``.

    python benchmarks/sanitize.py

Prints seconds of each of the examples, at the largest shape its page of numbers uses, and
of a stream of 200,000 instructions that is placed and run. Goals: at most twice the time
of the run alone; placing and checking the stream in under 20 s and 2 GB.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nki.compiler.specializer.specialize import specialize_call
from nki_isa.ir.program import Program
from nki_isa.machine.targets import as_target
from nki_sim.cores.device import execute_all
from nki_sim.placement.place import place
from nki_sim.sanitize import execute_checked

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import layernorm
import matmul
import rmsnorm
import softmax
import tensor_add
from streams import Stream

TARGET = as_target("trn2")
INSTRUCTIONS = 200_000


def timed(function: Callable[[], Any]) -> float:
    """Seconds of processor time `function` took: other work on the machine counts little."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(name: str, program: Program, inputs: list[np.ndarray], rounds: int = 5) -> float:
    """Print and return how many times as long a run with all checks takes."""
    addresses = place(program, TARGET).addresses
    alone = checked = float("inf")
    for _ in range(rounds):  # in turns, so that a busy machine slows both
        alone = min(alone, timed(lambda: execute_all([program], [addresses], inputs)))
        checked = min(checked, timed(lambda: execute_checked([program], [addresses], inputs)))
    count = sum(1 for _ in program.walk())
    print(f"  {name:34}{count:8} {alone:9.3f} s {checked:9.3f} s {checked / alone:7.2f}x")
    return checked / alone


def stream(count: int) -> tuple[Program, list[np.ndarray]]:
    """A kernel of small tiles: load, two element-wise instructions, store, over and over."""
    made = Stream("tiles", TARGET.name)
    x, result = made.input((128, 512), "float32"), made.output((128, 512), "float32")
    for k in range(count // 4):
        columns = slice(k % 16 * 32, k % 16 * 32 + 32)
        tile, double = made.load(x[:, columns]), made.sbuf((128, 32), "float32")
        made.tensor_scalar(dst=double, data=tile, op0="add", operand0=1.0)
        made.tensor_tensor(dst=double, data1=double, data2=tile, op="add")
        made.dma_copy(dst=result[:, columns], src=double)
    return made.program, [np.ones((128, 512), np.float32)]


def main() -> None:
    """Print both tables."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((2048, 2048), np.float32)
    bf16 = wide.astype(ml_dtypes.bfloat16)
    gamma = np.ones(2048, np.float32)
    kernels = [
        ("matmul_blocked 2048^3 bf16", matmul.matmul_blocked, (bf16, bf16)),
        ("matmul_tiled 2048^3 bf16", matmul.matmul_tiled, (bf16, bf16)),
        ("tensor_add 2048x2048", tensor_add.tensor_add, (wide, wide)),
        ("softmax 2048x2048", softmax.softmax, (wide,)),
        ("rmsnorm 2048x2048", rmsnorm.rmsnorm, (wide, gamma)),
        ("layernorm 2048x2048", layernorm.layernorm, (wide, gamma, gamma)),
    ]
    print(f"{'':36}{'instr.':>8} {'alone':>11} {'checked':>11} {'':>8}")
    worst = 0.0
    for name, kernel, arrays in kernels:
        made = specialize_call(kernel, arrays, {}, target=TARGET)
        worst = max(worst, compare(name, made.program, [np.asarray(a) for a in made.inputs]))
    print(f"worst: {worst:.2f}x, allowed 2x")

    program, inputs = stream(INSTRUCTIONS)
    start = time.process_time()
    addresses = place(program, TARGET).addresses
    placed = time.process_time() - start
    alone = timed(lambda: execute_all([program], [addresses], inputs))
    checked = timed(lambda: execute_checked([program], [addresses], inputs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{INSTRUCTIONS} instructions: placed in {placed:.1f} s, run alone in {alone:.1f} s,")
    print(f"with checks in {checked:.1f} s; placed and checked in {placed + checked:.1f} s, allowed 20 s;")
    print(f"{peak:.2f} GB at most, allowed 2 GB")


if __name__ == "__main__":
    main()
