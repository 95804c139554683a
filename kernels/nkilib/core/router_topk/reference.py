"""What :mod:`nkilib.core.router_topk.router_topk` computes, in numpy."""

from typing import Any

import numpy as np

from nkilib.core.router_topk.layouts import XHBMLayout_H_T__0
from nkilib.core.utils.common_types import RouterActFnType

Array = np.ndarray[Any, Any]


def router_topk_reference(
    x: Array,
    w: Array,
    w_bias: Array | None,
    router_logits: Array,
    expert_affinities: Array,
    act_fn: RouterActFnType,
    k: int,
    x_hbm_layout: int,
    router_pre_norm: bool = True,
    norm_topk_prob: bool = False,
) -> list[Array]:
    """Logits [T, E], the k experts of each token, the largest logit first, and affinities [T, E]."""
    tokens = x.astype(np.float64)
    if x_hbm_layout == XHBMLayout_H_T__0:
        tokens = tokens.T
    logits = tokens @ w.astype(np.float64)
    if w_bias is not None:
        logits = logits + w_bias.astype(np.float64).reshape(-1)
    index = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(chosen, index, True, axis=1)

    considered = chosen if not router_pre_norm else np.ones_like(chosen)
    if act_fn == RouterActFnType.SOFTMAX:
        affinities = np.where(considered, np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
        affinities /= affinities.sum(axis=1, keepdims=True)
    else:
        affinities = np.where(considered, 1 / (1 + np.exp(-logits)), 0)
    if router_pre_norm and norm_topk_prob:
        affinities = np.where(chosen, affinities, 0)
        affinities /= affinities.sum(axis=1, keepdims=True)
    return [
        logits.astype(router_logits.dtype),
        index.astype(np.uint32),
        affinities.astype(expert_affinities.dtype),
    ]
