"""What kinds of values parameters take, by how they are annotated: one table for instructions and functions.

An instruction keeps a value of a wrong kind and reports it when it is checked, so that one run reports
all of them; :func:`checked` refuses it at the call of a function or method, before anything is converted.
"""

from __future__ import annotations

import enum
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType, as_dtype, meant_dtype
from nki_isa.machine.operators import Operator, as_operator
from nki_isa.tensor.storage import NkiScalar, VirtualRegister

__all__ = ["Dtype", "Kind", "Shape", "checked", "define", "kind_of", "kinds_of", "shown"]

#: Annotations of parameters that take more than Python's types say; each is a row of the table.
Dtype: TypeAlias = Any
Shape: TypeAlias = Any

_F = TypeVar("_F", bound=Callable[..., Any])
_C = TypeVar("_C", bound=type)
_INTEGER = (int, np.integer)
_LONGEST = 60  # characters of a value in a message
_NUMBER = (int, float, np.integer, np.floating, np.bool_)


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
        wanted: what it is, in words.
        fits: whether a value is of this kind.
        kept: the value as it is kept: numpy's numbers as Python's, lists as tuples.
        help: what to pass instead.
        code: of the diagnostic that refuses another kind, unless the parameter is an operand.
        usual: types whose values all fit and are kept as they are, so that they are told quickly.
        item: the kind of the items of a list.
        says: what is wrong with a value and what to write instead, where that depends on the value.
    """

    wanted: str
    fits: Callable[[Any], bool]
    kept: Callable[[Any], Any] | None = None
    help: str = ""
    code: str = "NKI-V100"
    usual: frozenset[type] = frozenset()
    item: Kind | None = None

    says: Callable[[Any], NkiError | None] | None = None

    def problem(self, name: str, value: Any) -> str:
        """What is wrong with `value`, of parameter `name`: the first item that is wrong, or all of it."""
        if self.item is not None and isinstance(value, (list, tuple)):
            wrong = next(((k, item) for k, item in enumerate(value) if not self.item.fits(item)), None)
            if wrong is not None:
                return self.item.problem(f"{name}[{wrong[0]}]", wrong[1])
        received = kind_of(value) if self.code == "NKI-V100" else shown(value)
        return f"{name} is {received}, it must be {self.wanted}"


def is_whole(value: Any) -> bool:
    """True for an integer, numpy's too; a truth value is none."""
    return isinstance(value, _INTEGER) and not isinstance(value, bool)


def is_word(value: Any) -> bool:
    """True for an integer that 32 bits hold."""
    return is_whole(value) and -(2**31) <= value < 2**31


def _is_flag(value: Any) -> bool:
    return isinstance(value, (*_INTEGER, np.bool_)) and value in (0, 1)


def is_number(value: Any) -> bool:
    """True for a number that float32 has a value for, infinities and NaN among them."""
    return isinstance(value, _NUMBER) and (not isinstance(value, int) or abs(value) < 1 << 128)


def _refused_operator(value: Any) -> NkiError | None:
    if isinstance(value, Operator):
        return None
    try:
        as_operator(value)
    except NkiError as refused:
        return refused
    return None


def refused_dtype(value: Any, why: TypeError) -> NkiError:
    """NKI-V121 for `value`, which is not a data type, with the one that is meant."""
    if isinstance(getattr(value, "shape", None), tuple):
        remedy = "functions of nki.language return their result: write other = nl.exp(t)"
    elif isinstance(value, (int, float)):
        remedy = "write the sizes in parentheses: nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)"
    else:
        remedy = f"write nl.{meant_dtype(value) or 'bfloat16'}, or another dtype of nki.language"
    return error("NKI-V121", str(why), help=remedy)


def _refused_dtype(value: Any) -> NkiError | None:
    try:
        as_dtype(value)
    except TypeError as refused:
        return refused_dtype(value, refused)
    return None


def list_of(item: Kind, wanted: str, help: str) -> Kind:
    """The kind of a list or tuple of items of one kind; kept as a tuple."""
    keep = item.kept or (lambda value: value)
    return Kind(
        wanted,
        lambda value: isinstance(value, (list, tuple)) and all(item.fits(v) for v in value),
        lambda value: tuple(keep(v) for v in value),
        help,
        item.code,
        item=item,
    )


#: What an integer attribute or register holds.
WORD = Kind("a 32-bit int", is_word, int, "pass an int: divide sizes with //", "NKI-V111")
_NUMBER_KIND = Kind(
    "a number", is_number, None, "pass a Python number, known at compile time", "NKI-V111", frozenset({float})
)
_WORDS = list_of(WORD, "a list of ints", "pass ints, such as (0, 1)")
_PAIR = replace(
    _WORDS,
    wanted="a pair of ints",
    fits=lambda value: _WORDS.fits(value) and len(value) == 2,
)

#: By annotation; an int is short for a list of one.
KINDS: dict[str, Kind] = {
    "bool": Kind("True or False", _is_flag, bool, "write True or False", "NKI-V111", frozenset({bool})),
    "int": Kind(
        "an int",
        is_whole,
        help="pass an int: divide sizes with //",
        code="NKI-V012",
        usual=frozenset({int}),
    ),
    "float": _NUMBER_KIND,
    "str": Kind("a text", lambda v: isinstance(v, str), None, "pass a string", "NKI-V111", frozenset({str})),
    "tuple[int, ...]": replace(
        _WORDS,
        wanted="an int or a list of ints",
        fits=lambda value: is_word(value) or _WORDS.fits(value),
        kept=lambda value: (int(value),) if is_whole(value) else tuple(int(item) for item in value),
    ),
    "tuple[tuple[int, int], ...]": list_of(_PAIR, "a list of pairs of ints", "pass pairs, such as [[1, 16]]"),
    "Sequence[float]": list_of(_NUMBER_KIND, "a list of numbers", "pass numbers, such as [1.0, 1.0]"),
    "Operator": Kind(
        "an operator of nki.language",
        lambda value: _refused_operator(value) is None,
        as_operator,
        "pass an operator such as nl.add",
        "NKI-V107",
        frozenset({Operator}),
        says=_refused_operator,
    ),
    "Dtype": Kind(
        "a data type",
        lambda value: _refused_dtype(value) is None,
        code="NKI-V121",
        usual=frozenset({DType}),
        says=_refused_dtype,
    ),
    "Shape": Kind(
        "an int or a list of ints",
        lambda v: isinstance(v, (*_INTEGER, list, tuple)),
        help="write the sizes as a tuple: (128, 512)",
        code="NKI-V120",
        usual=frozenset({int, list, tuple}),
    ),
    "Sequence[int]": Kind(
        "a list of ints",
        lambda value: isinstance(value, (list, tuple)) and all(map(is_whole, value)),
        help="pass ints, such as (0, 1)",
        code="NKI-V012",
    ),
    "Mapping[str, int]": Kind(
        "a dict of sizes by name",
        lambda value: isinstance(value, dict) and all(map(is_whole, value.values())),
        help="write {'h': 4}",
        code="NKI-V111",
    ),
    "Body": Kind(
        "a function",
        lambda value: callable(value) and not isinstance(value, type),
        help="pass a function by its name, without calling it",
    ),
    "VirtualRegister": Kind(
        "a register",
        lambda v: isinstance(v, VirtualRegister) and not (isinstance(v, NkiScalar) and v.dtype.bits > 32),
        lambda v: v.register if isinstance(v, NkiScalar) else v,
        help="make one with nisa.register_alloc, or load it with nisa.register_load",
        usual=frozenset({VirtualRegister}),
    ),
}


def define(annotation: str, kind: Kind) -> None:
    """Enter what the table cannot state, because it is made of a class that is built on it."""
    KINDS[annotation] = kind


def kinds_of(annotation: str) -> tuple[Kind, ...]:
    """The kinds an annotation names, alternatives apart; none where a part of it is not in the table."""
    found = [KINDS.get(part) for part in annotation.split(" | ") if part != "None"]
    return tuple(kind for kind in found if kind) if all(found) else ()


def optional(annotation: str) -> bool:
    """True if None is among the alternatives of an annotation."""
    return annotation.endswith(" | None")


def wanted(kinds: tuple[Kind, ...]) -> str:
    """The alternatives in words."""
    *most, last = dict.fromkeys(kind.wanted for kind in kinds)
    return f"{', '.join(most)} or {last}" if most else last


def problem(kinds: tuple[Kind, ...], name: str, value: Any) -> str:
    """What is wrong with `value`, of parameter `name`, which is of none of `kinds`."""
    if len(kinds) == 1:
        return kinds[0].problem(name, value)
    return f"{name} is {kind_of(value)}, it must be {wanted(kinds)}"


@functools.cache
def member_of(members: type[enum.Enum]) -> Kind:
    """The kind of an enumeration of ``nki.isa``; one whose values are texts takes those as well."""
    name = members.__name__.lower()
    written = ", ".join(f"nisa.{name}.{member.name}" for member in members)
    names = {member.value for member in members if isinstance(member.value, str)}
    return Kind(
        f"a member of nisa.{name}",
        lambda value: isinstance(value, members) or (isinstance(value, str) and value in names),
        members,
        f"write one of {written}",
        usual=frozenset({members}),
    )


def kind_of(value: Any) -> str:
    """Type and value, shortened."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"a numpy array {value.dtype}{list(value.shape)}"
    return f"{type(value).__name__} {_text(value)}"


def shown(value: Any) -> str:
    """A plain value as Python writes it, shortened; anything else with its type."""
    plain = type(value) in (int, float, bool, str, list, tuple)
    return _text(value) if plain else kind_of(value)


def _text(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 1 << 128:  # Python refuses to write thousands of digits
        return f"{'-' * (value < 0)}2**{math.log2(abs(value)):.0f}"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# --- functions


def checked(function: _F, prefix: str = "") -> _F:
    """`function`, refusing wrong arguments before it runs.

    Parameters whose annotation is not in the table are its own to check. A method says whose it is by
    its object: the table of kinds is for the others.

    Args:
        prefix: what its name is led by in messages, such as ``nl.``.

    Raises:
        NkiError: NKI-L012 for arguments that do not fit the signature, NKI-V100 (V120, V121) for a value of
            a wrong kind.
    """
    signature = inspect.signature(function)
    names = tuple(signature.parameters)
    method = bool(names) and names[0] == "self"
    known: dict[Any, tuple[_Row | None, ...]] = {}  # by how many arguments, and keywords
    usual: set[tuple[Any, ...]] = set()  # keywords, and the types of all values
    rows: dict[str, _Row] = {}

    def called(args: tuple[Any, ...]) -> str:
        own = getattr(args[0], "name", "") if method and args and prefix else function.__name__
        return f"{prefix}{own}"

    def settle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Row | None, ...]:
        """The rows of the arguments of such a call, in their order, if it fits the signature."""
        if not rows:
            rows.update(_rows(signature))  # by the first call: the table grows
        _bind(signature, called, args, kwargs, method)
        positional = [rows.get(name) for name in names[: len(args)]]
        positional += [None] * (len(args) - len(positional))
        return (*positional, *(rows.get(name) for name in kwargs))

    def check(args: tuple[Any, ...], kwargs: dict[str, Any], call: tuple[Any, ...]) -> None:
        """Check the arguments of `call`; note it where all calls of values of these types are right."""
        shape = (len(args), *kwargs)
        wanted = known.get(shape)
        if wanted is None:
            wanted = known[shape] = settle(args, kwargs)
        is_usual = True
        for value, row in zip((*args, *kwargs.values()), wanted):
            if row is not None and type(value) not in row.usual:
                is_usual = False
                _check(called, args, row.name, value, row.kinds)
        if is_usual:
            usual.add(call)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = (*kwargs, *map(type, args), *map(type, kwargs.values())) if kwargs else tuple(map(type, args))
        if made not in usual:
            check(args, kwargs, made)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def require(called: str, annotation: str, **values: Any) -> None:
    """Refuse `values`, parameters of `called`, that are not what the annotation says (:func:`checked`)."""
    for name, value in values.items():
        _check(lambda _: called, (), name, value, kinds_of(annotation))


def checked_methods(cls: _C) -> _C:
    """Class decorator: each public method is :func:`checked`."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, FunctionType) and name[0] != "_":
            setattr(cls, name, checked(value))
    return cls


def public_function(module: str, value: Any) -> bool:
    """True for a function of `module`'s package that its users can call."""
    return (
        isinstance(value, FunctionType) and value.__module__.startswith(module) and value.__name__[0] != "_"
    )


class _Row(NamedTuple):
    """A parameter with kinds, and the types whose values are all of one of them."""

    name: str
    kinds: tuple[Kind, ...]
    usual: frozenset[type]


def _rows(signature: inspect.Signature) -> dict[str, _Row]:
    """The parameters with kinds, by name; None is usual where it is taken too."""
    found = {}
    for name, parameter in signature.parameters.items():
        text = "" if parameter.annotation is parameter.empty else str(parameter.annotation)
        kinds = kinds_of(text) if text else ()
        if kinds:
            none = {type(None)} if optional(text) or parameter.default is None else set()
            found[name] = _Row(name, kinds, frozenset(none).union(*(kind.usual for kind in kinds)))
    return found


def _bind(
    signature: inspect.Signature,
    called: Callable[[tuple[Any, ...]], str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    method: bool,
) -> None:
    try:
        signature.bind(*args, **kwargs)
    except TypeError as problem:
        parameters = list(signature.parameters.values())[method:]
        shown_ = ", ".join(p.name if p.default is p.empty else f"{p.name}=..." for p in parameters)
        name = called(args)
        raise error("NKI-L012", f"{name}: {problem}", help=f"its signature is {name}({shown_})") from None


def _check(
    called: Callable[[tuple[Any, ...]], str],
    args: tuple[Any, ...],
    name: str,
    value: Any,
    kinds: tuple[Kind, ...],
) -> None:
    for kind in kinds:
        if kind.fits(value):
            return
    first = kinds[0]
    said = first.says and first.says(value)
    if said:
        raise said
    raise error(first.code, f"{called(args)}: {problem(kinds, name, value)}", help=first.help)
