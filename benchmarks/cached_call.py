"""What a second call of a kernel costs beside the numpy work it stands for.

    python benchmarks/cached_call.py

The bound: 1.5 times the numpy work plus 100 microseconds, on 128 x 512 float32 tiles. The numpy work makes
the same copies between arrays (in, to tiles, out) and the same arithmetic, with no instruction around it.
The arithmetic alone, without those copies, is shown beside it. Times are the least of 300 calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nki
import nki.language as nl

SHAPE = (128, 512)
ROUNDS = 300


@nki.jit
def add(a, b):
    """a + b."""
    total = nl.add(nl.load(a), nl.load(b))
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(out, total)
    return out


@nki.jit
def softmax(a, b):
    """The softmax of a * b over the free dimension."""
    tile = nl.softmax(nl.multiply(nl.load(a), nl.load(b)), axis=1)
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def _moved(a: Any, b: Any, compute: Callable[[Any, Any], Any]) -> Any:
    hbm = a.copy(), b.copy()
    tiles = hbm[0].copy(), hbm[1].copy()
    stored = compute(*tiles).copy()
    return stored.copy()


def _softmax(x: Any, y: Any) -> Any:
    product = x * y
    powers = np.exp(product - product.max(1, keepdims=True))
    return powers * (1 / powers.sum(1, keepdims=True))


def numpy_add(a: Any, b: Any) -> Any:
    """The work of :func:`add`."""
    return _moved(a, b, np.add)


def numpy_softmax(a: Any, b: Any) -> Any:
    """The work of :func:`softmax`."""
    return _moved(a, b, _softmax)


def microseconds(function: Callable[..., Any], *args: Any) -> float:
    """The least time of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return min(times) * 1e6


def measure() -> list[tuple[str, float, float, float]]:
    """For each kernel: its name, its time, that of the numpy work, and that of its arithmetic alone."""
    generator = np.random.default_rng(0)
    a, b = generator.random(SHAPE, np.float32), generator.random(SHAPE, np.float32)
    rows = []
    for kernel, work, arithmetic in ((add, numpy_add, np.add), (softmax, numpy_softmax, _softmax)):
        kernel(a, b)
        times = [microseconds(function, a, b) for function in (kernel, work, arithmetic)]
        rows.append((kernel.function.__name__, *times))
    return rows


def bound(work: float) -> float:
    """What a cached call may take, in microseconds, where numpy takes `work`."""
    return 1.5 * work + 100


if __name__ == "__main__":
    for name, cached, work, arithmetic in measure():
        verdict = "within" if cached <= bound(work) else "over"
        print(
            f"{name:8} cached call {cached:6.1f} us; numpy work {work:6.1f} us, bound {bound(work):6.1f} us: "
            f"{verdict}; arithmetic alone {arithmetic:6.1f} us, its bound {bound(arithmetic):6.1f} us"
        )
