"""Refusals of what would need a tensor's elements at compile time, each with the line to write.

The truth value of a tensor is refused too, unless whoever specializes a kernel decides about it:
published kernels write ``if bias:`` where they mean ``if bias is not None:``, and are compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

from nki_isa.diagnostics import Diagnostic, NkiError, RunTimeValueError
from nki_isa.tensor.idioms import idiom, refused_function

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
    "divmod": ("divmod()", "no instruction divides with remainder; multiply by nisa.reciprocal and subtract"),
    "pow": ("**", _ELEMENTWISE.format("nl.power")),
    "matmul": ("@", "nisa.nc_matmul(dst=..., stationary=..., moving=...)"),
    "and": ("&", _ELEMENTWISE.format("nl.bitwise_and")),
    "or": ("|", _ELEMENTWISE.format("nl.bitwise_or")),
    "xor": ("^", _ELEMENTWISE.format("nl.bitwise_xor")),
    "lshift": ("<<", _ELEMENTWISE.format("nl.left_shift")),
    "rshift": (">>", _ELEMENTWISE.format("nl.right_shift")),
}
_CHOOSE = (
    "compute both and choose by element with nl.where or nisa.tensor_copy_predicated, or load one element "
    "into a register with nisa.register_load and loop on that"
)
_COMPARISON = (
    f"to branch on it, {_CHOOSE}; to compare each element, {_ELEMENTWISE}; for max() and min() of two tiles, "
    "nl.maximum and nl.minimum"
)
_COMPARISONS_AND_UNARY = {
    "lt": ("<", _COMPARISON.format("nl.less")),
    "le": ("<=", _COMPARISON.format("nl.less_equal")),
    "gt": (">", _COMPARISON.format("nl.greater")),
    "ge": (">=", _COMPARISON.format("nl.greater_equal")),
    "neg": ("unary -", _UNARY.format("nl.multiply, operand0=-1.0")),
    "pos": ("unary +", "use the tensor itself"),
    "invert": ("~", _UNARY.format("nl.invert")),
    "abs": ("abs()", _UNARY.format("nl.abs")),
}
_EQUAL = _COMPARISON.format("nl.equal")
_TRUTH = f"write `is not None` to ask whether it was given; to branch on its elements, {_CHOOSE}"
_ELEMENTS = (
    "loop over range(t.shape[0]) and index: t[i]; for sum(), max() and min() of its elements write "
    "nl.sum(t, axis=1), nl.max(t, axis=1) and nl.min(t, axis=1)"
)
_CONTENTS = {
    "int": ("an integer", "load one element into a register with nisa.register_load"),
    "float": (
        "a number",
        "for functions of math write those of nki.language: nl.exp(t), nl.log(t), nl.sqrt(t), nl.sin(t), "
        "nl.cos(t), nl.tan(t), nl.tanh(t), nl.erf(t), nl.floor(t), nl.ceil(t), nl.trunc(t), nl.abs(t) or "
        "nl.power(t, other); where an instruction takes a scalar operand, pass the tensor itself",
    ),
    "round": ("the rounding", str(idiom("round"))),
    "index": ("an index", "use t.select(dim, index), nl.ds(start, size) or a register"),
    "iter": ("the elements", _ELEMENTS),
    "contains": ("the elements", _ELEMENTS),
    "len": ("the length", "use t.shape[0]"),
}  # fmt: skip


_tolerate: ContextVar[Callable[[NkiError], bool] | None] = ContextVar("tolerate", default=None)


@contextlib.contextmanager
def tolerating(tolerate: Callable[[NkiError], bool]) -> Iterator[None]:
    """Inside the block, `tolerate` is given what :func:`tolerated` is asked about."""
    token = _tolerate.set(tolerate)
    try:
        yield
    finally:
        _tolerate.reset(token)


def tolerated(refused: NkiError) -> bool:
    """True where a kernel is recorded in spite of `refused`, which published kernels rely on.

    Raises:
        NkiError: `refused`, anywhere else.
    """
    tolerate = _tolerate.get()
    if tolerate is None:
        raise refused
    return tolerate(refused)


def opaque(cls: _T) -> _T:
    """Gives `cls` the operators and conversions of a number, all refused (NKI-V030, NKI-V031)."""
    for name, (symbol, remedy) in _OPERATORS.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
        setattr(cls, f"__r{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
    for name, (symbol, remedy) in _COMPARISONS_AND_UNARY.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V030", f"`{symbol}` on", remedy))
    for name, (what, remedy) in _CONTENTS.items():
        setattr(cls, f"__{name}__", _refusal("NKI-V031", f"{what} of", remedy))
    for name, method in _PROTOCOLS.items():
        setattr(cls, name, method)
    return cls


def _refusal(code: str, what: str, remedy: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *others: object) -> NoReturn:
        raise _refused(code, what, self, remedy)

    return refuse


def _refused(code: str, what: str, tensor: object, remedy: str) -> NkiError:
    message = f"{what} {tensor}: the elements of a tensor are unknown at compile time"
    return RunTimeValueError([Diagnostic(code, message, help=remedy)])


def _ufunc(self: object, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> bool:
    """What numpy calls for ``np.exp(t)`` and ``array + t``; an array never equals a tensor."""
    if ufunc.__name__ in ("equal", "not_equal") and inputs[0] is not self:
        return bool(ufunc.__name__ == "not_equal")
    raise refused_function("np", ufunc.__name__, self)


def _function(self: object, function: Any, *others: Any) -> NoReturn:
    """What numpy calls for functions such as ``np.sum(t)``."""
    raise refused_function("np", function.__name__, self)


def _torch_function(cls: type, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
    """What torch calls for functions such as ``torch.exp(t)``."""
    given = (*args, *(kwargs or {}).values())
    tensor = next((value for value in given if isinstance(value, cls)), "a tensor")
    raise refused_function("torch", function.__name__, tensor)


def _array(self: object, dtype: Any = None, copy: bool | None = None) -> NoReturn:
    """What numpy calls for ``np.array(t)`` and ``np.float32(t)``."""
    raise refused_function("np", "array", self)


def _format(self: object, form: str) -> str:
    """A tensor in an f-string is its name and shape; its elements have no form."""
    if form:
        raise _refused("NKI-V031", f"the form {form!r} of", self, str(idiom("print")))
    return str(self)


def never_equal(tensor: object, other: object) -> None:
    """Tells that `tensor` is compared with a number, which no tensor equals, whatever it holds.

    Published kernels ask so for a parameter that may be a number, and are compiled; outside of kernels nobody
    is told.
    """
    if tolerate := _tolerate.get():
        tolerate(_refused("NKI-V031", f"a comparison with {other!r}, which is False, of", tensor, _EQUAL))


def _truth(self: object) -> bool:
    return tolerated(_refused("NKI-V031", "the truth value of", self, _TRUTH))


_PROTOCOLS: dict[str, Any] = {
    "__array__": _array,
    "__bool__": _truth,
    "__format__": _format,
    "__array_ufunc__": _ufunc,
    "__array_function__": _function,
    "__torch_function__": classmethod(_torch_function),
}
