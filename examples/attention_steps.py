"""Causal attention of one head, from the formula to the tensor engine's limit in five steps.

    python examples/attention_steps.py [sequence length, 1024]

Prints the simulated time of each step. docs/library/how-attention-got-fast.md tells why each helps;
nkilib.core.attention.attention_cte is the last one with every option of the library.

q and k are [d, n], v is [n, d], d at most 128, n a multiple of 512 (up to 8192 in step 1), bf16.
"""

import math
import sys

import ml_dtypes
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session

TILE = 128
UNIT = 8  # blocks of keys worked on together: 1024 fp32 scores are two banks of PSUM
MASKED = -(2.0**100)
STEPS = ("formula", "flash", "pipeline", "transposes", "halves")


@nki.jit
def formula(q, k, v):
    """Step 1: a tile of 128 queries against all keys, one operation after the other."""
    d, n = q.shape
    out = nl.ndarray((n, d), dtype=q.dtype, buffer=nl.shared_hbm)
    q_sb, k_sb, v_sb = _load(q, k, v)
    for i in range(n // TILE):
        scores = nl.ndarray((TILE, n), dtype=nl.float32, buffer=nl.sbuf)
        for j in range(n // 512):
            product = nl.ndarray((TILE, 512), dtype=nl.float32, buffer=nl.psum)
            queries = q_sb[:, nl.ds(i * TILE, TILE)]
            nisa.nc_matmul(dst=product, stationary=queries, moving=k_sb[:, nl.ds(j * 512, 512)])
            nisa.tensor_copy(dst=scores[:, nl.ds(j * 512, 512)], src=product)
        masked = nl.ndarray((TILE, n), dtype=nl.float32, buffer=nl.sbuf)
        nisa.affine_select(
            dst=masked, pattern=[[-1, n]], offset=i * TILE, channel_multiplier=1, on_true_tile=scores,
            on_false_value=MASKED, cmp_op=nl.greater_equal,
        )  # fmt: skip
        largest = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=largest, op=nl.maximum, data=masked, axis=1, negate=True)
        weights = nl.ndarray((TILE, n), dtype=q.dtype, buffer=nl.sbuf)
        nisa.activation(dst=weights, op=nl.exp, data=masked, bias=largest)
        total = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.psum)
        for j in range(n // TILE):
            turned = nl.ndarray((TILE, TILE), dtype=q.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=turned, data=weights[:, nl.ds(j * TILE, TILE)])
            there = nl.ndarray((TILE, TILE), dtype=q.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=there, src=turned)
            nisa.nc_matmul(dst=total, stationary=there, moving=v_sb[:, j, :])
        _divide(out, i, total)
    return out


@nki.jit
def stepwise(q, k, v, lag, on_tensor, halves):
    """Steps 2 to 5: scores in PSUM only, a unit of keys at a time, with a running maximum.

    Args:
        lag: units between the scores of one and its product with the values.
        on_tensor: of 16 blocks of weights, those transposed on the tensor engine; DMA does the others.
        halves: the maximum is taken of the upper halves of the scores, and gpsimd keeps the sums.
    """
    d, n = q.shape
    out = nl.ndarray((n, d), dtype=q.dtype, buffer=nl.shared_hbm)
    q_sb, k_sb, v_sb = _load(q, k, v)
    identity, mask = _diagonal()
    units = []
    for i in range(n // TILE):
        count = i // UNIT + 1  # units of nearly equal size, up to the diagonal
        for part in range(count):
            first, last = (i + 1) * part // count, (i + 1) * (part + 1) // count
            units.append({"tile": i, "first": first, "blocks": last - first, "last": part == count - 1})
    state = {"largest": None, "total": None}
    for step in range(len(units) + lag):
        if step >= lag and halves:
            _decay(state, units[step - lag], d, True)
        if step < len(units):
            _scores(units[step], step, state, q_sb, k_sb, identity, mask, on_tensor, halves)
        turn = step - min(lag, 3)
        if 0 <= turn < len(units):
            _turn(units[turn], turn)
        if step >= lag:
            unit = units[step - lag]
            if not halves:
                _decay(state, unit, d, False)
            _values(state, unit, v_sb, d, step - lag)
            if unit["last"]:
                _divide(out, unit["tile"], state["total"])
    return out


def _load(q, k, v):
    d, n = q.shape
    q_sb = nl.ndarray((d, n), dtype=q.dtype, buffer=nl.sbuf)
    k_sb = nl.ndarray((d, n), dtype=k.dtype, buffer=nl.sbuf)
    v_sb = nl.ndarray((TILE, n // TILE, d + 1), dtype=v.dtype, buffer=nl.sbuf)
    nisa.memset(dst=v_sb[:, :, d : d + 1], value=1.0)  # its column sums the weights
    for i in range(0, n, 512):
        nisa.dma_copy(dst=q_sb[:, nl.ds(i, 512)], src=q[:, nl.ds(i, 512)])
        nisa.dma_copy(dst=k_sb[:, nl.ds(i, 512)], src=k[:, nl.ds(i, 512)])
        rows = v.ap(pattern=[[d, TILE], [TILE * d, 4], [1, d]], offset=i * d)
        nisa.dma_copy(dst=v_sb[:, nl.ds(i // TILE, 4), 0:d], src=rows)
    return q_sb, k_sb, v_sb


def _diagonal():
    """The identity, and 0 on and below the diagonal, MASKED above: their product is the mask of a block."""
    identity = nl.ndarray((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
    mask = nl.ndarray((TILE, TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.memset(dst=identity, value=1.0)
    nisa.memset(dst=mask, value=0.0)
    nisa.affine_select(
        dst=identity, pattern=[[-1, TILE]], offset=0, channel_multiplier=1, on_true_tile=identity,
        on_false_value=0.0, cmp_op=nl.equal,
    )  # fmt: skip
    nisa.affine_select(
        dst=mask, pattern=[[-1, TILE]], offset=0, channel_multiplier=1, on_true_tile=mask,
        on_false_value=MASKED, cmp_op=nl.greater_equal,
    )  # fmt: skip
    return identity, mask


def _scores(unit, number, state, q_sb, k_sb, identity, mask, on_tensor, halves):
    columns = unit["blocks"] * TILE
    bank = nl.ndarray((TILE, UNIT * TILE), nl.float32, buffer=nl.psum, address=(0, number % 3 * 4096))
    queries = q_sb[:, nl.ds(unit["tile"] * TILE, TILE)]
    for first in range(0, columns, 512):
        width = min(512, columns - first)
        there = nl.ds(unit["first"] * TILE + first, width)
        nisa.nc_matmul(dst=bank[:, nl.ds(first, width)], stationary=queries, moving=k_sb[:, there])
    if unit["last"]:
        nisa.nc_matmul(dst=bank[:, nl.ds(columns - TILE, TILE)], stationary=identity, moving=mask)
    largest = nl.ndarray((TILE, 1), dtype=nl.bfloat16 if halves else nl.float32, buffer=nl.sbuf)
    scores = bank[:, 0:columns]
    if halves:
        scores = bank.ap(pattern=[[2 * UNIT * TILE, TILE], [2, columns]], offset=1, dtype=nl.bfloat16)
    nisa.tensor_reduce(dst=largest, op=nl.maximum, data=scores, axis=1, negate=True)
    engine = nisa.gpsimd_engine if halves else nisa.vector_engine
    unit["decay"] = None
    if unit["first"] > 0:
        before = state["largest"]
        both = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=both, data1=largest, data2=before, op=nl.minimum, engine=engine)
        change = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=change, data1=both, data2=before, op=nl.subtract, engine=engine)
        unit["decay"] = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        if halves:
            nisa.tensor_scalar(
                dst=unit["decay"], data=change, op0=nl.power, operand0=math.e, reverse0=True, engine=engine
            )
        else:
            nisa.activation(dst=unit["decay"], op=nl.exp, data=change)
        largest = both
    state["largest"] = largest
    unit["weights"] = nl.ndarray((TILE, columns), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.activation(dst=unit["weights"], op=nl.exp, data=bank[:, 0:columns], bias=largest)
    unit["turned"] = nl.ndarray((TILE, unit["blocks"], TILE), dtype=nl.bfloat16, buffer=nl.sbuf)
    unit["here"] = (on_tensor * unit["blocks"] + 8 * (number % 2)) // 16
    away = unit["blocks"] - unit["here"]
    if away > 0:
        weights = unit["weights"][:, 0 : away * TILE].reshape((TILE, away, TILE))
        nisa.dma_transpose(dst=unit["turned"][:, 0:away, :], src=weights)


def _turn(unit, number):
    here, away = unit["here"], unit["blocks"] - unit["here"]
    for first in range(0, here, 4):
        count = min(4, here - first)
        bank = nl.ndarray((TILE, 2, 4, TILE), nl.bfloat16, buffer=nl.psum, address=(0, 6 * 2048))
        slot = (number + first // 4) % 2
        for i in range(count):
            block = nl.ds((away + first + i) * TILE, TILE)
            nisa.nc_transpose(dst=bank[:, slot, i, :], data=unit["weights"][:, block])
        there = unit["turned"][:, nl.ds(away + first, count), :]
        nisa.tensor_copy(dst=there, src=bank[:, slot, 0:count, :])


def _decay(state, unit, d, on_gpsimd):
    if unit["decay"] is None:
        return
    unit["before"] = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.sbuf)
    engine = nisa.gpsimd_engine if on_gpsimd else nisa.vector_engine
    decay = unit["decay"].ap(pattern=[[1, TILE], [0, d + 1]])
    nisa.tensor_tensor(dst=unit["before"], data1=state["total"], data2=decay, op=nl.multiply, engine=engine)


def _values(state, unit, v_sb, d, number):
    bank = nl.ndarray((TILE, 3, d + 1), nl.float32, buffer=nl.psum, address=(0, 7 * 2048))
    product = bank[:, number % 3, :]
    for block in range(unit["blocks"]):
        weights = unit["turned"][:, block, :]
        nisa.nc_matmul(dst=product, stationary=weights, moving=v_sb[:, unit["first"] + block, :])
    state["total"] = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.sbuf)
    if unit["decay"] is None:
        nisa.tensor_copy(dst=state["total"], src=product)
    else:
        nisa.tensor_tensor(dst=state["total"], data1=unit["before"], data2=product, op=nl.add)


def _divide(out, i, total):
    d = out.shape[1]
    here = nl.ndarray((TILE, d + 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=here, src=total)
    part = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=part, data=here[:, d : d + 1], op0=nl.power, operand0=-1.0, engine=nisa.gpsimd_engine
    )
    result = nl.ndarray((TILE, d), dtype=out.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(
        dst=result, data1=here[:, 0:d], data2=part.ap(pattern=[[1, TILE], [0, d]]), op=nl.multiply,
        engine=nisa.gpsimd_engine,
    )  # fmt: skip
    nisa.dma_copy(dst=out[nl.ds(i * TILE, TILE)], src=result)


def run(step, q, k, v):
    """The result of a step."""
    if step == "formula":
        return formula(q, k, v)
    lag, on_tensor, halves = {
        "flash": (0, 16, False),
        "pipeline": (6, 16, False),
        "transposes": (8, 5, False),
        "halves": (8, 5, True),
    }[step]
    return stepwise(q, k, v, lag, on_tensor, halves)


def times(n, d=128):
    """Simulated microseconds of each step, without the arithmetic."""
    q, v = np.zeros((d, n), ml_dtypes.bfloat16), np.zeros((n, d), ml_dtypes.bfloat16)
    found = {}
    for step in STEPS:
        with session(timing=True, data=False) as record:
            run(step, q, q, v)
        found[step] = record.launches[-1].timeline.duration / 1e3
    return found


def least(n, d=128):
    """Microseconds that the two products take at the tensor engine's bf16 peak of 78.64 TFLOPS."""
    return 2 * 2 * d * n * (n + 1) / 2 / 78.64e6


def reference(q, k, v):
    """The formula, in float32."""
    scores = q.astype(np.float32).T @ k.astype(np.float32)
    scores[np.triu_indices(len(scores), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v.astype(np.float32)


def main():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 64, 1536)).astype(ml_dtypes.bfloat16)
    v = rng.standard_normal((1536, 64)).astype(ml_dtypes.bfloat16)
    for step in STEPS:
        result = run(step, q, k, v).astype(np.float32)
        np.testing.assert_allclose(result, reference(q, k, v), rtol=2e-2, atol=2e-2)
    print("attention_steps: every step equal to numpy within bf16 rounding")
    length = int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 1024
    for name, time in times(length).items():
        print(f"{name:12}{time:10.1f} us   {least(length) / time:6.1%} of the peak at {length} keys")


if __name__ == "__main__":
    main()
