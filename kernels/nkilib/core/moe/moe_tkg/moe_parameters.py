"""The arguments of :func:`.moe_tkg.moe_tkg` in one object, and the rules they keep."""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode, QuantizationType
from ...utils.kernel_assert import assert_shape, kernel_assert
from ...utils.kernel_helpers import div_ceil, get_verified_program_sharding_info, is_hbm_buffer

PARTITIONS = 128
MOST_TOKENS = 128
MOST_CHOICES = 16
MX_ROWS = 512  # rows of a contraction in one array of MX elements: 128 partitions of 4
PACKED = (nl.float4_e2m1fn_x4, nl.float8_e4m3fn_x4)


@dataclass
class MoeArguments(nl.NKIObject):
    """What :func:`~.moe_tkg.moe_tkg` was called with, and what follows from it.

    Attributes:
        tokens: T.
        hidden_size: H.
        intermediate_size: I.
        experts: E_L, whose weights there are.
        top_k: K.
        programs: cores of the launch, 1 or 2.
        program: which of them this is.
        dtype: of hidden.
        quantization_type: NONE, ROW or MX, from the dtype of the weights.
    """

    hidden: Any
    gate_up_weights: Any
    down_weights: Any
    affinities: Any
    index: Any
    is_all_expert: bool
    rank_id: Any
    gate_up_bias: Any
    down_bias: Any
    gate_up_scale: Any
    down_scale: Any
    hidden_scale: Any
    mask_unselected: bool
    affinities_eager: Any
    scaling: ExpertAffinityScaleMode
    activation_fn: ActFnType
    output_dtype: Any
    gate_upper: float | None
    gate_lower: float | None
    up_upper: float | None
    up_lower: float | None
    output_in_sbuf: bool
    dynamic: bool
    tokens: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    experts: int = 0
    top_k: int = 0
    programs: int = 1
    program: int = 0
    dtype: Any = None
    hidden_in_sbuf: bool = False
    quantization_type: QuantizationType = QuantizationType.NONE

    def uses_affinities(self) -> bool:
        """True if the experts' results are multiplied by affinities."""
        return self.scaling == ExpertAffinityScaleMode.POST_SCALE


def derive(arguments: MoeArguments, input_scales) -> MoeArguments:
    """Check the arguments and fill in what follows from them."""
    a = arguments
    _, a.programs, a.program = get_verified_program_sharding_info("moe_tkg", (0, 1), 2)
    kernel_assert(
        input_scales[0] is None and input_scales[1] is None,
        "gate_up_input_scale and down_input_scale (static quantization) are not supported",
    )
    a.gate_up_weights, a.down_weights = _packed(a.gate_up_weights), _packed(a.down_weights)
    a.experts = a.gate_up_weights.shape[0]
    a.hidden_in_sbuf = not is_hbm_buffer(a.hidden)
    a.dtype = a.hidden.dtype
    a.top_k = a.index.shape[1]
    if a.gate_up_weights.dtype in PACKED:
        a.quantization_type = QuantizationType.MX
    elif a.gate_up_scale is not None and a.down_scale is not None:
        a.quantization_type = QuantizationType.ROW
    if a.output_dtype is None:
        a.output_dtype = a.dtype
    _check_affinities(a)
    if a.quantization_type == QuantizationType.MX:
        _derive_mx_shapes(a)
    else:
        _derive_shapes(a)
    return a


def _packed(weights):
    """Weights as MX elements where they come as the words that hold them: numpy has no such types."""
    if weights.dtype == nl.uint32:
        return weights.view(nl.float8_e4m3fn_x4)
    if weights.dtype == nl.uint16:
        return weights.view(nl.float4_e2m1fn_x4)
    return weights


def _check_affinities(a):
    kernel_assert(
        a.scaling in (ExpertAffinityScaleMode.NO_SCALE, ExpertAffinityScaleMode.POST_SCALE),
        f"expert_affinities_scaling_mode is NO_SCALE or POST_SCALE, got {a.scaling.name}",
    )
    if a.is_all_expert:
        kernel_assert(
            a.affinities_eager is None, "expert_affinities_eager is for selected experts, not for all"
        )
        kernel_assert(
            not a.uses_affinities() or a.rank_id is not None,
            "all experts with POST_SCALE need rank_id, [1, 1], got None",
        )
    kernel_assert(
        a.is_all_expert or a.top_k <= MOST_CHOICES,
        f"a token selects up to {MOST_CHOICES} experts, got K = {a.top_k}",
    )


def _derive_mx_shapes(a):
    kernel_assert(
        len(a.gate_up_weights.shape) == 5 and len(a.down_weights.shape) == 4,
        "MX weights are expert_gate_up_weights [E, 128, 2, H / 512, I] and expert_down_weights "
        f"[E, I_p, I / 512, H], got shapes {a.gate_up_weights.shape} and {a.down_weights.shape}",
    )
    a.hidden_size, a.intermediate_size = a.down_weights.shape[3], a.gate_up_weights.shape[4]
    hidden, size = a.hidden_size, a.intermediate_size
    kernel_assert(hidden % MX_ROWS == 0, f"with MX weights H must be a multiple of {MX_ROWS}, got {hidden}")
    kernel_assert(size % 32 == 0, f"with MX weights I must be a multiple of 32, got {size}")
    kernel_assert(not a.output_in_sbuf, "output_in_sbuf is not for MX weights, got True")
    rows, tiles = min(size // 4, PARTITIONS), div_ceil(size, MX_ROWS)
    assert_shape(
        a.gate_up_weights, (a.experts, PARTITIONS, 2, hidden // MX_ROWS, size), "expert_gate_up_weights"
    )
    assert_shape(a.down_weights, (a.experts, rows, tiles, hidden), "expert_down_weights")
    kernel_assert(
        a.gate_up_scale is not None and a.down_scale is not None,
        "MX weights need expert_gate_up_weights_scale and expert_down_weights_scale",
    )
    assert_shape(
        a.gate_up_scale,
        (a.experts, PARTITIONS // 8, 2, hidden // MX_ROWS, size),
        "expert_gate_up_weights_scale",
    )
    assert_shape(a.down_scale, (a.experts, rows // 8, tiles, hidden), "expert_down_weights_scale")
    if a.gate_up_bias is not None:
        assert_shape(a.gate_up_bias, (a.experts, rows, 2, tiles, 4), "expert_gate_up_bias")
    if a.down_bias is not None:
        assert_shape(a.down_bias, (a.experts, hidden), "expert_down_bias")
    if a.hidden_scale is not None:
        a.tokens = a.hidden.shape[2]
        assert_shape(a.hidden, (PARTITIONS, hidden // MX_ROWS, a.tokens), "hidden_input")
        assert_shape(a.hidden_scale, a.hidden.shape, "hidden_input_scale")
        kernel_assert(a.is_all_expert, "hidden_input_scale is for all experts, not for selected ones")
        kernel_assert(a.tokens % 4 == 0, f"quantized hidden has a multiple of 4 tokens, got {a.tokens}")
        kernel_assert(a.output_dtype not in PACKED, "quantized hidden needs output_dtype")
        return
    kernel_assert(not a.hidden_in_sbuf, "with MX weights hidden_input is in HBM, or quantized in SBUF")
    _count_tokens(a)
    if a.is_all_expert:
        kernel_assert(a.tokens % 32 == 0, f"MX weights, all experts: T is a multiple of 32, got {a.tokens}")
        return
    kernel_assert(a.tokens <= MOST_TOKENS, f"hidden_input has up to {MOST_TOKENS} tokens, got {a.tokens}")
    kernel_assert(
        a.top_k % a.programs == 0,
        f"MX weights, selected experts: K must divide over the cores, got {a.top_k} on {a.programs}",
    )
    kernel_assert(
        a.down_bias is None or a.experts <= PARTITIONS,
        f"MX weights, selected experts: a down bias of up to {PARTITIONS} experts, got {a.experts}",
    )


def _count_tokens(a):
    shape = a.hidden.shape
    a.tokens = shape[0] * shape[1] if len(shape) == 3 else shape[0]
    kernel_assert(
        shape[len(shape) - 1] == a.hidden_size,
        f"hidden_input is [T, H] with H = {a.hidden_size}, got shape {shape}",
    )


def _derive_shapes(a):
    kernel_assert(
        len(a.gate_up_weights.shape) == 4,
        f"expert_gate_up_weights is [E, H, 2, I], got shape {a.gate_up_weights.shape}",
    )
    a.hidden_size, a.intermediate_size = a.gate_up_weights.shape[1], a.gate_up_weights.shape[3]
    shape = a.hidden.shape
    if a.hidden_in_sbuf:
        a.tokens = shape[1]
    else:
        _count_tokens(a)
    kernel_assert(0 < a.tokens <= MOST_TOKENS, f"hidden_input has up to {MOST_TOKENS} tokens, got {a.tokens}")
    shards = a.programs if a.is_all_expert else 1
    kernel_assert(
        a.hidden_size % (PARTITIONS * shards) == 0,
        f"H must be a multiple of 128 on each core that shares it, got H = {a.hidden_size} on {shards}",
    )
    if a.hidden_in_sbuf:
        expected = (PARTITIONS, a.tokens, a.hidden_size // PARTITIONS // shards)
        assert_shape(a.hidden, expected, "hidden_input")
    hidden, size = a.hidden_size, a.intermediate_size
    kernel_assert(size >= a.programs, f"I must be at least the number of cores, got I = {size}")
    assert_shape(a.gate_up_weights, (a.experts, hidden, 2, size), "expert_gate_up_weights")
    assert_shape(a.down_weights, (a.experts, size, hidden), "expert_down_weights")
    if a.gate_up_bias is not None:
        assert_shape(a.gate_up_bias, (a.experts, 2, size), "expert_gate_up_bias")
    if a.down_bias is not None:
        assert_shape(a.down_bias, (a.experts, hidden), "expert_down_bias")
    if a.quantization_type == QuantizationType.ROW:
        assert_shape(a.gate_up_scale, (a.experts, 2, size), "expert_gate_up_weights_scale")
        assert_shape(a.down_scale, (a.experts, hidden), "expert_down_weights_scale")
