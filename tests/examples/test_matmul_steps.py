"""The five steps of the matmul example compute the same thing."""

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import matmul

STEPS = [
    (matmul.matmul_one_tile, 128, 128, 512, {}),
    (matmul.matmul_tiled, 256, 384, 1024, {}),
    (matmul.matmul_hoisted, 256, 384, 1024, {}),
    (matmul.matmul_blocked_free, 256, 384, 1024, {}),
    (matmul.matmul_blocked, 512, 512, 1024, {"tiles_m": 2, "tiles_n": 1, "tiles_k": 2}),
]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kernel, m, k, n, blocks", STEPS, ids=lambda value: getattr(value, "__name__", None))
def test_step(kernel, m, k, n, blocks, dtype):
    rng = np.random.default_rng(1)
    lhsT = rng.standard_normal((k, m), np.float32).astype(dtype)
    rhs = rng.standard_normal((k, n), np.float32).astype(dtype)
    result = kernel(lhsT, rhs, **blocks)
    expected = matmul.reference(lhsT, rhs)
    assert result.dtype == dtype
    # one rounding to the result's dtype, on top of fp32 sums in a different order
    rounding = 2**-8 if dtype is not np.float32 else 0.0
    np.testing.assert_allclose(result.astype(np.float32), expected, rtol=rounding, atol=1e-4)


def test_a_shape_that_does_not_divide_is_refused_in_the_kernel_s_words():
    from nki_isa.diagnostics import NkiError

    with pytest.raises(NkiError, match="M is 200, not a multiple of 128") as caught:
        matmul.matmul_tiled(np.ones((128, 200), np.float32), np.ones((128, 512), np.float32))
    assert [frame.function for frame in caught.value.diagnostics[0].stack] == ["matmul_tiled", "check_shapes"]
