"""nkilib.core.cumsum.cumsum against its numpy reference."""

import ml_dtypes
import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nkilib.core.cumsum.cumsum import cumsum
from nkilib.core.cumsum.reference import cumsum_reference

SHAPES = [(1, 1), (5, 33), (128, 2048), (130, 2049), (7, 3, 100), (40, 10, 5000)]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_sequential_sums(shape, dtype):
    """The scan adds in order in fp32, so the result is exact."""
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    before = x.copy()
    y = cumsum(x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, cumsum_reference(x))
    np.testing.assert_array_equal(x, before)


def test_the_last_axis_can_be_named():
    x = np.ones((4, 2, 8), np.float32)
    np.testing.assert_array_equal(cumsum(x, axis=2), cumsum_reference(x))


@pytest.mark.parametrize(
    "shape, axis, message",
    [
        ((4, 8), 0, "last dimension only"),
        ((8,), -1, "2D or 3D"),
        ((2049, 8), -1, "at most 2048, got 2049"),
        ((4, 11, 8), -1, "at most 10, got 11"),
        ((4, 8193), -1, "at most 8192, got 8193"),
    ],
)
def test_constraints(shape, axis, message):
    with pytest.raises(NkiError, match=message) as caught:
        cumsum(np.zeros(shape, np.float32), axis=axis)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]


@pytest.mark.parametrize("shape", [(2048, 8), (4, 10, 8), (4, 8192)])
def test_the_limits_themselves_are_accepted(shape):
    x = np.ones(shape, np.float32)
    np.testing.assert_array_equal(cumsum(x), cumsum_reference(x))
