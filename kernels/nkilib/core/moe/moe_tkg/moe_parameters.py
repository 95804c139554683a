"""The arguments of :func:`.moe_tkg.moe_tkg` in one object, and the rules they keep."""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode, QuantizationType
from ...utils.kernel_assert import assert_shape, kernel_assert
from ...utils.kernel_helpers import get_verified_program_sharding_info, is_hbm_buffer

PARTITIONS = 128
MOST_TOKENS = 128
MOST_CHOICES = 16
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
        return a
    _derive_shapes(a)
    return a


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


def _derive_shapes(a):
    kernel_assert(
        len(a.gate_up_weights.shape) == 4,
        f"expert_gate_up_weights is [E, H, 2, I], got shape {a.gate_up_weights.shape}",
    )
    a.hidden_size, a.intermediate_size = a.gate_up_weights.shape[1], a.gate_up_weights.shape[3]
    shape = a.hidden.shape
    if a.hidden_in_sbuf:
        a.tokens = shape[1]
    elif len(shape) == 3:
        a.tokens = shape[0] * shape[1]
    else:
        a.tokens = shape[0]
    kernel_assert(0 < a.tokens <= MOST_TOKENS, f"hidden_input has up to {MOST_TOKENS} tokens, got {a.tokens}")
    shards = a.programs if a.is_all_expert else 1
    kernel_assert(
        a.hidden_size % (PARTITIONS * shards) == 0,
        f"H must be a multiple of 128 on each core that shares it, got H = {a.hidden_size} on {shards}",
    )
    if a.hidden_in_sbuf:
        expected = (PARTITIONS, a.tokens, a.hidden_size // PARTITIONS // shards)
        assert_shape(a.hidden, expected, "hidden_input")
    else:
        kernel_assert(
            shape[len(shape) - 1] == a.hidden_size,
            f"hidden_input is [T, H] with H = {a.hidden_size}, got shape {shape}",
        )
    hidden, size = a.hidden_size, a.intermediate_size
    assert_shape(a.gate_up_weights, (a.experts, hidden, 2, size), "expert_gate_up_weights")
    assert_shape(a.down_weights, (a.experts, size, hidden), "expert_down_weights")
    if a.gate_up_bias is not None:
        assert_shape(a.gate_up_bias, (a.experts, 2, size), "expert_gate_up_bias")
    if a.down_bias is not None:
        assert_shape(a.down_bias, (a.experts, hidden), "expert_down_bias")
    if a.quantization_type == QuantizationType.ROW:
        assert_shape(a.gate_up_scale, (a.experts, 2, size), "expert_gate_up_weights_scale")
        assert_shape(a.down_scale, (a.experts, hidden), "expert_down_weights_scale")
