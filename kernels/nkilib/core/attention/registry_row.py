"""The attention kernels in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.attention.attention_cte import attention_cte
from nkilib.core.attention.reference import attention_cte_reference
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

ROWS = (CTE,)
