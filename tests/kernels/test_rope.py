"""nkilib.core.embeddings.rope against its numpy reference."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check
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


@nki.jit
def fused_pairs(x, cos, sin):
    """RoPE_sbuf of alternating elements, from and to parts of larger tiles."""
    tiles = []
    for tensor in (cos, sin):
        tile = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=tensor)
        tiles.append(tile)
    d_head, batch, heads, sequence = x.shape
    both = nl.ndarray((d_head, batch, 2 * heads, sequence), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=both[:, :, 0:heads, :], src=x)
    out = both[:, :, heads : 2 * heads, :]
    RoPE_sbuf(both[:, :, 0:heads, :], tiles[0], tiles[1], out, convert_from_interleaved=True)
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=out)
    return result


@pytest.mark.parametrize("level", ["0.2", "0.6"])
@pytest.mark.parametrize("shape", [(64, 2, 3, 32), (128, 3, 7, 60), (64, 1, 1, 600)], ids=str)
def test_sbuf_kernel_of_pairs(shape, level):
    assert check(fused_pairs, "strict") == []
    x, cos, sin = operands(*shape)
    before = levels.use(level)
    try:
        result = fused_pairs(x, cos, sin)
    finally:
        levels.use(before)
    np.testing.assert_array_equal(result, rope_reference(x, cos, sin, contiguous_layout=False))


@pytest.mark.parametrize(
    "shape, lnc",
    [
        ((64, 100, 1, 4), 2),  # more rows than the page allows, shared by rows
        ((64, 1, 70, 40), 2),  # more heads, shared by heads
        ((64, 1, 1, 2056), 2),  # more positions, shared by positions
        ((64, 3, 5, 2050), 1),
        ((64, 700, 3, 2), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", LAYOUTS, ids=["contiguous", "strided", "relayout"])
def test_larger_than_a_tile(shape, lnc, options):
    x, cos, sin = operands(*shape, ml_dtypes.bfloat16)
    expected = rope_reference(x, cos, sin, options.get("contiguous_layout", True))
    np.testing.assert_array_equal(RoPE[lnc](x, cos, sin, lnc_shard=True, **options), expected)


@pytest.mark.parametrize("d_head", [32, 63, 129, 256])
def test_head_dimensions(d_head):
    with pytest.raises(NkiError, match=f"d_head is 64 or 128, got {d_head}"):
        RoPE(*operands(d_head, 1, 1, 8))


def test_positions_must_divide():
    with pytest.raises(NkiError, match="S = 15 does not divide over 2 programs"):
        RoPE[2](*operands(64, 2, 2, 15), lnc_shard=True)


def test_angles_must_fit():
    x, cos, sin = operands(64, 1, 1, 8)
    with pytest.raises(NkiError, match=r"cos is \[d_head // 2, B, S\] = \(32, 1, 8\), got \(32, 1, 7\)"):
        RoPE(x, cos[:, :, :7], sin)
