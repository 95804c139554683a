"""Instructions that reduce onto the vector and scalar engines' registers, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import FLOATS, State, dst_of, fp32, plain, run, same, shapes, tensor, tiles

from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.enums import Engine, reduce_cmd
from nki_isa.machine.targets import TRN1, TRN3
from nki_isa.ops.accumulate import exponential, tensor_scalar_cumulative, tensor_scalar_reduce
from nki_isa.ops.activation import activate2

NUMPY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
IDENTITY = {"add": 0, "subtract": 0, "multiply": 1, "maximum": -np.inf, "minimum": np.inf}
REDUCTIONS = ["add", "multiply", "maximum", "minimum"]
COMMANDS = [reduce_cmd.reset_reduce, reduce_cmd.reduce, reduce_cmd.load_reduce]
small = shapes(st.integers(1, 5), st.integers(1, 2))


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def start_of_registers(op, command, lanes, initial):
    """What the registers hold before the reduction; State starts them at 0.5 in these tests."""
    value = {reduce_cmd.reset_reduce: IDENTITY[op], reduce_cmd.reduce: 0.5, reduce_cmd.load_reduce: initial}[
        command
    ]
    return np.full(lanes, value, np.float64)


def half_full_state():
    state = State()
    for registers in state.accumulators.values():
        registers[:] = 0.5
    return state


@given(
    st.data(), small, st.sampled_from(FLOATS), st.sampled_from(sorted(NUMPY)), st.sampled_from(REDUCTIONS),
    st.sampled_from(COMMANDS), st.booleans(),
)  # fmt: skip
def test_tensor_scalar_reduce(data, shape, to, op0, reduce_op, command, negate):
    tile = data.draw(tiles(shape, "float32"))
    operand0 = data.draw(tiles((shape[0], 1), "float32"))
    initial = 2.0 if command is reduce_cmd.load_reduce else None
    state = half_full_state()
    dst, got = run(
        tensor_scalar_reduce(
            dst_of(shape, to), tile, op0, operand0, reduce_op, dst_of((shape[0], 1)), reduce_cmd=command,
            reduce_init=initial, reduce_res_negate=negate,
        ),
        state,
    )  # fmt: skip
    result = NUMPY[op0](fp32(tile), fp32(operand0).reshape(-1, *[1] * (len(shape) - 1)))
    with np.errstate(all="ignore"):
        same(dst, cast(result, DTYPES[to]))
    expected = start_of_registers(reduce_op, command, shape[0], initial)
    for lane in range(shape[0]):
        for value in result[lane].ravel():
            expected[lane] = NUMPY[reduce_op](expected[lane], np.float64(value))
    close(got[:, 0], -expected if negate else expected)
    close(state.accumulators[Engine.vector][: shape[0]], expected)
    assert (state.accumulators[Engine.vector][shape[0] :] == 0.5).all()


@given(
    st.data(),
    small,
    st.sampled_from(sorted(NUMPY)),
    st.sampled_from(sorted(NUMPY)),
    st.sampled_from(COMMANDS),
)
def test_tensor_scalar_cumulative(data, shape, op0, op1, command):
    tile = data.draw(tiles(shape, "bfloat16"))
    imm0 = data.draw(tiles((shape[0], 1), "float32"))
    initial = -3.0 if command is reduce_cmd.load_reduce else None
    state = half_full_state()
    got = run(tensor_scalar_cumulative(dst_of(shape), tile, op0, op1, imm0, initial, command), state)
    flat = NUMPY[op0](fp32(tile).reshape(shape[0], -1), fp32(imm0)).astype(np.float32)
    register = start_of_registers(op1, command, shape[0], initial).astype(np.float32)
    expected = np.empty_like(flat)
    for i in range(flat.shape[1]):
        register = NUMPY[op1](flat[:, i], register)
        expected[:, i] = register
    same(got.reshape(flat.shape), expected)
    same(state.accumulators[Engine.vector][: shape[0]], register)


def test_cumulative_sum():
    tile = tensor(1, 4, contents=np.array([1, 2, 3, 4], np.float32))
    assert run(tensor_scalar_cumulative(dst_of((1, 4)), tile, "multiply", "add", 2.0)).tolist() == [
        [2, 6, 12, 20]
    ]


@given(st.data(), small, st.sampled_from([*COMMANDS, reduce_cmd.idle]))
def test_exponential(data, shape, command):
    tile = data.draw(tiles(shape, "bfloat16"))
    top = data.draw(tiles((shape[0], 1), "float32"))
    initial = 2.0 if command is reduce_cmd.load_reduce else 0.0
    state = half_full_state()
    dst, got = run(
        exponential(dst_of(shape), tile, top, dst_of((shape[0], 1)), command, initial), state, check=TRN3
    )
    expected = np.exp(fp32(tile).astype(np.float64) - fp32(top).reshape(-1, *[1] * (len(shape) - 1)))
    np.testing.assert_allclose(dst, expected, rtol=1e-5)
    before = {reduce_cmd.reset_reduce: 0, reduce_cmd.load_reduce: 2}.get(command, 0.5)
    added = 0 if command is reduce_cmd.idle else expected.reshape(shape[0], -1).sum(axis=1)
    np.testing.assert_allclose(got[:, 0], before + added, rtol=1e-5)


PAIRS = [
    ("multiply", "add"),
    ("multiply", "subtract"),
    ("multiply", "bypass"),
    ("add", "bypass"),
    ("subtract", "bypass"),
    ("bypass", "bypass"),
]


@given(st.data(), small, st.sampled_from(PAIRS), st.booleans(), st.booleans())
def test_activate2(data, shape, pair, reverse0, reverse1):
    tile = data.draw(tiles(shape, "bfloat16"))
    imm0, imm1 = (data.draw(tiles((shape[0], 1), "float32")) for _ in range(2))
    flags = (reverse0 and pair[0] != "bypass", reverse1 and pair[1] != "bypass")
    state = half_full_state()
    dst, top = run(
        activate2(
            dst_of(shape), "prelu", tile, imm0, imm1, *pair, 0.25, *flags, "maximum", dst_of((shape[0], 1)),
            reduce_cmd.reduce,
        ),
        state,
        check=TRN3,
    )  # fmt: skip
    value = fp32(tile)
    for op, imm, reverse in zip(pair, (imm0, imm1), flags, strict=True):
        if op != "bypass":
            arguments = (value, fp32(imm).reshape(-1, *[1] * (len(shape) - 1)))
            value = NUMPY[op](*(arguments[::-1] if reverse else arguments))
    expected = np.where(value >= 0, value, value * np.float32(0.25))
    same(dst, expected)
    same(top[:, 0], np.maximum(expected.reshape(shape[0], -1).max(axis=1), 0.5))


def test_activate2_reduces_by_magnitude():
    tile = tensor(1, 3, contents=np.array([1, -5, 4], np.float32))
    arguments = ("copy", tile, 0.0, 0.0, "bypass", "bypass")
    for op, expected in (("abs_max", -5), ("abs_min", 1)):
        _, got = run(
            activate2(
                dst_of((1, 3)), *arguments, reduce_op=op, reduce_res=dst_of((1, 1)),
                reduce_cmd=reduce_cmd.reset_reduce,
            ),
            check=TRN3,
        )  # fmt: skip
        assert got == expected


def test_costs():
    wide = tensor(128, 512)
    without = tensor_scalar_reduce(wide, wide, "add", 1.0, "add").cost(TRN1).busy
    reading = tensor_scalar_reduce(wide, wide, "add", 1.0, "add", dst_of((128, 1))).cost(TRN1).busy
    assert without == pytest.approx((512 + 64) / 1.12) and reading == pytest.approx((512 + 128) / 1.12)
    fast = exponential(wide, wide).cost(TRN3)
    assert fast.busy == pytest.approx(128 / 1.2 + TRN3.vector_interval)
    assert activate2(wide, "gelu", wide, 1.0, 0.0, "multiply", "add").cost(TRN3).table == "gelu"


@pytest.mark.parametrize(("start", "count"), [(32, 32), (64, 64), (96, 32), (64, 5)])
def test_the_first_lanes_serve_tiles_wherever_they_start(start, count):
    """The register of lane p goes with the p-th partition of a tile, in every quadrant."""
    state, data = State(), tensor(128, 4, contents=np.arange(512, dtype=np.float32).reshape(128, 4))
    there, here = data[start : start + count], data[:count]
    reduction = {"op0": "add", "operand0": 0.0, "reduce_op": "add"}
    run(tensor_scalar_reduce(dst_of((count, 4)), there, **reduction), state)
    total = dst_of((count, 1))
    going_on = tensor_scalar_reduce(
        dst_of((count, 4)), here, reduce_res=total, reduce_cmd=reduce_cmd.reduce, **reduction
    )
    same(run(going_on, state)[1], (plain(there) + plain(here)).sum(axis=1, keepdims=True))
