"""The streams of the fusion study's attention have the instructions that its profiles show."""

from __future__ import annotations

import collections
import importlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nki_isa.ir.program import Program
from nki_isa.machine.targets import TRN2
from nki_sim.cores.device import execute
from nki_sim.placement.place import place

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def attention(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("compiled_attention").attention


PROFILES = {  # of allenkchau/trainium-kernel-fusion: how many of COUNTED
    ("fused", "float32", 512): (1, 0, 4, 20, 20, 4, 5, 10, 4),
    ("fused", "float32", 1024): (1, 0, 4, 80, 72, 16, 26, 36, 8),
    ("fused", "bfloat16", 512): (2, 0, 4, 20, 20, 4, 5, 10, 4),
    ("fused", "bfloat16", 1024): (2, 0, 4, 80, 72, 16, 32, 36, 8),
    ("baseline", "float32", 512): (5, 4, 4, 20, 20, 4, 13, 10, 4),
    ("baseline", "float32", 1024): (17, 16, 5, 80, 72, 16, 42, 34, 16),
    ("baseline", "bfloat16", 512): (6, 4, 4, 20, 20, 4, 13, 10, 4),
    ("baseline", "bfloat16", 1024): (18, 16, 5, 80, 72, 16, 48, 34, 16),
}
COUNTED = (
    "dma_copy sync",
    "dma_copy scalar",
    "dma_copy unknown",
    "nc_matmul",
    "nc_transpose",
    "activation",
    "tensor_copy",
    "tensor_reduce",
    "tensor_scalar",
)


def counts(program: Program) -> tuple[int, ...]:
    found = collections.Counter(
        f"{i.opcode} {i.engine.name}" if i.opcode == "dma_copy" else i.opcode for i in program.walk()
    )
    assert found.keys() <= {*COUNTED, "reciprocal"}
    return tuple(found[name] for name in COUNTED)


@pytest.mark.parametrize("kind, dtype, size", PROFILES)
def test_instructions_of_the_profile(attention, kind: str, dtype: str, size: int) -> None:
    assert counts(attention(size, dtype, kind == "fused")) == PROFILES[kind, dtype, size]


@pytest.mark.parametrize("size", [512, 1024, 2048])
@pytest.mark.parametrize("fused", [True, False])
def test_work_grows_with_the_length_and_fits(attention, size: int, fused: bool) -> None:
    tiles, chunks = size // 128, size // 512
    program = attention(size, "float32", fused)
    *_, matmuls, transposes, exponentials, _, _, scalings = counts(program)
    assert matmuls == tiles * chunks + tiles * tiles  # scores, and products by tiles of keys
    assert transposes == tiles * tiles + tiles
    assert exponentials == tiles * chunks
    assert scalings == (tiles if fused else tiles * chunks)
    place(program, TRN2)  # within SBUF and PSUM, without spilling


@pytest.mark.parametrize("size, dtype", [(512, "bfloat16"), (1024, "float32")])
@pytest.mark.parametrize("fused", [True, False])
def test_the_streams_compute_attention(attention, size: int, dtype: str, fused: bool) -> None:
    made = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 128, size))
    q, k, v = made.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    program = attention(size, dtype, fused)
    given = (v, q, k) if fused else (q, k, v)
    identities = [np.eye(128).astype(one.dtype.numpy) for one in program.inputs[: -len(given)]]
    found = execute(program, place(program, TRN2).addresses, [*identities, *given]).outputs[0]
    q, k, v = (one.astype(np.float64) for one in (q, k, v))
    weights = np.exp(q.T @ k)
    expected = weights @ v.T / weights.sum(axis=1, keepdims=True)
    tolerance = 1e-5 if dtype == "float32" else 2**-8
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=tolerance, atol=tolerance / 8)
