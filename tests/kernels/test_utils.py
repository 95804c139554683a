"""The integer helpers and tiled ranges of nkilib."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkilib.core.utils.kernel_assert import assert_shape, kernel_assert
from nkilib.core.utils.kernel_helpers import (
    div_ceil,
    get_ceil_aligned_size,
    get_ceil_quotient,
    get_floor_aligned_size,
    get_floor_quotient,
)
from nkilib.core.utils.tiled_range import TiledRange

positive = st.integers(1, 10_000)


@given(positive, positive)
def test_quotients(n, d):
    assert div_ceil(n, d) == get_ceil_quotient(n, d) == -(-n // d)
    assert get_floor_quotient(n, d) == n // d
    assert get_ceil_aligned_size(n, d) - n in range(d)
    assert n - get_floor_aligned_size(n, d) in range(d)


@given(positive, positive)
def test_tiles_cover_the_range_once(size, tile):
    tiles = TiledRange(size, tile)
    covered = [i for t in tiles for i in range(t.start_offset, t.end_offset)]
    assert covered == list(range(size))
    assert [t.index for t in tiles] == list(range(len(tiles)))
    assert all(t.size == t.end_offset - t.start_offset <= tile for t in tiles)


@given(positive, positive, positive)
def test_a_tile_can_be_tiled(size, outer, inner):
    covered = [
        i
        for t in TiledRange(size, outer)
        for u in TiledRange(t, inner)
        for i in range(u.start_offset, u.end_offset)
    ]
    assert covered == list(range(size))


def test_assertions_carry_their_text():
    kernel_assert(True, "never shown")
    with pytest.raises(AssertionError, match="too wide"):
        kernel_assert(False, "too wide")
    with pytest.raises(AssertionError, match=r"x has shape \(2, 3\), expected \(2, 4\)"):
        assert_shape(type("T", (), {"shape": (2, 3)})(), (2, 4), "x")
