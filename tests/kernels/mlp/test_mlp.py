"""nkilib.core.mlp.mlp beyond the examples of its row."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError
from nkilib.core.mlp.mlp import mlp
from nkilib.core.mlp.reference import mlp_reference
from nkilib.core.utils.common_types import NormType, QuantizationType
from nkilib.registry import rows

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
DECODE, PREFILL = (2, 2, 256), (1, 128, 256)


def scale(columns=1):
    return np.ones((128, columns), np.float32)


STATIC = {
    "quantization_type": QuantizationType.STATIC,
    "gate_w_scale": scale(),
    "up_w_scale": scale(),
    "down_w_scale": scale(),
    "gate_up_in_scale": scale(),
    "down_in_scale": scale(),
}


def arguments(shape=DECODE, intermediate=128, dtype=BF16, weight=BF16, **more):
    """Arguments of a call, of zeros."""
    hidden = shape[2]
    return {
        "hidden_tensor": np.zeros(shape, dtype),
        "gate_proj_weights_tensor": np.zeros((hidden, intermediate), weight),
        "up_proj_weights_tensor": np.zeros((hidden, intermediate), weight),
        "down_proj_weights_tensor": np.zeros((intermediate, hidden), weight),
        **more,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (1, 1, 200)}, "H must be a multiple of 128, got 200"),
        ({"dtype": np.float32}, "hidden_tensor is bfloat16 or float16, .* got float32"),
        ({"weight": np.float32}, "weights_tensor is bfloat16, float16 or float8_e4m3, got float32"),
        ({"up_proj_bias_tensor": np.zeros((128,), BF16)}, r"up_proj_bias_tensor has shape \(128,\)"),
        ({"down_proj_bias_tensor": np.zeros((1, 128), BF16)}, r"expected \(1, 256\)"),
        ({"fused_add_tensor": np.zeros((2, 2, 128), BF16)}, "fused_add_tensor has shape"),
        ({"normalization_type": NormType.RMS_NORM}, "RMS_NORM needs normalization_weights_tensor"),
        (
            {"normalization_bias_tensor": np.zeros((1, 256), BF16)},
            "normalization_bias_tensor takes normalization_type LAYER_NORM, got NO_NORM",
        ),
        ({"quantization_type": QuantizationType.MX}, "quantization_type"),
        ({**STATIC, "up_w_scale": None}, "STATIC needs up_w_scale"),
        ({**STATIC, "down_in_scale": None}, "STATIC needs gate_up_in_scale and down_in_scale"),
        ({**STATIC, "gate_w_scale": scale(128)}, r"gate_w_scale has shape \(128, 128\), expected \(128, 1\)"),
        ({"dtype": FP8}, "float8_e4m3, which takes quantization_type STATIC or ROW, got NONE"),
        ({"dtype": FP8, **STATIC}, "with up to 96 tokens hidden_tensor is bfloat16 or float16"),
        (
            {"use_tkg_down_proj_optimized_layout": True},
            "is for use_tkg_down_proj_column_tiling=False, got True",
        ),
        (
            {"shape": (96, 1, 8192), "use_tkg_down_proj_column_tiling": False},
            "96 tokens and H = 8192 on 1 cores needs 13 PSUM banks, there are 8",
        ),
        ({"shape": (0, 784, 256)}, "at least 1, got 0, 256 and "),
        ({"quant_clipping_bound": -1.0}, "quant_clipping_bound is at least 0, got -1.0"),
        ({"shape": PREFILL, "skip_gate_proj": True}, "skip_gate_proj is for token generation"),
        ({"shape": PREFILL, "store_output_in_sbuf": True}, "are in HBM, got SBUF"),
        ({"shape": PREFILL, "up_clamp_upper_limit": 1.0}, "clamp limits are for token generation"),
        ({"shape": PREFILL, "use_tkg_down_proj_optimized_layout": True}, "optimized_layout is for token"),
        ({"shape": PREFILL, **STATIC}, "takes hidden_tensor in float8_e4m3 .* got bfloat16"),
        ({"shape": (1, 128, 128), "dtype": FP8, **STATIC}, "H must be a multiple of 256, got 128"),
        ({"shape": PREFILL, "dtype": FP8, "intermediate": 127, **STATIC}, "I must be even, got 127"),
        (
            {"shape": PREFILL, "dtype": FP8, **STATIC, "down_proj_bias_tensor": np.zeros((1, 256), BF16)},
            "down_proj_bias_tensor is not taken",
        ),
    ],
)
def test_refuses(change, message):
    with pytest.raises(NkiError, match=message):
        mlp(**arguments(**change))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 1, 384), "H / 128 = 3 must divide over 2 cores"),
        ((1, 301, 256), r"B \* S = 301 tokens must divide over 2 cores"),
    ],
)
def test_refuses_what_two_cores_cannot_share(shape, message):
    with pytest.raises(NkiError, match=message):
        mlp[2](**arguments(shape))


def check_exact_sums(lnc, tokens, hidden, intermediate, by_token):
    """With no rounding anywhere but at the end, both orders of operands give the same bits as numpy."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (1, tokens, hidden)).astype(BF16)
    up = np.zeros((hidden, intermediate), BF16)
    up[rng.integers(0, hidden, intermediate), np.arange(intermediate)] = (
        1  # each column picks an element of x
    )
    down = rng.integers(-2, 3, (intermediate, hidden)).astype(BF16)
    result = mlp[lnc](
        x,
        np.zeros_like(up),
        up,
        down,
        gate_proj_bias_tensor=np.full((1, intermediate), 64, BF16),
        gate_clamp_upper_limit=32.0,  # silu(32) is 32 in fp32
        use_tkg_gate_up_proj_column_tiling=by_token,
        use_tkg_down_proj_column_tiling=by_token,
    )
    expected = 32 * (x.astype(np.float64) @ up.astype(np.float64)) @ down.astype(np.float64)
    np.testing.assert_array_equal(result[0], expected.astype(np.float32).astype(BF16))


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("by_token", [True, False])
def test_sums_are_exact(lnc, by_token):
    check_exact_sums(lnc, 21, 512, 200, by_token)


@pytest.mark.parametrize(
    "lnc, tokens, hidden, intermediate",
    [
        (1, 1, 1280, 160),  # a tile of 32 rows; columns that fill no bank of PSUM
        (1, 3, 256, 40),  # nothing else
        (2, 2, 2304, 224),  # a tile of 128 rows
        (1, 40, 1024, 192),  # a tile of 64 rows and 64 tokens
        (2, 96, 256, 64),  # one of all tokens; hidden of each core in a tile of its own
    ],
)
def test_sums_over_rows_that_fill_no_tile_are_exact(lnc, tokens, hidden, intermediate):
    check_exact_sums(lnc, tokens, hidden, intermediate, by_token=True)


@pytest.mark.parametrize("tokens", [1, 5, 96])
@pytest.mark.parametrize("norm", [NormType.NO_NORM, NormType.RMS_NORM_SKIP_GAMMA])
def test_two_cores_store_every_token_of_the_sum(tokens, norm):
    rng = np.random.default_rng(0)
    given = arguments((tokens, 1, 512), normalization_type=norm, store_fused_add_result=True)
    given["hidden_tensor"] = rng.standard_normal((tokens, 1, 512)).astype(BF16)
    given["fused_add_tensor"] = rng.standard_normal((tokens, 1, 512)).astype(BF16)
    stored = mlp[2](**given)[1]
    np.testing.assert_array_equal(stored, given["hidden_tensor"] + given["fused_add_tensor"])


@nki.jit
def in_sbuf(hidden, gate, up, down, weights, residual, column_tiling):
    """mlp between tensors in SBUF."""
    tokens, hidden_size = hidden.shape
    cores, core = nl.num_programs(0), nl.program_id(0)
    blocks = hidden_size // 128 // cores
    tiles = []
    for tensor in (hidden, residual):
        tile = nl.ndarray((128, tokens, hidden_size // 128), dtype=hidden.dtype, buffer=nl.sbuf)
        for c in range(cores):
            nisa.dma_copy(
                dst=tile[:, :, nl.ds(c * blocks, blocks)],
                src=tensor[:, nl.ds(c * blocks * 128, blocks * 128)].ap(
                    [[blocks, 128], [hidden_size, tokens], [1, blocks]]
                ),
            )
        tiles.append(tile)
    y = mlp(
        tiles[0],
        gate,
        up,
        down,
        normalization_weights_tensor=weights,
        normalization_type=NormType.LAYER_NORM,
        fused_add_tensor=tiles[1],
        store_output_in_sbuf=True,
        use_tkg_down_proj_column_tiling=column_tiling,
    )[0]
    result = nl.ndarray((cores,) + tuple(y.shape), dtype=y.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result[core], src=y)
    return result


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("column_tiling", [True, False])
def test_from_sbuf_to_sbuf(lnc, column_tiling):
    """Every core ends with all of the result."""
    rng = np.random.default_rng(1)
    tokens, hidden_size, size = 5, 512, 256
    x, residual = (rng.standard_normal((tokens, hidden_size)).astype(BF16) for _ in range(2))
    gate, up = ((rng.standard_normal((hidden_size, size)) / 22).astype(BF16) for _ in range(2))
    down = (rng.standard_normal((size, hidden_size)) / 16).astype(BF16)
    weights = rng.uniform(0.5, 1.5, (1, hidden_size)).astype(BF16)
    (expected,) = mlp_reference(
        x[None],
        gate,
        up,
        down,
        normalization_weights_tensor=weights,
        normalization_type=NormType.LAYER_NORM,
        fused_add_tensor=residual[None],
    )
    found = in_sbuf[lnc](x, gate, up, down, weights, residual, column_tiling)
    for core in range(lnc):
        y = found[core]
        if not column_tiling:  # [128, cores * blocks, T], h = (c * 128 + p) * blocks + j
            y = y.reshape(128, lnc, hidden_size // 128 // lnc, tokens).transpose(3, 1, 0, 2)
            y = y.reshape(tokens, hidden_size)
        np.testing.assert_allclose(
            y.astype(np.float32), expected[0].astype(np.float32), rtol=2**-6, atol=2**-5
        )


def test_clips_rows_before_they_are_quantized():
    example = rows()["mlp"].example("prefill-fp8-rows")
    given = {**example.arguments(), "quant_clipping_bound": 0.25}
    (expected,) = mlp_reference(**given)
    (free,) = mlp_reference(**example.arguments())
    (result,) = mlp(**given)
    assert np.abs(free.astype(np.float32) - expected.astype(np.float32)).max() > 0.25
    np.testing.assert_allclose(result.astype(np.float32), expected.astype(np.float32), rtol=2**-6, atol=2**-5)


def test_output_dtype():
    given = rows()["mlp"].example("decode").arguments()
    (result,) = mlp(**given, output_dtype=nl.float32)
    assert result.dtype == np.float32
    (rounded,) = mlp(**given)
    np.testing.assert_array_equal(result.astype(BF16), rounded)
