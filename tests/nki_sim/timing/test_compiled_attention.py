"""The streams of the fusion study's attention have the instructions that its profiles show."""

from __future__ import annotations

import collections
import importlib
from pathlib import Path

import pytest

from nki_isa.ir.program import Program
from nki_isa.machine.targets import TRN2
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
