"""What the backward pass of :mod:`nkilib.experimental.loss.cross_entropy` computes, in numpy."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def cross_entropy_backward_reference(
    logits_hbm: Array, targets_hbm: Array, lse_state_hbm: Array, reduction: str = "mean"
) -> Array:
    """(softmax - onehot) / N for the mean, times 1 for the sum, with the log-sum-exp that is given."""
    grad = np.exp(logits_hbm.astype(np.float64) - lse_state_hbm.astype(np.float64)[:, None])
    grad[np.arange(len(grad)), targets_hbm] -= 1
    if reduction == "mean":
        grad /= len(grad)
    return grad.astype(logits_hbm.dtype)
