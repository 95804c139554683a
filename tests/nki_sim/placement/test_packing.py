"""How things with known lifetimes share a line of bytes, whatever program they are of."""

import numpy as np
import pytest

from nki_sim.placement.packing import Fixed, Requests, Space, pack

ROWS = np.zeros(0, np.int64)
NOTHING = Fixed(ROWS, ROWS, ROWS, ROWS)


def turns(count: int) -> tuple[Requests, int]:
    """Each turn: five things of 9 bytes for all of its 40 positions, and one of 8 for each position."""
    firsts = np.concatenate([np.array([0] * 5 + [*range(40)]) + 40 * turn for turn in range(count)])
    sizes = np.array(([9] * 5 + [8] * 40) * count)
    lasts = firsts + np.where(sizes == 9, 39, 0)
    return Requests(sizes, firsts, lasts, firsts * 0, firsts * 0 - 1), 40 * count


@pytest.mark.parametrize("count", [1, 4, 30, 250])
def test_a_turn_finds_the_room_to_rotate_in_however_often_a_loop_goes_round(count: int) -> None:
    """Of 64 bytes the long-lived leave 19: with units of 8 two short ones take turns."""
    requests, positions = turns(count)
    found = pack(requests, NOTHING, Space(64, 8, 1), positions)
    assert found is not None
    short = found[requests.sizes == 8]
    assert sorted(set(short.tolist())) == [48, 56]
    assert (short[1:] != short[:-1]).all()
