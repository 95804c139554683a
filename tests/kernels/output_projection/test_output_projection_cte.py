"""nkilib.core.output_projection.output_projection_cte beyond the examples of its row."""

import ml_dtypes
import numpy as np
import pytest

from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nkilib.core.output_projection.output_projection_cte import output_projection_cte
from nkilib.core.utils.common_types import QuantizationType

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
ONES = np.ones((128, 1), np.float32)


def zeros(shape=(1, 2, 64, 128), size=None, hidden=256, dtype=BF16, weight=None, **more):
    """Arguments of a call; `size` rows of weights where they are not N * D."""
    _, heads, d_head, _ = shape
    rows = heads * d_head if size is None else size
    return {"attention": np.zeros(shape, dtype), "weight": np.zeros((rows, hidden), weight or dtype), **more}


STATIC = {
    "weight": FP8,
    "quantization_type": QuantizationType.STATIC,
    "input_scales": ONES,
    "weight_scales": ONES,
}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (1, 1, 129, 8)}, "D is at most 128, got 129"),
        ({"shape": (1, 18, 8, 8)}, "N is at most 17, got 18"),
        ({"shape": (129, 1, 1, 1024)}, r"B \* S is at most 131072, got 132096"),
        ({"hidden": 20706}, "H is at most 20705, got 20706"),
        ({"size": 127}, r"weight has 127 rows, attention has N \* D = 128"),
        ({"dtype": np.int32}, "attention is one of .*, got int32"),
        ({"weight": np.float32}, "weight is float32 but attention is bfloat16"),
        ({"bias": np.zeros((256,), BF16)}, r"bias has shape \(256,\), expected \(1, 256\)"),
        ({"quantization_type": QuantizationType.ROW}, "quantization_type NONE or STATIC, got .*ROW"),
        ({"quantization_type": QuantizationType.MX}, "quantization_type NONE or STATIC, got .*MX"),
        ({**STATIC, "weight": BF16}, "weight of float8_e4m3, got bfloat16"),
        ({**STATIC, "input_scales": None}, "needs the scales of weight and input"),
        ({**STATIC, "weight_scales": ONES[:1]}, r"the weight scale has shape \(1, 1\), expected \(128, 1\)"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(NkiError, match=message):
        output_projection_cte(**zeros(**change))


def test_refuses_an_odd_hidden_dimension_on_two_cores():
    with pytest.raises(NkiError, match="H = 257 does not divide over 2 programs"):
        output_projection_cte[2](**zeros(hidden=257))


@pytest.mark.parametrize("lnc", [1, 2])
def test_rounds_once(lnc):
    """Scores and weights whose sums are exact in fp32: the result is the sum, rounded to bf16."""
    rng = np.random.default_rng(0)
    attention = rng.integers(-8, 9, (2, 3, 40, 70)).astype(BF16)
    weight = rng.integers(-8, 9, (120, 600)).astype(BF16)
    bias = rng.integers(-8, 9, (1, 600)).astype(BF16)
    expected = np.einsum("bnds,ndh->bsh", attention.astype(int), weight.astype(int).reshape(3, 40, 600))
    result = output_projection_cte[lnc](attention, weight, bias)
    np.testing.assert_array_equal(result, (expected + bias.astype(int)).astype(np.float32).astype(BF16))


def test_quantizes_scores_by_rounding_and_clipping():
    """With an identity of weights the result shows what became of each score, of either sign of scale."""
    values = np.array([0.0, 1.0, 1.06, 3.3, 17.0, 250.0, -1000.0, -0.3], np.float32)
    attention = np.resize(values, (1, 1, 128, 16)).astype(BF16)
    scale = np.full((128, 1), -0.5, np.float32)
    result = output_projection_cte(
        attention,
        np.eye(128, dtype=FP8),
        quantization_type=QuantizationType.STATIC,
        input_scales=scale,
        weight_scales=ONES,
    )
    quantized = np.clip(attention.astype(np.float32) / -0.5, -240, 240).astype(FP8).astype(np.float32)
    np.testing.assert_array_equal(result[0], (quantized[0, 0].T * -0.5).astype(BF16))


def test_reads_weights_and_scores_once():
    arguments = zeros((1, 4, 128, 640), hidden=2048, dtype=BF16)
    with session(data=False, timing=True) as record:
        output_projection_cte(**arguments)
    transfers = [c.transfer for c in record.launches[0].timeline.costs if c.transfer]
    assert sum(t.read_bytes for t in transfers) == sum(a.nbytes for a in arguments.values())
    assert sum(t.write_bytes for t in transfers) == 640 * 2048 * 2
