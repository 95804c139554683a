"""Instructions of the gpsimd engine against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import NUMERIC, dst_of, fp32, plain, run, same, tensor, tiles

from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.targets import TRN1
from nki_isa.ops.gpsimd import affine_select, iota
from nki_isa.tensor.storage import VirtualRegister

pairs = st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 4)), min_size=1, max_size=4)


def affine(partitions, pattern, offset, multiplier):
    """The documented loops, one partition and one dimension at a time."""
    rows = []
    for channel in range(partitions):
        values = [offset + channel * multiplier]
        for step, count in pattern:
            values = [v + i * step for v in values for i in range(count)]
        rows.append(values)
    return np.array(rows)


@given(
    st.sampled_from([1, 3, 64]), pairs, st.integers(-100, 100), st.integers(-5, 5), st.sampled_from(NUMERIC)
)
def test_iota(partitions, pattern, offset, multiplier, dtype):
    expected = affine(partitions, pattern, offset, multiplier)
    got = run(iota(dst_of(expected.shape, dtype), [list(p) for p in pattern], offset, multiplier))
    same(got, cast(expected.astype(np.int32), DTYPES[dtype]))


def test_iota_of_wide_integers_is_exact_and_wraps():
    got = run(iota(dst_of((2, 2), "int32"), [[1, 2]], 2**31 - 1, 2**24))
    assert got.tolist() == [[2**31 - 1, -(2**31)], [-(2**31) + 2**24 - 1, -(2**31) + 2**24]]


def test_iota_takes_its_offset_from_a_register():
    got = run(iota(dst_of((1, 3), "int32"), [[2, 3]], VirtualRegister(0)), registers=[10])
    assert got.tolist() == [[10, 12, 14]]


@given(
    st.data(),
    st.sampled_from([1, 3, 64]),
    pairs,
    st.integers(-60, 60),
    st.integers(-5, 5),
    st.sampled_from(["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]),
    *[st.sampled_from(["float32", "bfloat16", "int32"])] * 2,
)
def test_affine_select(data, partitions, pattern, offset, multiplier, cmp_op, dtype, to):
    values = affine(partitions, pattern, offset, multiplier)
    tile = data.draw(tiles(values.shape, dtype))
    got = run(affine_select(dst_of(values.shape, to), pattern, multiplier, tile, -7.5, cmp_op, offset))
    chosen = getattr(np, cmp_op)(values, 0)
    on_true = plain(tile) if dtype == to else cast(fp32(tile), DTYPES[to])
    same(got, np.where(chosen, on_true, cast(np.full(values.shape, -7.5, np.float32), DTYPES[to])))


def test_affine_select_makes_a_causal_mask():
    tile = tensor(3, 3, contents=np.ones((3, 3), np.float32))
    got = run(affine_select(dst_of((3, 3)), [[-1, 3]], 1, tile, -1e30, "greater_equal"))
    assert (got > 0).tolist() == np.tri(3, dtype=bool).tolist()


# --- costs


def test_costs():
    wide = tensor(128, 512)
    assert iota(wide, [[1, 512]]).cost(TRN1).busy == pytest.approx(662 / 1.4)
    assert affine_select(wide, [[1, 512]], 1, wide, 0.0).cost(TRN1).busy == pytest.approx(662 / 1.4)
