"""The variable that a value being made is assigned to, read off the syntax tree of the user's calls.

A tensor without a name of the user's is called after it: ``lhs_tile = nl.ndarray(...)``,
``tiles.append(...)``, ``self.gate = ...``, ``load(dst=nl.ndarray(...))``. What a function returns is called
after the variable of the call, so that tiles of one helper have names of their own.

Python 3.11 and later know which call of a statement is running; on 3.10 it is taken to be the outermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType

from nki.compiler.specializer.stacks import (
    code_of,
    function_around,
    goes_with_code,
    place_of,
    statement_at,
    statement_of,
)
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node, children, walk

_GROWING = ("append", "insert", "extend", "add", "setdefault")  # methods of containers that keep an argument

#: The parts of an expression whose value is its value, an item of it, or what it is a view of.
_PASSING: dict[type[Node], tuple[str, ...]] = {
    tree.IfExp: ("body", "orelse"),
    tree.BoolOp: ("values",),
    tree.NamedExpr: ("value",),
    tree.List: ("elts",),
    tree.Tuple: ("elts",),
    tree.Starred: ("value",),
    tree.Dict: ("values",),
    tree.ListComp: ("elt",),
    tree.SetComp: ("elt",),
    tree.DictComp: ("value",),
    tree.GeneratorExp: ("elt",),
    tree.Subscript: ("value",),
    tree.Attribute: ("value",),
    tree.Call: ("func",),
}


@dataclass(frozen=True, slots=True)
class _Use:
    """What a function does with a value: the variable it gets, and whether it goes on to the caller."""

    name: str = ""
    returned: bool = False


_RETURNED = _Use(returned=True)
_USES: dict[tuple[int, int], _Use] = {}  # by id of the code object, and offset in it
_VARIABLES: dict[tuple[int, ...], str] = {}  # by calls
goes_with_code(_USES)
goes_with_code(_VARIABLES)


def variable_of(calls: tuple[int, ...]) -> str:
    """The variable for what the user's innermost call makes; empty where it gets none.

    Args:
        calls: the user's calls, from :func:`nki.compiler.specializer.stacks.calls_of`.
    """
    found = _VARIABLES.get(calls)
    if found is None:
        found = _VARIABLES[calls] = _variable_of(calls)
    return found


def _variable_of(calls: tuple[int, ...]) -> str:
    name = ""
    for key in zip(calls[::2], calls[1::2], strict=True):
        use = _USES.get(key)
        if use is None:
            use = _USES[key] = _use(code_of(key[0]), key[1])
        name = use.name or name
        if not use.returned:
            break
    return name


def _use(code: CodeType, offset: int) -> _Use:
    place = place_of(code, offset)
    statement = statement_at(code, place[0]) if place else statement_of(code, offset)
    if statement is None:
        return _Use()
    if place is None:
        if getattr(statement, "body", None):
            return _Use()  # which of its calls is not known
        use = _find(statement, _Use(), lambda node, use: isinstance(node, tree.Call) and use != _Use())
    else:
        end = place[2:]
        use = _find(statement, _Use(), lambda node, use: _ends(node, end))
    if use is None:
        return _Use()
    return _Use(use.name, use.returned or (bool(use.name) and use.name in _returned(code, statement)))


def _ends(node: Node, end: tuple[int, int]) -> bool:
    """True for the call that ends at `end`: no two calls end at the same bracket."""
    return isinstance(node, tree.Call) and (node.end_lineno, node.end_col_offset) == end


def _find(node: Node, use: _Use, is_it: Callable[[Node, _Use], bool]) -> _Use | None:
    """The use of the wanted call inside `node`, whose own value is put to `use`; None if it is not there."""
    if is_it(node, use):
        return use
    for part, its_use in _uses_of_parts(node, use):
        found = _find(part, its_use, is_it)
        if found is not None:
            return found
    return None


def _uses_of_parts(node: Node, use: _Use) -> Iterator[tuple[Node, _Use]]:
    if isinstance(node, tree.Assign):
        yield from _assigned(node.targets[0], node.value)
        return
    if isinstance(node, tree.AnnAssign) and node.value is not None:
        yield node.value, _Use(_name(node.target))
        return
    if isinstance(node, tree.keyword):
        yield node.value, _Use(node.arg or "")
        return
    if isinstance(node, tree.Return) and node.value is not None:
        yield node.value, _RETURNED
        return
    passing = _PASSING.get(type(node), ())
    own = {id(part) for name in passing for part in _listed(getattr(node, name))}
    if isinstance(node, tree.NamedExpr):
        use = _Use(_name(node.target))
    kept = _Use()
    if isinstance(node, tree.Call) and isinstance(node.func, tree.Attribute) and node.func.attr in _GROWING:
        kept = _Use(_name(node.func.value))
    for part in children(node):
        yield part, use if id(part) in own else kept


def _assigned(target: tree.expr, value: tree.expr) -> Iterator[tuple[Node, _Use]]:
    """`value`, or its items where a target of as many names takes them apart."""
    if isinstance(target, (tree.Tuple, tree.List)):
        if isinstance(value, (tree.Tuple, tree.List)) and len(value.elts) == len(target.elts):
            for name, item in zip(target.elts, value.elts, strict=True):
                yield from _assigned(name, item)
            return
        target = target.elts[0] if target.elts else target
    yield value, _Use(_name(target))


def _name(target: Node) -> str:
    """The last name of a target: ``q`` of ``q``, ``self.q`` and ``q[i]``."""
    if isinstance(target, tree.Name):
        return target.id
    if isinstance(target, tree.Attribute):
        return target.attr
    if isinstance(target, (tree.Subscript, tree.Starred)):
        return _name(target.value)
    return ""


def _listed(part: object) -> list[object]:
    return part if isinstance(part, list) else [part]


def _returned(code: CodeType, statement: tree.stmt) -> set[str]:
    """The names that the function around `statement` returns by themselves."""
    function = function_around(code, statement)
    if isinstance(function, tree.Module):
        return set()
    returns = (n.value for n in walk(function) if isinstance(n, tree.Return))
    return {value.id for value in returns if isinstance(value, tree.Name)}
