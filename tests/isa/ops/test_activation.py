"""Activation instructions against plain numpy, and the accumulator registers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import FLOATS, NUMERIC, PSUM, SBUF, State, dst_of, fp32, run, same, shapes, tensor, tiles

from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.enums import Engine, reduce_cmd
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.ops.accumulate import tensor_scalar_reduce
from nki_isa.ops.activation import activation, activation_reduce

EXACT = {
    "copy": lambda x: x,
    "square": np.square,
    "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "tanh": np.tanh,
}
regions = st.sampled_from([SBUF, PSUM])


@given(
    st.data(),
    shapes(),
    st.sampled_from(NUMERIC),
    st.sampled_from(FLOATS),
    st.sampled_from(sorted(EXACT)),
    regions,
)
def test_activation(data, shape, dtype, to, op, region):
    tile = data.draw(tiles(shape, dtype, region))
    scale = data.draw(st.one_of(st.floats(-2, 2, width=32), tiles((shape[0], 1), "float32")))
    bias = data.draw(st.one_of(st.none(), st.floats(-2, 2, width=32), tiles((shape[0], 1), "bfloat16")))
    got = run(activation(dst_of(shape, to), op, tile, bias, scale))

    def scalar(value):
        return (
            np.float32(value)
            if isinstance(value, float)
            else fp32(value).reshape(-1, *[1] * (len(shape) - 1))
        )

    with np.errstate(all="ignore"):
        value = fp32(tile) * scalar(scale)
        expected = EXACT[op](value if bias is None else value + scalar(bias)).astype(np.float32)
        same(got, cast(expected, DTYPES[to]))


@given(st.data(), shapes())
def test_reduction_commands(data, shape):
    tile = data.draw(tiles(shape, "float32"))
    lanes = shape[0]
    state = State()
    state.accumulators[Engine.scalar][:] = np.arange(128)
    elements = fp32(tile).reshape(lanes, -1)

    def summed(start):
        """`start` plus one element after the other, in float32."""
        steps = np.concatenate([np.reshape(start, (-1, 1)) * np.ones((lanes, 1)), elements], axis=1)
        return np.add.accumulate(steps.astype(np.float32), axis=1)[:, -1]

    def registers(command, reduce_op="add"):
        _, result = run(
            activation(
                dst_of(shape),
                "copy",
                tile,
                reduce_op=reduce_op,
                reduce_res=dst_of((lanes, 1)),
                reduce_cmd=command,
            ),
            state,
        )
        return result[:, 0]

    same(registers(reduce_cmd.idle, None), np.arange(lanes))
    same(registers(reduce_cmd.reduce), summed(np.arange(lanes)))
    same(registers(reduce_cmd.reset_reduce), summed(0))
    same(registers(reduce_cmd.reduce), summed(summed(0)))
    same(registers(reduce_cmd.reset, None), np.zeros(lanes))
    assert (state.accumulators[Engine.scalar][lanes:] == np.arange(lanes, 128)).all()


def test_registers_persist_without_a_result_tile():
    state = State()
    tile = tensor(2, 3, contents=np.ones((2, 3), np.float32))
    for command in (reduce_cmd.reset_reduce, reduce_cmd.reduce):
        run(activation(dst_of((2, 3)), "copy", tile, reduce_op="add", reduce_cmd=command), state)
    assert state.accumulators[Engine.scalar][:3].tolist() == [6, 6, 0]


def test_activation_reduce_sums_float32_before_the_cast():
    tile = tensor(1, 2, contents=np.array([1.0, 2.0**-9], np.float32))
    dst, total = run(
        activation_reduce(dst_of((1, 2), "bfloat16"), "square", tile, "add", dst_of((1, 1)), scale=2.0)
    )
    same(dst, [[4, 2.0**-16]])
    assert total == np.float32(4 + 2.0**-16)


def test_activation_reduce_of_the_sum_of_exponentials():
    generator = np.random.default_rng(0)
    tile = tensor(128, 512, contents=generator.standard_normal((128, 512)).astype(np.float32))
    bias = tensor(128, 1, contents=-np.ones((128, 1), np.float32))
    dst, total = run(activation_reduce(dst_of((128, 512)), "exp", tile, "add", dst_of((128, 1)), bias=bias))
    expected = np.exp(fp32(tile).astype(np.float64) - 1)
    np.testing.assert_allclose(dst, expected, rtol=1e-6)
    same(total, np.add.accumulate(dst, axis=1)[:, -1:])  # one after the other, in float32


def test_a_reduction_goes_on_from_its_register():
    """Where what the register holds is large, small values are added one by one and lost."""
    state, ones = State(), tensor(1, 4, contents=np.ones((1, 4), np.float32))
    for engine in (Engine.scalar, Engine.vector):
        state.accumulators[engine][0] = 2.0**24
    reduction = {"reduce_op": "add", "reduce_res": dst_of((1, 1)), "reduce_cmd": reduce_cmd.reduce}
    assert run(activation(dst_of((1, 4)), "copy", ones, **reduction), state)[1] == 2.0**24
    going_on = tensor_scalar_reduce(dst_of((1, 4)), ones, "multiply", 1.0, **reduction)
    assert run(going_on, state)[1] == 2.0**24


def test_prelu_has_slope_zero():
    tile = tensor(1, 2, contents=np.array([-1.0, 2.0], np.float32))
    same(run(activation(dst_of((1, 2)), "prelu", tile)), [[0, 2]])


# --- costs


@pytest.mark.parametrize(
    "op, region, bias, busy, latency",
    [
        ("copy", PSUM, False, 475, 586),
        ("exp", PSUM, True, 569, 686),
        ("exp", SBUF, True, 612, 707),
    ],
)
def test_costs_measured_on_trn2(op, region, bias, busy, latency):
    tile = tensor(128, 512, region=region)
    cost = activation(dst_of((128, 512)), op, tile, bias=tensor(128, 1) if bias else None).cost(TRN2)
    assert cost.busy == pytest.approx(busy, rel=0.03)
    assert cost.latency == pytest.approx(latency, rel=0.03)
    assert cost.table == (None if op == "copy" else op)


def test_reading_the_accumulators_costs_64_cycles():
    tile = tensor(128, 512)
    plain = activation(dst_of((128, 512)), "copy", tile).cost(TRN1)
    reading = activation_reduce(dst_of((128, 512)), "copy", tile, "add", dst_of((128, 1))).cost(TRN1)
    assert reading.busy - plain.busy == pytest.approx(64 / 1.4)
