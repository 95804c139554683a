"""What :mod:`nkilib.core.loss.cross_entropy` computes, in numpy."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def cross_entropy_forward_reference(logits_hbm: Array, targets_hbm: Array, dtype: Any) -> tuple[Array, Array]:
    """Loss and log-sum-exp of each position, of `dtype`, a dtype of numpy or its name."""
    x = logits_hbm.astype(np.float64)
    largest = x.max(axis=1)
    lse = largest + np.log(np.exp(x - largest[:, None]).sum(axis=1))
    loss = lse - x[np.arange(len(x)), targets_hbm]
    return loss.astype(dtype), lse.astype(dtype)
