"""The largest eight, indices, nonzeros and segments, against plain Python per partition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import dst_of, fp32, plain, run, same, tensor, tiles

from nki_isa.machine.targets import TRN1
from nki_isa.ops.search import (
    max8,
    nc_find_index8,
    nc_match_replace8,
    nonzero_with_count,
    sequence_bounds,
    topk,
)

lanes = st.sampled_from([1, 3, 32])
lengths = st.integers(8, 24)


@given(st.data(), lanes, lengths, st.sampled_from(["float32", "bfloat16", "int32", "uint8"]))
def test_max8(data, partitions, n, dtype):
    tile = data.draw(tiles((partitions, n), dtype))
    expected = [sorted(row, reverse=True)[:8] for row in fp32(tile).tolist()]
    same(run(max8(dst_of((partitions, 8)), tile)), expected)


def find(row, wanted, order):
    """Places of `wanted` in `row`: equal values take successive places, in the order given."""
    taken, places = set(), [None] * 8
    for k in order:
        for i, value in enumerate(row):
            if value == wanted[k] and i not in taken:
                taken.add(i)
                places[k] = i
                break
    return places


@given(st.data(), lanes, lengths, st.sampled_from(["uint16", "uint32"]))
def test_nc_find_index8(data, partitions, n, to):
    tile, vals = data.draw(tiles((partitions, n), "int8")), data.draw(tiles((partitions, 8), "int8"))
    got = run(nc_find_index8(dst_of((partitions, 8), to), tile, vals))
    missing = np.iinfo(to).max
    for row, wanted, found in zip(plain(tile), plain(vals), got, strict=True):
        assert [missing if p is None else p for p in find(row, wanted, range(8))] == found.tolist()


@given(st.data(), lanes, lengths, st.sampled_from(["float32", "bfloat16"]))
def test_nc_match_replace8(data, partitions, n, to):
    tile, vals = data.draw(tiles((partitions, n), "float32")), data.draw(tiles((partitions, 8), "int8"))
    got, index = run(
        nc_match_replace8(dst_of((partitions, n), to), tile, vals, -1e9, dst_of((partitions, 8), "uint32"))
    )
    expected = fp32(tile)
    for row, wanted, found in zip(expected, plain(vals), index, strict=True):
        places = find(row.copy(), wanted, range(7, -1, -1))
        assert [2**32 - 1 if p is None else p for p in places] == found.tolist()
        row[[p for p in places if p is not None]] = -1e9
    same(got, expected.astype(got.dtype))


def test_nc_match_replace8_of_the_documented_example():
    tile = tensor(1, 11, contents=np.array([1, 2, 3, 4, 8, 8, 8, 8, 8, 8, 8], np.float32))
    vals = tensor(1, 8, contents=np.array([3, 8, 8, 8, 8, 8, 8, 8], np.float32))
    got, index = run(nc_match_replace8(dst_of((1, 11)), tile, vals, float("-inf"), dst_of((1, 8), "uint32")))
    assert index.tolist() == [[2, 10, 9, 8, 7, 6, 5, 4]]
    assert got.tolist() == [[1, 2, -np.inf, 4, *[-np.inf] * 7]]
    same(run(nc_match_replace8(dst_of((1, 11)), tile, vals, 0.0)), [[1, 2, 0, 4, *[0] * 7]])


@given(
    st.data(), st.sampled_from([1, 16, 33, 128]), st.integers(1, 12), st.sampled_from(["float32", "int32"])
)
def test_nonzero_with_count(data, partitions, n, dtype):
    tile = data.draw(tiles((partitions, n), dtype))
    old = np.full((partitions, n + 1), 77, np.int32)
    got = run(nonzero_with_count(tensor(partitions, n + 1, dtype="int32", contents=old), tile, 16, -1))
    for lane, row in enumerate(plain(tile)):
        places = [i + 16 for i, value in enumerate(row) if value != 0]
        expected = [*places, *[-1] * (n - len(places)), len(places)] if lane % 16 == 0 else [77] * (n + 1)
        assert got[lane].tolist() == expected


def test_nonzero_with_count_of_the_documented_example():
    tile = tensor(1, 8, contents=np.array([0, 1, 1, 0, 0, 1, 0, 0], np.float32))
    got = run(nonzero_with_count(dst_of((1, 9), "int32"), tile, 16))
    assert got.tolist() == [[17, 18, 21, -1, -1, -1, -1, -1, 3]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.sampled_from(["float32", "int32"]))
def test_sequence_bounds(ids, dtype):
    n = len(ids)
    tile = tensor(1, n, dtype=dtype, contents=np.array(ids).astype(dtype))
    got = run(sequence_bounds(dst_of((1, 2, n), dtype), tile))
    starts, ends = [], []
    for i, segment in enumerate(ids):
        low, high = i, i + 1
        while low > 0 and ids[low - 1] == segment:
            low -= 1
        while high < n and ids[high] == segment:
            high += 1
        starts.append(low if segment else n)
        ends.append(high if segment else -1)
    assert got.tolist() == [[starts, ends]]


def test_sequence_bounds_of_the_documented_example():
    ids = np.array([[0, 1, 1, 2, 2, 2, 0, 3, 3]], np.float32)
    got = run(sequence_bounds(dst_of((1, 2, 9)), tensor(1, 9, contents=ids)))
    assert got.tolist() == [[[9, 1, 1, 3, 3, 3, 9, 7, 7], [-1, 3, 3, 6, 6, 6, -1, 9, 9]]]


@given(st.data(), st.sampled_from([16, 48]), st.integers(8, 60), st.integers(1, 8))
def test_topk(data, partitions, n, k):
    columns = -(-n // 16)
    tile = data.draw(tiles((partitions, columns), "bfloat16"))
    got, index = run(topk(dst_of((partitions, k), "bfloat16"), dst_of((partitions, k), "uint32"), tile, n))
    contents = fp32(tile)
    for lane in range(partitions):
        first = lane // 16 * 16
        snake = [contents[first + e % 16, e // 16] for e in range(n)]
        best = sorted(range(n), key=lambda e: (-snake[e], e))[:k][::-1]
        assert index[lane].tolist() == best
        assert got[lane].astype(np.float32).tolist() == [snake[e] for e in best]


def test_costs():
    wide = tensor(128, 512)
    for instruction in (
        max8(dst_of((128, 8)), wide),
        nc_find_index8(dst_of((128, 8), "uint32"), wide, dst_of((128, 8))),
        nc_match_replace8(wide, wide, dst_of((128, 8)), 0.0),
    ):
        assert instruction.cost(TRN1).busy == pytest.approx((512 + 64) / 1.12)
    k = topk(dst_of((128, 8), "bfloat16"), dst_of((128, 8), "uint32"), tensor(128, 4, dtype="bfloat16"), 60)
    assert k.cost(TRN1).busy == pytest.approx((4 * 60 + 8) / 1.4)
