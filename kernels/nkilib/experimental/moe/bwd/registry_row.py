"""blockwise_mm_bwd in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.moe.moe_cte.reference import blocks_reference
from nkilib.core.moe.moe_cte.registry_row import routed
from nkilib.experimental.moe.bwd.blockwise_mm_backward import blockwise_mm_bwd
from nkilib.experimental.moe.bwd.moe_bwd_parameters import ActFnType, ClampLimits, SkipMode
from nkilib.experimental.moe.bwd.reference import blockwise_mm_bwd_reference
from nkilib.registry import Example, Inputs, Row, Tolerance

BF16 = ml_dtypes.bfloat16


def training_step(
    rng: np.random.Generator,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    top_k: int,
    block_size: int,
    skip_token: bool = False,
    activation: str = "SiLU",
    limits: ClampLimits | None = None,
    dtype: Any = BF16,
) -> Inputs:
    """Arguments of the backward pass, with the activations of the reference of the forward pass."""
    made = routed(rng, tokens, experts, top_k, block_size, skip_token)
    made.pop("used")
    shape = (tokens + (not skip_token), hidden)
    made["hidden_states"] = rng.standard_normal(shape).astype(dtype)
    made["gate_up_proj_weight"] = rng.uniform(-0.1, 0.1, (experts, hidden, 2, intermediate)).astype(dtype)
    made["down_proj_weight"] = rng.uniform(-0.1, 0.1, (experts, intermediate, hidden)).astype(dtype)
    gradient = rng.standard_normal(shape).astype(dtype)
    if not skip_token:
        made["hidden_states"][tokens] = gradient[tokens] = 0
    limits = limits or ClampLimits()
    _, gate_up, down = blocks_reference(
        **made,
        block_size=block_size,
        activation=activation,
        gate_limits=(limits.non_linear_clamp_lower_limit, limits.non_linear_clamp_upper_limit),
        up_limits=(limits.linear_clamp_lower_limit, limits.linear_clamp_upper_limit),
    )
    made["gate_up_proj_act_checkpoint_T"] = gate_up.astype(dtype)
    made["down_proj_act_checkpoint"] = down.astype(dtype)
    made["output_hidden_states_grad"] = gradient
    return made


SMALL = {"tokens": 300, "hidden": 320, "intermediate": 192, "experts": 2, "top_k": 1, "block_size": 256}
LIMITS = ClampLimits(0.5, -0.5, 0.7, None)

ROWS = (
    Row(
        name="blockwise_mm_bwd",
        entry=blockwise_mm_bwd,
        reference=blockwise_mm_bwd_reference,
        summary="Gradients of moe_cte",
        maths="With `g` the gradient of the result, `a` affinities and `S = act(gate) * up`: "
        "`da = sum(g * down)`, `dWd += S.T (a g)`, `dS = a g Wd.T`, `dgate = dS * up * act'(gate)`, "
        "`dup = dS * act(gate)`, `dWg += x.T dgate`, `dx += dgate Wg.T + dup Wu.T`.",
        options={
            "hidden_states": "`[T + 1, H]`, the last row for padding; `[T, H]` with `skip_dma.skip_token`",
            "expert_affinities_masked": "`[rows * E, 1]`",
            "gate_up_proj_weight": "`[E, H, 2, I]`",
            "down_proj_weight": "`[E, I, H]`",
            "gate_up_proj_act_checkpoint_T": "`[N, 2, I, B]`, gate and up of the forward pass, clamped",
            "down_proj_act_checkpoint": "`[N, B, H]`, before affinities",
            "token_position_to_id": "int32 `[N * B]`",
            "block_to_expert": "int32 `[N]` or `[N, 1]`",
            "output_hidden_states_grad": "as hidden_states",
            "block_size": "B: 128, 256, 512 or 1024",
            "skip_dma": "rows of padding are left out",
            "compute_dtype": "bf16 or fp16, of the gradients too",
            "is_tensor_update_accumulating": "taken; a token may be in several blocks",
            "shard_option": "taken; the cores share out columns of I",
            "affinity_option": "taken; the gradients are the same",
            "kernel_type_option": "taken; any number of blocks an expert",
            "clamp_limits": "those of the forward pass",
            "bias": "return gradients of the biases too",
            "activation_type": "SiLU, GELU or Swish",
            "block_tile_size": "taken; tokens are worked on 512 at a time",
        },
        limits=(
            "H and I are multiples of 32 times the number of programs, of which there are 1 or 2.",
            "The forward pass was moe_cte with POST_SCALE.",
        ),
        examples=(
            Example(
                name="bias",
                inputs=functools.partial(training_step, **SMALL),
                options={"block_size": 256, "bias": True},
                lnc=(1, 2),
                targets=("trn2", "trn3"),
            ),
            Example(
                name="clamped",
                inputs=functools.partial(
                    training_step,
                    **{**SMALL, "top_k": 2, "skip_token": True, "activation": "Swish", "limits": LIMITS},
                ),
                options={
                    "block_size": 256,
                    "bias": True,
                    "skip_dma": SkipMode(True, False),
                    "clamp_limits": LIMITS,
                    "activation_type": ActFnType.Swish,
                },
                lnc=(2,),
                about="gpt-oss: clamps and Swish, padding skipped",
            ),
            Example(
                name="two-groups",
                inputs=functools.partial(
                    training_step,
                    **{**SMALL, "intermediate": 64, "block_size": 1024, "activation": "GELU"},
                ),
                options={"block_size": 1024, "activation_type": ActFnType.GELU},
                lnc=(2,),
                about="blocks of more tokens than are worked on at a time",
            ),
        ),
        tolerance=Tolerance(
            rtol=0.03,
            atol=0.13,
            reason="products are bf16; gradients of weights are rounded to bf16 after each group of tokens",
        ),
        page="nki/library/api/blockwise-mm-backward",
    ),
)
