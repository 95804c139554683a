"""What the attention kernels compute, in numpy."""

import numpy as np

ROWS = 2048  # queries whose scores are in memory at once


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
    """softmax(scale * q @ k.T + mask) @ v in fp32, rounded to the dtype of `q`; some queries at a time."""
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
    out = np.empty((heads, length, d), np.float32)
    largest, total = np.empty((2, heads, length), np.float32)
    for first in range(0, length, ROWS):
        here = slice(first, first + ROWS)
        back = position[here, None] - (np.arange(keys.shape[1]) - used)[None, :]
        seen = np.ones(back.shape, bool)
        if causal_mask:
            seen &= back >= 0
        if sliding_window:
            seen &= back < sliding_window
        for head in range(heads):
            row = head // (heads // keys.shape[0])
            scores = np.where(seen, np.float32(scale) * (queries[head, here] @ keys[row].T), -np.inf)
            extra = np.full((len(seen), 1), -np.inf if sink is None else float(sink[head, 0]), np.float32)
            scores = np.concatenate([scores, extra], axis=1)
            largest[head, here] = scores.max(axis=1)
            weights = np.exp(scores - largest[head, here, None])
            total[head, here] = weights.sum(axis=1)
            out[head, here] = weights[:, :-1] @ values[row] / total[head, here, None]
    result = (out.swapaxes(1, 2) if tp_out else out).astype(q.dtype)
    if not cache_softmax:
        return result
    statistics = [
        x.reshape(heads, -1, 128).swapaxes(1, 2).astype(softmax_dtype) for x in (-largest, 1 / total)
    ]
    return result, statistics[0], statistics[1]


def rotated(x, inv_freqs, positions):
    """RoPE of [B, ..., s, d], contiguous halves: angles are `inv_freqs` [d / 2, 1] * `positions` [B, s]."""
    angles = (inv_freqs[:, 0] * positions[..., None]).astype(np.float32)  # [B, s, d / 2]
    angles = angles.reshape(angles.shape[0], *(1,) * (x.ndim - 3), *angles.shape[1:])
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def attention_tkg_reference(
    q,
    k_active,
    v_active,
    k_prior,
    v_prior,
    mask,
    cfg,
    inv_freqs=None,
    rope_pos_ids=None,
    sink=None,
    active_blocks_table=None,
    lnc=1,
):
    """softmax(q @ keys.T + mask) @ values in fp32, the new keys in the place of the last ones.

    Takes the arguments of the kernel, with queries and new keys as its SBUF tiles hold them where `cfg` says
    so; `lnc`, as the order of a block cache's mask depends on it.

    Returns:
        (out, k_out), as fp32; k_out is None without RoPE.
    """
    bs, heads, active, d, length = cfg.bs, cfg.q_head, cfg.s_active, cfg.d_head, cfg.curr_sprior
    new_values = v_active[:, 0].astype(np.float32)
    if cfg.qk_in_sb:
        queries = q.astype(np.float32).reshape(d, bs, heads, active).transpose(1, 2, 3, 0)
        new_keys = k_active.astype(np.float32).reshape(d, bs, active).transpose(1, 2, 0)
    else:
        queries, new_keys = q.astype(np.float32), k_active[:, 0].astype(np.float32)
    if cfg.fuse_rope:
        queries = rotated(queries, inv_freqs, rope_pos_ids) / np.sqrt(np.float32(d))
        new_keys = rotated(new_keys, inv_freqs, rope_pos_ids)
    if cfg.block_len:
        keys = k_prior[active_blocks_table].reshape(bs, -1, d).astype(np.float32)
        values = v_prior[active_blocks_table].reshape(bs, -1, d).astype(np.float32)
    else:
        keys = k_prior[:bs, 0] if cfg.tp_k_prior else k_prior[:bs, 0].swapaxes(1, 2)
        keys, values = keys[:, :length].astype(np.float32), v_prior[:bs, 0, :length].astype(np.float32)
    keys[:, length - active :], values[:, length - active :] = new_keys, new_values
    if cfg.use_pos_id:
        before = np.arange(length)[:, None] < rope_pos_ids[:, 0]
        seen = np.broadcast_to(before[:, :, None, None], (length, bs, heads, active)).copy()
        seen[length - active :] = mask
    else:
        seen = mask != 0
        if cfg.block_len:  # rows of tiles, 128 keys a run apart, to the order of keys
            run = int(np.gcd(cfg.block_len, length // (lnc * 128)))
            seen = seen.reshape(-1, run, 128, *mask.shape[1:]).swapaxes(1, 2).reshape(mask.shape)
    scores = np.where(seen.transpose(1, 2, 3, 0), queries @ keys[:, None].swapaxes(-1, -2), -np.inf)
    if sink is not None:
        extra = np.broadcast_to(sink.astype(np.float32)[None, :, :, None], (bs, heads, active, 1))
        scores = np.concatenate([scores, extra], axis=-1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = weights[..., :length] @ values[:, None]
    result = out.transpose(3, 0, 1, 2).reshape(d, -1) if cfg.out_in_sb else out.swapaxes(-1, -2)
    if not cfg.fuse_rope:
        return result, None
    return result, new_keys.transpose(2, 0, 1).reshape(d, -1) if cfg.k_out_in_sb else new_keys.swapaxes(1, 2)[
        :, None
    ]
