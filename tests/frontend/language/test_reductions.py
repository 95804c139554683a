"""Reductions and normalisations of nki.language against numpy."""

import numpy as np
import pytest
from running import call, random

import nki.language as nl
from nki_isa.diagnostics import NkiError

NUMPY = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "mean": np.mean}


@pytest.mark.parametrize("axis", [1, -1, (1,), (1, 2), [2], (-1, -2), 2])
@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims):
    last = axis in (1, (1,))
    x = random(16, 12) if last else random(16, 3, 5)
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    expected = NUMPY[name](x.astype(np.float64), axis=axes, keepdims=keepdims)
    result, made = call(getattr(nl, name), x, axis=axis, keepdims=keepdims)
    assert result.shape == (expected.shape if expected.ndim > 1 else (16, 1))
    np.testing.assert_allclose(result, expected.reshape(result.shape), rtol=1e-5, atol=1e-5)
    assert made[0] == "tensor_reduce"


def test_mean_of_integers_is_computed_in_float32():
    x = np.arange(24).reshape(4, 6).astype(np.int32)
    result, _ = call(nl.mean, x, axis=1, dtype=nl.float32)
    np.testing.assert_allclose(result[:, 0], x.mean(1), rtol=1e-6)


@pytest.mark.parametrize("shape, axis", [((16, 40), 1), ((16, 1200), 1), ((8, 3, 7), 2), ((8, 3, 7), (1, 2))])
def test_variance(shape, axis):
    x = random(*shape)
    result, made = call(nl.var, x, axis=axis)
    expected = x.astype(np.float64).var(axis=axis, keepdims=True)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert set(made) == {"bn_stats", "bn_aggr", "tensor_copy"}


def test_all():
    x = np.ones((4, 6), np.float32)
    x[1, 3] = 0
    np.testing.assert_array_equal(call(nl.all, x, axis=1)[0][:, 0], [1, 0, 1, 1])


@pytest.mark.parametrize("name", [*NUMPY, "var", "all", "softmax"])
@pytest.mark.parametrize("axis", [0, (0, 1), 1, (), "1"])
def test_only_the_last_dimensions(name, axis):
    with pytest.raises(NkiError, match=r"NKI-V141.*it can be \[2\] or \[1, 2\]"):
        call(getattr(nl, name), random(4, 3, 5), axis=axis)


@pytest.mark.parametrize("shape, axis", [((16, 40), -1), ((16, 40), 1), ((8, 3, 7), 2), ((8, 3, 7), (1, 2))])
def test_softmax(shape, axis):
    x = random(*shape, low=-30, high=30)
    axes = tuple(axis) if isinstance(axis, tuple) else (axis,)
    powers = np.exp(x - x.max(axes, keepdims=True))
    np.testing.assert_allclose(
        call(nl.softmax, x, axis=axis)[0], powers / powers.sum(axes, keepdims=True), rtol=1e-4, atol=1e-7
    )


def test_softmax_of_bfloat16_keeps_its_dtype():
    result, _ = call(nl.softmax, random(8, 16).astype(np.float16))
    assert result.dtype == np.float16


@pytest.mark.parametrize("weights", [(16, 40), (1, 40)])
def test_rms_norm(weights):
    x, w = random(16, 40), random(*weights, seed=1)
    result, _ = call(_normed, x, w)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def _normed(x, w):
    return nl.rms_norm(x, w, axis=1, n=40)


def test_rms_norm_with_dtypes():
    x = random(16, 40)
    result, _ = call(
        nl.rms_norm, x, x, axis=1, n=40, epsilon=0.5, dtype=nl.bfloat16, compute_dtype=nl.bfloat16
    )
    assert str(result.dtype) == "bfloat16"
    expected = x / np.sqrt((x**2).mean(1, keepdims=True) + 0.5) * x
    np.testing.assert_allclose(result.astype(np.float32), expected, rtol=3e-2, atol=1e-2)
