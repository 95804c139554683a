"""Which Python a kernel may use: verdicts, the profiles that judge by them, and the built-in names.

A row here, or of :mod:`nki.compiler.language.constructs`, states what is known about a piece of
Python; a profile states what follows from it:

========================  ==========  ===========
what is known             `library`   `strict`
========================  ==========  ===========
documented                accepted    accepted
used by public kernels    accepted    refused
undocumented              warning     refused
refused                   refused     refused
========================  ==========  ===========

:mod:`nki.compiler.checker.check` reads the rows; ``docs/language.md`` is printed from them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nki_isa.diagnostics import Severity


class Acceptance(enum.Enum):
    """What the sources say about a construct."""

    documented = "documented"  # the language guide states it, or the public formal front end (KLR) takes it
    used = "used"  # public kernels that compile use it; the documentation is silent or discourages it
    undocumented = "undocumented"  # no source takes it, no source refuses it
    refused = "refused"  # a source refuses it


PROFILES: dict[str, dict[Acceptance, Severity | None]] = {
    "library": {
        Acceptance.documented: None,
        Acceptance.used: None,
        Acceptance.undocumented: Severity.warning,
        Acceptance.refused: Severity.error,
    },
    "strict": {
        Acceptance.documented: None,
        Acceptance.used: Severity.error,
        Acceptance.undocumented: Severity.error,
        Acceptance.refused: Severity.error,
    },
}


@dataclass(frozen=True, slots=True)
class Builtin:
    """A row: a built-in name of Python, and what is known about it in kernels.

    Attributes:
        name: the built-in.
        verdict: what the sources say.
        source: which source says so.
        instead: what to write instead, where it is not accepted.
    """

    name: str
    verdict: Acceptance
    source: str
    instead: str = ""


_GUIDE, _KLR = "language guide", "KLR"
_D, _S, _N, _R = Acceptance.documented, Acceptance.used, Acceptance.undocumented, Acceptance.refused
_LOOP = "write a for loop over range(len(x))"
_CONTAINERS = "language guide: containers are tuple, list, dict and classes"
_SHAPES = "language guide: kernels are pure functions of their arguments"

FORMAL_FRONT_END = "the public formal front end (github.com/leanprover/KLR)"
"""What the tables call KLR."""


def cited(source: str) -> str:
    """The note of a diagnostic that names the source of a rule."""
    return f"source: {source.replace(_KLR, FORMAL_FRONT_END)}"


_BUILTINS = (
    Builtin("range", _D, _GUIDE),
    Builtin("len", _D, _GUIDE),
    Builtin("print", _D, _GUIDE),
    Builtin("dict", _D, _GUIDE),
    Builtin("list", _D, _KLR),
    Builtin("tuple", _D, _KLR),
    Builtin("slice", _D, "migration guide 0.1 to 0.2"),
    Builtin("min", _D, "migration guide 0.1 to 0.2"),
    Builtin("max", _D, _KLR),
    Builtin("abs", _D, _KLR),
    Builtin("divmod", _D, _KLR),
    Builtin("int", _D, _KLR),
    Builtin("float", _D, _KLR),
    Builtin("bool", _D, _KLR),
    Builtin("str", _D, _KLR),
    Builtin("type", _D, _KLR),
    Builtin("isinstance", _D, _KLR),
    Builtin("Ellipsis", _D, _GUIDE),
    Builtin("breakpoint", _D, "simulator guide"),
    Builtin("hash", _S, "nkilib core/topk"),
    Builtin("NotImplemented", _S, "nkilib core/topk"),
    Builtin("getattr", _N, "", "write the attribute's name: x.name"),
    Builtin("sum", _N, "", "write a for loop that adds up"),
    Builtin("enumerate", _N, "", "write for i in range(len(x)) and take x[i]"),
    Builtin("zip", _N, "", "write for i in range(len(x)) and take x[i] and y[i]"),
    Builtin("reversed", _N, "", "write for i in range(len(x) - 1, -1, -1) and take x[i]"),
    Builtin("sorted", _N, "", "sort on the host and pass the result in"),
    Builtin("any", _N, "", "write a for loop that sets a flag"),
    Builtin("all", _N, "", "write a for loop that sets a flag"),
    Builtin("round", _N, "", "write int(x + 0.5) for a positive x"),
    Builtin("pow", _N, "", "write x ** y"),
    Builtin("repr", _N, "", 'write f"{x!r}"'),
    Builtin("hasattr", _N, "", "give the class a field with a default and compare it with None"),
    Builtin("setattr", _N, "", "write x.name = value"),
    Builtin("callable", _N, "", "compare the value with None"),
    Builtin("set", _R, _CONTAINERS, "use a list, or a dict with string keys"),
    Builtin("frozenset", _R, _CONTAINERS, "use a tuple"),
    Builtin("bytes", _R, _CONTAINERS, "use a string"),
    Builtin("bytearray", _R, _CONTAINERS, "use a list of int"),
    Builtin("complex", _R, "language guide: numbers are int and float", "use two floats"),
    Builtin("map", _R, "KLR has none", "write a for loop that appends to a list"),
    Builtin("filter", _R, "KLR has none", "write a for loop with an if"),
    Builtin("iter", _R, "KLR has none", _LOOP),
    Builtin("next", _R, "KLR has none", _LOOP),
    Builtin("super", _R, "language guide: one base, NKIObject", "set the fields in the class's own __init__"),
    Builtin("open", _R, _SHAPES, "read the file on the host and pass the values in"),
    Builtin("input", _R, _SHAPES, "pass the value as an argument"),
    Builtin("eval", _R, _SHAPES, "write the expression itself"),
    Builtin("exec", _R, _SHAPES, "write the statements themselves"),
    Builtin("compile", _R, _SHAPES, "write the code itself"),
    Builtin("__import__", _R, _SHAPES, "import at the top of the file"),
    Builtin("globals", _R, _SHAPES, "pass the value as an argument"),
    Builtin("locals", _R, _SHAPES, "use a dict with string keys"),
    Builtin("vars", _R, _SHAPES, "name the attributes: x.name"),
    Builtin("delattr", _R, "KLR refuses del", "set the attribute to None"),
    Builtin("id", _R, "language guide: equality is structural", "compare with =="),
)

BUILTINS: dict[str, Builtin] = {row.name: row for row in _BUILTINS}
HOST_BUILTINS: tuple[str, ...] = tuple(row.name for row in _BUILTINS if row.verdict is not Acceptance.refused)
