"""Elementwise functions: each makes a new SBUF tile and lowers to the instruction its row names.

An operator such as ``nl.add`` is both a value (``op=nl.add``) and a function
(``nl.add(x, y)``). Functions that are not operators of an engine are in
:mod:`nki.language.composed`.

Source: SDK API pages of ``nki.language``; the release notes' known issues for what is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from nki import levels
from nki.compiler.specializer.recorder import current
from nki.language import docstrings
from nki.language.emitting import emit, no_instruction, tile_like
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.operators import OPERATORS, Operator
from nki_isa.rules import elementwise
from nki_isa.tensor.kinds import Dtype, checked
from nki_isa.tensor.tensor import NkiTensor

called = partial(checked, prefix="nl.")


class _Function(Operator):
    """An operator that kernels may call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


class UnaryFunction(_Function):
    """An operator of one argument: ``f(x, dtype=None)``; by default in the dtype of `x`."""

    @called
    def __call__(self, x: NkiTensor, dtype: Dtype | None = None) -> NkiTensor:
        result = tile_like(x, dtype)
        _UNARY.get(self.name, _activation)(self, result, x)
        return result


class BinaryFunction(_Function):
    """An operator of two arguments: ``f(x, y, dtype=None)``, at least one of them a tile (of power both).

    Two tiles make a ``tensor_tensor``, a tile and a number a ``tensor_scalar``. Free dimensions of size 1
    are repeated as in numpy, through the access pattern. The result has the dtype of the first tile unless
    `dtype` is given; comparisons give 1 and 0 in it.
    """

    @called
    def __call__(self, x: NkiTensor | float, y: NkiTensor | float, dtype: Dtype | None = None) -> NkiTensor:
        if dtype is None and self.name in _COMPARISONS and levels.before("0.3"):
            dtype = "bool"
        if isinstance(x, NkiTensor) and isinstance(y, NkiTensor):
            return self._tiles(x, y, dtype)
        tile, number, reverse = (x, y, False) if isinstance(x, NkiTensor) else (y, x, True)
        if not isinstance(tile, NkiTensor):
            raise error(
                "NKI-V100",
                f"nl.{self.name} got {x!r} and {y!r}, neither of which is a tensor",
                help="for plain numbers use Python's own operators and math",
            )
        if self.name == "power":
            filled = f"nl.full(t.shape, {number!r}, dtype=t.dtype)"
            raise no_instruction(
                "power",
                f"got the number {number!r}; its base and its exponent are tiles",
                f"fill a tile with it: nl.power({f'{filled}, t' if reverse else f't, {filled}'})",
            )
        result = tile_like(tile, dtype)
        emit("tensor_scalar", result, tile, self, number, reverse)
        return result

    def _tiles(self, x: NkiTensor, y: NkiTensor, dtype: Any) -> NkiTensor:
        if self.name in _BY_PARTITION and y.shape == (x.shape[0], 1) != x.shape:
            result = tile_like(x, dtype)
            emit("tensor_scalar", result, x, self, y)
            return result
        if x.ndim != y.ndim or x.shape[0] != y.shape[0]:
            raise self._unlike(x, y)
        seen_x, seen_y = x, y
        for dim, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)):
            if a != b and a == 1:
                seen_x = seen_x.broadcast(dim, b)
            elif a != b and b == 1:
                seen_y = seen_y.broadcast(dim, a)
            elif a != b:
                raise self._unlike(x, y)
        if x.shape != y.shape:
            current().tell(
                elementwise.FUNCTION_SHAPES,
                f"nl.{self.name} got shapes {x.shape} and {y.shape}, and the compiler repeats no dimension",
                help=f"write nl.{self.name}(x, nl.broadcast_to(y, x.shape)), or use nisa.tensor_scalar",
            )
        result = tile_like(seen_x, dtype)
        emit("tensor_tensor", result, seen_x, seen_y, self)
        return result

    def _unlike(self, x: NkiTensor, y: NkiTensor) -> NkiError:
        return error(
            "NKI-V103",
            f"nl.{self.name} got shapes {x.shape} and {y.shape}; free dimensions of size 1 are repeated as "
            "in numpy, partitions are not",
            help="give both as many dimensions and partitions: "
            f"nl.{self.name}(x, nl.broadcast_to(y, x.shape))",
        )


def _activation(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    emit("activation", result, function, x)


def _invert(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    emit("tensor_scalar", result, x, OPERATORS["bitwise_xor"], (1 << 8 * x.dtype.itemsize) - 1)


def _reciprocal(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    emit("reciprocal", result, x)


def _rsqrt(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    if not x.buffer.value == "sbuf":
        raise error(
            "NKI-V101",
            f"nl.rsqrt got {x!r}, which is in {x.buffer.value}; gpsimd, which runs it, reaches SBUF only",
            help="copy it with nl.copy(x), or call nisa.activation(dst, op=nl.rsqrt, data=x)",
            notes=("source: NKI release notes 0.5.0",),
        )
    emit("tensor_scalar", result, x, function, 0)


def _sin(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    emit("activation", result, function, x, reduces_range=True)


def _copy(function: Operator, result: NkiTensor, x: NkiTensor) -> None:
    if x.buffer.is_hbm:
        raise error("NKI-V101", f"nl.copy got {x!r}, which is in HBM", help="load it: nl.load(x)")
    emit("tensor_copy", result, x)


#: How functions of one argument lower that are not an ``activation``.
_UNARY: dict[str, Callable[[Operator, NkiTensor, NkiTensor], None]] = {
    "invert": _invert,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "sin": _sin,
    "copy": _copy,
}

#: Functions whose page shows a second argument with one value per partition.
_BY_PARTITION = ("abs_max", "abs_min")

_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")

#: Operators that are values only: ``op=nl.bypass``.
_VALUES = ("average", "bypass", "prelu")


def _function(row: Operator) -> Operator:
    kind: type[Operator] = UnaryFunction if row.kinds & {"unary", "activation"} else BinaryFunction
    parameters = "x, dtype" if kind is UnaryFunction else "x, y, dtype"
    if row.name in _VALUES:
        kind, parameters = Operator, ""
    made = kind(**{field.name: getattr(row, field.name) for field in fields(Operator) if field.init})
    object.__setattr__(made, "__doc__", docstrings.of_operator(row, parameters))
    return made


FUNCTIONS: dict[str, Operator] = {name: _function(row) for name, row in OPERATORS.items()}


def _by_name(name: str) -> Operator:
    return FUNCTIONS[name]


def divide(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Refused (NKI-V140): no engine divides."""
    raise no_instruction(
        "divide", "has no instruction: no engine divides", "multiply: nl.multiply(x, nl.reciprocal(y))"
    )


def fmod(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Refused (NKI-V140): no engine takes remainders."""
    raise no_instruction(
        "fmod",
        "has no instruction: no engine takes remainders",
        "subtract: q = nl.trunc(nl.multiply(x, nl.reciprocal(y))); nl.subtract(x, nl.multiply(q, y))",
    )


def mod(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Refused (NKI-V140): no engine takes remainders."""
    raise no_instruction(
        "mod",
        "has no instruction: no engine takes remainders",
        "subtract: q = nl.floor(nl.multiply(x, nl.reciprocal(y))); nl.subtract(x, nl.multiply(q, y))",
    )
