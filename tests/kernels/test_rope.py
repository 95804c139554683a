"""nkilib.core.embeddings.rope against its numpy reference."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError
from nkilib.core.embeddings.reference import rope_reference
from nkilib.core.embeddings.rope import RoPE, RoPE_sbuf

LAYOUTS = [
    {},
    {"contiguous_layout": False},
    {"contiguous_layout": False, "relayout_in_sbuf": True},
]


def operands(d_head, batch, heads, sequence, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((d_head, batch, heads, sequence)).astype(dtype)
    angles = rng.uniform(0, 6.28, (d_head // 2, batch, sequence))
    return x, np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


@pytest.mark.parametrize("options", LAYOUTS, ids=["contiguous", "strided", "relayout"])
@pytest.mark.parametrize("shape", [(64, 1, 1, 1), (128, 2, 4, 96), (64, 3, 2, 60)], ids=str)
def test_fp32(shape, options):
    x, cos, sin = operands(*shape)
    expected = rope_reference(x, cos, sin, options.get("contiguous_layout", True))
    np.testing.assert_array_equal(RoPE(x, cos, sin, **options), expected)


@pytest.mark.parametrize("options", LAYOUTS, ids=["contiguous", "strided", "relayout"])
def test_bf16_rounds_once(options):
    x, cos, sin = operands(128, 1, 2, 64, ml_dtypes.bfloat16)
    expected = rope_reference(x, cos, sin, options.get("contiguous_layout", True))
    np.testing.assert_array_equal(RoPE(x, cos, sin, **options), expected)


@nki.jit
def fused(x, cos, sin):
    """RoPE_sbuf inside a larger kernel."""
    tiles = []
    for tensor in (x, cos, sin):
        tile = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=tensor)
        tiles.append(tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    RoPE_sbuf(tiles[0], tiles[1], tiles[2], out)
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=out)
    return result


def test_sbuf_kernel_composes():
    x, cos, sin = operands(128, 2, 3, 32)
    np.testing.assert_array_equal(fused(x, cos, sin), rope_reference(x, cos, sin))


@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((32, 1, 1, 8), {}, "64 or 128, got 32"),
        ((64, 65, 1, 8), {}, r"B is in \(0, 64\], got 65"),
        ((64, 1, 17, 8), {}, r"n_heads is in \(0, 16\], got 17"),
        ((64, 1, 1, 513), {}, r"S is in \(0, 512\], got 513"),
        ((64, 1, 2, 257), {"contiguous_layout": False, "relayout_in_sbuf": True}, "up to 512, got 514"),
    ],
)
def test_constraints(shape, options, message):
    with pytest.raises(NkiError, match=message):
        RoPE(*operands(*shape), **options)


def test_angles_must_fit():
    x, cos, sin = operands(64, 1, 1, 8)
    with pytest.raises(NkiError, match=r"cos is \[d_head // 2, B, S\] = \(32, 1, 8\), got \(32, 1, 7\)"):
        RoPE(x, cos[:, :, :7], sin)
