"""What each function of ``nki.language`` says of itself: meaning, range, generation, errors, source."""

from __future__ import annotations

import inspect
from typing import Any

from nki_isa.machine.operators import Operator
from nki_isa.machine.targets import since

#: What an operator computes, element by element.
MEANINGS = {
    "invert": "the bits of `x` inverted",
    "bitwise_and": "the bits that `x` and `y` both have",
    "bitwise_or": "the bits that `x` or `y` has",
    "bitwise_xor": "the bits that one of `x` and `y` has",
    "left_shift": "the bits of `x` moved up by `y` places",
    "right_shift": "the bits of `x` moved down by `y` places",
    "add": "`x` + `y`",
    "subtract": "`x` - `y`",
    "multiply": "`x` times `y`",
    "maximum": "the larger of `x` and `y`; NaN where either is NaN",
    "minimum": "the smaller of `x` and `y`; NaN where either is NaN",
    "equal": "1 where `x` == `y`, else 0",
    "not_equal": "1 where `x` != `y`, else 0",
    "greater_equal": "1 where `x` >= `y`, else 0",
    "greater": "1 where `x` > `y`, else 0",
    "less_equal": "1 where `x` <= `y`, else 0",
    "less": "1 where `x` < `y`, else 0",
    "logical_and": "1 where neither `x` nor `y` is 0, else 0",
    "logical_or": "1 where `x` or `y` is not 0, else 0",
    "logical_xor": "1 where one of `x` and `y` is not 0, else 0",
    "power": "`x` to the power of `y`, both tiles",
    "abs_max": "the one of `x` and `y` that is farther from 0, with its sign",
    "abs_min": "the one of `x` and `y` that is nearer to 0, with its sign",
    "bypass": "`x` as it is; `y` is not looked at",
    "average": "the mean of the elements reduced",
    "abs": "the absolute value of `x`",
    "square": "`x` squared",
    "relu": "`x` where it is above 0, else 0",
    "rsqrt": "1 / sqrt(`x`)",
    "reciprocal": "1 / `x`",
    "copy": "`x` in another tile, or in another dtype",
    "sigmoid": "1 / (1 + exp(-`x`))",
    "prelu": "`x` where it is above 0, else `x` times a slope for each partition",
    "gelu": "`x` times the normal distribution function of `x`",
    "gelu_dx": "the derivative of gelu at `x`",
    "gelu_apprx_tanh": "gelu in its approximation by tanh",
    "gelu_apprx_sigmoid": "gelu in its approximation by a sigmoid, `x` sigmoid(1.702 `x`)",
    "gelu_apprx_sigmoid_dx": "the derivative of gelu_apprx_sigmoid at `x`",
    "silu": "`x` sigmoid(`x`)",
    "silu_dx": "the derivative of silu at `x`",
    "tanh": "the hyperbolic tangent of `x`",
    "softplus": "log(1 + exp(`x`))",
    "mish": "`x` tanh(softplus(`x`))",
    "erf": "the error function of `x`",
    "erf_dx": "the derivative of erf at `x`",
    "exp": "e to the power of `x`",
    "log": "the natural logarithm of `x`",
    "sin": "the sine of `x`, in radians",
    "arctan": "the angle, in radians, whose tangent is `x`",
    "sqrt": "the square root of `x`",
    "sign": "-1, 0 or 1, as `x` is below, at or above 0",
}

_RAISES = """\
Raises:
    NkiError: NKI-V100 for an operand of another kind, NKI-L012 for arguments that do not fit{more}."""


def of_operator(row: Operator, parameters: str) -> str:
    """The docstring of the function that `row` is: ``nl.exp(x, dtype=None)``."""
    parts = [f"{MEANINGS[row.name].capitalize().replace('`X`', '`x`')}, element by element."]
    if row.domain:
        spans = " or ".join(f"[{low:.6g}, {high:.6g}]" for low, high in row.domain)
        parts.append(
            f"Valid for arguments in {spans}; others are warned of while the kernel runs (NKI-N003)."
        )
    generation = f"an operator of instructions of kind {', '.join(sorted(row.kinds))}"
    oldest = f", of the vector engine from NeuronCore-v{since(row.needs)} on" if row.needs else ""
    parts.append(f"As `op=nl.{row.name}` it is {generation}{oldest}.")
    if parameters:
        more = ", NKI-V103 for shapes that differ" if "y" in parameters.split(", ") else ""
        arguments = _ARGUMENTS[parameters]
        parts.append(arguments.replace(_OR_A_NUMBER, "") if row.name in _TILES_ONLY else arguments)
        parts.append(_RAISES.format(more=more))
    parts.append(
        f"Source: SDK pages nki.language.{row.name} and nki.api.shared (operators and their ranges)."
    )
    return "\n\n".join(parts)


_TILES_ONLY = frozenset({"power"})  # no instruction takes a number there
_OR_A_NUMBER = ", or a tile and a number"
_ARGUMENTS = {
    "x, dtype": """\
Args:
    x: a tile in SBUF or PSUM.
    dtype: of the result; by default that of `x`.

Returns:
    A new SBUF tile of the shape of `x`.""",
    "x, y, dtype": """\
Args:
    x, y: tiles of one shape, or a tile and a number.
    dtype: of the result; by default that of the first tile.

Returns:
    A new SBUF tile.""",
}


def complete(name: str, function: Any) -> None:
    """Give a function of nki.language the sections that its docstring lacks."""
    text = inspect.getdoc(function) or ""
    if "Raises:" not in text:
        text += "\n\n" + _RAISES.format(more="")
    if "Source:" not in text:
        text += f"\n\nSource: SDK page nki.language.{name}."
    function.__doc__ = text
