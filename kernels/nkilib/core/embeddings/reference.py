"""What :func:`nkilib.core.embeddings.rope.RoPE` computes, in numpy."""

import numpy as np


def rope_reference(
    x_in: np.ndarray, cos: np.ndarray, sin: np.ndarray, contiguous_layout: bool = True
) -> np.ndarray:
    """Rotate pairs of the head dimension in fp32; the result has the dtype and layout of `x_in`.

    Args:
        x_in: [d_head, B, n_heads, S].
        cos: [d_head // 2, B, S].
        sin: [d_head // 2, B, S].
        contiguous_layout: False if the even and odd elements of d_head alternate.
    """
    half = x_in.shape[0] // 2
    even, odd = (
        (slice(0, half), slice(half, None)) if contiguous_layout else (slice(0, None, 2), slice(1, None, 2))
    )
    x = x_in.astype(np.float32)
    cosines, sines = (angle.astype(np.float32)[:, :, None, :] for angle in (cos, sin))
    out = np.empty_like(x)
    out[even] = x[even] * cosines - x[odd] * sines
    out[odd] = x[odd] * cosines + x[even] * sines
    return out.astype(x_in.dtype)
