"""The arguments of :func:`nkilib.core.mlp.mlp.mlp` in one object, and the rules they keep."""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from ..utils.common_types import ActFnType, NormType, QuantizationType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import (
    get_verified_program_sharding_info,
    is_hbm_buffer,
    normalization_uses_weights,
)

TKG_BS_SEQLEN_THRESHOLD = 96  # up to so many tokens the token-generation path runs
PARTITIONS = 128
ROW_SCALE_ELEMENTS = 4  # fp8 elements at the end of a row that hold its fp32 scale

HIDDEN_DTYPES = (nl.bfloat16, nl.float16)
WEIGHT_DTYPES = (nl.bfloat16, nl.float16, nl.float8_e4m3)


@dataclass
class Projection(nl.NKIObject):
    """One of the three matrix products.

    Attributes:
        weights: [contraction, columns] in HBM.
        bias: [1, columns] in HBM, or None.
        scale: fp32 scales of the weights in HBM, [128, 1] or [128, columns], or None.
        clamp_upper: the largest value after the bias, or None.
        clamp_lower: the smallest, or None.
    """

    weights: Any
    bias: Any = None
    scale: Any = None
    clamp_upper: float | None = None
    clamp_lower: float | None = None


@dataclass
class MlpArguments(nl.NKIObject):
    """What :func:`~nkilib.core.mlp.mlp.mlp` was called with, and what follows from it.

    Attributes:
        tokens: B * S.
        hidden_size: H.
        intermediate_size: I.
        programs: cores of the launch, 1 or 2.
        program: which of them this is.
        dtype: of the matrix products' left-hand sides, bf16 or fp16.
    """

    hidden: Any
    gate: Projection
    up: Projection
    down: Projection
    norm_weights: Any
    norm_bias: Any
    fused_add: Any
    store_fused_add: bool
    activation_fn: ActFnType
    norm_type: NormType
    quantization_type: QuantizationType
    gate_up_in_scale: Any
    down_in_scale: Any
    clipping_bound: float
    output_dtype: Any
    output_in_sbuf: bool
    eps: float
    skip_gate: bool
    gate_up_column_tiling: bool
    down_column_tiling: bool
    down_optimized_layout: bool
    tokens: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    programs: int = 1
    program: int = 0
    dtype: Any = None
    hidden_in_sbuf: bool = False
    hidden_is_quantized: bool = False

    def is_token_generation(self, force_cte_mode: bool) -> bool:
        """True where the token-generation path runs."""
        return self.tokens <= TKG_BS_SEQLEN_THRESHOLD and not force_cte_mode


def derive(arguments: MlpArguments) -> MlpArguments:
    """Check the arguments that both paths share and fill in what follows from them."""
    a = arguments
    hidden, weights = a.hidden, a.up.weights
    kernel_assert(len(weights.shape) == 2, f"up_proj_weights_tensor is [H, I], got shape {weights.shape}")
    a.hidden_size, a.intermediate_size = weights.shape
    kernel_assert(
        a.hidden_size % PARTITIONS == 0, f"H must be a multiple of {PARTITIONS}, got {a.hidden_size}"
    )
    a.hidden_in_sbuf = not is_hbm_buffer(hidden)
    kernel_assert(
        len(hidden.shape) == 3,
        f"hidden_tensor is [B, S, H] in HBM or [128, B*S, H/128] in SBUF, got shape {hidden.shape}",
    )
    a.hidden_is_quantized = hidden.dtype == nl.float8_e4m3
    if a.hidden_in_sbuf:
        a.tokens = hidden.shape[1]
        expected = (PARTITIONS, a.tokens, a.hidden_size // PARTITIONS)
    else:
        a.tokens = hidden.shape[0] * hidden.shape[1]
        is_row = a.hidden_is_quantized and a.quantization_type == QuantizationType.ROW
        tail = ROW_SCALE_ELEMENTS if is_row else 0
        expected = (hidden.shape[0], hidden.shape[1], a.hidden_size + tail)
    assert_shape(hidden, expected, "hidden_tensor")
    kernel_assert(
        min(a.tokens, a.hidden_size, a.intermediate_size) > 0,
        f"tokens, H and I are at least 1, got {a.tokens}, {a.hidden_size} and {a.intermediate_size}",
    )
    a.dtype = nl.bfloat16 if a.hidden_is_quantized else hidden.dtype
    _, a.programs, a.program = get_verified_program_sharding_info("mlp", (0, 1), 2)
    if a.output_dtype is None:
        a.output_dtype = a.dtype

    _check_dtypes(a)
    _check_projection(a.gate, "gate", a.hidden_size, a.intermediate_size, a.quantization_type)
    _check_projection(a.up, "up", a.hidden_size, a.intermediate_size, a.quantization_type)
    _check_projection(a.down, "down", a.intermediate_size, a.hidden_size, a.quantization_type)
    _check_norm(a)
    _check_quantization(a)
    if a.fused_add is not None:
        assert_shape(a.fused_add, hidden.shape, "fused_add_tensor")
        kernel_assert(
            not a.hidden_is_quantized, "fused_add_tensor cannot be added to a quantized hidden_tensor"
        )
    kernel_assert(
        not a.store_fused_add or not a.hidden_in_sbuf,
        "store_fused_add_result stores to HBM and takes a hidden_tensor in HBM, got one in SBUF",
    )
    return a


def _check_dtypes(a):
    kernel_assert(
        a.hidden_is_quantized or a.hidden.dtype in HIDDEN_DTYPES,
        f"hidden_tensor is bfloat16 or float16, or quantized float8_e4m3, got {a.hidden.dtype}",
    )
    kernel_assert(
        not a.hidden_is_quantized or a.quantization_type != QuantizationType.NONE,
        "hidden_tensor is float8_e4m3, which takes quantization_type STATIC or ROW, got NONE",
    )


def _check_projection(projection, name, rows, columns, quantization):
    assert_shape(projection.weights, (rows, columns), f"{name}_proj_weights_tensor")
    kernel_assert(
        projection.weights.dtype in WEIGHT_DTYPES,
        f"{name}_proj_weights_tensor is bfloat16, float16 or float8_e4m3, got {projection.weights.dtype}",
    )
    if projection.bias is not None:
        assert_shape(projection.bias, (1, columns), f"{name}_proj_bias_tensor")
    if quantization == QuantizationType.NONE:
        return
    kernel_assert(projection.scale is not None, f"quantization_type {quantization.name} needs {name}_w_scale")
    width = 1 if quantization == QuantizationType.STATIC else columns
    assert_shape(projection.scale, (PARTITIONS, width), f"{name}_w_scale")


def _check_norm(a):
    if normalization_uses_weights(a.norm_type):
        kernel_assert(
            a.norm_weights is not None,
            f"normalization_type {a.norm_type.name} needs normalization_weights_tensor",
        )
        assert_shape(a.norm_weights, (1, a.hidden_size), "normalization_weights_tensor")
    if a.norm_bias is not None:
        kernel_assert(
            a.norm_type == NormType.LAYER_NORM,
            f"normalization_bias_tensor takes normalization_type LAYER_NORM, got {a.norm_type.name}",
        )
        assert_shape(a.norm_bias, (1, a.hidden_size), "normalization_bias_tensor")
    kernel_assert(
        a.norm_type == NormType.NO_NORM or not a.hidden_is_quantized,
        f"a quantized hidden_tensor takes normalization_type NO_NORM, got {a.norm_type.name}",
    )


def _check_quantization(a):
    kernel_assert(
        a.quantization_type in (QuantizationType.NONE, QuantizationType.STATIC, QuantizationType.ROW),
        f"quantization_type is NONE, STATIC or ROW, got {a.quantization_type.name}",
    )
    if a.quantization_type == QuantizationType.STATIC:
        kernel_assert(
            a.gate_up_in_scale is not None and a.down_in_scale is not None,
            "quantization_type STATIC needs gate_up_in_scale and down_in_scale",
        )
        assert_shape(a.gate_up_in_scale, (PARTITIONS, 1), "gate_up_in_scale")
        assert_shape(a.down_in_scale, (PARTITIONS, 1), "down_in_scale")
    kernel_assert(a.clipping_bound >= 0.0, f"quant_clipping_bound is at least 0, got {a.clipping_bound}")
