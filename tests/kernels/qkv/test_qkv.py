"""nkilib.core.qkv beyond the examples of its row."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import TRN3
from nkilib.core.qkv.qkv import qkv
from nkilib.core.qkv.qkv_tkg import qkv_tkg
from nkilib.core.qkv.reference import qkv_reference
from nkilib.core.subkernels.reference import hidden_on_partitions
from nkilib.core.utils.allocator import SbufManager, create_auto_alloc_manager
from nkilib.core.utils.common_types import NormType, QKVOutputLayout, QuantizationType

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
RMS, LAYER = NormType.RMS_NORM, NormType.LAYER_NORM
STATIC, MX = QuantizationType.STATIC, QuantizationType.MX
NBSD = {"output_layout": QKVOutputLayout.NBSd}


def zeros(shape=(1, 128, 256), columns=192, dtype=BF16, weight=None, rows=None, **more):
    """Arguments of a call; `rows` of weights where they are not H."""
    weights = np.zeros((shape[2] if rows is None else rows, columns), weight or dtype)
    return {"input": np.zeros(shape, dtype), "fused_qkv_weights": weights, **more}


def row(columns=256, dtype=BF16):
    return np.zeros((1, columns), dtype)


def ones(columns=1):
    return np.ones((128, columns), np.float32)


FP8_ARGUMENTS = {
    "weight": FP8,
    "quantization_type": STATIC,
    "qkv_w_scale": ones(3),
    "qkv_in_scale": ones(),
    "d_head": 64,
    "num_q_heads": 1,
    "num_kv_heads": 1,
}
HEADS = {"d_head": 64, "num_q_heads": 1, "num_kv_heads": 1}
ANGLES = np.zeros((1, 128, 64), BF16)
CACHE = np.zeros((1, 128, 64), FP8)
CACHES = {**HEADS, "k_cache": CACHE, "v_cache": CACHE, "k_scale": ones(), "v_scale": ones()}
RESIDUAL = np.zeros((1, 128, 256), BF16)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (1, 128, 200)}, "H is a multiple of 128, got 200"),
        ({"shape": (1, 128, 24704)}, "H is at most 24576, got 24704"),
        ({"columns": 4097}, "I is at most 4096, got 4097"),
        ({"rows": 255}, "fused_qkv_weights has 255 rows, for H = 256 it has 256"),
        ({"dtype": np.int32}, "input is one of .*, got int32"),
        ({"bias": row(191)}, r"bias has shape \(1, 191\), expected \(1, 192\)"),
        ({"hidden_actual": 257}, r"hidden_actual is in \(0, H = 256\], got 257"),
        ({"mlp_prev": RESIDUAL}, "fused_residual_add is False"),
        ({"fused_residual_add": True, "mlp_prev": RESIDUAL}, "needs mlp_prev and attention_prev"),
        (
            {"fused_residual_add": True, "mlp_prev": RESIDUAL, "attention_prev": RESIDUAL[:, 1:]},
            "attention_prev has shape",
        ),
        ({"gamma_norm_weights": row()}, "gamma_norm_weights go with RMS_NORM and LAYER_NORM"),
        ({"fused_norm_type": RMS}, "those need them"),
        (
            {"fused_norm_type": NormType.RMS_NORM_SKIP_GAMMA, "gamma_norm_weights": row()},
            "gamma_norm_weights go with",
        ),
        ({"fused_norm_type": RMS, "gamma_norm_weights": row(128)}, "gamma_norm_weights has shape"),
        (
            {"fused_norm_type": RMS, "gamma_norm_weights": row(), "layer_norm_bias": row()},
            "layer_norm_bias goes with LAYER_NORM",
        ),
        ({"output_layout": QKVOutputLayout.NBdS}, "output_layout is BSD or NBSd, got .*NBdS"),
        (NBSD, "NBSd needs d_head"),
        ({**NBSD, "d_head": 64}, "NBSd takes d_head 128, got 64"),
        ({**NBSD, "d_head": 128}, "NBSd takes I a multiple of d_head = 128, got 192"),
        ({**HEADS, "num_q_heads": 2}, "2 heads of q and 1 of k and v of 64 make I = 256, got 192"),
        ({"shape": (0, 128, 256)}, "at least 1, got input"),
        ({"store_output_in_sbuf": True}, "the result is in HBM"),
        ({"quantization_type": QuantizationType.ROW}, "NONE, STATIC or MX, got .*ROW"),
        ({**FP8_ARGUMENTS, "weight": BF16}, "STATIC takes weights of float8_e4m3, got bfloat16"),
        ({**FP8_ARGUMENTS, "qkv_in_scale": None}, "needs qkv_w_scale and qkv_in_scale"),
        ({**FP8_ARGUMENTS, "qkv_w_scale": ones(1)}, "qkv_w_scale has shape"),
        ({**FP8_ARGUMENTS, "num_q_heads": None}, "STATIC quantization needs d_head"),
        ({**HEADS, "fused_rope": True}, "RoPE needs cos_cache and sin_cache"),
        ({"fused_rope": True, "cos_cache": ANGLES, "sin_cache": ANGLES}, "RoPE needs d_head"),
        (
            {**HEADS, "fused_rope": True, "cos_cache": ANGLES, "sin_cache": ANGLES[:, 1:]},
            "sin_cache has shape",
        ),
        ({**CACHES, "v_scale": None}, "FP8 caches need k_scale, v_scale"),
        ({**CACHES, "num_q_heads": None}, "FP8 caches need d_head"),
        ({**CACHES, "k_cache": CACHE[:, 1:], "v_cache": CACHE[:, 1:]}, "at least S = 128"),
        ({**CACHES, "v_cache": CACHE[:, 1:]}, "v_cache has shape"),
        ({**CACHES, "use_block_kv": True}, "needs block_size and slot_mapping"),
        (
            {**CACHES, "use_block_kv": True, "block_size": 16, "slot_mapping": np.zeros((1, 128), np.int32)},
            "blocks of k_cache have 128 rows, not 16",
        ),
        ({"is_input_swizzled": True}, "only MX quantization takes swizzled input"),
        ({"sbm": create_auto_alloc_manager()}, "use_auto_allocation is False, sbm has True"),
        ({"shape": (1, 4, 256), "sbm": SbufManager(0, 4096)}, "for decoding sbm allocates automatically"),
        ({**CACHES, "shape": (1, 4, 256)}, r"FP8 caches take input in HBM with B \* S over 96"),
        (
            {"quantization_type": MX, "shape": (1, 4, 512), "rows": 128, "weight": np.uint32},
            "MX quantization takes input",
        ),
    ],
)
def test_refuses(change, message):
    with pytest.raises(NkiError, match=message):
        qkv(**zeros(**change))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (1, 4, 384)}, r"H is a multiple of 128 \* 2 programs, got 384"),
        (
            {
                "shape": (1, 19, 256),
                "fused_norm_type": RMS,
                "gamma_norm_weights": row(),
                "fused_residual_add": True,
                "mlp_prev": np.zeros((1, 19, 256), BF16),
                "attention_prev": np.zeros((1, 19, 256), BF16),
            },
            r"B \* S over 18 is even, got 19",
        ),
    ],
)
def test_refuses_on_two_cores(change, message):
    with pytest.raises(NkiError, match=message):
        qkv[2](**zeros(**change))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (1, 128, 640), "rows": 160}, "H is a multiple of 512, got 640"),
        ({"shape": (1, 101, 512), "rows": 128}, "each program has an even number of rows, got 101"),
        (
            {"shape": (1, 128, 512), "rows": 128, "weight": FP8},
            "weights of float8_e4m3fn_x4, got float8_e4m3",
        ),
        ({"shape": (1, 128, 512), "rows": 128, "qkv_w_scale": None}, "MX quantization needs qkv_w_scale"),
        (
            {
                "shape": (1, 128, 512),
                "rows": 128,
                "is_input_swizzled": True,
                "fused_norm_type": RMS,
                "gamma_norm_weights": row(512),
            },
            "neither a norm nor residuals",
        ),
    ],
)
def test_refuses_in_mx(change, message):
    hidden = change["shape"][2]
    arguments = {"weight": np.uint32, "quantization_type": MX, **change}
    arguments.setdefault("qkv_w_scale", np.zeros((hidden // 32, 192), np.uint8))
    with session(target=TRN3), pytest.raises(NkiError, match=message):
        qkv(**zeros(**arguments))


@nki.jit
def in_sbuf(hidden, weights, gamma, bias, layout, norm):
    """The decoding path from hidden states in SBUF to a result in SBUF, as a fused kernel calls it."""
    tile = nl.ndarray(hidden.shape, dtype=hidden.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=hidden)
    result = qkv_tkg(
        tile,
        weights,
        gamma,
        output_layout=layout,
        d_head=64,
        norm_type=norm,
        output_in_sbuf=True,
        qkv_bias=bias,
    )
    shape = [nl.num_programs(0), result.shape[0], result.shape[1]]
    out = nl.ndarray(shape, dtype=result.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[nl.program_id(0)], src=result)
    return out


@pytest.mark.parametrize("norm", [RMS, LAYER], ids=["rms", "layer"])
@pytest.mark.parametrize("layout", [QKVOutputLayout.BSD, QKVOutputLayout.NBSd], ids=["bsd", "nbsd"])
@pytest.mark.parametrize("lnc", [1, 2])
def test_composes_in_sbuf(lnc, layout, norm):
    """Each program has all of [B * S, I] in its own SBUF, whatever the layout."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((6, 512)).astype(BF16)
    weights = (rng.standard_normal((512, 192)) / 16).astype(BF16)
    gamma, bias = (rng.standard_normal((1, n)).astype(BF16) for n in (512, 192))
    spread = hidden_on_partitions(hidden, lnc)
    result = in_sbuf[lnc](spread, weights, gamma, bias, layout, norm).astype(np.float32)
    expected = qkv_reference(
        hidden[None], weights, bias=bias, fused_norm_type=norm, gamma_norm_weights=gamma
    )[0].astype(np.float32)
    for program in range(lnc):
        np.testing.assert_allclose(result[program], expected, rtol=2**-6, atol=2**-4)


def test_sums_are_exact_and_rounded_once():
    """Small whole numbers: every sum is exact in fp32, whichever core or chunk it is made by."""
    rng = np.random.default_rng(0)
    for shape in ((2, 150, 640), (2, 3, 512)):
        hidden = rng.integers(-4, 5, shape).astype(BF16)
        weights = rng.integers(-4, 5, (shape[2], 192)).astype(BF16)
        expected = (hidden.astype(int) @ weights.astype(int)).astype(np.float32).astype(BF16)
        for lnc in (1, 2):
            np.testing.assert_array_equal(qkv[lnc](hidden, weights), expected)


@pytest.mark.parametrize(
    "hidden_size, columns, d_head",
    [
        (4096, 385, None),
        (2048, 2701, None),
        (4096, 192, 64),
        (8192, 128, 128),
        (512, 2592, 96),
        (256, 1536, 512),
    ],
    ids=["odd", "groups", "three heads", "one head", "heads of groups", "one head in the last group"],
)
@pytest.mark.parametrize("lnc", [1, 2])
def test_cores_share_rows_and_columns(lnc, hidden_size, columns, d_head):
    """Rows of its own, shared rows and groups of columns: each product is in the result once."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(-2, 3, (3, 1, hidden_size)).astype(BF16)
    weights = rng.integers(-2, 3, (hidden_size, columns)).astype(BF16)
    expected = hidden.astype(np.float32) @ weights.astype(np.float32)
    options = {}
    if d_head is not None:
        options = {"output_layout": QKVOutputLayout.NBSd, "d_head": d_head}
        expected = expected.reshape(3, 1, columns // d_head, d_head).transpose(2, 0, 1, 3)
    np.testing.assert_array_equal(qkv[lnc](hidden, weights, **options), expected.astype(BF16))


def test_cores_share_quantized_rows():
    """FP8, two rows at once."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(-2, 3, (2, 1, 8192)).astype(BF16)
    weights = rng.integers(-2, 3, (8192, 192)).astype(FP8)
    options = {name: value for name, value in FP8_ARGUMENTS.items() if name != "weight"}
    expected = hidden.astype(np.float32) @ weights.astype(np.float32)
    np.testing.assert_array_equal(qkv[2](hidden, weights, **options), expected.astype(BF16))


def test_cores_share_rows_that_a_norm_leaves():
    """Of a norm each core has all rows, in two parts; it projects its own and shared ones."""
    rng = np.random.default_rng(0)
    arguments = {
        "input": rng.standard_normal((2, 1, 8192)).astype(BF16),
        "fused_qkv_weights": (rng.standard_normal((8192, 192)) / 64).astype(BF16),
        "gamma_norm_weights": rng.standard_normal((1, 8192)).astype(BF16),
        "fused_norm_type": LAYER,
    }
    expected = qkv_reference(**arguments).astype(np.float32)
    np.testing.assert_allclose(qkv[2](**arguments).astype(np.float32), expected, rtol=2**-5, atol=2**-4)


def test_dma_and_tensor_engine_turn_alike():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((1, 300, 512)).astype(BF16)
    weights = rng.standard_normal((512, 192)).astype(BF16)
    by_dma = qkv(hidden, weights).astype(np.float32)
    by_engine = qkv(hidden, weights, load_input_with_DMA_transpose=False).astype(np.float32)
    np.testing.assert_allclose(by_dma, by_engine, rtol=2**-7, atol=2**-4)


def test_manual_manager_limits_what_is_kept():
    """A manager with little space makes more passes over the rows, with the same result."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(-4, 5, (1, 128, 2048)).astype(BF16)
    weights = rng.integers(-4, 5, (2048, 384)).astype(BF16)
    expected = qkv(hidden, weights)
    read = []
    for size in (200 << 10, 64 << 10):
        with session(timing=True) as record:
            result = qkv(hidden, weights, sbm=SbufManager(0, size))
        np.testing.assert_array_equal(result, expected)
        costs = record.launches[0].timeline.costs
        read.append(sum(cost.transfer.read_bytes for cost in costs if cost.transfer))
    assert read[0] == hidden.nbytes + weights.nbytes < read[1]


@pytest.mark.slow
@pytest.mark.parametrize("norm", [NormType.NO_NORM, RMS], ids=["plain", "rms"])
def test_prefill_feeds_the_tensor_engine(norm):
    """Llama-3 70B on 32 ranks, 16,384 positions: over 85 % of the peak of the tensor engine."""
    arguments = zeros((1, 16384, 8192), 512, fused_norm_type=norm)
    if norm is RMS:
        arguments["gamma_norm_weights"] = row(8192)
    with session(data=False, timing=True) as record:
        qkv[2](**arguments)
    timeline = record.launches[0].timeline
    flops = 2 * 8192 * 8192 * 512
    assert flops / timeline.duration / 1000 > 0.85 * timeline.target.peak_tflops_bf16


def test_decoding_reads_weights_at_the_rate_of_hbm():
    """28 MiB of weights for each core, each read once: over 90 % of the rate of HBM."""
    arguments = zeros((1, 1, 32768), 896)
    with session(data=False, timing=True) as record:
        qkv[2](**arguments)
    timeline = record.launches[0].timeline
    read = sum(cost.transfer.read_bytes for cost in timeline.costs if cost.transfer)
    hidden = read - arguments["fused_qkv_weights"].nbytes // 2
    assert hidden < 0.6 * arguments["input"].nbytes
    reached = timeline.target.hbm_bytes_per_ns * timeline.target.hbm_efficiency / 2
    assert read / reached / timeline.duration > 0.9


def test_decoding_adds_residuals_of_the_largest_rows_in_place():
    """96 rows of 31,232 values: a tensor is 46 KiB of a partition; three fit with the norm."""
    shape = (12, 8, 31232)
    residual = np.zeros(shape, BF16)
    more = {"fused_residual_add": True, "mlp_prev": residual, "attention_prev": residual}
    arguments = zeros(shape, 128, fused_norm_type=LAYER, gamma_norm_weights=row(31232), **more)
    with session(data=False) as record:
        qkv[2](**arguments)
    assert all(found.severity is Severity.note for found in record.launches[0].diagnostics)
    assert "NKI-M006" not in {found.code for found in record.launches[0].diagnostics}
