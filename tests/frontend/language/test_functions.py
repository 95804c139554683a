"""Every function of nki.language against numpy, and the instructions it lowers to."""

import math
import re

import numpy as np
import pytest
from running import call, random

import nki
import nki.language as nl
from nki_isa.diagnostics import NkiError

ERF = np.vectorize(math.erf)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _derivative(f):
    def slope(x):
        step = 1e-5
        return (f(x + step) - f(x - step)) / (2 * step)

    return slope


def _gelu(x):
    return 0.5 * x * (1 + ERF(x / math.sqrt(2)))


def _gelu_sigmoid(x):
    return x * _sigmoid(1.702 * x)


def _silu(x):
    return x * _sigmoid(x)


# name -> (numpy, low, high, opcodes)
UNARY = {
    "exp": (np.exp, -3, 3, ["activation"]),
    "log": (np.log, 0.1, 9, ["activation"]),
    "sqrt": (np.sqrt, 0.1, 9, ["activation"]),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 9, ["tensor_scalar"]),
    "reciprocal": (lambda x: 1 / x, 0.1, 9, ["reciprocal"]),
    "abs": (np.abs, -3, 3, ["activation"]),
    "square": (np.square, -3, 3, ["activation"]),
    "sign": (np.sign, -3, 3, ["activation"]),
    "negative": (np.negative, -3, 3, ["tensor_scalar"]),
    "copy": (lambda x: x, -3, 3, ["tensor_copy"]),
    "tanh": (np.tanh, -3, 3, ["activation"]),
    "sigmoid": (_sigmoid, -3, 3, ["activation"]),
    "relu": (lambda x: np.maximum(x, 0), -3, 3, ["activation"]),
    "gelu": (_gelu, -3, 3, ["activation"]),
    "gelu_dx": (_derivative(_gelu), -3, 3, ["activation"]),
    "gelu_apprx_sigmoid": (_gelu_sigmoid, -3, 3, ["activation"]),
    "gelu_apprx_sigmoid_dx": (_derivative(_gelu_sigmoid), -3, 3, ["activation"]),
    "gelu_apprx_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        -3,
        3,
        ["activation"],
    ),
    "silu": (_silu, -3, 3, ["activation"]),
    "silu_dx": (_derivative(_silu), -3, 3, ["activation"]),
    "softplus": (lambda x: np.log1p(np.exp(x)), -3, 3, ["activation"]),
    "mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))), -3, 3, ["activation"]),
    "erf": (ERF, -3, 3, ["activation"]),
    "erf_dx": (_derivative(ERF), -3, 3, ["activation"]),
    "sin": (np.sin, -math.pi, math.pi, ["activation"]),
    "cos": (np.cos, -1000.0, 1000.0, ["activation"]),
    "tan": (np.tan, -1.5, 1.5, None),
    "arctan": (np.arctan, -1.5, 1.5, ["activation"]),
    "floor": (np.floor, -9, 9, None),
    "ceil": (np.ceil, -9, 9, None),
    "trunc": (np.trunc, -9, 9, None),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    function, low, high, opcodes = UNARY[name]
    x = random(64, 48, low=low, high=high)
    result, made = call(getattr(nl, name), x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, function(x.astype(np.float64)), rtol=2e-5, atol=2e-6)
    assert opcodes is None or made == opcodes


@pytest.mark.parametrize("name", ["exp", "negative", "cos", "floor", "trunc", "copy", "reciprocal"])
def test_dtype_of_the_result(name):
    x = random(8, 8, low=0.5, high=3)
    result, _ = call(getattr(nl, name), x, dtype=nl.float16)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, UNARY[name][0](x.astype(np.float64)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc"])
def test_rounding_at_the_edges(name):
    edges = [0.5, -0.5, 1.5, 2.0, -2.0, 2.0**23 - 0.5, 2.0**31, -(2.0**40), 3.4e38, np.inf, -np.inf, np.nan]
    x = np.array([edges], np.float32)
    np.testing.assert_array_equal(call(getattr(nl, name), x)[0], getattr(np, name)(x))


BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    x, y = np.round(random(64, 48)), np.round(random(64, 48, seed=1))
    result, made = call(getattr(nl, name), x, y)
    np.testing.assert_array_equal(result, BINARY[name](x, y).astype(np.float32))
    assert made == ["tensor_tensor"]


@pytest.mark.parametrize("name", BINARY)
def test_binary_with_a_number(name):
    x = np.round(random(64, 48))
    right, made = call(getattr(nl, name), x, 2.0)
    left, _ = call(getattr(nl, name), 2.0, x)
    np.testing.assert_array_equal(right, BINARY[name](x, np.float32(2)).astype(np.float32))
    np.testing.assert_array_equal(left, BINARY[name](np.float32(2), x).astype(np.float32))
    assert made == ["tensor_scalar"]


def test_comparison_as_uint8():
    x = np.round(random(16, 16))
    result, _ = call(nl.greater, x, 0.0, dtype=nl.uint8)
    np.testing.assert_array_equal(result, (x > 0).astype(np.uint8))


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"])
def test_bitwise(name):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 1 << 16, (32, 16)).astype(np.int32)
    y = generator.integers(0, 8, (32, 16)).astype(np.int32)
    np.testing.assert_array_equal(call(getattr(nl, name), x, y)[0], getattr(np, name)(x, y))
    np.testing.assert_array_equal(call(getattr(nl, name), x, 3)[0], getattr(np, name)(x, np.int32(3)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32])
def test_invert(dtype):
    x = np.arange(64).reshape(4, 16).astype(dtype)
    result, made = call(nl.invert, x)
    np.testing.assert_array_equal(result, np.invert(x))
    assert made == ["tensor_scalar"]


def test_logical_not():
    x = np.array([[0, 1, 1, 0]], np.float32)
    np.testing.assert_array_equal(call(nl.logical_not, x)[0], 1 - x)


def test_power():
    x, y = random(16, 8, low=0.5, high=3), random(16, 8, low=-2, high=2, seed=1)
    np.testing.assert_allclose(call(nl.power, x, y)[0], x**y, rtol=1e-5)
    with pytest.raises(NkiError, match=r"NKI-V140.*nl\.power.*2\.0.*nl\.full"):
        call(nl.power, x, 2.0)


def test_abs_max_and_min():
    x, y = random(16, 8), random(16, 8, seed=1)
    larger = np.where(np.abs(x) > np.abs(y), x, y)
    np.testing.assert_array_equal(call(nl.abs_max, x, y, target="trn3")[0], larger)
    column, made = call(nl.abs_min, x, y[:, :1], target="trn3")
    np.testing.assert_array_equal(column, np.where(np.abs(x) < np.abs(y[:, :1]), x, y[:, :1]))
    assert made == ["tensor_scalar"]
    with pytest.raises(NkiError, match="NKI-V1"):
        call(nl.abs_max, x, y)


@pytest.mark.parametrize("name", ["divide", "fmod", "mod"])
def test_no_engine_divides(name):
    with pytest.raises(NkiError, match=rf"NKI-V140.*nl\.{name}.*nl\.reciprocal"):
        call(getattr(nl, name), random(4, 4), random(4, 4))


def test_the_advice_for_divide_and_mod_holds():
    x, y = random(16, 8, low=-9, high=9), random(16, 8, low=0.5, high=3, seed=1)
    quotient, _ = call(_divided, x, y)
    np.testing.assert_allclose(quotient, x / y, rtol=1e-5)
    rest, _ = call(_remainder, x, y)
    np.testing.assert_allclose(rest, np.mod(x, y), atol=1e-5)


def _divided(x, y):
    return nl.multiply(x, nl.reciprocal(y))


def _remainder(x, y):
    q = nl.floor(nl.multiply(x, nl.reciprocal(y)))
    return nl.subtract(x, nl.multiply(q, y))


@pytest.mark.parametrize(
    "shapes", [((8, 6), (8, 1)), ((8, 1), (8, 6)), ((8, 1, 4), (8, 3, 1)), ((8, 3, 4), (8, 1, 4))]
)
@pytest.mark.parametrize("name", ["add", "subtract", "maximum", "greater"])
def test_binary_functions_repeat_free_dimensions_of_size_1(name, shapes):
    """As numpy does; a public repository subtracts a column of maxima so."""
    x, y = random(*shapes[0]), random(*shapes[1], seed=1)
    result, made = call(getattr(nl, name), x, y)
    np.testing.assert_array_equal(result, getattr(np, name)(x, y).astype(np.float32))
    assert made == ["tensor_tensor"]


@pytest.mark.parametrize("shapes", [((8, 8), (1, 8)), ((8, 8), (8, 4)), ((8, 4, 4), (8, 4))])
def test_binary_functions_repeat_nothing_else(shapes):
    with pytest.raises(NkiError, match=re.escape("nl.broadcast_to(y, x.shape)")):
        call(nl.add, random(*shapes[0]), random(*shapes[1]))


def test_rsqrt_reads_sbuf_only():
    with pytest.raises(NkiError, match=r"NKI-V101.*nl\.rsqrt.*nl\.copy"):
        call(_rsqrt_of_psum, random(8, 8))


def _rsqrt_of_psum(x):
    return nl.rsqrt(nl.transpose(x))


def test_where():
    condition = (random(16, 8) > 0).astype(np.float32)
    x, y = random(16, 8, seed=1), random(16, 8, seed=2)
    result, made = call(nl.where, condition, x, y)
    np.testing.assert_array_equal(result, np.where(condition, x, y))
    assert made == ["tensor_scalar", "tensor_copy", "tensor_copy_predicated"]
    np.testing.assert_array_equal(
        call(nl.where, condition, x, -1.0)[0], np.where(condition, x, np.float32(-1))
    )
    np.testing.assert_array_equal(call(nl.where, condition, 2.0, y)[0], np.where(condition, np.float32(2), y))
    half, _ = call(nl.where, condition, x, y, dtype=nl.float16)
    np.testing.assert_array_equal(half, np.where(condition, x, y).astype(np.float16))


def test_what_is_no_tile():
    for function in (nl.exp, nl.negative, nl.floor, nl.cos):
        with pytest.raises(NkiError, match="NKI-V100"):
            call(function, 1.0)


def test_values_are_not_functions():
    @nki.jit
    def kernel(x):
        nl.average(x)

    with pytest.raises(NkiError):
        kernel(random(4, 4))
