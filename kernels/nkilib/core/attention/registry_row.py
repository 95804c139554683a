"""The attention kernels in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.attention.attention_cte import attention_cte
from nkilib.core.attention.attention_tkg import attention_tkg
from nkilib.core.attention.attention_tkg_kernel import launched
from nkilib.core.attention.attention_tkg_utils import AttnTKGConfig
from nkilib.core.attention.reference import attention_cte_reference, attention_tkg_reference
from nkilib.registry import Example, Row, Tolerance

BF16 = ml_dtypes.bfloat16


def cte_inputs(
    rng: np.random.Generator,
    heads: int,
    queries: int,
    keys: int,
    d: int,
    kv_heads: int = 1,
    dtype: Any = BF16,
    prior: int = 0,
    used: int = 0,
    sink: bool = False,
    offset: int | None = None,
    tp_q: bool = True,
    tp_k: bool = False,
) -> dict[str, np.ndarray[Any, Any]]:
    """Normal queries, keys and values of attention_cte; prior keys that do not count are NaN."""

    def normal(rows: int, length: int, turned: bool) -> np.ndarray[Any, Any]:
        values = rng.standard_normal((rows, length, d)).astype(dtype)
        return np.ascontiguousarray(values.swapaxes(1, 2)) if turned else values

    given = {
        "q": normal(heads, queries, not tp_q),
        "k": normal(kv_heads, keys, not tp_k),
        "v": normal(kv_heads, keys, False),
    }
    if prior:
        k, v = normal(kv_heads, prior, False), normal(kv_heads, prior, False)
        k[:, used:] = v[:, used:] = np.nan
        given["k_prior"] = k if tp_k else np.ascontiguousarray(k.swapaxes(1, 2))
        given["v_prior"] = v
        given["prior_used_len"] = np.array([used], np.int32)
    if sink:
        given["sink"] = rng.uniform(5, 15, (heads, 1)).astype(np.float32)
    if offset is not None:
        given["cp_offset"] = np.array([[offset]], np.int32)
    return given


def _cte(name: str, inputs: dict[str, Any], about: str = "", **more: Any) -> Example:
    options = {k: inputs[k] for k in ("tp_q", "tp_k") if k in inputs} | more.pop("options", {})
    make = functools.partial(cte_inputs, **inputs)
    return Example(name=name, inputs=make, options=options, about=about, **more)


_LONG = {"heads": 1, "queries": 16384, "keys": 16384, "d": 128, "tp_q": False}

CTE = Row(
    name="attention_cte",
    entry=attention_cte,
    reference=attention_cte_reference,
    summary="Attention for context encoding",
    maths="`out = softmax(scale * q @ k.T + mask) @ v`, with the keys of a cache before the active ones and "
    "a sink beside them.",
    options={
        "q": "`[batch, seqlen_q, d]`, or `[batch, d, seqlen_q]` without `tp_q`; batch counts heads",
        "k": "`[batch_kv, d, seqlen_kv]`, or `[batch_kv, seqlen_kv, d]` with `tp_k`",
        "v": "`[batch_kv, seqlen_kv, d]`",
        "scale": "of the scores",
        "causal_mask": "no query sees a later key",
        "k_prior": "keys of a cache, as `k`",
        "v_prior": "values of a cache, as `v`",
        "prior_used_len": "`[1]` int32: how many of them count",
        "sink": "`[batch, 1]`: the logit of one more key, which has no value",
        "sliding_window": "keys that a query sees, itself included; None or 0 is all",
        "tp_q": "`q` has the head dimension last",
        "tp_k": "`k` has the head dimension last",
        "tp_out": "the result has the head dimension before the sequence",
        "cache_softmax": "return minus the row maximum and 1 / the row sum as well",
        "softmax_dtype": "their dtype",
        "cp_offset": "`[1, 1]` int32: where this slice of queries begins, or the rank",
        "global_cp_deg": "ranks of context parallelism",
        "cp_strided_q_slicing": "a rank has every `global_cp_deg`-th query",
    },
    limits=(
        "d is at most 128, batch 32, seqlen_q 36864, seqlen_kv with prior keys 36864.",
        "batch is a multiple of batch_kv.",
        "scale is positive, and 1.0 with a window, prior keys or context parallelism.",
        "A window and context parallelism need the causal mask.",
        "seqlen_q is a multiple of 128 with cache_softmax.",
        "Scaled scores are at most 10,000 in magnitude, without cache_softmax.",
        "bf16, fp16 and fp32; fp32 is rounded to bf16 when it is loaded.",
    ),
    examples=(
        _cte("causal", {"heads": 2, "queries": 300, "keys": 300, "d": 128, "kv_heads": 1}, lnc=(1, 2)),
        _cte(
            "vision",
            {"heads": 1, "queries": 200, "keys": 577, "d": 88, "dtype": np.float32},
            "no mask, lengths that fill no tile",
            options={"causal_mask": False, "scale": 0.107},
            targets=("trn2", "trn3"),
        ),
        _cte(
            "cached",
            {"heads": 2, "queries": 256, "keys": 256, "d": 64, "kv_heads": 2, "prior": 400, "used": 333}
            | {"sink": True, "tp_k": True, "tp_q": False},
            "prior keys, of which some count, and a sink",
            options={"tp_out": True, "cache_softmax": True},
        ),
        _cte(
            "window",
            {"heads": 1, "queries": 384, "keys": 384, "d": 64, "sink": True, "prior": 150, "used": 100},
            "gpt-oss: a window of 128 and a sink",
            options={"sliding_window": 128},
            lnc=(1, 2),
        ),
        _cte(
            "rank",
            {"heads": 2, "queries": 256, "keys": 1024, "d": 128, "offset": 512},
            "rank 2 of 4 of context parallelism",
            options={"global_cp_deg": 4},
        ),
        _cte("llama-16k", _LONG, "Llama-3, one head of a long prompt", slow=True),
    ),
    tolerance=Tolerance(
        rtol=2e-2,
        atol=2e-2,
        reason="weights are rounded to bf16, fp32 operands too; the result is rounded to the dtype of q",
    ),
    page="nki/library/api/attention-cte",
)


def tkg_inputs(
    rng: np.random.Generator, cfg: AttnTKGConfig, lnc: int = 1, dtype: Any = BF16, sink: bool = False
) -> dict[str, Any]:
    """Normal operands of attention_tkg; sequence b has 3 * b keys and three quarters of the window.

    Args:
        lnc: programs, on which the order of the mask of a block cache depends.
        dtype: of all but masks and tables.
    """
    bs, heads, active, d, length = cfg.bs, cfg.q_head, cfg.s_active, cfg.d_head, cfg.curr_sprior

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(dtype)

    if cfg.qk_in_sb:
        q, k_active = normal(d, bs * heads * active), normal(d, bs * active)
    else:
        q, k_active = normal(bs, heads, active, d), normal(bs, 1, active, d)
    table = None
    if cfg.block_len:
        blocks = bs * length // cfg.block_len
        table = rng.permutation(blocks).reshape(bs, -1).astype(np.uint32)
        k_prior, v_prior = normal(blocks, cfg.block_len, d), normal(blocks, cfg.block_len, d)
    else:
        full = cfg.full_sprior
        k_prior = normal(bs, 1, full, d) if cfg.tp_k_prior else normal(bs, 1, d, full)
        v_prior = normal(bs, 1, full, d)
    used = (np.arange(bs) * 3 + length // 4 * 3) % max(1, length - active)
    new = np.tril(np.ones((active, active), np.uint8)).T[:, None, None]
    if cfg.use_pos_id:
        mask = np.broadcast_to(new, (active, bs, heads, active)).copy()
    else:
        mask = np.broadcast_to(
            np.arange(length)[:, None, None, None] < used[:, None, None], (length, bs, heads, active)
        )
        mask = mask.astype(np.uint8)
        mask[length - active :] = new
        if cfg.block_len:
            run = int(np.gcd(cfg.block_len, length // (lnc * 128)))
            mask = mask.reshape(-1, 128, run, *mask.shape[1:]).swapaxes(1, 2).reshape(mask.shape).copy()
    given = {"q": q, "k_active": k_active, "v_active": normal(bs, 1, active, d), "k_prior": k_prior}
    given |= {"v_prior": v_prior, "mask": mask, "cfg": cfg, "active_blocks_table": table}
    if cfg.fuse_rope:
        given["inv_freqs"] = (10000.0 ** -np.linspace(0, 1, d // 2, endpoint=False)).astype(np.float32)[
            :, None
        ]
    if cfg.fuse_rope or cfg.use_pos_id:
        given["rope_pos_ids"] = (used[:, None] + np.zeros(active)).astype(np.float32)
    if sink:
        given["sink"] = rng.uniform(0, 3, (heads, 1)).astype(np.float32)
    return given


def _tkg(
    name: str, about: str, cfg: AttnTKGConfig, lnc: int = 1, slow: bool = False, **inputs: Any
) -> Example:
    make = functools.partial(tkg_inputs, cfg=cfg, lnc=lnc, **inputs)
    return Example(name=name, inputs=make, lnc=(lnc,), about=about, slow=slow)


def _fp32(results: Any, arguments: dict[str, Any]) -> Any:
    parts = results if isinstance(results, (list, tuple)) else [results]
    return [np.asarray(part, np.float32) for part in parts if part is not None]


TKG = Row(
    name="attention_tkg",
    entry=attention_tkg,
    reference=attention_tkg_reference,
    summary="Attention for token generation",
    maths="`out = softmax(q @ keys.T + mask) @ values`, where the new keys and values take the place of the "
    "last ones of the window, and a sink stands beside them.",
    options={
        "q": "`[d, B * H * s]` in SBUF, or `[B, H, s, d]` in HBM",
        "k_active": "new keys, `[d, B * s]` in SBUF, or `[B, 1, s, d]` in HBM",
        "v_active": "new values, `[B, 1, s, d]`",
        "k_prior": "cache of keys, `[B+, 1, d, s_prior]`, with `tp_k_prior` `[B+, 1, s_prior, d]`, or blocks",
        "v_prior": "cache of values, `[B+, 1, s_prior, d]`, or blocks `[blocks, block_len, d]`",
        "mask": "`[s_prior, B, H, s]`, with `use_pos_id` `[s, B, H, s]`",
        "out": "`[B, H, d, s]` in HBM, or `[d, B * H * s]` in SBUF; written",
        "cfg": "`AttnTKGConfig`: sizes and choices",
        "sbm": "`SbufManager`: where tiles in SBUF come from",
        "inv_freqs": "`[d / 2, 1]`, with `fuse_rope`",
        "rope_pos_ids": "`[B, s]`, with `fuse_rope` or `use_pos_id`",
        "sink": "`[H, 1]`: the logit of one more key, which has no value",
        "active_blocks_table": "`[B, s_prior / block_len]`: the blocks of each sequence",
        "k_out": "the rotated new keys, with `fuse_rope`; written",
        "DBG_TENSORS": "scores, minus the maximum, weights, sums of weights, rows of the cache; or None",
    },
    limits=(
        "bs is at most 128, q_head 16, s_active 8, d_head 128.",
        "curr_sprior is a multiple of 128, of 256 where two cores share the keys; or at most 128.",
        "Up to 8192 keys, bs and q_head * s_active are limited together: 128 and 64 up to 256 keys, 64 and "
        "32 up to 2048, 4 and 128 or 16 and 16 up to 8192; 128 and 1 always.",
        "Without fuse_rope, and with a block cache, queries and new keys are in SBUF.",
        "fuse_rope takes d_head 64 or 128, bs * q_head * s_active up to 128, and no sharding of the batch.",
        "float8_e4m3 is taken for all four tensors of keys and values, without fuse_rope.",
    ),
    examples=(
        _tkg(
            "speculation",
            "five tokens a sequence, RoPE and mask made here",
            AttnTKGConfig(2, 2, 5, 512, 1024, 128, use_pos_id=True, fuse_rope=True),
            lnc=2,
        ),
        _tkg(
            "blocks",
            "block cache, sink, operands in SBUF",
            AttnTKGConfig(
                2, 8, 3, 512, 512, 64, 16, tp_k_prior=True, strided_mm1=False, qk_in_sb=True, out_in_sb=True
            ),
            sink=True,
        ),
        _tkg(
            "batch",
            "cores share the batch",
            AttnTKGConfig(8, 4, 4, 128, 256, 64, tp_k_prior=True, qk_in_sb=True, out_in_sb=True),
            lnc=2,
            sink=True,
        ),
        _tkg(
            "llama-70b",
            "Llama-3 70B, TP64: one head, five tokens, 8192 keys",
            AttnTKGConfig(4, 1, 5, 8192, 10240, 128, use_pos_id=True, fuse_rope=True),
            lnc=2,
            slow=True,
        ),
    ),
    tolerance=Tolerance(
        rtol=2e-2,
        atol=2e-2,
        reason="weights and values are rounded to bf16; the result is rounded to the dtype of q",
    ),
    page="nki/library/api/attention-tkg",
    launched_by=launched,
    values=_fp32,
)

ROWS = (CTE, TKG)
