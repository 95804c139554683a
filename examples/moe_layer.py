"""A decoder layer with a mixture of experts, gpt-oss 120B or Qwen3 235B-A22B, on one rank, built of nkilib.

    python examples/moe_layer.py                                   small sizes, compared with numpy
    python examples/moe_layer.py --model gpt-oss-120b --phase decode --no-data --batch 4

    h = x + attention(x)                            decoder_attention; on several ranks an all-reduce follows
    n = norm(h)                                     add_norm, here
    affinities, experts = router(n)                 router_topk
    y = h + sum of affinity * expert(n)             moe_cte or moe_tkg

Each rank has a slice of every expert, so its result is a part of a sum, as in llama_layer.

Prefill sorts tokens by expert: a block holds tokens of one expert, whose weights are loaded once for it. How
many blocks there are must not depend on the routing, which is not known when the kernel is compiled, so there
are as many as the worst routing needs. Decoding has few tokens. Either each of them brings its own experts'
weights (selected experts), or all experts are read once for all tokens: whichever reads less.
"""

import numpy as np
from decoder_attention import EPS, LNC, ROWS, Layer, Model, attention, attention_weights, rmsnorm, run
from decoder_attention import reference as attention_reference

import nki
import nki.isa as nisa
import nki.language as nl
from nkilib.core.moe.moe_cte.moe_cte import MoECTEImplementation, MoECTESpec, SkipMode, moe_cte
from nkilib.core.moe.moe_tkg.moe_tkg import moe_tkg
from nkilib.core.router_topk.router_topk import XHBMLayout_T_H__1, XSBLayout_tp102__0, router_topk
from nkilib.core.utils.common_types import ActFnType, ExpertAffinityScaleMode, RouterActFnType

BLOCK = 256  # tokens of a block of moe_cte

MODELS = {
    "gpt-oss-120b": Model(
        hidden=3072,
        hidden_actual=2880,
        heads=64,
        kv_heads=8,
        head_dim=64,
        intermediate=3072,  # 2880, padded
        rope_theta=1.5e5,
        bias=True,
        window=128,  # every other layer
        sink=True,
        experts=128,
        top_k=4,
    ),
    "qwen3-235b-a22b": Model(
        hidden=4096,
        heads=64,
        kv_heads=4,
        head_dim=128,
        intermediate=1536,
        rope_theta=1e6,
        qk_norm=True,
        experts=128,
        top_k=8,
    ),
}


def weights_of(model, arrays):
    """The weights of one rank. The bias of `up` in gpt-oss contains the 1 that is added to it."""
    experts, inner = model.experts, model.intermediate
    made = attention_weights(model, arrays) | {
        "moe_norm": arrays.normal(1, model.hidden, scale=0.1, mean=1.0),
        "router": arrays.projection(model, model.hidden, experts),
        "router_bias": arrays.normal(1, experts, scale=0.1) if model.bias else None,
        "gate_up": arrays.normal(experts, model.hidden, 2, inner, scale=model.hidden**-0.5),
        "down": arrays.normal(experts, inner, model.hidden, scale=inner**-0.5),
        "gate_up_bias": None,
        "down_bias": None,
    }
    if model.bias:
        made["gate_up_bias"] = arrays.normal(experts, 2, inner, scale=0.1)
        made["gate_up_bias"][:, 1] += 1
        made["down_bias"] = arrays.normal(experts, model.hidden, scale=0.1)
    return made


def activation(model):
    """Of the experts: gpt-oss clamps both projections to 7, `up` before its 1, and multiplies by Swish."""
    if not model.bias:
        return {"activation_fn": ActFnType.SiLU}
    limits = {"gate_clamp_upper_limit": 7.0, "up_clamp_upper_limit": 8.0, "up_clamp_lower_limit": -6.0}
    return {"activation_fn": ActFnType.Swish, **limits}


# --- kernels ---------------------------------------------------------------------------------------------


@nki.jit
def add_norm(x, y, gamma, hidden_actual=None, eps=EPS):
    """x + y, and RMSNorm of the sum times gamma [1, H], for [rows, H]; programs take tiles in turn."""
    rows, hidden = x.shape
    total = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    normed = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    weights = nl.ndarray((ROWS, hidden), dtype=gamma.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=weights, src=gamma.broadcast(0, ROWS))
    offset = nl.ndarray((ROWS, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=offset, value=eps)
    for tile in range(nl.program_id(0), (rows + ROWS - 1) // ROWS, nl.num_programs(0)):
        size = min(ROWS, rows - tile * ROWS)
        here = nl.ds(tile * ROWS, size)
        a = nl.ndarray((size, hidden), dtype=x.dtype, buffer=nl.sbuf)
        b = nl.ndarray((size, hidden), dtype=y.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=a, src=x[here])
        nisa.dma_copy(dst=b, src=y[here])
        nisa.tensor_tensor(dst=a, data1=a, data2=b, op=nl.add)
        nisa.dma_copy(dst=total[here], src=a)
        squares = nl.ndarray((size, hidden), dtype=nl.float32, buffer=nl.sbuf)
        scale = nl.ndarray((size, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(dst=squares, op=nl.square, data=a, reduce_op=nl.add, reduce_res=scale)
        count = hidden if hidden_actual is None else hidden_actual
        nisa.activation(dst=scale, op=nl.rsqrt, data=scale, scale=1.0 / count, bias=offset[0:size])
        nisa.scalar_tensor_tensor(
            dst=b, data=a, op0=nl.multiply, operand0=scale, op1=nl.multiply, operand1=weights[0:size]
        )
        nisa.dma_copy(dst=normed[here], src=b)
    return total, normed


@nki.jit
def route(x, weight, bias, k, choose_first):
    """Affinities [T, E], 0 for experts not chosen, and the k experts [T, k] of tokens x [T, H].

    Args:
        choose_first: softmax over the k logits (gpt-oss); else over all, divided by the sum of k (Qwen3).
    """
    tokens, experts = x.shape[0], weight.shape[1]
    logits = nl.ndarray((tokens, experts), dtype=x.dtype, buffer=nl.shared_hbm)
    affinities = nl.ndarray((tokens, experts), dtype=nl.float32, buffer=nl.shared_hbm)
    index = nl.ndarray((tokens, k), dtype=nl.uint32, buffer=nl.shared_hbm)
    router_topk(
        x,
        weight,
        bias,
        logits,
        affinities,
        index,
        RouterActFnType.SOFTMAX,
        k,
        XHBMLayout_T_H__1,
        XSBLayout_tp102__0,
        router_pre_norm=not choose_first,
        norm_topk_prob=not choose_first,
        use_indirect_dma_scatter=True,
        shard_on_tokens=tokens > ROWS,
    )
    return affinities, index


moe_tkg_kernel = nki.jit(moe_tkg)


# --- the layer -------------------------------------------------------------------------------------------


def layer(model, weights, x, cache=None):
    """The layer of a prompt, x [1, S, hidden], or of a new token of each sequence, [batch, 1, hidden]."""
    part = attention(model, weights, x, cache)
    rows = (-1, model.hidden)
    h, normed = add_norm[LNC](x.reshape(rows), part.reshape(rows), weights["moe_norm"], model.hidden_actual)
    affinities, index = route[LNC](
        normed, weights["router"], weights["router_bias"], model.top_k, choose_first=model.bias
    )
    experts = decode_experts if cache is not None else prefill_experts
    return (h + experts(model, weights, normed, affinities, index)).reshape(x.shape)  # after the all-reduce


def prefill_experts(model, weights, normed, affinities, index):
    """The experts of many tokens, sorted into blocks of one expert each."""
    positions, block_experts = blocks_of(index, model.experts, BLOCK)
    options = activation(model)
    both = moe_cte[LNC](
        hidden_states=normed,
        expert_affinities_masked=affinities.reshape(-1, 1).astype(normed.dtype),
        gate_up_proj_weight=weights["gate_up"],
        down_proj_weight=weights["down"],
        token_position_to_id=positions,
        block_to_expert=block_experts,
        block_size=BLOCK,
        spec=MoECTESpec(MoECTEImplementation.shard_on_block),
        gate_and_up_proj_bias=weights["gate_up_bias"],
        down_proj_bias=weights["down_bias"],
        activation_function=options.pop("activation_fn"),
        skip_dma=SkipMode(True, False),
        **options,
    )
    return both[:, 0]  # the cores' sum; the rest is what it was made of


def blocks_of(index, experts, size):
    """Tokens sorted by expert, in blocks of one expert: ids [blocks * size], -1 for none, and the experts.

    The framework does this between the launches, or find_nonzero_indices and indexed_flatten on the device.
    """
    tokens, k = index.shape
    count = min(tokens * k, -(-(tokens * k - (experts - 1)) // size) + experts - 1)
    count += count % 2  # two cores
    ids = np.full((count, size), -1, np.int32)
    owners = np.full(count, experts - 1, np.int32)
    block = 0
    for expert in range(experts):
        own = np.flatnonzero((index == expert).any(axis=1))
        for first in range(0, len(own), size):
            part = own[first : first + size]
            ids[block, : len(part)], owners[block] = part, expert
            block += 1
    return ids.reshape(-1), owners


def decode_experts(model, weights, normed, affinities, index):
    """The experts of a few tokens: those selected, or all where that reads fewer weights."""
    every = len(normed) * model.top_k > model.experts
    return moe_tkg_kernel[LNC](
        hidden_input=normed,
        expert_gate_up_weights=weights["gate_up"],
        expert_down_weights=weights["down"],
        expert_affinities=affinities,
        expert_index=index.astype(np.int32),
        is_all_expert=every,
        rank_id=np.zeros((1, 1), np.uint32) if every else None,
        expert_gate_up_bias=weights["gate_up_bias"],
        expert_down_bias=weights["down_bias"],
        expert_affinities_scaling_mode=ExpertAffinityScaleMode.POST_SCALE,
        **activation(model),
    )


def reference(model, weights, x, cache=None):
    """The layer in float32, one token and expert at a time.

    The router's logits are rounded to bf16. A token whose k-th and next expert are nearly alike may get the
    other one of the two: it is NaN here.
    """
    w = {name: value.astype(np.float32) for name, value in weights.items() if value is not None}
    h = x.astype(np.float32) + attention_reference(model, weights, x, cache)
    normed = rmsnorm(h, w["moe_norm"], model.hidden_actual).reshape(-1, model.hidden)
    logits = normed @ w["router"] + w.get("router_bias", 0)
    out = np.zeros_like(normed)
    for token, (row, values) in enumerate(zip(normed, logits)):
        order = np.argsort(-values)
        chosen, next_one = order[: model.top_k], order[model.top_k]
        if values[chosen[-1]] - values[next_one] < 2**-6 * np.abs(values).max():
            out[token] = np.nan
        affinities = np.exp(values[chosen] - values[chosen].max())
        for expert, affinity in zip(chosen, affinities / affinities.sum()):
            gate, up = (row @ w["gate_up"][expert, :, part] for part in range(2))
            if model.bias:
                gate, up = gate + w["gate_up_bias"][expert, 0], up + w["gate_up_bias"][expert, 1]
                gate, up = np.minimum(gate, 7), np.clip(up - 1, -7, 7) + 1
            inner = gate / (1 + np.exp(-(1.702 if model.bias else 1) * gate)) * up
            down = inner @ w["down"][expert]
            out[token] += affinity * (down + (w["down_bias"][expert] if model.bias else 0))
    return h + out.reshape(h.shape)


def main(arguments=None):
    return run("moe_layer", Layer(MODELS, weights_of, layer, reference), arguments)


if __name__ == "__main__":
    main()
