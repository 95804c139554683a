"""The attention half of a decoder layer, prefill and decode, on one rank of tensor parallelism.

    x -> RMSNorm -> q, k, v -> (norm of each head) -> RoPE -> attention -> output projection

llama_layer and moe_layer put a feed-forward half behind it. A rank has some heads of queries and the head of
keys and values that they share, so its result is a part of a sum over ranks: the all-reduce comes between
the halves and belongs to the framework, as does the memory of the cache.

How many launches it takes depends on the model. Decoding is one launch, attention_block_tkg, unless each
head has a norm with weights of its own (Qwen3): that block has none between projection and rotation, so
there a kernel of thirty lines stands in the middle, :func:`split_heads`.

    python examples/decoder_attention.py
"""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_sim.report.profile import Profile
from nkilib.core.attention.attention_cte import attention_cte
from nkilib.core.attention.attention_tkg_kernel import attention_tkg_kernel
from nkilib.core.attention.attention_tkg_utils import AttnTKGConfig
from nkilib.core.output_projection.output_projection_cte import output_projection_cte
from nkilib.core.output_projection.output_projection_tkg import output_projection_tkg
from nkilib.core.qkv.qkv import qkv
from nkilib.core.utils.common_types import NormType, QKVOutputLayout, QuantizationType
from nkilib.experimental.transformer.attention_block_tkg import attention_block_tkg

BF16 = ml_dtypes.bfloat16
LNC = 2  # physical cores of a logical one: the default of trn2
EPS = 1e-6
ROWS = 128  # of a tile


@dataclass(frozen=True, kw_only=True)
class Model:
    """Sizes of a decoder layer; after :meth:`shard` those of one rank.

    Attributes:
        hidden: hidden size, a multiple of 128; `hidden_actual` of it are not padding (None: all).
        heads, kv_heads, head_dim: of attention.
        intermediate: size of the feed-forward network, or of one expert.
        rope_theta: base of the rotary angles.
        qk_norm: each head of q and k is normed before RoPE, with weights.
        bias: projections have biases.
        window: keys that a query sees, or None for all.
        sink: each head has one more logit, without a value.
        experts, top_k: of a mixture of experts; 0 for a dense network.
        tp: ranks that share the layer by default.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    hidden_actual: int | None = None
    qk_norm: bool = False
    bias: bool = False
    window: int | None = None
    sink: bool = False
    experts: int = 0
    top_k: int = 0
    tp: int = 8

    def shard(self, tp):
        """What one of `tp` ranks has: one head of keys and values, which several ranks may have alike.

        Raises:
            ValueError: for ranks that heads or the intermediate size do not divide over.
        """
        if tp % self.kv_heads or self.heads % tp or self.intermediate % tp:
            raise ValueError(
                f"tp is a multiple of its {self.kv_heads} heads of keys and values, and divides its "
                f"{self.heads} heads of queries and intermediate size of {self.intermediate}; got {tp}"
            )
        return dataclasses.replace(
            self,
            heads=self.heads // tp,
            kv_heads=1,
            intermediate=self.intermediate // tp,
            tp=1,
        )

    def reduced(self):
        """A rank of a small model of the same kind, for arithmetic in seconds."""
        return dataclasses.replace(
            self,
            hidden=512,
            hidden_actual=self.hidden_actual and 480,
            heads=2,
            kv_heads=1,
            intermediate=256,
            window=self.window and 96,
            experts=min(self.experts, 8),
            top_k=min(self.top_k, 2),
            tp=1,
        )

    @property
    def qkv_columns(self):
        """Columns of the fused projection."""
        return (self.heads + 2) * self.head_dim

    @property
    def scale(self):
        """Of the scores. attention_cte takes none with a window: the weights of q contain 1 / sqrt(d)."""
        return 1.0 if self.window else self.head_dim**-0.5


class Arrays:
    """Makes weights and states: normal numbers in bf16, or zeros where only time is asked for."""

    def __init__(self, data):
        self.rng = np.random.default_rng(0) if data else None

    def normal(self, *shape, scale=1.0, mean=0.0, dtype=BF16):
        if self.rng is None:
            return np.zeros(shape, dtype)
        return (mean + scale * self.rng.standard_normal(shape, np.float32)).astype(dtype)

    def hidden_states(self, model, batch, tokens):
        """[batch, tokens, hidden]; padding is 0."""
        x = self.normal(batch, tokens, model.hidden)
        x[..., model.hidden_actual or model.hidden :] = 0
        return x

    def projection(self, model, rows, columns):
        """[rows, columns] whose products have size 1; columns of padding are 0."""
        w = self.normal(rows, columns, scale=rows**-0.5)
        if columns == model.hidden:
            w[:, model.hidden_actual or columns :] = 0
        return w


def attention_weights(model, arrays):
    """The weights of one rank."""
    d, rows = model.head_dim, model.heads * model.head_dim
    weights = {
        "norm": arrays.normal(1, model.hidden, scale=0.1, mean=1.0),
        "qkv": arrays.projection(model, model.hidden, model.qkv_columns),
        "out": arrays.projection(model, rows, model.hidden),
        "qkv_bias": arrays.normal(1, model.qkv_columns, scale=0.1) if model.bias else None,
        "out_bias": arrays.normal(1, model.hidden, scale=0.1) if model.bias else None,
        "qk_norm": arrays.normal(2, d, scale=0.1, mean=1.0) if model.qk_norm else None,
        "sink": arrays.normal(model.heads, 1, dtype=np.float32) if model.sink else None,
    }
    if model.window:  # the scale of the scores, see Model.scale
        weights["qkv"][:, :rows] *= BF16(d**-0.5)
    if model.window and model.bias:
        weights["qkv_bias"][:, :rows] *= BF16(d**-0.5)
    return weights


@dataclass
class Cache:
    """Keys and values of earlier tokens: [batch, room, head_dim], rotated; `lengths` of each count."""

    keys: np.ndarray
    values: np.ndarray
    lengths: np.ndarray


def cache_of(model, arrays, batch, room):
    """A cache that has room for one token more, with sequences of different lengths."""
    keys, values = (arrays.normal(batch, room, model.head_dim) for _ in range(2))
    return Cache(keys, values, room - 1 - 3 * np.arange(batch))


def rotary(model, positions):
    """cos and sin of the angles at these positions, [*positions.shape, head_dim / 2]."""
    frequencies = model.rope_theta ** -(np.arange(0, model.head_dim, 2) / model.head_dim)
    angles = positions[..., None] * frequencies
    return np.cos(angles), np.sin(angles)


# --- the kernels -----------------------------------------------------------------------------------------


@nki.jit
def split_heads(fused, heads, head_dim, gamma=None, cos=None, sin=None, by_head=True, eps=EPS):
    """[rows, (heads + 2) d] to q, k and v of their own; with `gamma` q and k are normed, with `cos` rotated.

    Args:
        fused: what qkv leaves: the heads of q, one of k, one of v.
        heads, head_dim: of q; d.
        gamma: [2, d], for q and k.
        cos, sin: [rows, d], halves alike.
        by_head: results are [heads, rows, d]; else [rows, heads, d].
    """
    rows, both = fused.shape[0], heads + 1  # of q and k
    q = heads_of(fused, heads, head_dim, by_head)
    k = heads_of(fused, 1, head_dim, by_head)
    v = heads_of(fused, 1, head_dim, by_head)
    if gamma is not None:
        weights = nl.ndarray((ROWS, both, head_dim), dtype=gamma.dtype, buffer=nl.sbuf)
        for head in range(both):
            own = gamma[0:1] if head < heads else gamma[1:2]
            nisa.dma_copy(dst=weights[:, head], src=own.broadcast(0, ROWS))
        offset = nl.ndarray((ROWS, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=offset, value=eps)
    for tile in range(nl.program_id(0), (rows + ROWS - 1) // ROWS, nl.num_programs(0)):
        size = min(ROWS, rows - tile * ROWS)
        here = nl.ds(tile * ROWS, size)
        x = nl.ndarray((size, heads + 2, head_dim), dtype=fused.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=x, src=fused[here].reshape(x.shape))
        turned = x[:, 0:both]
        if gamma is not None:
            turned = norm(turned, weights[0:size], offset[0:size])
        if cos is not None:
            turned = rotate(turned, cos[here], sin[here])
        for head in range(heads):
            nisa.dma_copy(dst=rows_of(q, head, here, by_head), src=turned[:, head])
        nisa.dma_copy(dst=rows_of(k, 0, here, by_head), src=turned[:, heads])
        nisa.dma_copy(dst=rows_of(v, 0, here, by_head), src=x[:, both])
    return q, k, v


def heads_of(fused, heads, head_dim, by_head):
    """A result of :func:`split_heads`."""
    rows = fused.shape[0]
    shape = (heads, rows, head_dim) if by_head else (rows, heads, head_dim)
    return nl.ndarray(shape, dtype=fused.dtype, buffer=nl.shared_hbm)


def rows_of(result, head, here, by_head):
    """Some rows of a head of it, [rows, d]."""
    return result[head, here] if by_head else result[here, head]


def norm(x, weights, offset):
    """RMSNorm of each head of [rows, heads, d]."""
    squares = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=x)
    scale = nl.ndarray(x.shape[0:2], dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=scale, op=nl.add, data=squares, axis=2)
    nisa.activation(dst=scale, op=nl.rsqrt, data=scale, scale=1.0 / x.shape[2], bias=offset)
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=out, data1=x, data2=scale.expand_dim(2).broadcast(2, x.shape[2]), op=nl.multiply)
    normed = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=normed, data1=out, data2=weights, op=nl.multiply)
    return normed


def rotate(x, cos, sin):
    """x * cos + (minus the second half, the first half) * sin, of [rows, heads, d]."""
    rows, heads, d = x.shape
    angles = nl.ndarray((rows, 2, d), dtype=cos.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=angles[:, 0], src=cos)
    nisa.dma_copy(dst=angles[:, 1], src=sin)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    straight = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    crossed = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    cosines = angles[:, 0:1].broadcast(1, heads)
    nisa.tensor_tensor(dst=straight, data1=x, data2=cosines, op=nl.multiply, engine=nisa.gpsimd_engine)
    first, second = nl.ds(0, d // 2), nl.ds(d // 2, d // 2)
    nisa.tensor_tensor(
        dst=crossed[:, :, first], data1=x[:, :, second], data2=angles[:, 1:2, first].broadcast(1, heads),
        op=nl.multiply,
    )  # fmt: skip
    nisa.tensor_tensor(
        dst=crossed[:, :, second], data1=x[:, :, first], data2=angles[:, 1:2, second].broadcast(1, heads),
        op=nl.multiply,
    )  # fmt: skip
    nisa.tensor_tensor(
        dst=out[:, :, first], data1=straight[:, :, first], data2=crossed[:, :, first], op=nl.subtract
    )
    nisa.tensor_tensor(
        dst=out[:, :, second], data1=straight[:, :, second], data2=crossed[:, :, second], op=nl.add
    )
    return out


# --- the two phases --------------------------------------------------------------------------------------


def prefill(model, weights, x):
    """The rank's part of the attention of one prompt: x [1, S, hidden] to the same shape."""
    heads, d, tokens = model.heads, model.head_dim, x.shape[1]
    cos, sin = (np.tile(part, 2).astype(BF16) for part in rotary(model, np.arange(tokens)))
    apart = d == 128 and not model.qk_norm  # qkv can leave heads apart, [heads, 1, S, d]
    options = {} if model.qk_norm else {"fused_rope": True, "cos_cache": cos[None], "sin_cache": sin[None]}
    fused = qkv[LNC](
        input=x,
        fused_qkv_weights=weights["qkv"],
        bias=weights["qkv_bias"],
        output_layout=QKVOutputLayout.NBSd if apart else QKVOutputLayout.BSD,
        fused_norm_type=NormType.RMS_NORM,
        gamma_norm_weights=weights["norm"],
        norm_eps=EPS,
        hidden_actual=model.hidden_actual,
        d_head=d,
        num_q_heads=heads,
        num_kv_heads=1,
        **options,
    )
    if apart:
        q, k, v = fused[:heads, 0], fused[heads : heads + 1, 0], fused[heads + 1 :, 0]
    elif model.qk_norm:
        q, k, v = split_heads[LNC](fused[0], heads, d, weights["qk_norm"], cos, sin)
    else:
        q, k, v = split_heads[LNC](fused[0], heads, d)
    attention = attention_cte[LNC](
        q=q,
        k=k,
        v=v,
        scale=model.scale,
        sink=weights["sink"],
        sliding_window=model.window,
        tp_k=True,
        tp_out=True,
    )
    return output_projection_cte[LNC](attention[None], weights["out"], weights["out_bias"])


def decode(model, weights, x, cache):
    """The rank's part of the attention of a new token of each sequence, which the cache keeps."""
    if model.qk_norm:
        return decode_with_head_norms(model, weights, x, cache)
    cos, sin = (part.T[:, :, None].astype(BF16) for part in rotary(model, cache.lengths))
    attention, _, _ = attention_block_tkg[LNC](
        X=x,
        X_hidden_dim_actual=model.hidden_actual,
        rmsnorm_X_enabled=True,
        rmsnorm_X_eps=EPS,
        rmsnorm_X_gamma=weights["norm"],
        W_qkv=weights["qkv"],
        bias_qkv=weights["qkv_bias"],
        quantization_type_qkv=QuantizationType.NONE,
        weight_dequant_scale_qkv=None,
        input_dequant_scale_qkv=None,
        rmsnorm_QK_pre_rope_enabled=False,
        rmsnorm_QK_pre_rope_eps=EPS,
        cos=np.ascontiguousarray(cos),
        sin=np.ascontiguousarray(sin),
        rope_contiguous_layout=True,
        rmsnorm_QK_post_rope_enabled=False,
        rmsnorm_QK_post_rope_eps=EPS,
        rmsnorm_QK_post_rope_W_Q=None,
        rmsnorm_QK_post_rope_W_K=None,
        K_cache_transposed=False,
        active_blocks_table=None,
        K_cache=cache.keys,
        V_cache=cache.values,
        attention_mask=mask_of(model, cache),
        sink=weights["sink"],
        update_cache=True,
        kv_cache_update_idx=cache.lengths[:, None].astype(np.uint32),
        W_out=weights["out"],
        bias_out=weights["out_bias"],
        quantization_type_out=QuantizationType.NONE,
        weight_dequant_scale_out=None,
        input_dequant_scale_out=None,
        transposed_out=False,
        out_in_sb=False,
        softmax_scale=model.scale,
    )
    return attention.reshape(x.shape)


def mask_of(model, cache):
    """Which places of the window each new token sees, [room, batch, heads, 1]: the last place is its own."""
    batch, room, _ = cache.keys.shape
    places = np.arange(room)[:, None]
    seen = places < cache.lengths
    if model.window:
        seen &= places > cache.lengths - model.window
    seen[-1] = True
    return np.broadcast_to(seen[:, :, None, None], (room, batch, model.heads, 1)).astype(np.uint8)


def decode_with_head_norms(model, weights, x, cache):
    """Decoding in four launches: attention_tkg rotates q and k itself, and masks by positions."""
    batch, room, d = cache.keys.shape
    fused = qkv[LNC](
        input=x,
        fused_qkv_weights=weights["qkv"],
        fused_norm_type=NormType.RMS_NORM,
        gamma_norm_weights=weights["norm"],
        norm_eps=EPS,
        d_head=d,
        num_q_heads=model.heads,
        num_kv_heads=1,
    )
    q, k, v = split_heads[LNC](fused[:, 0], model.heads, d, weights["qk_norm"], by_head=False)
    config = AttnTKGConfig(
        bs=batch,
        q_head=model.heads,
        s_active=1,
        curr_sprior=room,
        full_sprior=room,
        d_head=d,
        tp_k_prior=True,
        use_pos_id=True,
        fuse_rope=True,
        out_in_sb=True,
    )
    attention, rotated = attention_tkg_kernel[LNC](
        q=q[:, :, None],
        k_active=k[:, :, None],
        v_active=v[:, :, None],
        k_prior=cache.keys[:, None],
        v_prior=cache.values[:, None],
        mask=np.ones((1, batch, model.heads, 1), np.uint8),
        cfg=config,
        inv_freqs=(model.rope_theta ** -(np.arange(0, d, 2)[:, None] / d)).astype(np.float32),
        rope_pos_ids=cache.lengths[:, None].astype(np.float32),
    )
    rows = np.arange(batch)
    cache.keys[rows, cache.lengths], cache.values[rows, cache.lengths] = rotated[:, 0, :, 0], v[:, 0]
    result = output_projection_tkg_kernel[LNC](
        attention.reshape(d, batch, model.heads, 1), weights["out"], weights["out_bias"]
    )
    return result.reshape(x.shape)


output_projection_tkg_kernel = nki.jit(output_projection_tkg)


# --- the same in numpy -----------------------------------------------------------------------------------


def rmsnorm(x, gamma, count=None):
    """RMSNorm of the last dimension, `count` elements of which are not padding."""
    squares = np.square(x).sum(axis=-1, keepdims=True) / (count or x.shape[-1])
    return x / np.sqrt(squares + EPS) * gamma


def reference(model, weights, x, cache=None):
    """The attention half in float32: of a prompt, or with a cache of one new token of each sequence."""
    w = {name: value.astype(np.float32) for name, value in weights.items() if value is not None}
    x = x.astype(np.float32)
    batch, tokens, _ = x.shape
    heads, d = model.heads, model.head_dim
    fused = rmsnorm(x, w["norm"], model.hidden_actual) @ w["qkv"] + w.get("qkv_bias", 0)
    fused = fused.reshape(batch, tokens, heads + 2, d)
    q, k, v = fused[:, :, :heads], fused[:, :, heads : heads + 1], fused[:, :, heads + 1 :]
    if model.qk_norm:
        q, k = rmsnorm(q, w["qk_norm"][0]), rmsnorm(k, w["qk_norm"][1])
    start = np.zeros(batch, int) if cache is None else cache.lengths
    cos, sin = (part[:, :, None] for part in rotary(model, start[:, None] + np.arange(tokens)))
    q, k = (
        np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
        for a, b in (np.split(part, 2, axis=-1) for part in (q, k))
    )
    out = np.empty((batch, tokens, heads, d), np.float32)
    for b in range(batch):
        earlier = start[b]
        keys, values = k[b, :, 0], v[b, :, 0]
        if cache is not None:
            keys = np.concatenate([cache.keys[b, :earlier].astype(np.float32), keys])
            values = np.concatenate([cache.values[b, :earlier].astype(np.float32), values])
        apart = earlier + np.arange(tokens)[:, None] - np.arange(len(keys))  # how far back each key is
        hidden = (apart < 0) | (apart >= (model.window or len(keys)))
        for head in range(heads):
            scores = np.where(hidden, -np.inf, q[b, :, head] @ keys.T * model.scale)
            sink = w["sink"][head, 0] if model.sink else -np.inf
            largest = np.maximum(scores.max(axis=1, keepdims=True), sink)
            weight = np.exp(scores - largest)
            out[b, :, head] = weight @ values / (weight.sum(axis=1, keepdims=True) + np.exp(sink - largest))
    return out.reshape(batch, tokens, heads * d) @ w["out"] + w.get("out_bias", 0)


# --- checking and timing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A kind of decoder layer, for :func:`run`.

    Attributes:
        models: real sizes by name.
        weights: (model, arrays) to the weights of all of the layer.
        apply: (model, weights, x, cache or None) to the layer's result.
        reference: the same in numpy.
    """

    models: dict
    weights: Callable
    apply: Callable
    reference: Callable


def run(title, layer, arguments=None):
    """The command line that the layers share: check small layers, or time real ones without arithmetic.

    Returns:
        The printed tables, by model and phase.
    """
    parser = argparse.ArgumentParser(description=f"{title}: a decoder layer on one rank")
    parser.add_argument("--model", choices=layer.models, help="default: all of them")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="default: both")
    parser.add_argument(
        "--sequence", type=int, help="tokens of the prompt, or room of the cache (a multiple of 256)"
    )
    parser.add_argument("--batch", type=int, help="sequences that are decoded together")
    parser.add_argument("--tp", type=int, help="ranks that share the layer; with --no-data")
    parser.add_argument("--no-data", action="store_true", help="the model's sizes, time only")
    given = parser.parse_args(arguments)
    if given.tp and not given.no_data:
        parser.error("--tp cuts a model of its real sizes: it goes with --no-data")
    found = {}
    for name in [given.model] if given.model else layer.models:
        real = layer.models[name]
        try:
            model = real.shard(given.tp or real.tp) if given.no_data else real.reduced()
        except ValueError as wrong:
            parser.error(f"{name}: {wrong}")
        sequence = given.sequence or (2048 if given.no_data else 256)
        batch = given.batch or (8 if given.no_data else 4)
        for phase in [given.phase] if given.phase else ("prefill", "decode"):
            arrays = Arrays(not given.no_data)
            weights = layer.weights(model, arrays)
            cache = None
            x = arrays.hidden_states(model, 1, sequence)
            if phase == "decode":
                x, cache = arrays.hidden_states(model, batch, 1), cache_of(model, arrays, batch, sequence)
            expected = layer.reference(model, weights, x, cache) if not given.no_data else None
            with session(timing=True, data=not given.no_data) as record:
                result = layer.apply(model, weights, x, cache)
            print(f"\n{title}, {name}, {phase}" + ("" if given.no_data else ", reduced sizes"))
            if expected is not None:
                compare(result, expected)
            found[name, phase] = profile(record.launches)
            print(found[name, phase])
    return found


def compare(result, expected, allowed=2**-5):
    """Assert that a result is within some roundings of the largest value, where the reference is a number."""
    known = ~np.isnan(expected)
    assert known.mean() >= 0.5, "too much of the reference is NaN"
    expected, result = expected[known], result.astype(np.float32)[known]
    error = np.abs(result - expected).max() / np.abs(expected).max()
    assert error < allowed, f"the result differs from numpy by {error:.4f} of the largest value"
    print(f"equal to numpy within {error:.4f} of the largest value")


def profile(launches):
    """A table, in Markdown, of where the time of some launches goes.

    A launch's time contains its start-up and wind-down, 15 or 31 us. Its bottleneck is the engine that is
    busy for the largest part of it, on the core that takes longest. MFU is useful operations by the peak in
    bf16, HBM is bytes by the bandwidth, both of the two cores.
    """
    rows = []
    for launch in launches:
        cores = [Profile.of(core.timeline) for core in launch.cores]
        slowest = max(cores, key=lambda core: core.total)
        busy = {name: engine.active_percent for name, engine in slowest.engines.items()}
        busy["DMA"] = slowest.dma.active_percent
        most = max(busy, key=busy.get)
        stacks = max(1, len(cores) / slowest.target.hbm_cores)
        mfu, hbm = sum(core.mfu for core in cores) / len(cores), sum(core.mbu for core in cores) / stacks
        figures = f"{most} {busy[most]:.0f} % | {mfu:.0f} % | {hbm:.0f} % |"
        rows.append((launch.kernel, slowest.total, figures))
    total = sum(row[1] for row in rows)
    lines = ["| launch | us | share | bottleneck | MFU | HBM |", "|---|---:|---:|---|---:|---:|"]
    for kernel, time, figures in rows:
        lines.append(f"| {kernel} | {time / 1e3:.1f} | {100 * time / total:.0f} % | {figures}")
    return "\n".join([*lines, f"| all | {total / 1e3:.1f} | | | | |"])


MODELS = {
    "llama3-8b": Model(
        hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336, rope_theta=5e5
    ),
    "qwen3-8b": Model(
        hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=12288, rope_theta=1e6, qk_norm=True
    ),
}  # fmt: skip


def attention(model, weights, x, cache=None):
    """The rank's part of the attention: of a prompt, or with a cache of a new token of each sequence."""
    return prefill(model, weights, x) if cache is None else decode(model, weights, x, cache)


def main():
    run("decoder_attention", Layer(MODELS, attention_weights, attention, reference))


if __name__ == "__main__":
    main()
