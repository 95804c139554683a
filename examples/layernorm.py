"""LayerNorm: each row brought to mean 0 and variance 1, then scaled and shifted.

``bn_stats`` gathers mean and variance of up to 512 elements in one pass and
``bn_aggr`` merges several such records, so rows of any length cost one read.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def layernorm(x, gamma, beta, epsilon=1e-5):
    """(x - mean) / sqrt(var + epsilon) * gamma + beta for each row of [rows, columns]."""
    rows, columns = x.shape
    chunk = nl.tile_size.bn_stats_fmax
    chunks = (columns + chunk - 1) // chunk
    assert columns % chunks == 0, f"{columns} columns do not split into {chunks} equal records of bn_stats"
    width = columns // chunks
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)

    gammas = nl.ndarray((nl.tile_size.pmax, columns), dtype=gamma.dtype, buffer=nl.sbuf)
    betas = nl.ndarray((nl.tile_size.pmax, columns), dtype=beta.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=gammas, src=gamma.expand_dim(0).broadcast(0, nl.tile_size.pmax))
    nisa.dma_copy(dst=betas, src=beta.expand_dim(0).broadcast(0, nl.tile_size.pmax))

    for r in range((rows + nl.tile_size.pmax - 1) // nl.tile_size.pmax):
        height = min(nl.tile_size.pmax, rows - r * nl.tile_size.pmax)
        here = nl.ds(r * nl.tile_size.pmax, height)
        tile = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[here])

        records = nl.ndarray((height, 6 * chunks), dtype=nl.float32, buffer=nl.sbuf)
        for c in range(chunks):
            nisa.bn_stats(dst=records[:, nl.ds(6 * c, 6)], data=tile[:, nl.ds(c * width, width)])
        moments = nl.ndarray((height, 2), dtype=nl.float32, buffer=nl.sbuf)
        nisa.bn_aggr(dst=moments, data=records)

        offset = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=offset, value=epsilon)
        scale = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=scale, op=nl.rsqrt, data=moments[:, 1:2], bias=offset)

        centred = nl.ndarray((height, columns), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=centred,
            data=tile,
            op0=nl.subtract,
            operand0=moments[:, 0:1],
            op1=nl.multiply,
            operand1=scale,
        )
        scaled = nl.ndarray((height, columns), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=scaled, data1=centred, data2=gammas[0:height], op=nl.multiply)
        out = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=out, data1=scaled, data2=betas[0:height], op=nl.add)
        nisa.dma_copy(dst=result[here], src=out)
    return result


def reference(x, gamma, beta, epsilon=1e-5):
    """The formula, in float32."""
    mean = x.mean(axis=1, keepdims=True)
    variance = np.square(x - mean).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + np.float32(epsilon)) * gamma + beta


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 1024), np.float32)
    gamma = rng.standard_normal(1024, np.float32)
    beta = rng.standard_normal(1024, np.float32)
    np.testing.assert_allclose(layernorm(x, gamma, beta), reference(x, gamma, beta), rtol=1e-4, atol=1e-5)
    print("layernorm: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
