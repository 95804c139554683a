"""The syntax tree: the classes and fields of Python's abstract grammar, with places counted in characters.

Names are those of https://docs.python.org/3.12/library/ast.html#abstract-grammar, so that a tree can be
lowered to host nodes by reflection: each class has its namesake, and so has each field.

Places follow the same page, except that columns count characters: lines from 1, columns from 0, the end
exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nki_isa.diagnostics import Span

#: How deeply a tree may be nested: as many steps as everything that goes through one has room for.
DEPTH = 1000

_PLACE = ("lineno", "col_offset", "end_lineno", "end_col_offset")


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """Anything in a tree; `_fields` names its parts in the order of the abstract grammar."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(name for name in cls.__dict__.get("__slots__", ()) if name not in _PLACE)

    def __repr__(self) -> str:
        return dump(self)


# --- Operators and contexts: one shared instance of each in the tables below --------------------------------


class Symbol(Node):
    """A node without parts; `symbol` is how it is written."""

    __slots__ = ()
    symbol: ClassVar[str]


class expr_context(Symbol):
    """What is done to a name, an attribute, a subscript or a sequence of them."""

    __slots__ = ()


class Load(expr_context):
    __slots__ = ()
    symbol = "load"


class Store(expr_context):
    __slots__ = ()
    symbol = "store"


class Del(expr_context):
    __slots__ = ()
    symbol = "del"


class boolop(Symbol):
    """An operator that does not always evaluate its right side."""

    __slots__ = ()


class And(boolop):
    __slots__ = ()
    symbol = "and"


class Or(boolop):
    __slots__ = ()
    symbol = "or"


class operator(Symbol):
    """A binary operator."""

    __slots__ = ()


class Add(operator):
    __slots__ = ()
    symbol = "+"


class Sub(operator):
    __slots__ = ()
    symbol = "-"


class Mult(operator):
    __slots__ = ()
    symbol = "*"


class MatMult(operator):
    __slots__ = ()
    symbol = "@"


class Div(operator):
    __slots__ = ()
    symbol = "/"


class Mod(operator):
    __slots__ = ()
    symbol = "%"


class Pow(operator):
    __slots__ = ()
    symbol = "**"


class LShift(operator):
    __slots__ = ()
    symbol = "<<"


class RShift(operator):
    __slots__ = ()
    symbol = ">>"


class BitOr(operator):
    __slots__ = ()
    symbol = "|"


class BitXor(operator):
    __slots__ = ()
    symbol = "^"


class BitAnd(operator):
    __slots__ = ()
    symbol = "&"


class FloorDiv(operator):
    __slots__ = ()
    symbol = "//"


class unaryop(Symbol):
    """A unary operator."""

    __slots__ = ()


class Invert(unaryop):
    __slots__ = ()
    symbol = "~"


class Not(unaryop):
    __slots__ = ()
    symbol = "not"


class UAdd(unaryop):
    __slots__ = ()
    symbol = "+"


class USub(unaryop):
    __slots__ = ()
    symbol = "-"


class cmpop(Symbol):
    """A comparison."""

    __slots__ = ()


class Eq(cmpop):
    __slots__ = ()
    symbol = "=="


class NotEq(cmpop):
    __slots__ = ()
    symbol = "!="


class Lt(cmpop):
    __slots__ = ()
    symbol = "<"


class LtE(cmpop):
    __slots__ = ()
    symbol = "<="


class Gt(cmpop):
    __slots__ = ()
    symbol = ">"


class GtE(cmpop):
    __slots__ = ()
    symbol = ">="


class Is(cmpop):
    __slots__ = ()
    symbol = "is"


class IsNot(cmpop):
    __slots__ = ()
    symbol = "is not"


class In(cmpop):
    __slots__ = ()
    symbol = "in"


class NotIn(cmpop):
    __slots__ = ()
    symbol = "not in"


LOAD, STORE, DEL = Load(), Store(), Del()
BOOL_OPS: dict[str, boolop] = {kind.symbol: kind() for kind in (And, Or)}
UNARY_OPS: dict[str, unaryop] = {kind.symbol: kind() for kind in (Invert, Not, UAdd, USub)}
BINARY_OPS: dict[str, operator] = {
    kind.symbol: kind()
    for kind in (Add, Sub, Mult, MatMult, Div, Mod, Pow, LShift, RShift, BitOr, BitXor, BitAnd, FloorDiv)
}
COMPARE_OPS: dict[str, cmpop] = {
    kind.symbol: kind() for kind in (Eq, NotEq, Lt, LtE, Gt, GtE, Is, IsNot, In, NotIn)
}


# --- Nodes with a place -------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class Located(Node):
    """A node with a place."""

    lineno: int
    col_offset: int
    end_lineno: int
    end_col_offset: int

    def span(self, file: str) -> Span:
        """The place of this node in `file`."""
        return Span(file, self.lineno, self.col_offset + 1, self.end_lineno, self.end_col_offset + 1)


@dataclass(slots=True, eq=False, repr=False)
class stmt(Located):
    """A statement."""


@dataclass(slots=True, eq=False, repr=False)
class expr(Located):
    """An expression."""


@dataclass(slots=True, eq=False, repr=False)
class pattern(Located):
    """What a `case` compares with."""


@dataclass(slots=True, eq=False, repr=False)
class type_param(Located):
    """A parameter in the brackets of a generic."""


# --- Statements ---------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class FunctionDef(stmt):
    name: str
    args: arguments
    body: list[stmt]
    decorator_list: list[expr]
    returns: expr | None
    type_params: list[type_param]


@dataclass(slots=True, eq=False, repr=False)
class AsyncFunctionDef(stmt):
    name: str
    args: arguments
    body: list[stmt]
    decorator_list: list[expr]
    returns: expr | None
    type_params: list[type_param]


@dataclass(slots=True, eq=False, repr=False)
class ClassDef(stmt):
    name: str
    bases: list[expr]
    keywords: list[keyword]
    body: list[stmt]
    decorator_list: list[expr]
    type_params: list[type_param]


@dataclass(slots=True, eq=False, repr=False)
class Return(stmt):
    value: expr | None


@dataclass(slots=True, eq=False, repr=False)
class Delete(stmt):
    targets: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class Assign(stmt):
    targets: list[expr]
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class TypeAlias(stmt):
    name: expr
    type_params: list[type_param]
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class AugAssign(stmt):
    target: expr
    op: operator
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class AnnAssign(stmt):
    target: expr
    annotation: expr
    value: expr | None
    simple: int


@dataclass(slots=True, eq=False, repr=False)
class For(stmt):
    target: expr
    iter: expr
    body: list[stmt]
    orelse: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class AsyncFor(stmt):
    target: expr
    iter: expr
    body: list[stmt]
    orelse: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class While(stmt):
    test: expr
    body: list[stmt]
    orelse: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class If(stmt):
    test: expr
    body: list[stmt]
    orelse: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class With(stmt):
    items: list[withitem]
    body: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class AsyncWith(stmt):
    items: list[withitem]
    body: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class Match(stmt):
    subject: expr
    cases: list[match_case]


@dataclass(slots=True, eq=False, repr=False)
class Raise(stmt):
    exc: expr | None
    cause: expr | None


@dataclass(slots=True, eq=False, repr=False)
class Try(stmt):
    body: list[stmt]
    handlers: list[ExceptHandler]
    orelse: list[stmt]
    finalbody: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class TryStar(stmt):
    body: list[stmt]
    handlers: list[ExceptHandler]
    orelse: list[stmt]
    finalbody: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class Assert(stmt):
    test: expr
    msg: expr | None


@dataclass(slots=True, eq=False, repr=False)
class Import(stmt):
    names: list[alias]


@dataclass(slots=True, eq=False, repr=False)
class ImportFrom(stmt):
    module: str | None
    names: list[alias]
    level: int


@dataclass(slots=True, eq=False, repr=False)
class Global(stmt):
    names: list[str]


@dataclass(slots=True, eq=False, repr=False)
class Nonlocal(stmt):
    names: list[str]


@dataclass(slots=True, eq=False, repr=False)
class Expr(stmt):
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class Pass(stmt):
    pass


@dataclass(slots=True, eq=False, repr=False)
class Break(stmt):
    pass


@dataclass(slots=True, eq=False, repr=False)
class Continue(stmt):
    pass


# --- Expressions --------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class BoolOp(expr):
    op: boolop
    values: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class NamedExpr(expr):
    target: expr
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class BinOp(expr):
    left: expr
    op: operator
    right: expr


@dataclass(slots=True, eq=False, repr=False)
class UnaryOp(expr):
    op: unaryop
    operand: expr


@dataclass(slots=True, eq=False, repr=False)
class Lambda(expr):
    args: arguments
    body: expr


@dataclass(slots=True, eq=False, repr=False)
class IfExp(expr):
    test: expr
    body: expr
    orelse: expr


@dataclass(slots=True, eq=False, repr=False)
class Dict(expr):
    keys: list[expr | None]
    values: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class Set(expr):
    elts: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class ListComp(expr):
    elt: expr
    generators: list[comprehension]


@dataclass(slots=True, eq=False, repr=False)
class SetComp(expr):
    elt: expr
    generators: list[comprehension]


@dataclass(slots=True, eq=False, repr=False)
class DictComp(expr):
    key: expr
    value: expr
    generators: list[comprehension]


@dataclass(slots=True, eq=False, repr=False)
class GeneratorExp(expr):
    elt: expr
    generators: list[comprehension]


@dataclass(slots=True, eq=False, repr=False)
class Await(expr):
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class Yield(expr):
    value: expr | None


@dataclass(slots=True, eq=False, repr=False)
class YieldFrom(expr):
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class Compare(expr):
    left: expr
    ops: list[cmpop]
    comparators: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class Call(expr):
    func: expr
    args: list[expr]
    keywords: list[keyword]


@dataclass(slots=True, eq=False, repr=False)
class FormattedValue(expr):
    value: expr
    conversion: int
    format_spec: expr | None


@dataclass(slots=True, eq=False, repr=False)
class JoinedStr(expr):
    values: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class Constant(expr):
    value: object
    kind: str | None


@dataclass(slots=True, eq=False, repr=False)
class Attribute(expr):
    value: expr
    attr: str
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class Subscript(expr):
    value: expr
    slice: expr
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class Starred(expr):
    value: expr
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class Name(expr):
    id: str
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class List(expr):
    elts: list[expr]
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class Tuple(expr):
    elts: list[expr]
    ctx: expr_context


@dataclass(slots=True, eq=False, repr=False)
class Slice(expr):
    lower: expr | None
    upper: expr | None
    step: expr | None


# --- Patterns -----------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class MatchValue(pattern):
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class MatchSingleton(pattern):
    value: object


@dataclass(slots=True, eq=False, repr=False)
class MatchSequence(pattern):
    patterns: list[pattern]


@dataclass(slots=True, eq=False, repr=False)
class MatchMapping(pattern):
    keys: list[expr]
    patterns: list[pattern]
    rest: str | None


@dataclass(slots=True, eq=False, repr=False)
class MatchClass(pattern):
    cls: expr
    patterns: list[pattern]
    kwd_attrs: list[str]
    kwd_patterns: list[pattern]


@dataclass(slots=True, eq=False, repr=False)
class MatchStar(pattern):
    name: str | None


@dataclass(slots=True, eq=False, repr=False)
class MatchAs(pattern):
    pattern: pattern | None
    name: str | None


@dataclass(slots=True, eq=False, repr=False)
class MatchOr(pattern):
    patterns: list[pattern]


# --- Type parameters ----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class TypeVar(type_param):
    name: str
    bound: expr | None


@dataclass(slots=True, eq=False, repr=False)
class ParamSpec(type_param):
    name: str


@dataclass(slots=True, eq=False, repr=False)
class TypeVarTuple(type_param):
    name: str


# --- Parts --------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class ExceptHandler(Located):
    type: expr | None
    name: str | None
    body: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class arg(Located):
    arg: str
    annotation: expr | None


@dataclass(slots=True, eq=False, repr=False)
class keyword(Located):
    arg: str | None
    value: expr


@dataclass(slots=True, eq=False, repr=False)
class alias(Located):
    name: str
    asname: str | None


# --- Parts without a place ----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class comprehension(Node):
    target: expr
    iter: expr
    ifs: list[expr]
    is_async: int


@dataclass(slots=True, eq=False, repr=False)
class arguments(Node):
    posonlyargs: list[arg]
    args: list[arg]
    vararg: arg | None
    kwonlyargs: list[arg]
    kw_defaults: list[expr | None]
    kwarg: arg | None
    defaults: list[expr]


@dataclass(slots=True, eq=False, repr=False)
class withitem(Node):
    context_expr: expr
    optional_vars: expr | None


@dataclass(slots=True, eq=False, repr=False)
class match_case(Node):
    pattern: pattern
    guard: expr | None
    body: list[stmt]


@dataclass(slots=True, eq=False, repr=False)
class Module(Node):
    body: list[stmt]
    type_ignores: list[object]


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below `node`, in the order of its fields."""
    for name in node._fields:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Node):
                    yield item


def walk(node: Node) -> Iterator[Node]:
    """`node` and all nodes below it, each before its children."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo += reversed(list(children(node)))


def too_deep(node: Node) -> stmt | None:
    """The innermost statement around the first node below `node` that is more than :data:`DEPTH` deep."""
    todo: list[tuple[Node, int, stmt | None]] = [(node, 0, None)]
    while todo:
        node, depth, inside = todo.pop()
        if isinstance(node, stmt):
            inside = node
        if depth > DEPTH:
            return inside
        todo += [(child, depth + 1, inside) for child in children(node)]
    return None


def dump(value: object, places: bool = False, indent: int | None = None, _depth: int = 0) -> str:
    """A tree as text, the same text for equal trees.

    Args:
        value: a node, or a value inside one.
        places: whether to write the place of each node, as ``line:column-line:column`` counted from 1 and 0.
        indent: columns per level, one part to a line; without it all is one line.
    """
    pad = "" if indent is None else "\n" + " " * (indent * (_depth + 1))
    separator = ", " if indent is None else f",{pad}"
    if isinstance(value, list):
        if not value:
            return "[]"
        return f"[{pad}{separator.join(dump(item, places, indent, _depth + 1) for item in value)}]"
    if not isinstance(value, Node):
        return repr(value)
    parts = [f"{name}={dump(getattr(value, name), places, indent, _depth + 1)}" for name in value._fields]
    at = ""
    if places and isinstance(value, Located):
        at = f"@{value.lineno}:{value.col_offset}-{value.end_lineno}:{value.end_col_offset}"
    return f"{type(value).__name__}{at}({pad if parts else ''}{separator.join(parts)})"
