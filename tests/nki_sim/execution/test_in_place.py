"""Matmuls and tensor_tensor in place give the bits that their `compute` gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PSUM, SBUF, Builder, view

from nki_isa.ir.instruction import Instruction
from nki_isa.ops.dma import dma_copy
from nki_isa.ops.elementwise import memset, tensor_copy, tensor_tensor
from nki_isa.ops.matmul import nc_matmul

_DTYPES = ("bfloat16", "float16", "float32", "float8_e4m3")


def by_compute(monkeypatch, run):
    """What `run` gives where no instruction works in place."""
    with monkeypatch.context() as patched:
        for kind in (nc_matmul, tensor_tensor, tensor_copy, dma_copy):
            patched.setattr(kind, "in_place", Instruction.in_place)
        return run()


@st.composite
def products(draw):
    """Matmuls onto parts of PSUM tiles whose operands are written again in between."""
    b = Builder()
    dtype = draw(st.sampled_from(_DTYPES))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    loaded = [b.input(random.standard_normal((128, 256), np.float32)) for _ in range(2)]
    tiles = [b.tensor(128, 256, dtype=dtype) for _ in range(2)]
    where = b.placement[tiles[0].storage.index]
    tiles.append(b.tensor(128, 256, dtype=dtype, at=(where[0], where[1] + draw(st.sampled_from([0, 64])))))
    raw = [b.tensor(128, 256) for _ in range(2)]
    for tile, source in zip(raw, loaded, strict=True):
        b.emit(dma_copy(tile, source))
    sums = [b.tensor(128, 512, region=PSUM) for _ in range(2)]
    for tile in sums:
        b.emit(memset(tile, 0.0))
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            b.emit(tensor_copy(draw(st.sampled_from(tiles)), draw(st.sampled_from(raw))))
        m, n = draw(st.sampled_from([(128, 256), (64, 2), (2, 128), (1, 7), (128, 1)]))
        start = draw(st.sampled_from([0, 128]))
        dst = view(draw(st.sampled_from(sums)), (m, n), (512, 1), draw(st.sampled_from([0, 3, 256])))
        stationary = view(draw(st.sampled_from(tiles)), (128, m), (256, 1), start)
        moving = view(draw(st.sampled_from(tiles)), (128, n), (256, 1), 0)
        b.emit(nc_matmul(dst, stationary, moving, accumulate=draw(st.booleans())))
    for tile in sums:
        b.emit(tensor_copy(raw[0], view(tile, (128, 256), (512, 1))), dma_copy(b.output(128, 256), raw[0]))
    return b


@settings(max_examples=25, deadline=None)
@given(b=products())
def test_products_in_place_have_the_bits_of_compute(b):
    fast = b.run().outputs
    slow = by_compute(pytest.MonkeyPatch(), lambda: b.run().outputs)
    assert [a.tobytes() for a in fast] == [a.tobytes() for a in slow]


@pytest.mark.parametrize("op", ["add", "subtract", "maximum", "multiply", "power", "equal", "logical_or"])
@pytest.mark.parametrize("place", [(0, 64), (0, 0), (0, 3), (5, 0)])
def test_tensor_tensor_in_place_has_the_bits_of_compute(monkeypatch, op, place):
    def run():
        b = Builder()
        random = np.random.default_rng(0)
        x = b.input(random.choice([0.0, -0.0, 1.5, -2.0, np.inf, np.nan], (16, 128)).astype(np.float32))
        tile = b.tensor(16, 128, region=SBUF)
        parts = [view(tile, (16, 32), (128, 1), start) for start in (place[0], place[1], 32)]
        b.emit(dma_copy(tile, x), tensor_tensor(*parts, op), dma_copy(b.output(16, 128), tile))
        return b.run().outputs[0].tobytes()

    assert run() == by_compute(monkeypatch, run)
