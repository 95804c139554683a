"""depthwise_conv1d in the table of kernels."""

from typing import Any

import ml_dtypes
import numpy as np

from nkilib.experimental.conv.depthwise_conv1d import depthwise_conv1d_implicit_gemm
from nkilib.experimental.conv.reference import depthwise_conv1d_reference
from nkilib.registry import Example, Inputs, Row, Tolerance


def _example(
    name: str,
    shape: tuple[int, int, int],
    taps: int,
    dtype: Any = ml_dtypes.bfloat16,
    padding: tuple[int, int] = (0, 0),
    step: int = 1,
    **more: Any,
) -> Example:
    batch, channels, width = shape

    def inputs(rng: np.random.Generator) -> Inputs:
        return {
            "img_ref": rng.standard_normal((batch, channels, 1, width)).astype(dtype),
            "filter_ref": (rng.standard_normal((channels, 1, 1, taps)) / taps**0.5).astype(dtype),
        }

    options = {"padding": ((0, 0), padding), "stride": (1, step), "feature_group_count": channels}
    return Example(name=name, inputs=inputs, options=options, **more)


ROWS = (
    Row(
        name="depthwise_conv1d",
        entry=depthwise_conv1d_implicit_gemm,
        reference=depthwise_conv1d_reference,
        summary="Depthwise convolution in one dimension, each channel with its own filter",
        maths="`out[n, c, q] = sum over s of filter[c, s] * x[n, c, q * stride + s - left]`, x 0 outside.",
        options={
            "img_ref": "`[N, C, 1, W]` in HBM; bf16, fp16 or fp32",
            "filter_ref": "`[C, 1, 1, S]` in HBM, of the dtype of `img_ref`",
            "padding": "`((0, 0), (left, right))`, columns of zeros",
            "stride": "`(1, steps along W)`",
            "rhs_dilation": "`(1, 1)`",
            "lhs_dilation": "`(1, 1)`",
            "feature_group_count": "C",
            "batch_group_count": "1",
            "in_perm": "not used",
            "kern_perm": "not used",
            "out_perm": "not used",
        },
        limits=(
            "C is a multiple of the number of programs, which share the channels.",
            "S is at most W and its padding.",
            "An infinite or NaN value of x makes NaN of the other channels of its tile too.",
        ),
        examples=(
            _example(
                "mamba", (1, 256, 1100), 4, padding=(3, 0), lnc=(1, 2), about="the filter of a Mamba layer"
            ),
            _example("few-channels", (2, 6, 300), 48, np.float32, lnc=(2,), targets=("trn2", "trn3")),
            _example("stride", (1, 20, 200), 15, ml_dtypes.bfloat16, (5, 5), 3, about="zeros on both sides"),
            _example("long-filter", (1, 16, 130), 120, np.float16, about="few results of a long filter"),
            _example("mamba-wide", (1, 2048, 4096), 4, lnc=(2,), slow=True),
            _example("asr", (1, 512, 5000), 8, lnc=(2,), slow=True, about="speech recognition"),
            _example("large", (1, 1024, 1024), 128, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(
            rtol=2**-7, atol=2e-3, reason="fp32 sums in another order, rounded once to the dtype of `img_ref`"
        ),
        page="nki/library/api/depthwise-conv1d",
    ),
)
