"""The vendor's documented tutorial kernels, unmodified, from a checkout of its SDK repository.

    NKI_SDK=/path/to/aws-neuron-sdk make test-upstream

Only the checkout is read; references and data are ours. Without one these tests say
so and are skipped.
"""

import importlib.util
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.upstream.documented import Leveled

SDK = os.environ.get("NKI_SDK")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not SDK, reason="set NKI_SDK to a checkout of aws-neuron-sdk"),
]


@pytest.fixture
def tutorial(monkeypatch):
    """Loads a module of the SDK's nki/examples folder by its path there."""

    def load(path):
        file = Path(SDK) / "nki" / "examples" / path
        if "neuronxcc" in file.read_text():
            pytest.skip("this version of the tutorial is written for Beta 1")

        def module():
            spec = importlib.util.spec_from_file_location(file.stem, file)
            made = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(made)
            return made

        return Leveled(module)

    # A tutorial sets its target in the environment when it is imported; that ends with the test.
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    return load


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_tensor_addition(tutorial):
    kernel = tutorial("tensor_addition/tensor_addition_nki_kernels.py").nki_tensor_add
    a, b = normal(256, 1024), normal(256, 1024, seed=1)
    np.testing.assert_array_equal(kernel(a, b), a + b)


def test_transpose2d(tutorial):
    kernel = tutorial("transpose2d/transpose2d_nki_kernels.py").tensor_transpose2D_kernel_
    a = np.arange(5 * 12, dtype=np.int8).reshape(5, 12)
    np.testing.assert_array_equal(kernel(a, (3, 4)), a.reshape(5, 3, 4).transpose(0, 2, 1).reshape(5, 12))


def test_average_pool2d(tutorial):
    kernel = tutorial("average_pool2d/average_pool2d_nki_kernels.py").tensor_avgpool_kernel
    image = np.arange(2 * 6 * 6, dtype=np.float16).reshape(2, 6, 6)
    expected = image.reshape(2, 3, 2, 3, 2).astype(np.float32).mean(axis=(2, 4))
    np.testing.assert_array_equal(kernel(image, 2), expected.astype(np.float16))


MATMULS = [
    ("nki_matmul_basic_", 64, 128, 512),
    ("nki_matmul_tiled_", 512, 512, 1024),
    ("nki_matmul_hoist_load_", 512, 512, 1024),
    ("nki_matmul_block_free_dimension_", 512, 512, 1024),
    ("nki_matmul_fully_optimized_", 2048, 1024, 1024),
]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name, m, k, n", MATMULS)
def test_matrix_multiplication(tutorial, name, m, k, n, dtype):
    kernel = getattr(tutorial("matrix_multiplication/matrix_multiplication_nki_kernels.py"), name)
    lhsT, rhs = normal(k, m, dtype=dtype), normal(k, n, dtype=dtype, seed=1)
    expected = lhsT.astype(np.float32).T @ rhs.astype(np.float32)
    # the optimised variant keeps its partial sums in the operands' dtype: one rounding for each of them
    tolerance = 1e-4 if dtype is np.float32 else 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(kernel(lhsT, rhs).astype(np.float32), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["mamba_v1", "mamba_v2", "mamba_v3"])
def test_fused_mamba(tutorial, name):
    kernel = getattr(tutorial("fused_mamba/mamba_nki_kernels.py"), name)
    batch, channels, length, states = 1, 256, 512, 4
    delta = np.abs(normal(batch, channels, length)) * 0.1
    u = normal(batch, channels, length, seed=1)
    a = -np.abs(normal(channels, states, seed=2))
    b, c = normal(batch, states, length, seed=3), normal(batch, states, length, seed=4)
    expected = np.zeros_like(u)
    for i in range(batch):
        state = np.zeros((channels, states), np.float32)
        for t in range(length):
            step = delta[i, :, t : t + 1]
            state = np.exp(step * a) * state + step * u[i, :, t : t + 1] * b[i, :, t]
            expected[i, :, t] = (state * c[i, :, t]).sum(axis=1)
    np.testing.assert_allclose(kernel(delta, u, a, b, c), expected, rtol=1e-3, atol=1e-4)
