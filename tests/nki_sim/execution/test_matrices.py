"""Matrices that instructions share are kept from the first use to the last."""

import numpy as np
import pytest

from nki_isa.machine.dtypes import DTYPES
from nki_sim.execution.matrices import Matrix


@pytest.mark.parametrize("uses", [0, 1, 2, 3])
def test_a_matrix_is_kept_while_it_is_used(uses):
    """Kept values are those of the first use; without a number of uses, each has those of its own time."""
    octets = np.arange(8, dtype=np.float16).reshape(2, 2, 2)
    matrix = Matrix(octets, DTYPES["float16"])
    matrix.uses = uses
    for _ in range(2):  # the same plan runs again
        first = octets.reshape(2, 4).astype(np.float32)
        for use in range(max(uses, 1)):
            found = matrix()
            assert found.dtype == np.float32 and np.array_equal(found, first)
            assert (matrix.values is not None) == (use + 1 < uses)
            octets[...] += 1
