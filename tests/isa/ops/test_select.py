"""Predicated copies and selections against numpy's where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import (
    FLOATS,
    PSUM,
    State,
    dst_of,
    fp32,
    plain,
    run,
    same,
    shapes,
    tensor,
    tiles,
    values,
)

from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.enums import Engine, reduce_cmd
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.ops.select import FP32_MIN, range_select, select_reduce, tensor_copy_predicated


def predicates(data, shape, dtype="uint8"):
    return data.draw(tiles(shape, dtype, PSUM))


@given(st.data(), shapes(), st.sampled_from([*FLOATS, "int32", "uint8"]), st.booleans(), st.booleans())
def test_tensor_copy_predicated(data, shape, dtype, reverse, from_number):
    predicate = predicates(data, shape, data.draw(st.sampled_from(["uint8", "uint16", "uint32"])))
    old = values(dtype, shape, 3)
    dst = tensor(*shape, dtype=dtype, contents=old)
    src = 2.5 if from_number else data.draw(tiles(shape, dtype))
    got = run(tensor_copy_predicated(dst, src, predicate, reverse))
    new = cast(np.full(shape, 2.5, np.float32), DTYPES[dtype]) if from_number else plain(src)
    same(got, np.where((plain(predicate) != 0) != reverse, new, old))


def test_tensor_copy_predicated_takes_operands_of_other_ranks():
    predicate = tensor(2, 2, 2, dtype="uint8", contents=np.array([0, 1, 0, 1, 1, 0, 1, 0], np.uint8))
    src = tensor(2, 4, contents=np.arange(8, dtype=np.float32))
    got = run(tensor_copy_predicated(dst_of((2, 1, 2, 2)), src, predicate))
    assert got.reshape(2, 4).tolist() == [[0, 1, 0, 3], [4, 0, 6, 0]]


@given(st.data(), shapes(), st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.booleans())
def test_select_reduce(data, shape, dtype, to, reverse):
    predicate = predicates(data, shape, data.draw(st.sampled_from(["uint8", "int8", "uint16", "int16"])))
    on_true = data.draw(tiles(shape, dtype))
    on_false = data.draw(st.one_of(st.floats(-3, 3, width=32), tiles((shape[0], 1), "float32")))
    state = State()
    dst, top = run(
        select_reduce(
            dst_of(shape, to), predicate, on_true, on_false, dst_of((shape[0], 1)), reduce_cmd.reset_reduce,
            reverse_pred=reverse,
        ),
        state,
    )  # fmt: skip
    other = on_false if isinstance(on_false, float) else fp32(on_false).reshape(-1, *[1] * (len(shape) - 1))
    expected = np.where((plain(predicate) != 0) != reverse, fp32(on_true), np.float32(other))
    same(dst, cast(expected, DTYPES[to]))
    same(top[:, 0], expected.reshape(shape[0], -1).max(axis=1))
    same(state.accumulators[Engine.vector][: shape[0]], top[:, 0])


def test_select_reduce_goes_on_from_the_registers():
    state = State()
    ones, low = (tensor(1, 2, contents=np.full((1, 2), v, np.float32)) for v in (5, 1))
    predicate = tensor(1, 2, dtype="uint8", contents=np.ones((1, 2), np.uint8))
    run(select_reduce(dst_of((1, 2)), predicate, ones, 0.0, None, reduce_cmd.reset_reduce), state)
    _, top = run(select_reduce(dst_of((1, 2)), predicate, low, 0.0, dst_of((1, 1)), reduce_cmd.reduce), state)
    assert top == 5


COMPARE = {
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}


@given(
    st.data(),
    st.tuples(st.sampled_from([1, 3, 64]), st.integers(1, 12)),
    st.sampled_from(FLOATS),
    *[st.sampled_from(sorted(COMPARE))] * 2,
    st.integers(-5, 5),
)
def test_range_select(data, shape, dtype, first, second, start):
    tile = data.draw(tiles(shape, dtype))
    bounds = [
        tensor(shape[0], 1, contents=np.random.default_rng(k).integers(-4, 12, shape[0]).astype(np.float32))
        for k in (0, 1)
    ]
    dst, top = run(
        range_select(
            dst_of(shape), tile, first, second, *bounds, reduce_res=dst_of((shape[0], 1)), range_start=start
        )
    )
    index = np.arange(shape[1]) + start
    inside = COMPARE[first](index, plain(bounds[0])) & COMPARE[second](index, plain(bounds[1]))
    expected = np.where(inside, fp32(tile), np.float32(FP32_MIN))
    same(dst, expected)
    same(top[:, 0], expected.max(axis=1))


def test_range_select_gives_minus_infinity_in_narrow_types():
    bounds = tensor(1, 1, contents=np.zeros((1, 1), np.float32))
    got = run(range_select(dst_of((1, 2), "bfloat16"), tensor(1, 2), "less", "less", bounds, bounds))
    assert np.isneginf(got.astype(np.float32)).all()


def test_costs():
    wide, narrow = tensor(128, 512), tensor(128, 512, dtype="uint8")
    n = 512 / 1.12
    both = tensor_copy_predicated(wide, tensor(128, 512), narrow).cost(TRN1).busy
    apart = tensor_copy_predicated(wide, tensor(128, 512, region=PSUM), narrow).cost(TRN1).busy
    assert both == pytest.approx(2 * n + 64 / 1.12) and apart == pytest.approx(n + 64 / 1.12)
    assert select_reduce(wide, narrow, wide, 0.0).cost(TRN2).busy == pytest.approx(512 / 0.96 + 65)
