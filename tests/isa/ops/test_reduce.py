"""Reductions, scans and statistics against plain numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import FLOATS, INTEGERS, NUMERIC, PSUM, SBUF, dst_of, fp32, plain, run, same, shapes, tensor, tiles

from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.ops.reduce import bn_aggr, bn_stats, tensor_partition_reduce, tensor_reduce, tensor_tensor_scan

REDUCTIONS = {"add": np.sum, "multiply": np.prod, "maximum": np.max, "minimum": np.min}
BITS = {"bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor}
SCANS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum}
regions = st.sampled_from([SBUF, PSUM])
three_dims = st.integers(2, 3).flatmap(lambda d: shapes(st.integers(1, 9), st.just(d)))


@given(
    st.data(),
    three_dims,
    st.sampled_from(NUMERIC),
    st.sampled_from(sorted(REDUCTIONS)),
    regions,
    st.booleans(),
)
def test_tensor_reduce(data, shape, dtype, op, region, negate):
    tile = data.draw(tiles(shape, dtype, region))
    first = data.draw(st.integers(1, len(shape) - 1))
    axis = tuple(range(first, len(shape)))
    got = run(tensor_reduce(dst_of((*shape[:first], 1)), op, tile, axis, negate=negate))
    with np.errstate(over="ignore"):
        expected = REDUCTIONS[op](fp32(tile).astype(np.float64), axis=axis) * (-1 if negate else 1)
    magnitude = np.abs(fp32(tile).astype(np.float64)).sum(axis=axis) if op == "add" else np.abs(expected)
    got = got.reshape(expected.shape)
    # A product that overflows or underflows on the way depends on the order of its factors.
    size = np.abs(fp32(tile).astype(np.float64))
    with np.errstate(over="ignore"):
        largest, smallest = np.maximum(size, 1).prod(axis=axis), np.minimum(size, 1).prod(axis=axis)
    fits = (largest < 1e37) & (smallest > 1e-37) if op == "multiply" else np.full(expected.shape, True)
    assert (np.abs(got - expected)[fits] <= magnitude[fits] * 1e-5).all()


@given(
    st.sampled_from([1, 2, 3, 40, 128]),
    st.integers(1, 300),
    st.sampled_from(["add", "multiply", "subtract"]),
    st.integers(0, 2**32 - 1),
)
def test_elements_are_taken_from_the_first_to_the_last(partitions, n, op, seed):
    """To the bit: each step is rounded to float32."""
    rng = np.random.default_rng(seed)
    spread = (0, 4) if op == "multiply" else (-3, 5)
    contents = (rng.standard_normal((partitions, n)) * 10.0 ** rng.integers(*spread, (partitions, n))).astype(
        "f4"
    )
    expected = contents[:, 0].copy()
    function = {"add": np.add, "multiply": np.multiply, "subtract": np.subtract}[op]
    with np.errstate(all="ignore"):
        for column in contents.T[1:]:
            expected = function(expected, column)
    tile = tensor(partitions, n, contents=contents)
    same(run(tensor_reduce(dst_of((partitions, 1)), op, tile, 1))[:, 0], expected)


def test_a_long_sum_stops_growing_where_float32_does():
    ones = tensor(2, 20_000, contents=np.r_[[[2.0**24] + [1.0] * 19_999] * 2].astype(np.float32))
    assert run(tensor_reduce(dst_of((2, 1)), "add", ones, 1)).tolist() == [[2.0**24]] * 2


@given(st.data(), three_dims, st.sampled_from(sorted(BITS)), st.sampled_from(INTEGERS))
def test_tensor_reduce_bits(data, shape, op, dtype):
    tile = data.draw(tiles(shape, dtype))
    got = run(tensor_reduce(dst_of((shape[0], 1), dtype), op, tile, tuple(range(1, len(shape)))))
    same(got[:, 0], BITS[op].reduce(plain(tile).reshape(shape[0], -1), axis=1))


def test_tensor_reduce_takes_an_int_a_list_and_negative_axes():
    tile = tensor(2, 3, 4, contents=np.arange(24, dtype=np.float32))
    expected = np.arange(24).reshape(2, 3, 4)
    for axis in (2, -1, [2], (-1,)):
        same(run(tensor_reduce(dst_of((2, 3)), "add", tile, axis)), expected.sum(axis=2))
    same(run(tensor_reduce(dst_of((2, 1)), "maximum", tile, [2, 1])), expected.max(axis=(1, 2)).reshape(2, 1))


def test_tensor_reduce_of_other_operators():
    tile = tensor(1, 4, contents=np.array([5, 2, 0, 1], np.float32))
    for op, expected in (("subtract", 2), ("logical_and", 0), ("logical_or", 1), ("logical_xor", 1)):
        assert run(tensor_reduce(dst_of((1, 1)), op, tile, 1)) == expected


@given(
    st.data(),
    st.tuples(st.sampled_from([1, 2, 31, 64]), st.integers(1, 9)),
    st.sampled_from(["add", "average", "max"]),
    st.sampled_from(FLOATS),
)
def test_tensor_partition_reduce(data, shape, op, dtype):
    tile = data.draw(tiles(shape, dtype))
    got = run(tensor_partition_reduce(dst_of((1, shape[1])), op, tile))
    function = {"add": np.sum, "average": np.mean, "max": np.max}[op]
    np.testing.assert_allclose(got[0], function(fp32(tile).astype(np.float64), axis=0), rtol=1e-5, atol=1e-3)


def test_tensor_partition_reduce_bits():
    tile = tensor(3, 2, dtype="uint8", contents=np.array([[1, 7], [2, 6], [4, 3]], np.uint8))
    assert run(tensor_partition_reduce(dst_of((1, 2), "uint8"), "bitwise_or", tile)).tolist() == [[7, 7]]
    assert run(tensor_partition_reduce(dst_of((1, 2), "uint8"), "bitwise_and", tile)).tolist() == [[0, 2]]


@given(
    st.data(),
    st.tuples(st.sampled_from([1, 2, 33]), st.integers(1, 9)),
    *[st.sampled_from(sorted(SCANS))] * 2,
    st.booleans(),
    st.booleans(),
    st.sampled_from(FLOATS),
)
def test_tensor_tensor_scan(data, shape, op0, op1, reverse0, reverse1, to):
    data0, data1 = data.draw(tiles(shape, "float32")), data.draw(tiles(shape, "bfloat16", PSUM))
    initial = data.draw(st.one_of(st.floats(-2, 2, width=32), tiles((shape[0], 1), "float32")))
    got = run(tensor_tensor_scan(dst_of(shape, to), data0, data1, initial, op0, op1, reverse0, reverse1))
    x, y = fp32(data0), fp32(data1)
    expected = np.zeros(shape, np.float32)
    state = np.full(shape[0], initial, np.float32) if isinstance(initial, float) else fp32(initial)[:, 0]
    with np.errstate(all="ignore"):
        for i in range(shape[1]):
            state = SCANS[op0](state, x[:, i]) if reverse0 else SCANS[op0](x[:, i], state)
            state = SCANS[op1](y[:, i], state) if reverse1 else SCANS[op1](state, y[:, i])
            expected[:, i] = state
        same(got, cast(expected, DTYPES[to]))


def test_scan_is_a_first_order_recurrence():
    decay, inputs = np.full((1, 4), 0.5, np.float32), np.array([[1, 1, 1, 1]], np.float32)
    scan = tensor_tensor_scan(
        dst_of((1, 4)), tensor(1, 4, contents=decay), tensor(1, 4, contents=inputs), 4.0, "multiply", "add"
    )
    same(run(scan), [[3, 2.5, 2.25, 2.125]])


@given(st.data(), st.tuples(st.sampled_from([1, 32, 128]), st.integers(1, 40)), st.sampled_from(FLOATS))
def test_bn_stats_and_bn_aggr(data, shape, dtype):
    tile = data.draw(tiles(shape, dtype))
    stats = run(bn_stats(dst_of((shape[0], 6)), tile))
    values = fp32(tile).astype(np.float64)
    for part in (0, 1):
        chosen = values[:, part::2]
        count = chosen.shape[1]
        assert (stats[:, 3 * part] == count).all()
        if count:
            np.testing.assert_allclose(stats[:, 3 * part + 1], chosen.mean(axis=1), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(
                stats[:, 3 * part + 2], chosen.var(axis=1) * count, rtol=1e-4, atol=1e-4
            )
    moments = run(bn_aggr(dst_of((shape[0], 2)), tensor(shape[0], 6, contents=stats)))
    np.testing.assert_allclose(moments[:, 0], values.mean(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments[:, 1], values.var(axis=1), rtol=1e-4, atol=1e-4)


def in_order(values):
    """Sums of rows from the first element to the last, in float32."""
    total = np.zeros(len(values), np.float32)
    for column in values.T:
        total = total + column
    return total


def test_statistics_add_from_the_first_element_to_the_last():
    """As the card adds a row: numpy's own sums differ in most rows of this size."""
    values = np.random.default_rng(2).standard_normal((128, 512)).astype(np.float32)
    stats = run(bn_stats(dst_of((128, 6)), tensor(128, 512, contents=values)))
    means = in_order(values[:, ::2]) / np.float32(256)
    same(stats[:, 1], means)
    same(stats[:, 2], in_order(np.square(values[:, ::2] - means[:, None])))
    assert np.count_nonzero(stats[:, 1] != values[:, ::2].mean(axis=1)) > 32
    triples = np.abs(values[:, :192])
    moments = run(bn_aggr(dst_of((128, 2)), tensor(128, 192, contents=triples)))
    counts, middles, spreads = triples[:, 0::3], triples[:, 1::3], triples[:, 2::3]
    total = in_order(counts)
    mean = in_order(counts * middles) / total
    same(moments[:, 0], mean)
    between = in_order(counts * np.square(middles - mean[:, None]))
    same(moments[:, 1], (in_order(spreads) + between) / total)


@pytest.mark.parametrize("columns", [1, 5])
def test_partitions_add_from_the_first_to_the_last(columns):
    values = np.random.default_rng(3).standard_normal((128, columns)).astype(np.float32)
    total = run(tensor_partition_reduce(dst_of((1, columns)), "add", tensor(128, columns, contents=values)))
    same(total[0], in_order(values.T))


def test_bn_aggr_joins_tiles_of_different_sizes():
    generator = np.random.default_rng(1)
    values = generator.standard_normal((4, 700)).astype(np.float32)
    parts = [
        run(bn_stats(dst_of((4, 6)), tensor(4, n.shape[1], contents=n)))
        for n in np.split(values, [512], axis=1)
    ]
    got = run(bn_aggr(dst_of((4, 2)), tensor(4, 12, contents=np.concatenate(parts, axis=1))))
    np.testing.assert_allclose(got[:, 0], values.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(got[:, 1], values.var(axis=1), rtol=1e-5)


# --- costs


def test_costs():
    wide = tensor(128, 512)
    reduce = tensor_reduce(dst_of((128, 1)), "add", wide, 1).cost(TRN2)
    assert reduce.latency == pytest.approx(680, rel=0.03)
    assert reduce.busy == pytest.approx(600, rel=0.03)
    scan = tensor_tensor_scan(wide, wide, wide, 0.0, "multiply", "add").cost(TRN1)
    assert scan.busy == pytest.approx((2 * 512 + 64) / 1.12)
    aggregate = bn_aggr(dst_of((128, 2)), tensor(128, 600)).cost(TRN1)
    assert aggregate.busy == pytest.approx((13 * 600 / 3 + 64) / 1.12)
    assert tensor_partition_reduce(dst_of((1, 512)), "add", wide).cost(TRN1).busy == pytest.approx(662 / 1.4)
