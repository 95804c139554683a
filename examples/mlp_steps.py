"""A gated MLP on one core, from the formula to the tensor engine's limit in five steps.

    python examples/mlp_steps.py [tokens, 512]

Prints where the simulated time of each step goes. docs/library/how-mlp-got-fast.md tells why each helps;
nkilib.core.mlp.mlp goes on from there: norms, residual, biases, fp8, two cores.

x is [S, H], gate and up are [H, I], down is [I, H], all bf16; H and S are multiples of 512, I of 128.
"""

import sys

import ml_dtypes
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_sim.report.profile import Profile

TILE = 128  # partitions: of a contraction, and of tokens in a result
WIDE = 512  # columns of a product: a bank of PSUM
BLOCK = 512  # tokens that share a load of weights
EARLY = 4  # tiles of gate and of up that are summed at once: their sums fill PSUM
STEPS = ("formula", "fused", "blocks", "layout", "early")


# --- step 1: three products and an activation, each from HBM to HBM ----------------------------------------


@nki.jit
def formula(x, gate, up, down):
    """Step 1: silu(x gate) * (x up), then times down, one after the other; products load their operands."""
    tokens, inner = x.shape[0], gate.shape[1]
    gates, ups = product(x, gate), product(x, up)
    inter = nl.ndarray((tokens, inner), dtype=x.dtype, buffer=nl.hbm)
    for i in range(tokens // TILE):
        rows = nl.ds(i * TILE, TILE)
        a, b = load(gates[rows]), load(ups[rows])
        nisa.activation(dst=a, op=nl.silu, data=a)
        nisa.tensor_tensor(dst=a, data1=a, data2=b, op=nl.multiply)
        nisa.dma_copy(dst=inter[rows], src=a)
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    return product(inter, down, y)


def product(left, right, result=None):
    """left [M, K] @ right [K, N], to HBM."""
    rows, columns = left.shape[0], right.shape[1]
    if result is None:
        result = nl.ndarray((rows, columns), dtype=left.dtype, buffer=nl.hbm)
    for i in range(rows // TILE):
        for first in range(0, columns, WIDE):
            there = nl.ds(first, min(WIDE, columns - first))
            total = nl.ndarray((TILE, there.size), dtype=nl.float32, buffer=nl.psum)
            for k in range(right.shape[0] // TILE):
                contracted = nl.ds(k * TILE, TILE)
                turned = turn(load(left[nl.ds(i * TILE, TILE), contracted]))
                nisa.nc_matmul(dst=total, stationary=turned, moving=load(right[contracted, there]))
            out = nl.ndarray(total.shape, dtype=left.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=out, src=total)
            nisa.dma_copy(dst=result[nl.ds(i * TILE, TILE), there], src=out)
    return result


def load(part):
    """A part of a tensor in HBM, in SBUF."""
    tile = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=part)
    return tile


def turn(tile):
    """[128, n * 128] to [128, n, 128]: blocks of 128 columns transposed by the tensor engine."""
    blocks = tile.shape[1] // TILE
    turned = nl.ndarray((TILE, blocks, TILE), dtype=tile.dtype, buffer=nl.sbuf)
    for first in range(0, blocks, 4):
        count = min(4, blocks - first)
        bank = nl.ndarray((TILE, count, TILE), dtype=tile.dtype, buffer=nl.psum)
        for k in range(count):
            nisa.nc_transpose(dst=bank[:, k], data=tile[:, nl.ds((first + k) * TILE, TILE)])
        nisa.tensor_copy(dst=turned[:, nl.ds(first, count)], src=bank)
    return turned if blocks > 1 else turned.reshape((TILE, TILE))


# --- steps 2 and 3: what belongs to some tokens stays in SBUF ----------------------------------------------


@nki.jit
def fused(x, gate, up, down, tiles):
    """Steps 2 and 3: `tiles` tiles of tokens go all the way together, and share each load of weights."""
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    hidden, inner = gate.shape
    for block in range(x.shape[0] // (tiles * TILE)):
        turned, inter, out = [], [], []
        for t in range(tiles):
            turned.append(turn(load(x[nl.ds((block * tiles + t) * TILE, TILE)])))
            inter.append(nl.ndarray((TILE, inner), dtype=x.dtype, buffer=nl.sbuf))
            out.append(nl.ndarray((TILE, hidden), dtype=x.dtype, buffer=nl.sbuf))
        for first in range(0, inner, WIDE):
            there = nl.ds(first, min(WIDE, inner - first))
            gates, ups = columns(turned, gate, there), columns(turned, up, there)
            for t in range(tiles):
                gated(inter[t][:, there], gates[t], ups[t])
        for t in range(tiles):
            inter[t] = turn(inter[t])
        for first in range(0, hidden, WIDE):
            there = nl.ds(first, WIDE)
            sums = columns(inter, down, there)
            for t in range(tiles):
                nisa.tensor_copy(dst=out[t][:, there], src=sums[t])
        for t in range(tiles):
            nisa.dma_copy(dst=y[nl.ds((block * tiles + t) * TILE, TILE)], src=out[t])
    return y


def columns(turned, weights, there):
    """Some columns of tiles of tokens times weights: the weights are loaded once, tokens are stationary."""
    blocks = weights.shape[0] // TILE
    loaded = nl.ndarray((TILE, blocks, there.size), dtype=weights.dtype, buffer=nl.sbuf)
    for k in range(blocks):
        nisa.dma_copy(dst=loaded[:, k], src=weights[nl.ds(k * TILE, TILE), there])
    sums = []
    for tile in turned:
        total = nl.ndarray((TILE, there.size), dtype=nl.float32, buffer=nl.psum)
        for k in range(blocks):
            nisa.nc_matmul(dst=total, stationary=tile[:, k], moving=loaded[:, k])
        sums.append(total)
    return sums


def gated(dst, gates, ups):
    """silu(gates) * ups."""
    activated = nl.ndarray(gates.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=activated, op=nl.silu, data=gates)
    nisa.tensor_tensor(dst=dst, data1=activated, data2=ups, op=nl.multiply)


# --- steps 4 and 5: weights are stationary first, so that nothing is turned in between ---------------------


@nki.jit
def turned_first(x, gate, up, down, early):
    """Steps 4 and 5: gate and up make their result with I on the partitions, as down contracts it.

    Args:
        early: the first products begin with the first rows of weights (step 5).
    """
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    hidden, inner = gate.shape
    for block in range(x.shape[0] // BLOCK):
        tokens = nl.ds(block * BLOCK, BLOCK)
        turned = nl.ndarray((TILE, hidden // TILE, BLOCK), dtype=x.dtype, buffer=nl.sbuf)
        inter = nl.ndarray((TILE, inner // TILE, BLOCK), dtype=x.dtype, buffer=nl.sbuf)
        done = 0
        if early and block == 0:
            done = min(EARLY, inner // TILE)
            first_products(x[tokens], gate, up, turned, inter, done)
        else:
            for k in range(hidden // TILE):
                nisa.dma_transpose(dst=turned[:, k], src=x[tokens, nl.ds(k * TILE, TILE)])
        for i in range(done, inner // TILE):
            there = nl.ds(i * TILE, TILE)
            sums = []
            for weights in (contracted(gate, there), contracted(up, there)):
                total = nl.ndarray((TILE, BLOCK), dtype=nl.float32, buffer=nl.psum)
                for k in range(hidden // TILE):
                    nisa.nc_matmul(dst=total, stationary=weights[:, k], moving=turned[:, k])
                sums.append(total)
            gated(inter[:, i], sums[0], sums[1])
        for first in range(0, hidden, WIDE):
            there = nl.ds(first, WIDE)
            weights = contracted(down, there)
            for t in range(BLOCK // TILE):
                total = nl.ndarray((TILE, WIDE), dtype=nl.float32, buffer=nl.psum)
                for k in range(inner // TILE):
                    stationary = inter[:, k, nl.ds(t * TILE, TILE)]
                    nisa.nc_matmul(dst=total, stationary=stationary, moving=weights[:, k])
                out = nl.ndarray((TILE, WIDE), dtype=x.dtype, buffer=nl.sbuf)
                nisa.tensor_copy(dst=out, src=total)
                nisa.dma_copy(dst=y[nl.ds(block * BLOCK + t * TILE, TILE), there], src=out)
    return y


def first_products(x, gate, up, turned, inter, count):
    """The first `count` tiles of inter; the contraction is outside: 128 of H are used once they are there."""
    columns = nl.ds(0, count * TILE)
    sums = []
    for _ in range(2 * count):
        sums.append(nl.ndarray((TILE, BLOCK), dtype=nl.float32, buffer=nl.psum))
    for k in range(gate.shape[0] // TILE):
        rows = nl.ds(k * TILE, TILE)
        nisa.dma_transpose(dst=turned[:, k], src=x[:, rows])
        gates, ups = load(gate[rows, columns]), load(up[rows, columns])
        for i in range(count):
            part = nl.ds(i * TILE, TILE)
            nisa.nc_matmul(dst=sums[2 * i], stationary=gates[:, part], moving=turned[:, k])
            nisa.nc_matmul(dst=sums[2 * i + 1], stationary=ups[:, part], moving=turned[:, k])
    for i in range(count):
        gated(inter[:, i], sums[2 * i], sums[2 * i + 1])


def contracted(weights, there):
    """Some columns of weights in SBUF in one transfer, [128, blocks, columns]."""
    blocks, width = weights.shape[0] // TILE, weights.shape[1]
    loaded = nl.ndarray((TILE, blocks, there.size), dtype=weights.dtype, buffer=nl.sbuf)
    source = weights.ap(pattern=[[width, TILE], [TILE * width, blocks], [1, there.size]], offset=there.start)
    nisa.dma_copy(dst=loaded, src=source)
    return loaded


def run(step, x, gate, up, down):
    """The result of a step."""
    if step == "formula":
        return formula(x, gate, up, down)
    if step in ("fused", "blocks"):
        return fused(x, gate, up, down, tiles=1 if step == "fused" else BLOCK // TILE)
    return turned_first(x, gate, up, down, early=step == "early")


def operands(tokens, hidden, inner, data=True):
    """x, gate, up and down; zeros without `data`."""
    rng = np.random.default_rng(0)
    shapes = ((tokens, hidden), (hidden, inner), (hidden, inner), (inner, hidden))
    if not data:
        return [np.zeros(shape, ml_dtypes.bfloat16) for shape in shapes]
    x, *weights = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return [part.astype(ml_dtypes.bfloat16) for part in (x, *(w / np.sqrt(len(w)) for w in weights))]


def table(tokens, hidden=4096, inner=1792):
    """Time of each step without the arithmetic, in Markdown; the sizes are Llama-3 8B's on 8 ranks."""
    arguments = operands(tokens, hidden, inner, data=False)
    lines = [
        f"| step | {tokens} tokens, us | of the peak | tensor | vector | DMA | HBM read, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for step in STEPS:
        with session(timing=True, data=False) as record:
            run(step, *arguments)
        found = Profile.of(record.launches[-1].timeline)
        active = (found.engines["tensor"].active, found.engines["vector"].active, found.dma.active)
        busy = " | ".join(f"{100 * time / found.duration:.0f} %" for time in active)
        share = 1e5 * least(tokens, hidden, inner) / found.duration
        read = found.hbm_read_bytes / 1e6
        lines.append(f"| {step} | {found.duration / 1e3:.1f} | {share:.1f} % | {busy} | {read:.0f} |")
    return "\n".join(lines)


def least(tokens, hidden=4096, inner=1792):
    """Microseconds that the three products take at the tensor engine's bf16 peak of 78.64 TFLOPS."""
    return 3 * 2 * tokens * hidden * inner / 78.64e6


def reference(x, gate, up, down):
    """The formula, in float32."""
    x, gate, up, down = (part.astype(np.float32) for part in (x, gate, up, down))
    gates = x @ gate
    return (gates / (1 + np.exp(-gates)) * (x @ up)) @ down


def main():
    arguments = operands(512, 512, 384)
    expected = reference(*arguments)
    for step in STEPS:
        error = np.abs(run(step, *arguments).astype(np.float32) - expected).max() / np.abs(expected).max()
        assert error < 2**-6, f"{step} differs from numpy by {error:.4f} of the largest value"
    print("mlp_steps: every step equal to numpy within bf16 rounding")
    print(table(int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 512))


if __name__ == "__main__":
    main()
