"""A selective scan, the recurrence of a Mamba layer.

For every channel and state, with step sizes `delta`:

    h[t] = exp(delta[t] * a) * h[t-1] + delta[t] * u[t] * b[t]
    y[t] = sum over states of h[t] * c[t]

Channels lie on partitions and time on the free dimension, so the recurrence is one
``tensor_tensor_scan`` per state. `b` and `c` are shared by all channels: a DMA
repeats their rows over the partitions.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def selective_scan(delta, u, a, b, c):
    """delta and u are [channels, time], a is [channels, states], b and c are [states, time]."""
    channels, time = delta.shape
    states = a.shape[1]
    y = nl.ndarray((channels, time), dtype=delta.dtype, buffer=nl.shared_hbm)
    for g in range((channels + nl.tile_size.pmax - 1) // nl.tile_size.pmax):
        height = min(nl.tile_size.pmax, channels - g * nl.tile_size.pmax)
        here = nl.ds(g * nl.tile_size.pmax, height)
        delta_tile = load(delta[here])
        u_tile = load(u[here])
        a_tile = load(a[here])
        drive = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=drive, data1=delta_tile, data2=u_tile, op=nl.multiply)

        total = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=total, value=0.0)
        for s in range(states):
            decay = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
            nisa.activation(dst=decay, op=nl.exp, data=delta_tile, scale=a_tile[:, s : s + 1])
            b_rows = load(b[s : s + 1].broadcast(0, height))
            c_rows = load(c[s : s + 1].broadcast(0, height))
            driven = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_tensor(dst=driven, data1=drive, data2=b_rows, op=nl.multiply)
            state = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_tensor_scan(
                dst=state, data0=decay, data1=driven, initial=0.0, op0=nl.multiply, op1=nl.add
            )
            seen = nl.ndarray((height, time), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_tensor(dst=seen, data1=state, data2=c_rows, op=nl.multiply)
            nisa.tensor_tensor(dst=total, data1=total, data2=seen, op=nl.add)
        nisa.dma_copy(dst=y[here], src=total)
    return y


def load(src):
    """A tile of HBM in SBUF."""
    tile = nl.ndarray(src.shape, dtype=src.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=src)
    return tile


def reference(delta, u, a, b, c):
    """The recurrence, step by step."""
    channels, time = delta.shape
    h = np.zeros((channels, a.shape[1]), np.float32)
    y = np.empty((channels, time), np.float32)
    for t in range(time):
        step = delta[:, t : t + 1]
        h = np.exp(step * a) * h + step * u[:, t : t + 1] * b[:, t]
        y[:, t] = (h * c[:, t]).sum(axis=1)
    return y


def main():
    rng = np.random.default_rng(0)
    channels, time, states = 256, 512, 16
    delta = rng.uniform(0.01, 0.2, (channels, time)).astype(np.float32)
    u = rng.standard_normal((channels, time), np.float32)
    a = -rng.uniform(0.5, 2.0, (channels, states)).astype(np.float32)
    b, c = (rng.standard_normal((states, time), np.float32) for _ in range(2))
    np.testing.assert_allclose(
        selective_scan(delta, u, a, b, c), reference(delta, u, a, b, c), rtol=1e-4, atol=1e-4
    )
    print("selective_scan: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
