"""Tensors with their places, as columns: what is made when it is asked for is what was put in."""

import numpy as np
import pytest

from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement.utilisation import ALL_QUADRANTS, Holder, Holders

PLACES = [(0, 0), (32, 64), (64, 64)]
FIRST, LAST = [0, 3, -1], [5, 2**31 - 1, -1]


def made(is_apart):
    storages = [
        Storage(k, f"t{k}", MemoryRegion.sbuf, (32 * (k + 1), 8), DTYPES["float32"])
        for k in range(len(PLACES))
    ]
    lanes = [0b0001, 0b0110, 0b11100] if is_apart else [ALL_QUADRANTS] * 3
    rows = [Holder(s, *p, *live) for s, p, *live in zip(storages, PLACES, FIRST, LAST, lanes)]
    return Holders(storages, PLACES, np.array(FIRST), np.array(LAST), is_apart), rows


@pytest.mark.parametrize("is_apart", [False, True])
def test_each_is_made_as_it_was_given(is_apart):
    holders, rows = made(is_apart)
    assert list(holders) == rows and len(holders) == 3
    assert [holders[k] for k in range(3)] == rows
    assert holders[-1] == rows[-1] and holders[1:] == rows[1:] and holders[::-1] == rows[::-1]
    assert [type(holders[1].first), type(holders[1].last)] == [int, int]
    with pytest.raises(IndexError):
        holders[3]
