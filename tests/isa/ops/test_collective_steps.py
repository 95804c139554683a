"""How many steps over the links a collective takes, and the bytes of each: ring algorithms."""

import pytest

from nki_isa.samples import sample


@pytest.mark.parametrize(
    ("opcode", "steps", "octets"),
    [("all_reduce", 14, 512), ("all_gather", 7, 4096), ("reduce_scatter", 7, 512), ("all_to_all", 7, 512)],
)
def test_steps_of_a_ring_of_eight(opcode, steps, octets):
    assert sample(opcode).steps(8, 4096) == (steps, octets)
