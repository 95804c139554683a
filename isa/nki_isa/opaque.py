"""Refusals of what would need a tensor's elements at compile time, each with the instruction to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from nki_isa.diagnostics import error

_T = TypeVar("_T", bound=type)

_ELEMENTWISE = "nisa.tensor_tensor(dst=..., data1=a, data2=b, op={0}) or nisa.tensor_scalar for a scalar"
_UNARY = "nisa.tensor_scalar(dst=..., data=t, op0={0}, ...)"
_OPERATORS = {
    "add": ("+", _ELEMENTWISE.format("nl.add")),
    "sub": ("-", _ELEMENTWISE.format("nl.subtract")),
    "mul": ("*", _ELEMENTWISE.format("nl.multiply")),
    "truediv": ("/", "nisa.reciprocal, then " + _ELEMENTWISE.format("nl.multiply")),
    "floordiv": ("//", "nisa.reciprocal, then " + _ELEMENTWISE.format("nl.multiply")),
    "mod": ("%", "no instruction divides with remainder; multiply by nisa.reciprocal and subtract"),
    "pow": ("**", _ELEMENTWISE.format("nl.power")),
    "matmul": ("@", "nisa.nc_matmul(dst=..., stationary=..., moving=...)"),
    "and": ("&", _ELEMENTWISE.format("nl.bitwise_and")),
    "or": ("|", _ELEMENTWISE.format("nl.bitwise_or")),
    "xor": ("^", _ELEMENTWISE.format("nl.bitwise_xor")),
    "lshift": ("<<", _ELEMENTWISE.format("nl.left_shift")),
    "rshift": (">>", _ELEMENTWISE.format("nl.right_shift")),
}
_COMPARISONS_AND_UNARY = {
    "lt": ("<", _ELEMENTWISE.format("nl.less")),
    "le": ("<=", _ELEMENTWISE.format("nl.less_equal")),
    "gt": (">", _ELEMENTWISE.format("nl.greater")),
    "ge": (">=", _ELEMENTWISE.format("nl.greater_equal")),
    "neg": ("unary -", _UNARY.format("nl.multiply, operand0=-1.0")),
    "pos": ("unary +", "use the tensor itself"),
    "invert": ("~", _UNARY.format("nl.invert")),
    "abs": ("abs()", _UNARY.format("nl.abs")),
}
_CONTENTS = {
    "bool": ("the truth value", "compare shapes or scalars, select elements with nisa.select_reduce, or loop "
             "on a register"),
    "int": ("an integer", "load one element into a register with nisa.register_load"),
    "float": ("a number", "pass the tensor itself as the scalar operand of an instruction"),
    "index": ("an index", "use t.select(dim, index), nl.ds(start, size) or a register"),
    "iter": ("the elements", "loop over range(t.shape[0]) and index: t[i]"),
    "len": ("the length", "use t.shape[0]"),
}  # fmt: skip


def opaque(cls: _T) -> _T:
    """Gives `cls` the operators and conversions of a number, all refused (NKI-V030, NKI-V031)."""
    for name, (symbol, remedy) in _OPERATORS.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
        setattr(cls, f"__r{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
    for name, (symbol, remedy) in _COMPARISONS_AND_UNARY.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
    for name, (what, remedy) in _CONTENTS.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V031", f"{what} of", remedy))
    return cls


def _refusal(code: str, what: str, remedy: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *others: object) -> NoReturn:
        raise error(code, f"{what} {self}: the elements of a tensor are unknown at compile time", help=remedy)

    return refuse
