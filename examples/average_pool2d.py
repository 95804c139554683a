"""Average pooling by access pattern.

Channels lie on partitions. A five-dimensional view of the image lists, for every
window, the rows and columns inside it; one reduction over the last two dimensions
sums each window, and a multiplication makes it a mean.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def average_pool2d(image, pool):
    """Mean of each `pool` by `pool` window of [channels, height, width]; channels at most 128."""
    channels, height, width = image.shape
    assert height % pool == 0 and width % pool == 0, (
        f"{height}x{width} does not divide into {pool}x{pool} windows"
    )
    down, across = height // pool, width // pool
    result = nl.ndarray((channels, down, across), dtype=image.dtype, buffer=nl.shared_hbm)

    tile = nl.ndarray(image.shape, dtype=image.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=image)
    windows = tile.ap(
        pattern=[
            [height * width, channels],
            [pool * width, down],
            [pool, across],
            [width, pool],
            [1, pool],
        ]
    )
    sums = nl.ndarray((channels, down, across), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=sums, op=nl.add, data=windows, axis=(3, 4))
    means = nl.ndarray((channels, down, across), dtype=image.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=means, data=sums, op0=nl.multiply, operand0=1.0 / (pool * pool))
    nisa.dma_copy(dst=result, src=means)
    return result


def reference(image, pool):
    """numpy's mean over a reshaped image."""
    channels, height, width = image.shape
    return image.reshape(channels, height // pool, pool, width // pool, pool).mean(axis=(2, 4))


def main():
    image = np.random.default_rng(0).standard_normal((64, 48, 36), np.float32)
    np.testing.assert_allclose(average_pool2d(image, 3), reference(image, 3), rtol=1e-5, atol=1e-6)
    print("average_pool2d: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
