"""What :mod:`nkilib.experimental.conv.depthwise_conv1d` computes, in numpy."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def depthwise_conv1d_reference(
    img_ref: Array,
    filter_ref: Array,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    stride: tuple[int, int] = (1, 1),
) -> Array:
    """[N, C, 1, Q]: the sum of each window of the padded rows times the filter of its channel."""
    x = np.pad(img_ref[:, :, 0].astype(np.float64), ((0, 0), (0, 0), padding[1]))
    windows = np.lib.stride_tricks.sliding_window_view(x, filter_ref.shape[3], axis=2)[:, :, :: stride[1]]
    out = np.einsum("ncqs,cs->ncq", windows, filter_ref[:, 0, 0].astype(np.float64))
    return out[:, :, None].astype(img_ref.dtype)
