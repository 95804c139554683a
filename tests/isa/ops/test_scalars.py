"""Scalars that sequencers compute with: two's complement in as many bits as they have."""

import pytest

from nki_isa.ops.scalars import wrapped


@pytest.mark.parametrize(
    ("value", "bits", "kept"),
    [
        (0, 32, 0), (5, 32, 5), (-1, 32, -1), (2**31 - 1, 32, 2**31 - 1), (2**31, 32, -(2**31)),
        (-(2**31) - 1, 32, 2**31 - 1), (2**32 + 7, 32, 7), (2**31, 64, 2**31), (2**63, 64, -(2**63)),
    ],
)  # fmt: skip
def test_values_wrap(value, bits, kept):
    assert wrapped(value, bits) == kept
