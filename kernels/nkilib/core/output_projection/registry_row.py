"""The output projections in the table of kernels."""

import functools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.output_projection.output_projection_cte import output_projection_cte
from nkilib.core.output_projection.output_projection_tkg import output_projection_tkg
from nkilib.core.output_projection.reference import (
    output_projection_cte_reference,
    output_projection_tkg_reference,
)
from nkilib.core.utils.common_types import QuantizationType
from nkilib.registry import Example, Row, Tolerance

Arrays = dict[str, np.ndarray[Any, Any]]

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
STATIC = {"quantization_type": QuantizationType.STATIC}


def _weights(rng: np.random.Generator, shape: tuple[int, int], dtype: Any, bias: bool, scales: str) -> Arrays:
    """Weights whose sums are of the size of the scores, a bias, and with `scales` its names for FP8."""
    size, hidden = shape
    arrays: Arrays = {}
    if scales:
        arrays["weight"] = rng.uniform(-240, 240, shape).astype(FP8)
        input_scale, weight_scale = scales.split()
        arrays[input_scale] = np.full((128, 1), 4 / 240, np.float32)
        arrays[weight_scale] = np.full((128, 1), 2 / (240 * np.sqrt(size)), np.float32)
    else:
        arrays["weight"] = (rng.standard_normal(shape) / np.sqrt(size)).astype(dtype)
    if bias:
        arrays["bias"] = rng.standard_normal((1, hidden)).astype(dtype)
    return arrays


def _cte_inputs(
    rng: np.random.Generator, shape: tuple[int, int, int, int], hidden: int, dtype: Any, bias: bool, fp8: bool
) -> Arrays:
    _, heads, d_head, _ = shape
    scales = "input_scales weight_scales" if fp8 else ""
    scores = rng.standard_normal(shape).astype(dtype)
    return {"attention": scores, **_weights(rng, (heads * d_head, hidden), dtype, bias, scales)}


def _cte(
    name: str,
    shape: tuple[int, int, int, int],
    hidden: int,
    dtype: Any = BF16,
    bias: bool = False,
    fp8: bool = False,
    **more: Any,
) -> Example:
    inputs = functools.partial(_cte_inputs, shape=shape, hidden=hidden, dtype=dtype, bias=bias, fp8=fp8)
    options: Mapping[str, Any] = STATIC if fp8 else {}
    return Example(name=name, inputs=inputs, options=options, **more)


def _tkg_inputs(
    rng: np.random.Generator, shape: tuple[int, int, int, int], hidden: int, dtype: Any, bias: bool, fp8: bool
) -> Arrays:
    d_head, _, heads, _ = shape
    scales = "input_scale weight_scale" if fp8 else ""
    scores = rng.standard_normal(shape).astype(dtype)
    return {"attention": scores, **_weights(rng, (heads * d_head, hidden), dtype, bias, scales)}


def _tkg(
    name: str,
    shape: tuple[int, int, int, int],
    hidden: int,
    dtype: Any = BF16,
    bias: bool = False,
    fp8: bool = False,
    transposed: bool = False,
    **more: Any,
) -> Example:
    inputs = functools.partial(_tkg_inputs, shape=shape, hidden=hidden, dtype=dtype, bias=bias, fp8=fp8)
    options: Mapping[str, Any] = {"TRANSPOSE_OUT": transposed, **(STATIC if fp8 else {})}
    return Example(name=name, inputs=inputs, options=options, **more)


_TOLERANCE = Tolerance(
    rtol=2**-7,
    atol=2**-6,
    reason="sums are added in another order in fp32, then rounded once to bf16, which has 8 bits; a score "
    "divided by multiplying with a rounded reciprocal may round to the next FP8 value",
)

ROWS = (
    Row(
        name="output_projection_cte",
        entry=output_projection_cte,
        reference=output_projection_cte_reference,
        summary="Output projection of attention, context encoding",
        maths=(
            "`out[b, s, h] = sum over n, d of attention[b, n, d, s] * weight[n * D + d, h] + bias[h]`, "
            "summed in fp32. With STATIC the scores become `fp8(clip(x / input_scale, -240, 240))`, and "
            "the sums are multiplied by both scales before the bias."
        ),
        options={
            "attention": "`[B, N, D, S]` in HBM; bf16, fp16 or fp32",
            "weight": "`[N * D, H]` in HBM, of the same dtype; with STATIC float8_e4m3",
            "bias": "`[1, H]` in HBM",
            "quantization_type": "NONE or STATIC",
            "input_scales": "`[128, 1]` fp32, the scale of the scores in every row; with STATIC",
            "weight_scales": "`[128, 1]` fp32, the scale of the weights in every row; with STATIC",
        },
        limits=(
            "D is at most 128, N at most 17, H at most 20,705, B * S at most 131,072.",
            "H is a multiple of the number of programs.",
        ),
        examples=(
            _cte("llama-70b", (1, 2, 128, 256), 8192, lnc=(2,), about="Llama-3 70B on 32 ranks"),
            _cte("tails", (3, 3, 67, 50), 1234, bias=True, lnc=(1, 2), about="batches that fill no tile"),
            _cte(
                "fp8",
                (2, 5, 100, 96),
                1536,
                bias=True,
                fp8=True,
                lnc=(1, 2),
                about="an odd tile beside a pair",
            ),
            _cte("fp8-plain", (1, 1, 64, 80), 512, fp8=True, targets=("trn2", "trn3")),
            _cte("fp32", (1, 2, 64, 130), 768, np.float32, bias=True, targets=("trn1", "trn2")),
            _cte("fp16", (1, 4, 32, 40), 512, np.float16, about="four heads in one tile of partitions"),
            _cte("blocks", (1, 17, 128, 128), 6144, about="weights in two blocks that take turns", slow=True),
            _cte("gpt-oss", (1, 16, 64, 2048), 3072, bias=True, lnc=(2,), about="gpt-oss 120B", slow=True),
            _cte("llama-405b", (1, 1, 128, 4096), 16384, lnc=(2,), about="Llama-3 405B", slow=True),
        ),
        tolerance=_TOLERANCE,
        page="nki/library/api/output-projection-cte",
    ),
    Row(
        name="output_projection_tkg",
        entry=output_projection_tkg,
        reference=output_projection_tkg_reference,
        summary="Output projection of attention, decoding",
        maths=(
            "`out[b * S + s, h] = sum over n, d of attention[d, b, n, s] * weight[n * D + d, h] + bias[h]`, "
            "summed in fp32; STATIC as in output_projection_cte. Transposed, with `R = H / (128 * lnc)`, "
            "column `h = (l * 128 + p) * R + r` is at `[p, l, r, :]`."
        ),
        options={
            "attention": "`[D, B, N, S]` in HBM or SBUF; bf16, fp16 or fp32",
            "weight": "`[N * D, H]` in HBM, of the same dtype; with STATIC float8_e4m3",
            "bias": "`[1, H]` in HBM",
            "quantization_type": "NONE or STATIC",
            "weight_scale": "`[128, 1]` fp32, the scale of the weights in every row; with STATIC",
            "input_scale": "`[128, 1]` fp32, the scale of the scores in every row; with STATIC",
            "TRANSPOSE_OUT": "put the hidden dimension on the partitions",
            "OUT_IN_SB": "leave each program's columns in its SBUF",
        },
        limits=(
            "D is at most 128; H is a multiple of the number of programs.",
            "With `OUT_IN_SB`, not transposed, B * S is at most 128.",
            "With `TRANSPOSE_OUT`, B * S is at most 512, H a multiple of 128 times the number of programs, "
            "and N * H at most 163,840 (81,920 in fp32).",
        ),
        examples=(
            _tkg("llama-70b", (128, 4, 2, 1), 8192, lnc=(2,), about="Llama-3 70B on 32 ranks, 4 sequences"),
            _tkg(
                "fold",
                (48, 3, 5, 7),
                602,
                bias=True,
                lnc=(1, 2),
                about="two heads in a tile, one in the last",
            ),
            _tkg("transposed", (32, 4, 8, 5), 1024, bias=True, transposed=True, lnc=(1, 2)),
            _tkg("rows", (64, 50, 2, 3), 512, bias=True, transposed=True, about="150 rows: two tiles"),
            _tkg("fp8", (128, 5, 3, 1), 1536, bias=True, fp8=True, lnc=(2,), targets=("trn2", "trn3")),
            _tkg("fp8-rows", (40, 45, 5, 3), 512, fp8=True, transposed=True),
            _tkg("fp32", (64, 2, 3, 2), 640, np.float32, bias=True, targets=("trn1", "trn2")),
            _tkg("fp16", (128, 2, 1, 1), 256, np.float16, transposed=True),
            _tkg(
                "gpt-oss",
                (64, 4, 8, 4),
                3072,
                bias=True,
                lnc=(2,),
                about="gpt-oss 120B on 8 ranks",
                slow=True,
            ),
            _tkg("llama-405b", (128, 4, 8, 8), 16384, bias=True, lnc=(2,), about="64 rows", slow=True),
        ),
        tolerance=_TOLERANCE,
        page="nki/library/api/output-projection-tkg",
    ),
)
