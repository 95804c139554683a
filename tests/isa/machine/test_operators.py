"""The operator table against numpy, the math module and the documented ranges."""

import math

import numpy as np
import pytest

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.operators import OPERATORS, Operator, as_operator

ALU = [
    "invert",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "left_shift",
    "right_shift",
    "add",
    "subtract",
    "multiply",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "greater_equal",
    "greater",
    "less_equal",
    "less",
    "logical_and",
    "logical_or",
    "logical_xor",
    "power",
    "abs_max",
    "abs_min",
    "abs",
    "square",
    "relu",
    "rsqrt",
    "reciprocal",
]
ACTIVATIONS = [
    "copy",
    "square",
    "sigmoid",
    "relu",
    "prelu",
    "gelu",
    "gelu_dx",
    "gelu_apprx_tanh",
    "gelu_apprx_sigmoid",
    "gelu_apprx_sigmoid_dx",
    "silu",
    "silu_dx",
    "tanh",
    "softplus",
    "mish",
    "erf",
    "erf_dx",
    "exp",
    "log",
    "sin",
    "arctan",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "sign",
    "abs",
]
REDUCTIONS = [
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "add",
    "subtract",
    "multiply",
    "maximum",
    "minimum",
    "logical_and",
    "logical_or",
    "logical_xor",
]


def test_the_table_has_the_documented_rows():
    for name in ALU:
        assert OPERATORS[name].kinds & {"bitvec", "arithmetic"}, name
    for name in ACTIVATIONS:
        assert "activation" in OPERATORS[name].kinds, name
    assert sorted(n for n, op in OPERATORS.items() if op.reduction) == sorted(REDUCTIONS)
    assert set(OPERATORS) == {*ALU, *ACTIVATIONS, "bypass", "average"}


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def derivative(function, x, h=1e-5):
    return (function(x + h) - function(x - h)) / (2 * h)


REFERENCE = {
    "copy": lambda x: x,
    "square": lambda x: x * x,
    "sigmoid": sigmoid,
    "relu": lambda x: max(x, 0.0),
    "prelu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_apprx_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_apprx_sigmoid": lambda x: x * sigmoid(1.702 * x),
    "silu": lambda x: x * sigmoid(x),
    "tanh": math.tanh,
    "softplus": softplus,
    "mish": lambda x: x * math.tanh(softplus(x)),
    "erf": math.erf,
    "exp": math.exp,
    "log": math.log,
    "arctan": math.atan,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sign": lambda x: math.copysign(1, x) if x else 0.0,
    "abs": abs,
}
DERIVATIVES = {
    "gelu_dx": "gelu",
    "silu_dx": "silu",
    "erf_dx": "erf",
    "gelu_apprx_sigmoid_dx": "gelu_apprx_sigmoid",
}
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_activation_functions(name):
    points = np.linspace(0.01, 20, 4001) if name in POSITIVE else np.linspace(-9, 9, 4001)
    points = points.astype(np.float32)
    got = OPERATORS[name].apply(points)
    assert got.dtype == np.float32
    expected = np.array([REFERENCE[name](float(x)) for x in points])
    # Relative to the result, or to the argument where the function cancels to something smaller.
    scale = np.maximum(np.abs(expected), 2e-2 * np.abs(points) + 1e-3)
    assert np.max(np.abs(got - expected) / scale) < 2e-6


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_derivatives(name):
    points = np.linspace(-6, 6, 301).astype(np.float32)
    expected = [derivative(REFERENCE[DERIVATIVES[name]], float(x)) for x in points]
    np.testing.assert_allclose(OPERATORS[name].apply(points), expected, atol=2e-6)


def test_erf_is_within_one_ulp():
    points = np.concatenate([np.linspace(-6.5, 6.5, 20001), np.logspace(-30, 0, 2001)]).astype(np.float32)
    expected = np.array([math.erf(x) for x in points])
    ulp = np.spacing(np.abs(expected).astype(np.float32))
    assert np.max(np.abs(OPERATORS["erf"].apply(points) - expected) / ulp) <= 1


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"sin"}))
def test_activations_of_infinities_and_nan(name):
    low, high, nan = OPERATORS[name].apply(np.array([-np.inf, np.inf, np.nan], np.float32))
    assert np.isnan(nan)
    if not OPERATORS[name].domain and name != "prelu":  # which multiplies by its slope, 0
        assert not np.isnan(low) and not np.isnan(high)


def test_sin_is_not_range_reduced():
    sine = OPERATORS["sin"]
    inside = np.linspace(-math.pi, math.pi, 101).astype(np.float32)[1:-1]
    np.testing.assert_allclose(sine.apply(inside), np.sin(inside.astype(np.float64)), atol=1e-6)
    assert sine.apply(np.array([9.0], np.float32))[0] == pytest.approx(27.65, abs=0.005)  # published
    assert sine.apply(np.array([-9.0], np.float32))[0] == pytest.approx(-27.65, abs=0.005)
    assert sine.outside(np.array([0, 3.2, -9, np.nan], np.float32)) == 3


@pytest.mark.parametrize(
    "name, inside, outside",
    [
        ("log", [2.0**-64, 1, 2.0**64], [0, -1, 2.0**65]),
        ("arctan", [-1.5, 1.5], [1.6, -1.6]),
        ("sqrt", [2.0**-116, 2.0**118], [2.0**-117, 2.0**119]),
        ("rsqrt", [2.0**-87, 2.0**97], [0, 2.0**98]),
        ("reciprocal", [2.0**-42, -(2.0**42)], [0, 2.0**43]),
    ],
)
def test_valid_input_ranges(name, inside, outside):
    assert OPERATORS[name].outside(np.array(inside, np.float32)) == 0
    assert OPERATORS[name].outside(np.array(outside, np.float32)) == len(outside)


def test_comparisons_give_one_and_zero():
    x, y = np.array([1, 2, np.nan], np.float32), np.array([1, 1, 1], np.float32)
    assert OPERATORS["equal"].apply(x, y).tolist() == [1, 0, 0]
    assert OPERATORS["greater"].apply(x, y).dtype == np.float32


def test_identities_leave_a_reduction_alone():
    for name, op in OPERATORS.items():
        if op.reduction and op.kind == "arithmetic" and name not in ("subtract",):
            one = np.ones(1, np.float32)
            assert op.apply(np.full(1, op.identity, np.float32), one) == one, name


# --- as_operator


class _Callable(Operator):
    """What a front end may make of a row."""

    def __call__(self, x):
        return x


def test_operators_are_equal_by_name():
    row = OPERATORS["add"]
    other = _Callable("add", frozenset({"arithmetic"}), None)
    assert other == row and hash(other) == hash(row) and other != OPERATORS["subtract"]
    assert as_operator(other) is row and as_operator("add") is row


def test_as_operator_takes_functions_of_nki():
    def maximum():
        pass

    maximum.__module__ = "nki.language"
    assert as_operator(maximum) is OPERATORS["maximum"]
    assert as_operator("max") is OPERATORS["maximum"]


@pytest.mark.parametrize(
    "value, hint", [(np.add, "nl.add"), ("divide", "nl.add"), (None, "nl.add"), (3, "nl.add")]
)
def test_as_operator_refuses_anything_else(value, hint):
    with pytest.raises(NkiValidationError) as caught:
        as_operator(value)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "NKI-V107" and hint in diagnostic.help


def test_function_tables():
    assert OPERATORS["exp"].table == "exp"
    assert OPERATORS["copy"].table is None and OPERATORS["add"].table is None


@pytest.mark.parametrize(
    "value, meant",
    [
        (sum, "add"),
        (max, "maximum"),
        (np.amin, "minimum"),
        (np.prod, "multiply"),
        ("+", "add"),
        ("<=", "less_equal"),
    ],
)
def test_functions_of_elsewhere_are_told_as_operators(value, meant):
    with pytest.raises(NkiValidationError) as caught:
        as_operator(value)
    assert caught.value.diagnostics[0].help == f"pass nl.{meant}"
