"""One MLP of Llama-3 70B in token generation on 64 ranks of a trn2.48xlarge: seconds and memory.

    python benchmarks/ranks.py [data | time]

Each rank has 448 of the 28672 columns of gate and up, and rows of down, on both cores of its logical core;
32 tokens of 8192 elements are normalized, multiplied, and summed over all ranks. With data every rank has
weights of its own, and its sum is compared with numpy. Goals: with data 300 s of processor time and 12 GB,
without 20 s. Each is measured in a process of its own, imports included, drawing and comparing left out.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

RANKS, TOKENS, HIDDEN, INNER = 64, 32, 8192, 28672 // 64
GOALS = {"data": (300.0, 12.0), "time": (20.0, 12.0)}


def layer(kind: str) -> bool:
    """Run it, `kind` "data" or "time"; True if that goes beyond the goals."""
    start = time.process_time()
    import ml_dtypes
    import numpy as np

    import nki
    import nki.collectives as ncc
    import nki.isa as nisa
    import nki.language as nl
    from nki.runtime import session
    from nkilib.core.mlp.mlp import mlp
    from nkilib.core.utils.common_types import NormType

    @nki.jit
    def sharded(x, gamma, gate, up, down, groups):
        part = mlp(x, gate, up, down, gamma, normalization_type=NormType.RMS_NORM)[0]
        sent = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.shared_hbm, name="sent")
        summed = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.shared_hbm, name="summed")
        y = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.shared_hbm)
        rows = TOKENS // nl.num_programs(0)
        own = nl.ds(nl.program_id(0) * rows, rows)
        nisa.core_barrier(part, (0, 1))
        nisa.dma_copy(dst=sent[own], src=part[own])
        ncc.all_reduce([sent], [summed], groups, op=nl.add)
        nisa.dma_copy(dst=y[own], src=summed[own])
        return y

    ready = time.process_time() - start
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        values = rng.standard_normal(shape, np.float32) / np.sqrt(shape[0] * 4)
        return values.astype(ml_dtypes.bfloat16)

    x = rng.standard_normal((TOKENS, 1, HIDDEN), np.float32).astype(ml_dtypes.bfloat16)
    gamma = np.ones((1, HIDDEN), ml_dtypes.bfloat16)
    shapes = (HIDDEN, INNER), (HIDDEN, INNER), (INNER, HIDDEN)
    same = [drawn(*shape) for shape in shapes] if kind == "time" else []
    weights = [same or [drawn(*shape) for shape in shapes] for _ in range(RANKS)]
    groups = ncc.ReplicaGroup([range(RANKS)])
    begun, wall = time.process_time(), time.perf_counter()
    with session(timing=True, data=kind == "data") as record:
        results = nki.simulate(sharded, ranks=RANKS)[2](lambda rank: (x, gamma, *weights[rank], groups))
    seconds = ready + time.process_time() - begun
    wall = time.perf_counter() - wall
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    timeline = record.launches[0].timeline
    limit, memory = GOALS[kind]
    named = "with data and all checks" if kind == "data" else "without data"
    print(
        f"{named}: {seconds:.1f} s ({wall:.1f} s by the clock), {gigabytes:.2f} GB; goals {limit:.0f} s, "
        f"{memory:.0f} GB; "
        f"{timeline.duration / 1000:.1f} us simulated, {len(timeline.instructions):,} instructions a core"
    )
    if kind == "data":
        _compare(x, weights, results)
    return seconds > limit or gigabytes > memory


def _compare(x, weights, results) -> None:
    import numpy as np

    def wide(array):
        return np.asarray(array, np.float32)

    rows = wide(x).reshape(TOKENS, HIDDEN)
    rows = rows / np.sqrt((rows * rows).mean(1, keepdims=True) + 1e-6)
    total = np.zeros((TOKENS, HIDDEN), np.float32)
    for gate, up, down in weights:
        inner = rows @ wide(gate)
        total += (inner / (1 + np.exp(-inner)) * (rows @ wide(up))) @ wide(down)
    error = max(float(np.abs(wide(y).reshape(TOKENS, HIDDEN) - total).max()) for y in results)
    share = error / float(np.abs(total).max())
    print(f"  largest error of any rank: {100 * share:.2f} % of the largest value")
    if share > 0.02:
        sys.exit("the sums differ from numpy")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(layer(sys.argv[1]))
    sys.exit(any([subprocess.run([sys.executable, __file__, kind]).returncode for kind in GOALS]))
