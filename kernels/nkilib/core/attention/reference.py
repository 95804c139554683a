"""What the attention kernels compute, in numpy."""

import numpy as np


def attention_cte_reference(
    q,
    k,
    v,
    scale=1.0,
    causal_mask=True,
    k_prior=None,
    v_prior=None,
    prior_used_len=None,
    sink=None,
    sliding_window=None,
    tp_q=True,
    tp_k=False,
    tp_out=False,
    cache_softmax=False,
    softmax_dtype=np.float32,
    cp_offset=None,
    global_cp_deg=None,
    cp_strided_q_slicing=False,
):
    """softmax(scale * q @ k.T + mask) @ v in fp32, a head at a time, rounded to the dtype of `q`."""
    queries = (q if tp_q else q.swapaxes(1, 2)).astype(np.float32)
    keys = (k if tp_k else k.swapaxes(1, 2)).astype(np.float32)
    values = v.astype(np.float32)
    used = 0
    if k_prior is not None:
        used = int(prior_used_len[0])
        prior = (k_prior if tp_k else k_prior.swapaxes(1, 2)).astype(np.float32)
        keys = np.concatenate([prior[:, :used], keys], axis=1)
        values = np.concatenate([v_prior[:, :used].astype(np.float32), values], axis=1)
    heads, length, d = queries.shape
    position = np.arange(length) * (global_cp_deg if cp_strided_q_slicing else 1)
    if cp_offset is not None:
        position = position + int(cp_offset[0, 0])
    back = position[:, None] - (np.arange(keys.shape[1]) - used)[None, :]
    seen = np.ones(back.shape, bool)
    if causal_mask:
        seen &= back >= 0
    if sliding_window:
        seen &= back < sliding_window
    out = np.empty((heads, length, d), np.float32)
    largest, total = np.empty((2, heads, length), np.float32)
    for head in range(heads):
        row = head // (heads // keys.shape[0])
        scores = np.where(seen, np.float32(scale) * (queries[head] @ keys[row].T), -np.inf)
        extra = np.full((length, 1), -np.inf if sink is None else float(sink[head, 0]), np.float32)
        scores = np.concatenate([scores, extra], axis=1)
        largest[head] = scores.max(axis=1)
        weights = np.exp(scores - largest[head][:, None])
        total[head] = weights.sum(axis=1)
        out[head] = weights[:, :-1] @ values[row] / total[head][:, None]
    result = (out.swapaxes(1, 2) if tp_out else out).astype(q.dtype)
    if not cache_softmax:
        return result
    statistics = [
        x.reshape(heads, -1, 128).swapaxes(1, 2).astype(softmax_dtype) for x in (-largest, 1 / total)
    ]
    return result, statistics[0], statistics[1]
