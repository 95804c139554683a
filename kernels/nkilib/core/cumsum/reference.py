"""What :func:`nkilib.core.cumsum.cumsum.cumsum` computes, in numpy."""

import numpy as np


def cumsum_reference(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Sequential fp32 sums along the last dimension, rounded to the dtype of `x`."""
    return np.add.accumulate(x.astype(np.float32), axis=axis, dtype=np.float32).astype(x.dtype)
