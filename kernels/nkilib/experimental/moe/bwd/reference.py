"""Gradients of moe_cte by mathematics alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ERF = np.vectorize(math.erf)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _swish(x: Array, factor: float) -> tuple[Array, Array]:
    s = _sigmoid(factor * x)
    return x * s, s + factor * x * s * (1 - s)


def _gelu(x: Array) -> tuple[Array, Array]:
    below = 0.5 * (1 + _ERF(x / math.sqrt(2)))
    return x * below, below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# Value and derivative.
ACTIVATIONS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "SiLU": lambda x: _swish(x, 1.0),
    "Swish": lambda x: _swish(x, 1.702),
    "GELU": _gelu,
}


def _inside(values: Array, lower: float | None, upper: float | None) -> Array:
    result = np.ones(values.shape, bool)
    if lower is not None:
        result &= values > lower
    if upper is not None:
        result &= values < upper
    return result


def blockwise_mm_bwd_reference(
    hidden_states: Array,
    expert_affinities_masked: Array,
    gate_up_proj_weight: Array,
    down_proj_weight: Array,
    gate_up_proj_act_checkpoint_T: Array,
    down_proj_act_checkpoint: Array,
    token_position_to_id: Array,
    block_to_expert: Array,
    output_hidden_states_grad: Array,
    block_size: int,
    skip_dma: Any = None,
    clamp_limits: Any = None,
    bias: bool = False,
    activation_type: Any = None,
) -> tuple[Array, ...]:
    """The gradients that blockwise_mm_bwd returns, in the dtype of `hidden_states`; fp64 inside."""
    x, g, gate_up_weight, down_weight = (
        np.asarray(values, np.float64)
        for values in (hidden_states, output_hidden_states_grad, gate_up_proj_weight, down_proj_weight)
    )
    rows, (experts, hidden, _, intermediate) = len(x), gate_up_weight.shape
    affinities = np.asarray(expert_affinities_masked, np.float64).reshape(rows, experts)
    ids = np.asarray(token_position_to_id).reshape(-1, block_size)
    padding = None if skip_dma is not None and skip_dma.skip_token else rows - 1
    d_x, d_affinities = np.zeros(x.shape), np.zeros(affinities.shape)
    d_gate_up, d_down = np.zeros(gate_up_weight.shape), np.zeros(down_weight.shape)
    d_gate_up_bias, d_down_bias = np.zeros((experts, 2, intermediate)), np.zeros((experts, hidden))
    act = ACTIVATIONS["SiLU" if activation_type is None else activation_type.name]
    for block, expert in enumerate(np.asarray(block_to_expert).reshape(-1)):
        there = ids[block] >= 0
        if padding is not None:
            there &= ids[block] != padding
        tokens = ids[block][there]
        gate, up = np.asarray(gate_up_proj_act_checkpoint_T[block], np.float64).transpose(0, 2, 1)[:, there]
        down = np.asarray(down_proj_act_checkpoint[block], np.float64)[there]
        d_affinities[tokens, expert] = (g[tokens] * down).sum(1)
        d_out = g[tokens] * affinities[tokens, expert, None]
        value, slope = act(gate)
        d_down[expert] += (value * up).T @ d_out
        d_down_bias[expert] += d_out.sum(0)
        d_product = d_out @ down_weight[expert].T
        d_gate, d_up = d_product * up * slope, d_product * value
        if clamp_limits is not None:
            limits = clamp_limits
            d_gate = d_gate * _inside(
                gate, limits.non_linear_clamp_lower_limit, limits.non_linear_clamp_upper_limit
            )
            d_up = d_up * _inside(up, limits.linear_clamp_lower_limit, limits.linear_clamp_upper_limit)
        for half, d_half in enumerate((d_gate, d_up)):
            d_gate_up[expert, :, half] += x[tokens].T @ d_half
            d_gate_up_bias[expert, half] += d_half.sum(0)
            d_x[tokens] += d_half @ gate_up_weight[expert, :, half].T
    found = [d_x, d_affinities.reshape(-1, 1), d_gate_up, d_down]
    if bias:
        found += [d_gate_up_bias, d_down_bias]
    return tuple(values.astype(hidden_states.dtype) for values in found)
