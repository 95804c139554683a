"""moe_cte in the table of kernels, with plain and with MX weights."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

import nki
import nki.language as nl
from nkilib.core.moe.moe_cte.moe_cte import (
    MoECTEImplementation,
    MoECTESpec,
    QuantizationConfig,
    ShardOnIConfig,
    moe_cte,
)
from nkilib.core.moe.moe_cte.moe_cte_utils import NO_SKIP, SkipMode
from nkilib.core.moe.moe_cte.reference import moe_cte_reference
from nkilib.core.utils.common_types import ActFnType, ExpertAffinityScaleMode
from nkilib.registry import Example, Inputs, Row, Tolerance

BF16 = ml_dtypes.bfloat16
Array = np.ndarray[Any, Any]


def routed(
    rng: np.random.Generator, tokens: int, experts: int, top_k: int, block_size: int, skip_token: bool = False
) -> Inputs:
    """Affinities, positions and experts of `tokens` tokens that choose `top_k` of `experts` each.

    The number of blocks is what the worst routing needs, made even; those at the end hold padding.
    """
    chosen = np.stack([rng.permutation(experts)[:top_k] for _ in range(tokens)])
    padding = -1 if skip_token else tokens
    positions, block_experts = [], []
    for expert in range(experts):
        members = np.flatnonzero((chosen == expert).any(1))
        for first in range(0, len(members), block_size):
            block = members[first : first + block_size]
            positions.append(np.concatenate([block, np.full(block_size - len(block), padding)]))
            block_experts.append(expert)
    blocks = -(-(tokens * top_k - (experts - 1)) // block_size) + experts - 1
    blocks += blocks % 2
    used = len(positions)
    positions += [np.full(block_size, padding)] * (blocks - used)
    block_experts += [experts - 1] * (blocks - used)
    affinities = np.zeros((tokens + (not skip_token), experts))
    np.put_along_axis(affinities[:tokens], chosen, rng.random(chosen.shape), axis=1)
    return {
        "expert_affinities_masked": affinities.astype(BF16).reshape(-1, 1),
        "token_position_to_id": np.concatenate(positions).astype(np.int32),
        "block_to_expert": np.array(block_experts, np.int32),
        "used": used,
    }


def _inputs(
    rng: np.random.Generator,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    top_k: int,
    block_size: int,
    skip_token: bool = False,
    bias: bool = False,
    fp8: bool = False,
    conditions: int = 0,
) -> Inputs:
    made = routed(rng, tokens, experts, top_k, block_size, skip_token)
    used = made.pop("used")
    made["hidden_states"] = rng.standard_normal((tokens + (not skip_token), hidden)).astype(BF16)
    if not skip_token:
        made["hidden_states"][tokens] = 0
    weights = ml_dtypes.float8_e4m3 if fp8 else BF16
    wide = 30.0 if fp8 else 0.05
    made["gate_up_proj_weight"] = rng.uniform(-wide, wide, (experts, hidden, 2, intermediate)).astype(weights)
    made["down_proj_weight"] = rng.uniform(-wide, wide, (experts, intermediate, hidden)).astype(weights)
    if fp8:
        made["gate_up_proj_scale"] = rng.uniform(1e-3, 2e-3, (experts, 1, 2 * intermediate)).astype(
            np.float32
        )
        made["down_proj_scale"] = rng.uniform(1e-3, 2e-3, (experts, 1, hidden)).astype(np.float32)
    if bias:
        made["gate_and_up_proj_bias"] = rng.uniform(-1, 1, (experts, 2, intermediate)).astype(BF16)
        made["down_proj_bias"] = rng.uniform(-1, 1, (experts, hidden)).astype(BF16)
    if conditions:
        blocks = len(made["block_to_expert"])
        made["conditions"] = (np.arange(blocks + conditions) < used).astype(np.int32)
    return made


def _dropping(
    rng: np.random.Generator, tokens: int, hidden: int, intermediate: int, block_size: int
) -> Inputs:
    """Two experts, one block each, of which some positions are padding."""
    made = _inputs(rng, tokens, hidden, intermediate, 2, 1, 256)
    used = block_size - 68
    positions = np.full((2, block_size), tokens)
    positions[0, :used] = rng.permutation(tokens)[:used]
    positions[1] = rng.permutation(tokens)[:block_size]
    affinities = rng.random((tokens + 1, 2))
    affinities[tokens] = 0
    made["token_position_to_id"] = positions.reshape(-1).astype(np.int32)
    made["block_to_expert"] = np.arange(2, dtype=np.int32)
    made["expert_affinities_masked"] = affinities.astype(BF16).reshape(-1, 1)
    return made


def _mx_inputs(
    rng: np.random.Generator, hidden: int, intermediate: int, bits: type[Any], lane: Any, conditions: int = 0
) -> Inputs:
    """512 tokens over two experts; weights as bits of packed values, scaled for sums of about one size."""
    experts, tiles = 2, hidden // 512
    partitions, packed = min(128, intermediate // 4), max(1, intermediate // 512)
    made = _inputs(rng, 512, hidden, 32, experts, 2, 256, skip_token=True, conditions=conditions)

    def codes(shape: tuple[int, ...]) -> Array:
        width = 4 if bits is np.uint16 else 8
        lanes = rng.standard_normal((*shape, 4)).astype(lane).view(np.uint8).astype(np.uint64)
        return (lanes << (np.arange(4, dtype=np.uint64) * np.uint64(width))).sum(-1).astype(bits)

    made["gate_up_proj_weight"] = codes((experts, 128, 2, tiles, intermediate))
    made["down_proj_weight"] = codes((experts, partitions, packed, hidden))
    least = 121 - round(np.log2(hidden / 512) / 2)
    made["gate_up_proj_scale"] = rng.integers(
        least, least + 3, (experts, 16, 2, tiles, intermediate), dtype=np.uint8
    )
    made["down_proj_scale"] = rng.integers(
        121, 124, (experts, partitions // 8, packed, hidden), dtype=np.uint8
    )
    bias = rng.uniform(-1, 1, (experts, partitions, 2, packed, 4))
    made["gate_and_up_proj_bias"] = bias.astype(BF16)
    made["down_proj_bias"] = rng.uniform(-1, 1, (experts, hidden)).astype(BF16)
    return made


def _launched(entry: Any) -> Any:
    """Scales as arguments of their own, so that they are arrays; bits of packed weights as such."""

    @nki.jit
    def launched(
        hidden_states,
        expert_affinities_masked,
        gate_up_proj_weight,
        down_proj_weight,
        token_position_to_id,
        block_to_expert,
        block_size,
        spec,
        conditions=None,
        gate_and_up_proj_bias=None,
        down_proj_bias=None,
        gate_up_proj_scale=None,
        down_proj_scale=None,
        activation_function=ActFnType.SiLU,
        skip_dma=NO_SKIP,
        is_tensor_update_accumulating=True,
        expert_affinities_scaling_mode=ExpertAffinityScaleMode.POST_SCALE,
        gate_clamp_upper_limit=None,
        gate_clamp_lower_limit=None,
        up_clamp_upper_limit=None,
        up_clamp_lower_limit=None,
    ):
        gate_up, down = gate_up_proj_weight, down_proj_weight
        if gate_up.dtype == nl.uint16:
            gate_up, down = gate_up.view(nl.float4_e2m1fn_x4), down.view(nl.float4_e2m1fn_x4)
        elif gate_up.dtype == nl.uint32:
            gate_up, down = gate_up.view(nl.float8_e4m3fn_x4), down.view(nl.float8_e4m3fn_x4)
        return entry(
            hidden_states=hidden_states,
            expert_affinities_masked=expert_affinities_masked,
            gate_up_proj_weight=gate_up,
            down_proj_weight=down,
            token_position_to_id=token_position_to_id,
            block_to_expert=block_to_expert,
            block_size=block_size,
            spec=spec,
            conditions=conditions,
            gate_and_up_proj_bias=gate_and_up_proj_bias,
            down_proj_bias=down_proj_bias,
            quantization_config=QuantizationConfig(gate_up_proj_scale, down_proj_scale),
            activation_function=activation_function,
            skip_dma=skip_dma,
            is_tensor_update_accumulating=is_tensor_update_accumulating,
            expert_affinities_scaling_mode=expert_affinities_scaling_mode,
            gate_clamp_upper_limit=gate_clamp_upper_limit,
            gate_clamp_lower_limit=gate_clamp_lower_limit,
            up_clamp_upper_limit=up_clamp_upper_limit,
            up_clamp_lower_limit=up_clamp_lower_limit,
        )

    return launched


OPTIONS = {
    "hidden_states": "`[T + 1, H]`, the last row for padding; `[T, H]` with `skip_dma.skip_token`",
    "expert_affinities_masked": "`[rows * E, 1]`",
    "gate_up_proj_weight": "`[E, H, 2, I]`; MX: `[E, 128, 2, H/512, I]` packed",
    "down_proj_weight": "`[E, I, H]`; MX: `[E, min(128, I/4), max(1, I/512), H]` packed",
    "token_position_to_id": "int32 `[N * B]`; T for padding, -1 with `skip_dma.skip_token`",
    "block_to_expert": "int32 `[N]` or `[N, 1]`",
    "block_size": "B",
    "spec": "a `MoECTESpec`: implementation and its options",
    "conditions": "int32 `[N + 1]` (`shard_on_block_mx`: `[N + 2]`), ones for blocks with tokens, then zeros",
    "gate_and_up_proj_bias": "`[E, 2, I]`; MX: `[E, min(128, I/4), 2, max(1, I/512), 4]`",
    "down_proj_bias": "`[E, H]`",
    "quantization_config": "scales of fp8 or MX weights",
    "gate_up_activations_T": "where gate and up activations are kept; a new tensor if not given",
    "down_activations": "where down activations are kept; a new tensor if not given",
    "activation_function": "of the gate",
    "skip_dma": "rows of padding not read, weights of the block before kept",
    "compute_dtype": "bf16 or fp16",
    "is_tensor_update_accumulating": "results are added to a token's row; False if it is in one block only",
    "expert_affinities_scaling_mode": "affinities multiply the result, the hidden states, or nothing",
    "gate_clamp_upper_limit": "of the gate projection, after scale and bias",
    "gate_clamp_lower_limit": "of the gate projection",
    "up_clamp_upper_limit": "of the up projection",
    "up_clamp_lower_limit": "of the up projection",
}


def _spec(name: str, **on_i: Any) -> MoECTESpec:
    return MoECTESpec(MoECTEImplementation[name], shard_on_I=ShardOnIConfig(**on_i))


def _example(name: str, implementation: str, shape: dict[str, Any], **more: Any) -> Example:
    on_i = more.pop("on_i", {})
    options = more.pop("options", {})
    return Example(
        name=name,
        inputs=more.pop("inputs", functools.partial(_inputs, **shape)),
        options={"block_size": 256, "spec": _spec(implementation, **on_i), **options},
        **more,
    )


GPT_OSS = {
    "skip_dma": SkipMode(True, False),
    "activation_function": ActFnType.Swish,
    "gate_clamp_upper_limit": 7.0,
    "up_clamp_upper_limit": 8.0,
    "up_clamp_lower_limit": -6.0,
}
WHOLE = {"tokens": 512, "hidden": 1024, "intermediate": 512, "experts": 3, "top_k": 2, "block_size": 256}
SMALL = {"tokens": 300, "hidden": 512, "intermediate": 192, "experts": 3, "top_k": 2, "block_size": 256}
ROUNDING = "weights, rows and products are bf16 and each block's result is rounded to bf16 as it is added"

ROWS = (
    Row(
        name="moe_cte",
        entry=moe_cte,
        reference=moe_cte_reference,
        summary="Mixture of experts over blocks of tokens, for prefill",
        maths="`y[t] += a[t, e] * ((act(x[t] Wg[e] + bg[e]) * (x[t] Wu[e] + bu[e])) Wd[e] + bd[e])` for each "
        "block of an expert `e` and its tokens `t`.",
        options=OPTIONS,
        limits=(
            "H is a multiple of 512 from 512 to 8192, I a multiple of 16, B of 256.",
            "shard_on_i: 1 or 2 programs; shard_on_block, the hybrids: 2.",
            "skip_weight: shard_on_block only.",
        ),
        examples=(
            _example(
                "shard-on-i", "shard_on_i", {**SMALL, "bias": True}, lnc=(1, 2), targets=("trn2", "trn3")
            ),
            _example(
                "shard-on-block",
                "shard_on_block",
                {**SMALL, "skip_token": True},
                lnc=(2,),
                options={
                    "skip_dma": SkipMode(True, True),
                    "activation_function": ActFnType.Swish,
                    "gate_clamp_upper_limit": 1.0,
                    "up_clamp_upper_limit": 1.0,
                    "up_clamp_lower_limit": -1.0,
                },
                about="gpt-oss: clamps, Swish, padding skipped, weights of the block before kept",
            ),
            _example(
                "one-block-a-token",
                "shard_on_block",
                {**SMALL, "top_k": 1},
                lnc=(2,),
                options={"is_tensor_update_accumulating": False},
            ),
            _example(
                "hybrid",
                "shard_on_i_hybrid",
                {**SMALL, "conditions": 1},
                lnc=(2,),
                about="a loop to the padding",
            ),
            _example(
                "dropping",
                "shard_on_i_dropping",
                {},
                inputs=functools.partial(_dropping, tokens=900, hidden=512, intermediate=256, block_size=768),
                lnc=(2,),
                options={"block_size": 768},
                about="activations kept for the backward pass",
            ),
            _example(
                "kept-on-i",
                "shard_on_i",
                {**SMALL, "bias": True},
                on_i={"checkpoint_activation": True, "expert_affinity_multiply_on_I": True},
                lnc=(2,),
            ),
            _example("fp8", "shard_on_i", {**SMALL, "fp8": True, "bias": True}, lnc=(1, 2)),
            _example(
                "pre-scale",
                "shard_on_i",
                SMALL,
                lnc=(2,),
                options={"expert_affinities_scaling_mode": ExpertAffinityScaleMode.PRE_SCALE},
            ),
            _example(
                "llama4",
                "shard_on_i",
                {
                    "tokens": 1024,
                    "hidden": 3072,
                    "intermediate": 2048,
                    "experts": 4,
                    "top_k": 2,
                    "block_size": 512,
                },
                lnc=(2,),
                options={"block_size": 512},
                slow=True,
            ),
            _example(
                "whole-tiles-dropping",
                "shard_on_i_dropping",
                {},
                inputs=functools.partial(
                    _dropping, tokens=1300, hidden=1024, intermediate=512, block_size=1024
                ),
                lnc=(2,),
                options={"block_size": 1024},
                slow=True,
            ),
            _example("whole-tiles", "shard_on_i", {**WHOLE, "bias": True}, lnc=(2,), slow=True),
            _example(
                "whole-tiles-hybrid", "shard_on_i_hybrid", {**WHOLE, "conditions": 1}, lnc=(2,), slow=True
            ),
            _example(
                "whole-tiles-fp8", "shard_on_i", {**WHOLE, "fp8": True, "bias": True}, lnc=(2,), slow=True
            ),
            _example(
                "gpt-oss",
                "shard_on_block",
                {
                    "tokens": 1024,
                    "hidden": 3072,
                    "intermediate": 384,
                    "experts": 8,
                    "top_k": 2,
                    "block_size": 256,
                    "skip_token": True,
                    "bias": True,
                },
                lnc=(2,),
                options=GPT_OSS,
                about="gpt-oss 20B with 8 experts, TP8",
                slow=True,
            ),
        ),
        tolerance=Tolerance(rtol=0.03, atol=0.03, reason=ROUNDING),
        page="nki/library/api/moe-cte",
        launched_by=_launched,
    ),
    Row(
        name="moe_cte_mx",
        entry=moe_cte,
        reference=moe_cte_reference,
        summary="moe_cte with weights in MXFP4 or MXFP8",
        maths="As moe_cte; x and the product of gate and up are quantized to MXFP8 e4m3fn in the kernel.",
        options=OPTIONS,
        limits=(
            "trn3; H is a multiple of 512 from 512 to 8192; I a multiple of 512, or of 32 below that.",
            "shard_on_block_mx: 2 programs, B a multiple of 128, accumulating; shard_on_i_mx: I a multiple "
            "of 1024 on 2 programs, no PRE_SCALE.",
        ),
        examples=(
            _example(
                "mxfp4-block",
                "shard_on_block_mx",
                {},
                inputs=functools.partial(
                    _mx_inputs, hidden=512, intermediate=384, bits=np.uint16, lane=ml_dtypes.float4_e2m1fn
                ),
                lnc=(2,),
                targets=("trn3",),
                options={"skip_dma": SkipMode(True, False), "activation_function": ActFnType.Swish},
                about="gpt-oss",
            ),
            _example(
                "mxfp8-block-loop",
                "shard_on_block_mx",
                {},
                inputs=functools.partial(
                    _mx_inputs,
                    hidden=512,
                    intermediate=192,
                    bits=np.uint32,
                    lane=ml_dtypes.float8_e4m3fn,
                    conditions=2,
                ),
                lnc=(2,),
                targets=("trn3",),
                options={"skip_dma": SkipMode(True, True)},
            ),
            _example(
                "mxfp4-i",
                "shard_on_i_mx",
                {},
                inputs=functools.partial(
                    _mx_inputs, hidden=512, intermediate=1024, bits=np.uint16, lane=ml_dtypes.float4_e2m1fn
                ),
                lnc=(2,),
                targets=("trn3",),
                options={"skip_dma": SkipMode(True, False)},
            ),
            _example(
                "mxfp4-i-hybrid",
                "shard_on_i_mx_hybrid",
                {},
                inputs=functools.partial(
                    _mx_inputs,
                    hidden=512,
                    intermediate=1024,
                    bits=np.uint16,
                    lane=ml_dtypes.float4_e2m1fn,
                    conditions=1,
                ),
                lnc=(2,),
                targets=("trn3",),
                options={"skip_dma": SkipMode(True, False)},
            ),
            _example(
                "mxfp4-gpt-oss",
                "shard_on_block_mx",
                {},
                inputs=functools.partial(
                    _mx_inputs, hidden=3072, intermediate=384, bits=np.uint16, lane=ml_dtypes.float4_e2m1fn
                ),
                lnc=(2,),
                targets=("trn3",),
                options=GPT_OSS,
                slow=True,
            ),
        ),
        tolerance=Tolerance(
            rtol=0.05,
            atol=0.5,
            reason="products are quantized to 3 bits after a bf16 rounding: neighbours of a step may differ",
        ),
        page="nki/library/api/moe-cte",
        launched_by=_launched,
    ),
)
