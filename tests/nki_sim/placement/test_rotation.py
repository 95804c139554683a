"""Tiles take turns: each takes the bytes that are free longest, while there is room."""

from __future__ import annotations

import numpy as np
import pytest
from placing import unrolled

from nki_isa.machine.targets import TRN2
from nki_sim.placement.packing import Fixed, Requests, Space, rotate, tighten
from nki_sim.placement.place import place


def test_tiles_of_an_unrolled_loop_rotate_through_all_of_sbuf() -> None:
    placement = place(unrolled(500).program, TRN2)
    tiles = TRN2.sbuf_usable_bytes // 1024
    assert [placement.addresses[k][1] for k in range(500)] == [k % tiles * 1024 for k in range(500)]
    assert placement.sbuf.peak == 1024


def test_rotation_takes_the_bytes_freed_longest_ago() -> None:
    requests = Requests(*map(np.array, ([32, 32, 32, 32], [0, 0, 2, 4], [1, 3, 2, 5], [0] * 4, [-1] * 4)))
    none = np.zeros(0, np.int64)
    # The third takes the first's bytes, as the second still lives; the fourth those free since 2, not 3.
    found = rotate(requests, Fixed(none, none, none, none), Space(64, 32, 4))
    assert found is not None and found.tolist() == [0, 32, 0, 0]


def test_rotation_leaves_what_is_placed() -> None:
    """Taken from before the first request on, from later on, and no longer: units of 4 bytes."""
    requests = Requests(*map(np.array, ([8, 8], [2, 6], [4, 9], [0, 0], [-1, -1])))
    fixed = Fixed(*map(np.array, ([4, 16, 24], [8, 4, 8], [0, 3, 0], [9, 9, 1])))
    found = rotate(requests, fixed, Space(32, 4, 4))
    # Of pairs of units, 20 and 24 are free from 2 on, 0, 12 and 16 have a neighbour that is taken.
    assert found is not None and found.tolist() == [20, 20]


def test_rotation_gives_way_to_tight_packing() -> None:
    """Two tensors that live throughout sit where the third needs one piece; only packing finds room."""
    firsts, lasts = np.array([0, 1, 2, 3, 8]), np.array([4, 9, 5, 9, 9])
    requests = Requests(np.array([64, 64, 64, 64, 128]), firsts, lasts, np.zeros(5, int), np.full(5, -1))
    none = np.zeros(0, np.int64)
    fixed, space = Fixed(none, none, none, none), Space(256, 32, 4)
    assert rotate(requests, fixed, space) is None
    assert tighten(requests, fixed, space) is not None


@pytest.mark.parametrize("first, fits", [(4, False), (5, True), (0, False)])
def test_bytes_are_free_after_the_last_use_and_not_at_it(first: int, fits: bool) -> None:
    """One place, and a tensor that lives to position 4: what one instruction reads and writes is apart."""
    zeros = np.zeros(2, np.int64)
    requests = Requests(zeros + 64, np.array([0, first]), np.array([4, 9]), zeros, zeros - 1)
    taken = Fixed(*(zeros[:0] for _ in range(4)))
    found = rotate(requests, taken, Space(64, 64, 1))
    assert (found is not None and found.tolist() == [0, 0]) if fits else found is None
