"""nkilib.core.output_projection.output_projection_tkg beyond the examples of its row."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nkilib.core.output_projection.output_projection_tkg import output_projection_tkg
from nkilib.core.output_projection.reference import output_projection_tkg_reference
from nkilib.core.utils.common_types import QuantizationType

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
ONES = np.ones((128, 1), np.float32)
STATIC = {
    "weight": FP8,
    "quantization_type": QuantizationType.STATIC,
    "input_scale": ONES,
    "weight_scale": ONES,
}


def zeros(shape=(64, 4, 2, 1), size=None, hidden=256, dtype=BF16, weight=None, **more):
    """Arguments of a call; `size` rows of weights where they are not N * D."""
    d_head, _, heads, _ = shape
    rows = heads * d_head if size is None else size
    return {"attention": np.zeros(shape, dtype), "weight": np.zeros((rows, hidden), weight or dtype), **more}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (129, 1, 1, 1)}, "D is at most 128, got 129"),
        ({"size": 127}, r"weight has 127 rows, attention has N \* D = 128"),
        ({"dtype": np.int32}, "attention is one of .*, got int32"),
        ({"weight": np.float32}, "weight is float32 but attention is bfloat16"),
        ({"bias": np.zeros((1, 255), BF16)}, r"bias has shape \(1, 255\), expected \(1, 256\)"),
        ({"quantization_type": QuantizationType.ROW}, "quantization_type NONE or STATIC, got .*ROW"),
        ({"quantization_type": QuantizationType.MX}, "quantization_type NONE or STATIC, got .*MX"),
        ({**STATIC, "weight": BF16}, "weight of float8_e4m3, got bfloat16"),
        ({**STATIC, "weight_scale": None}, "needs the scales of weight and input"),
        ({**STATIC, "input_scale": ONES[:1]}, r"the input scale has shape \(1, 1\), expected \(128, 1\)"),
        ({"TRANSPOSE_OUT": True, "hidden": 320}, r"a multiple of 128 \* 1 programs, got 320"),
        ({"TRANSPOSE_OUT": True, "shape": (64, 513, 2, 1)}, r"B \* S is at most 512, got 513"),
        ({"TRANSPOSE_OUT": True, "shape": (8, 1, 16, 1), "hidden": 10368}, r"N \* H is at most 163840, got"),
        (
            {"TRANSPOSE_OUT": True, "shape": (8, 1, 8, 1), "hidden": 10368, "dtype": np.float32},
            r"N \* H is at most 81920, got 82944",
        ),
        ({"OUT_IN_SB": True, "shape": (64, 129, 2, 1)}, r"with OUT_IN_SB B \* S is at most 128, got 129"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(NkiError, match=message):
        output_projection_tkg(**zeros(**change))


def test_refuses_an_odd_hidden_dimension_on_two_cores():
    with pytest.raises(NkiError, match="H = 257 does not divide over 2 programs"):
        output_projection_tkg[2](**zeros(hidden=257))


@nki.jit
def in_sbuf(attention, weight, bias, transposed, scales):
    """The projection from scores in SBUF to a result in SBUF, as a fused kernel calls it."""
    scores = nl.ndarray(attention.shape, dtype=attention.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=scores, src=attention)
    kind = QuantizationType.NONE if scales is None else QuantizationType.STATIC
    result = output_projection_tkg(scores, weight, bias, kind, scales, scales, transposed, True)
    programs = nl.num_programs(0)
    out = nl.ndarray((programs,) + result.shape, dtype=result.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[nl.program_id(0)], src=result)
    return out


@pytest.mark.parametrize("fp8", [False, True], ids=["bf16", "fp8"])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "transposed"])
@pytest.mark.parametrize("shape", [(128, 3, 2, 2), (40, 5, 4, 3)], ids=["whole", "folded"])
def test_composes_in_sbuf(shape, transposed, fp8):
    """Each program has its columns in its own SBUF."""
    rng = np.random.default_rng(0)
    d_head, batch, heads, sequence = shape
    rows, hidden, lnc = batch * sequence, 768, 2
    attention = rng.integers(-8, 9, shape).astype(BF16)
    weight = rng.integers(-8, 9, (heads * d_head, hidden)).astype(FP8 if fp8 else BF16)
    bias = rng.integers(-8, 9, (1, hidden)).astype(BF16)
    result = in_sbuf[lnc](attention, weight, bias, transposed, ONES if fp8 else None)
    kind = QuantizationType.STATIC if fp8 else QuantizationType.NONE
    expected = output_projection_tkg_reference(attention, weight, bias, kind, ONES, ONES, transposed, lnc)
    if transposed:
        expected = expected.transpose(1, 0, 2, 3)
    else:
        expected = expected.reshape(rows, lnc, hidden // lnc).transpose(1, 0, 2)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("d_head", [128, 64])
def test_reads_each_weight_once_at_the_rate_of_hbm(d_head):
    """The time is that of reading the weights, here 16 MiB a core: over 80 % of the roofline."""
    arguments = zeros((d_head, 4, 1024 // d_head, 1), hidden=16384)
    with session(data=False, timing=True) as record:
        output_projection_tkg[2](**arguments)
    timeline = record.launches[0].timeline
    read = sum(c.transfer.read_bytes for c in timeline.costs if c.transfer)
    folded = 128 // d_head  # the scores are read once for each head of a tile
    assert read <= arguments["weight"].nbytes // 2 + folded * arguments["attention"].nbytes
    roofline = read / (timeline.target.hbm_bytes_per_ns * timeline.target.hbm_efficiency / 2)
    assert roofline / timeline.duration > 0.8
