"""mlp in the table of kernels."""

import functools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.mlp.mlp import mlp
from nkilib.core.mlp.reference import mlp_reference
from nkilib.core.utils.common_types import ActFnType, NormType, QuantizationType
from nkilib.registry import Example, Row, Tolerance

Arrays = dict[str, np.ndarray[Any, Any]]

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
_RMS = {"normalization_type": NormType.RMS_NORM}
_LAYER = {"normalization_type": NormType.LAYER_NORM}
_STATIC = {"quantization_type": QuantizationType.STATIC}
_ROW = {"quantization_type": QuantizationType.ROW}
_NO_TILING = {"use_tkg_gate_up_proj_column_tiling": False, "use_tkg_down_proj_column_tiling": False}


def _weights(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> np.ndarray[Any, Any]:
    """Weights [rows, columns] whose products with numbers of size 1 are of size 1."""
    values = rng.standard_normal(shape) / np.sqrt(shape[0])
    return values.astype(dtype) if dtype != FP8 else (values * np.sqrt(shape[0])).astype(dtype)


def _scales(
    rng: np.random.Generator, quantization: QuantizationType, hidden: int, intermediate: int
) -> Arrays:
    """Scales of fp8 weights of size 1."""
    if quantization is QuantizationType.STATIC:
        up, down, unit = hidden**-0.5, intermediate**-0.5, 1 / 32
        values = {"gate_w_scale": up, "up_w_scale": up, "down_w_scale": down}
        values |= {"gate_up_in_scale": unit, "down_in_scale": unit}
        return {name: np.full((128, 1), value, np.float32) for name, value in values.items()}
    rows = {"gate_w_scale": (hidden, intermediate), "up_w_scale": (hidden, intermediate)}
    rows["down_w_scale"] = (intermediate, hidden)
    return {
        name: np.tile(rng.uniform(0.5, 1.5, (1, width)) / np.sqrt(size), (128, 1)).astype(np.float32)
        for name, (size, width) in rows.items()
    }


def _quantized(rng: np.random.Generator, shape: tuple[int, int, int], row: bool) -> np.ndarray[Any, Any]:
    """fp8 rows, with `row` and their scale, about 1 / 32, in 4 more elements."""
    values = np.clip(32 * rng.standard_normal(shape), -240, 240).astype(FP8)
    if not row:
        return values
    scale = (rng.uniform(0.9, 1.1, (*shape[:2], 1)) / 32).astype(np.float32)
    return np.concatenate([values, scale.view(FP8)], axis=-1)


def _inputs(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    intermediate: int,
    dtype: Any,
    bias: bool,
    residual: bool,
    prequantized: bool,
    options: Mapping[str, Any],
) -> Arrays:
    hidden = shape[2]
    quantization = options.get("quantization_type", QuantizationType.NONE)
    weight_dtype = dtype if quantization is QuantizationType.NONE else FP8
    arrays: Arrays = {
        "hidden_tensor": rng.standard_normal(shape).astype(dtype),
        "gate_proj_weights_tensor": _weights(rng, (hidden, intermediate), weight_dtype),
        "up_proj_weights_tensor": _weights(rng, (hidden, intermediate), weight_dtype),
        "down_proj_weights_tensor": _weights(rng, (intermediate, hidden), weight_dtype),
    }
    if prequantized:
        arrays["hidden_tensor"] = _quantized(rng, shape, quantization is QuantizationType.ROW)
    if quantization is not QuantizationType.NONE:
        arrays |= _scales(rng, quantization, hidden, intermediate)
    norm = options.get("normalization_type", NormType.NO_NORM)
    if norm in (NormType.RMS_NORM, NormType.LAYER_NORM):
        arrays["normalization_weights_tensor"] = rng.uniform(0.5, 1.5, (1, hidden)).astype(dtype)
    if norm is NormType.LAYER_NORM:
        arrays["normalization_bias_tensor"] = rng.standard_normal((1, hidden)).astype(dtype)
    if residual:
        arrays["fused_add_tensor"] = rng.standard_normal(shape).astype(dtype)
    if bias:
        arrays["gate_proj_bias_tensor"] = rng.standard_normal((1, intermediate)).astype(dtype)
        arrays["up_proj_bias_tensor"] = rng.standard_normal((1, intermediate)).astype(dtype)
        if not prequantized:
            arrays["down_proj_bias_tensor"] = rng.standard_normal((1, hidden)).astype(dtype)
    return arrays


def _example(
    name: str,
    shape: tuple[int, int, int],
    intermediate: int,
    dtype: Any = BF16,
    bias: bool = False,
    residual: bool = False,
    prequantized: bool = False,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Example:
    chosen = {**(options or {}), **({"store_fused_add_result": True} if residual else {})}
    inputs = functools.partial(
        _inputs,
        shape=shape,
        intermediate=intermediate,
        dtype=dtype,
        bias=bias,
        residual=residual,
        prequantized=prequantized,
        options=chosen,
    )
    return Example(name=name, inputs=inputs, options=chosen, **more)


_CLAMPS = {
    "gate_clamp_upper_limit": 1.0,
    "gate_clamp_lower_limit": -0.5,
    "up_clamp_upper_limit": 0.75,
    "up_clamp_lower_limit": -1.0,
}

ROWS = (
    Row(
        name="mlp",
        entry=mlp,
        reference=mlp_reference,
        summary="MLP with residual add and normalization, prefill and decode",
        maths=(
            "`x = norm(hidden + fused_add)`, `inter = act(clamp(x Wgate + bgate)) * clamp(x Wup + bup)`, "
            "`y = inter Wdown + bdown`; with skip_gate_proj `inter = act(clamp(x Wup + bup))`. "
            "Sums are fp32; x and inter are rounded to the dtype of hidden. FP8 weights are multiplied by "
            "their scales; in context encoding x comes quantized, and inter is divided by its scale (ROW: "
            "the largest value of a row by 240) and rounded to FP8."
        ),
        options={
            "hidden_tensor": "`[B, S, H]` in HBM, or with up to 96 tokens `[128, B * S, H / 128]` in SBUF; "
            "bf16, fp16; quantized context encoding float8_e4m3, with ROW `[B, S, H + 4]`",
            "gate_proj_weights_tensor": "`[H, I]`; bf16, fp16 or float8_e4m3",
            "up_proj_weights_tensor": "`[H, I]`",
            "down_proj_weights_tensor": "`[I, H]`",
            "normalization_weights_tensor": "`[1, H]`, for RMS_NORM and LAYER_NORM",
            "gate_proj_bias_tensor": "`[1, I]`",
            "up_proj_bias_tensor": "`[1, I]`",
            "down_proj_bias_tensor": "`[1, H]`",
            "normalization_bias_tensor": "`[1, H]`, for LAYER_NORM",
            "fused_add_tensor": "residual, of the shape of hidden",
            "store_fused_add_result": "return hidden + fused_add as well",
            "activation_fn": "SiLU, GELU, GELU_Tanh_Approx or Swish",
            "normalization_type": "NO_NORM, RMS_NORM, RMS_NORM_SKIP_GAMMA or LAYER_NORM",
            "quantization_type": "NONE, STATIC or ROW",
            "gate_w_scale": "fp32 `[128, 1]` (STATIC) or `[128, I]` (ROW), rows alike",
            "up_w_scale": "fp32 `[128, 1]` or `[128, I]`",
            "down_w_scale": "fp32 `[128, 1]` or `[128, H]`",
            "gate_up_in_scale": "fp32 `[128, 1]`, STATIC: the scale of quantized hidden",
            "down_in_scale": "fp32 `[128, 1]`, STATIC: the scale inter is quantized with",
            "quant_clipping_bound": "ROW in context encoding: inter is clipped to plus or minus this; 0: not",
            "output_dtype": "of the result; that of hidden by default",
            "store_output_in_sbuf": "leave the result in SBUF; up to 96 tokens",
            "eps": "added to the variance or the mean square",
            "skip_gate_proj": "no gate projection; up to 96 tokens",
            "use_tkg_gate_up_proj_column_tiling": "up to 96 tokens: True streams the weights of gate and up "
            "past the tokens, False streams the tokens past the weights",
            "use_tkg_down_proj_column_tiling": "the same for the down projection",
            "use_tkg_down_proj_optimized_layout": "without down column tiling: down weights come as "
            "`[I, cores, H / 128 / cores, 128]`",
            "gate_clamp_upper_limit": "largest value of the gate projection; up to 96 tokens, as all limits",
            "gate_clamp_lower_limit": "smallest value of the gate projection",
            "up_clamp_upper_limit": "largest value of the up projection",
            "up_clamp_lower_limit": "smallest value of the up projection",
            "force_cte_mode": "context encoding for few tokens too",
        },
        limits=(
            "H is a multiple of 128; with up to 96 tokens H / 128 divides over the cores.",
            "With more than 96 tokens B * S divides over the cores.",
            "Without down column tiling, H / 128 / cores * B * S fp32 elements fit into eight PSUM banks.",
            "Quantized context encoding: H is a multiple of 256, I even, no down bias and no normalization.",
        ),
        examples=(
            _example("decode", (4, 1, 1024), 384, options=_RMS, lnc=(1, 2), about="four tokens"),
            _example(
                "decode-full",
                (3, 4, 768),
                300,
                bias=True,
                residual=True,
                options=_LAYER,
                lnc=(1, 2),
                about="every tensor a call can have; I fills no tile",
            ),
            _example(
                "decode-weights-stationary",
                (5, 4, 512),
                200,
                bias=True,
                options={**_RMS, **_NO_TILING},
                lnc=(1, 2),
            ),
            _example(
                "decode-optimized",
                (40, 1, 1024),
                256,
                residual=True,
                options={
                    **_NO_TILING,
                    "use_tkg_down_proj_optimized_layout": True,
                    "normalization_type": NormType.RMS_NORM_SKIP_GAMMA,
                },
                lnc=(1, 2),
            ),
            _example(
                "decode-clamped", (2, 2, 512), 256, options={**_CLAMPS, "activation_fn": ActFnType.Swish}
            ),
            _example(
                "decode-no-gate",
                (70, 1, 256),
                384,
                bias=True,
                options={"skip_gate_proj": True, "activation_fn": ActFnType.GELU},
            ),
            _example("decode-fp8-rows", (4, 1, 1024), 300, bias=True, options={**_RMS, **_ROW}, lnc=(2,)),
            _example(
                "decode-fp8", (20, 1, 512), 256, options={**_STATIC, **_NO_TILING}, targets=("trn2", "trn3")
            ),
            _example("decode-fp16", (3, 1, 512), 130, np.float16, options=_RMS, targets=("trn1", "trn2")),
            _example(
                "prefill",
                (1, 640, 512),
                384,
                options=_RMS,
                lnc=(1, 2),
                about="a block of four tiles and one more",
            ),
            _example(
                "prefill-full",
                (2, 101, 384),
                600,
                bias=True,
                residual=True,
                options={**_LAYER, "activation_fn": ActFnType.GELU_Tanh_Approx},
                lnc=(1, 2),
                about="on two cores, each reads half of the weights",
            ),
            _example(
                "prefill-residual",
                (1, 290, 2304),
                364,
                residual=True,
                options=_RMS,
                lnc=(2,),
                targets=("trn2", "trn3"),
            ),
            _example("prefill-fp16", (1, 4, 256), 256, np.float16, options={"force_cte_mode": True}),
            _example(
                "prefill-fp8-rows", (1, 260, 512), 380, bias=True, prequantized=True, options=_ROW, lnc=(1, 2)
            ),
            _example(
                "prefill-fp8",
                (1, 130, 768),
                256,
                prequantized=True,
                options={**_STATIC, "activation_fn": ActFnType.GELU},
            ),
            _example(
                "llama-70b-decode",
                (4, 1, 8192),
                896,
                residual=True,
                options=_RMS,
                lnc=(2,),
                about="Llama-3 70B on 32 ranks",
                slow=True,
            ),
            _example(
                "llama-70b",
                (1, 1024, 8192),
                896,
                residual=True,
                options=_RMS,
                lnc=(2,),
                about="Llama-3 70B on 32 ranks",
                slow=True,
            ),
            _example(
                "qwen3-32b-decode",
                (32, 1, 5120),
                400,
                options=_RMS,
                lnc=(2,),
                about="Qwen3 32B on 64 ranks",
                slow=True,
            ),
            _example(
                "gemma3-27b-decode",
                (2, 1, 5376),
                336,
                options={**_RMS, "activation_fn": ActFnType.GELU_Tanh_Approx},
                lnc=(2,),
                about="Gemma-3 27B on 64 ranks",
                slow=True,
            ),
        ),
        tolerance=Tolerance(
            rtol=2**-6,
            atol=2**-5,
            reason="x and inter are rounded to bf16 (8 bits) between the products, results once more; in "
            "quantized context encoding inter may round to the next FP8 value, which has 4 bits",
        ),
        page="nki/library/api/mlp",
    ),
)
