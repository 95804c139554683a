"""The operators of the NeuronCore's engines: one row each.

Source: the SDK page ``nki.api.shared``: its table of math operators (bitvec and
arithmetic, with the legal reductions) and its table of activation functions with
their valid input ranges. Functions take and return float32 arrays, bitvec ones
unsigned integers; arithmetic in the engines is float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from nki_isa.diagnostics import error
from nki_isa.machine.target import Feature

Array = npt.NDArray[Any]

SOURCE = "nki/api/nki.api.shared"

_KINDS = ("bitvec", "arithmetic", "activation", "bypass", "reduction", "unary")


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator; two are equal if their names are, whatever subclass the front end makes of it.

    Attributes:
        name: as in ``nki.language``.
        kinds: subset of ``bitvec``, ``arithmetic``, ``unary`` (one argument),
            ``activation`` (a function of the scalar engine), ``bypass`` and ``reduction``
            (a reduction that is not an operator of two arguments).
        function: float32 arrays to a float32 array; for bitvec operators unsigned
            integer arrays to one. None for `average`, which is a reduction only.
        reduction: True if the table allows it as a reduction operator.
        identity: what an accumulator is reset to before a reduction, or None.
        domain: the closed intervals of valid arguments of an activation function;
            empty if every argument is valid.
        periodic: True for a function whose argument is reduced to `domain`, not cut off at its ends.
        needs: the feature of generations that have it as an ALU operator; None if all have.
        kind: the first of `kinds`.
    """

    name: str
    kinds: frozenset[str]
    function: Callable[..., Array] | None
    reduction: bool = False
    identity: float | None = None
    domain: tuple[tuple[float, float], ...] = ()
    needs: Feature | None = None
    periodic: bool = False
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", next(k for k in _KINDS if k in self.kinds))

    @property
    def table(self) -> str | None:
        """The scalar engine's function table that holds it; None if it is not an activation function.

        Which functions share a table is not published, so each has its own; a copy
        (identity) needs none.
        """
        return self.name if "activation" in self.kinds and self.name != "copy" else None

    @property
    def is_exact(self) -> bool:
        """True if a result is not rounded, or once and as IEEE 754 says.

        Its bits follow from its arguments alone. Those of other functions may differ with where in an array
        numpy meets them.
        """
        return self.kind == "bitvec" or self.name in _EXACT

    def apply(self, *arguments: Any) -> Array:
        """`function` without numpy's warnings: infinities and NaN are results here, not accidents."""
        if self.function is None:
            raise TypeError(f"{self.name} is a reduction, it has no values of its own")
        with np.errstate(all="ignore"):
            return self.function(*arguments)

    def outside(self, values: Array) -> int:
        """How many of `values` lie outside the valid input range; NaN counts as outside."""
        if not self.domain:
            return 0
        valid = np.zeros(values.shape, np.bool_)
        for low, high in self.domain:
            valid |= (values >= low) & (values <= high)
        return int(values.size - np.count_nonzero(valid))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operator) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)

    def __repr__(self) -> str:
        return f"nl.{self.name}"


def _by_name(name: str) -> Operator:
    return OPERATORS[name]


#: Arithmetic operators with results that are exact or rounded once.
_EXACT = {
    "add",
    "subtract",
    "multiply",
    "abs",
    "square",
    "reciprocal",
    "maximum",
    "minimum",
    "abs_max",
    "abs_min",
}
_EXACT |= {"equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "bypass"}
_EXACT |= {"logical_and", "logical_or", "logical_xor"}

# --- bitvec and arithmetic

_ONE, _HALF = np.float32(1), np.float32(0.5)


# maximum and minimum give NaN where either argument is NaN, as numpy does; the SDK does not say.


def _truth(test: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    """A comparison as the engines do it: 1.0 where it holds, 0.0 elsewhere."""

    def function(x: Array, y: Array) -> Array:
        return np.asarray(test(x, y)).astype(np.float32)

    return function


def _abs_max(x: Array, y: Array) -> Array:
    return np.where(np.abs(x) > np.abs(y), x, y)  # keeps the sign


def _abs_min(x: Array, y: Array) -> Array:
    return np.where(np.abs(x) < np.abs(y), x, y)


def _bypass(x: Array, y: Array) -> Array:
    return x


def _invert(x: Array, y: Array | None = None) -> Array:
    return np.invert(x)


# --- activation functions


def _sigmoid(x: Array) -> Array:
    # Through exp(-|x|), which cannot overflow.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, _ONE, e) / (_ONE + e)


def _softplus(x: Array) -> Array:
    # log(1 + exp(x)) through exp(-|x|), which cannot overflow.
    return np.maximum(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x)))


_ERF_STEPS = 2048  # per unit
_ERF_END = 6.0  # erf rounds to 1 in float64 from 5.93 on


def _erf_table() -> Array:
    """erf at the multiples of a step, with its slope as the imaginary part: one row to take for both."""
    points = np.arange(0, _ERF_END + 1 / _ERF_STEPS, 1 / _ERF_STEPS)
    slope = 2 / math.sqrt(math.pi) * np.exp(-(points**2))
    return np.array([math.erf(p) for p in points]) + 1j * slope


_ERF = _erf_table()


_BLOCK = 8192  # elements whose intermediates stay in the cache


def erf64(x: Array) -> Array:
    """erf in float64, error below 1e-11: Taylor steps of second degree from a table of exact values."""
    result = np.empty(x.shape)
    values, out = x.reshape(-1), result.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        _erf_of(values[part], out[part])
    return result


def _erf_of(x: Array, size: Array) -> None:
    """erf of `x` into the float64 array `size`."""
    np.abs(x, out=size)
    np.minimum(size, _ERF_END, out=size)
    nearest = np.rint(np.fmin(size, _ERF_END) * _ERF_STEPS)  # NaN stays in `size`
    row = _ERF.take(nearest.astype(np.intp), mode="clip")
    nearest *= 1 / _ERF_STEPS
    step = np.subtract(size, nearest, out=size)
    nearest *= step
    step *= np.subtract(1, nearest, out=nearest)
    step *= row.imag
    step += row.real
    np.copysign(step, x, out=step)


def _erf(x: Array) -> Array:
    return erf64(x).astype(np.float32)


def _erf_dx(x: Array) -> Array:
    return np.float32(2 / math.sqrt(math.pi)) * np.exp(-(x * x))


def _gelu(x: Array) -> Array:
    result = erf64(x * math.sqrt(0.5))
    result += 1
    result *= 0.5
    result *= x
    np.copyto(result, 0, where=np.isneginf(x))
    return result.astype(np.float32)


def _gelu_dx(x: Array) -> Array:
    wide = x.astype(np.float64)
    density = np.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    tail = np.where(np.isinf(wide), 0, wide * density)
    return (0.5 * (1 + erf64(wide * math.sqrt(0.5))) + tail).astype(np.float32)


def _times(x: Array, gate: Array) -> Array:
    """x * gate, 0 where the gate has closed (so that -inf gives 0, not NaN)."""
    return np.where(gate == 0, np.float32(0), x * gate)


def _gelu_apprx_tanh(x: Array) -> Array:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * (x * x * x))
    return _times(x, _HALF * (_ONE + np.tanh(inner)))


_GELU_SIGMOID = np.float32(1.702)


def _gelu_apprx_sigmoid(x: Array) -> Array:
    return _times(x, _sigmoid(_GELU_SIGMOID * x))


def _gelu_apprx_sigmoid_dx(x: Array) -> Array:
    gate = _sigmoid(_GELU_SIGMOID * x)
    return gate + _times(_GELU_SIGMOID * x, gate * (_ONE - gate))


def _silu(x: Array) -> Array:
    return _times(x, _sigmoid(x))


def _silu_dx(x: Array) -> Array:
    gate = _sigmoid(x)
    return gate + _times(x, gate * (_ONE - gate))


def _mish(x: Array) -> Array:
    return _times(x, np.tanh(_softplus(x)))


def _sin(x: Array) -> Array:
    # No range reduction: outside [-pi, pi] the engine goes on with the cubic of the last segment,
    # -d + d^3/6 with d the distance to the end; the published sin(9.0) = 27.65 fixes it.
    beyond = x - np.copysign(np.float32(math.pi), x)
    cubic = beyond * beyond * beyond / np.float32(6) - beyond
    return np.where(np.abs(x) > np.float32(math.pi), cubic, np.sin(x))


def _prelu(x: Array, slope: Any = 0.0) -> Array:
    return np.where(x >= 0, x, x * np.float32(slope))


def _relu(x: Array) -> Array:
    return np.maximum(x, np.float32(0))


def _rsqrt(x: Array) -> Array:
    return (1 / np.sqrt(x.astype(np.float64))).astype(np.float32)


_BITVEC, _BINARY = ("bitvec",), ("arithmetic",)
_UNARY, _ACTIVATION = ("arithmetic", "unary"), ("activation",)
_BOTH = _UNARY + _ACTIVATION


def _row(
    name: str,
    kinds: tuple[str, ...],
    function: Callable[..., Any] | None,
    *,
    reduction: bool = False,
    identity: float | None = None,
    domain: tuple[tuple[float, float], ...] = (),
    needs: Feature | None = None,
    periodic: bool = False,
) -> Operator:
    return Operator(name, frozenset(kinds), function, reduction, identity, domain, needs, periodic)


_INF = math.inf
_NEWER = Feature.absolute_and_square
_ROWS = (
    # --- bitvec
    _row("invert", ("bitvec", "unary"), _invert),
    _row("bitwise_and", _BITVEC, np.bitwise_and, reduction=True, identity=-1),
    _row("bitwise_or", _BITVEC, np.bitwise_or, reduction=True, identity=0),
    _row("bitwise_xor", _BITVEC, np.bitwise_xor, reduction=True, identity=0),
    _row("left_shift", _BITVEC, np.left_shift),
    _row("right_shift", _BITVEC, np.right_shift),
    # --- arithmetic
    _row("add", _BINARY, np.add, reduction=True, identity=0),
    _row("subtract", _BINARY, np.subtract, reduction=True, identity=0),
    _row("multiply", _BINARY, np.multiply, reduction=True, identity=1),
    _row("maximum", _BINARY, np.maximum, reduction=True, identity=-_INF),
    _row("minimum", _BINARY, np.minimum, reduction=True, identity=_INF),
    _row("equal", _BINARY, _truth(np.equal)),
    _row("not_equal", _BINARY, _truth(np.not_equal)),
    _row("greater_equal", _BINARY, _truth(np.greater_equal)),
    _row("greater", _BINARY, _truth(np.greater)),
    _row("less_equal", _BINARY, _truth(np.less_equal)),
    _row("less", _BINARY, _truth(np.less)),
    _row("logical_and", _BINARY, _truth(np.logical_and), reduction=True, identity=1),
    _row("logical_or", _BINARY, _truth(np.logical_or), reduction=True, identity=0),
    _row("logical_xor", _BINARY, _truth(np.logical_xor), reduction=True, identity=0),
    _row("power", _BINARY, np.power),
    _row("abs_max", _BINARY, _abs_max, identity=0, needs=_NEWER),
    _row("abs_min", _BINARY, _abs_min, identity=_INF, needs=_NEWER),
    _row("bypass", ("bypass",), _bypass),
    _row("average", ("reduction",), None),
    # --- arithmetic of one argument, which are activation functions as well
    _row("abs", _BOTH, np.abs),
    _row("square", _BOTH, np.square, needs=_NEWER),
    _row("relu", _BOTH, _relu, needs=_NEWER),
    _row("rsqrt", _BOTH, _rsqrt, domain=((2.0**-87, 2.0**97),)),
    _row(
        "reciprocal",
        _BOTH,
        lambda x: _ONE / x,
        domain=((-(2.0**42), -(2.0**-42)), (2.0**-42, 2.0**42)),
    ),
    # --- activation functions
    _row("copy", _ACTIVATION, lambda x: x),
    _row("sigmoid", _ACTIVATION, _sigmoid),
    _row("prelu", _ACTIVATION, _prelu),
    _row("gelu", _ACTIVATION, _gelu),
    _row("gelu_dx", _ACTIVATION, _gelu_dx),
    _row("gelu_apprx_tanh", _ACTIVATION, _gelu_apprx_tanh),
    _row("gelu_apprx_sigmoid", _ACTIVATION, _gelu_apprx_sigmoid),
    _row("gelu_apprx_sigmoid_dx", _ACTIVATION, _gelu_apprx_sigmoid_dx),
    _row("silu", _ACTIVATION, _silu),
    _row("silu_dx", _ACTIVATION, _silu_dx),
    _row("tanh", _ACTIVATION, np.tanh),
    _row("softplus", _ACTIVATION, _softplus),
    _row("mish", _ACTIVATION, _mish),
    _row("erf", _ACTIVATION, _erf),
    _row("erf_dx", _ACTIVATION, _erf_dx),
    _row("exp", _ACTIVATION, np.exp),
    _row("log", _ACTIVATION, np.log, domain=((2.0**-64, 2.0**64),)),
    _row("sin", _ACTIVATION, _sin, domain=((-math.pi, math.pi),), periodic=True),
    _row("arctan", _ACTIVATION, np.arctan, domain=((-math.pi / 2, math.pi / 2),)),
    _row("sqrt", _ACTIVATION, np.sqrt, domain=((2.0**-116, 2.0**118),)),
    _row("sign", _ACTIVATION, np.sign),
)

OPERATORS: dict[str, Operator] = {row.name: row for row in _ROWS}

#: Names of ``nki.language`` functions that documentation also uses for operators.
ALIASES = {"max": "maximum", "min": "minimum"}

#: What to write for functions that no engine has as an operator.
_INSTEAD = {
    "divide": "no engine divides: multiply by 1 / x, or by what nisa.reciprocal gives",
    "mod": "no engine takes remainders: subtract the multiple, x - floor(x / y) * y",
    "fmod": "no engine takes remainders: subtract the multiple, x - trunc(x / y) * y",
}


_OF_FUNCTIONS: dict[FunctionType, Operator] = {}  # of nki.language, as kernels name operators


#: Functions of Python and numpy, and signs, as operators.
_MEANT = {
    "sum": "add", "nansum": "add", "+": "add", "prod": "multiply", "*": "multiply", "mul": "multiply",
    "sub": "subtract", "-": "subtract", "max": "maximum", "amax": "maximum", "fmax": "maximum",
    "min": "minimum", "amin": "minimum", "fmin": "minimum", "absolute": "abs", "fabs": "abs",
    "pow": "power", "**": "power",
    "&": "bitwise_and", "|": "bitwise_or", "^": "bitwise_xor", "<<": "left_shift", ">>": "right_shift",
    "and_": "bitwise_and", "or_": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift",
    "rshift": "right_shift", "eq": "equal", "==": "equal", "ne": "not_equal", "!=": "not_equal",
    "gt": "greater", ">": "greater", "ge": "greater_equal", ">=": "greater_equal", "lt": "less", "<": "less",
    "le": "less_equal", "<=": "less_equal",
}  # fmt: skip


def as_operator(value: Any) -> Operator:
    """The row `value` names: an Operator, its name, or a function of ``nki`` of that name.

    Numpy's functions are not operators in the current documentation.

    Raises:
        NkiValidationError: NKI-V107, `value` is not an operator.
    """
    if type(value) is FunctionType and value in _OF_FUNCTIONS:
        return _OF_FUNCTIONS[value]
    name: Any = value
    if isinstance(value, Operator):
        name = value.name
    elif (getattr(value, "__module__", None) or "").split(".")[0] == "nki":
        name = getattr(value, "__name__", None)
    if isinstance(name, str):
        row = OPERATORS.get(ALIASES.get(name, name))
        if row is not None:
            if type(value) is FunctionType:
                _OF_FUNCTIONS[value] = row
            return row
    shown = getattr(value, "__name__", None) or repr(value)
    meant = _MEANT.get(shown.strip("'\""), shown)
    near = f"nl.{meant}" if meant in OPERATORS else "an operator such as nl.add, nl.maximum or nl.exp"
    raise error(
        "NKI-V107",
        f"{shown} is not an operator of nki.language",
        help=_INSTEAD.get(shown, f"pass {near}"),
    )
