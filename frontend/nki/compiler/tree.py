"""The syntax tree: the classes and fields of Python's abstract grammar, with places counted in characters.

Names are those of https://docs.python.org/3.12/library/ast.html#abstract-grammar, so that a tree can be lowered
to host nodes by reflection: a class has the class of the same name, a field the field of the same name, and a
member of an enumeration the class of the member's name.

Places follow the same page, except that columns count characters: lines from 1, columns from 0, the end exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nki_isa.diagnostics import Span


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """Anything in a tree; `_fields` are its parts in the order of the text."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return dump(self)


# --- Operators and contexts: one shared instance of each in the tables below -------------------------------------


class Operator(Node):
    """A node without parts; `symbol` is how it is written."""

    __slots__ = ()
    symbol: ClassVar[str]


class expr_context(Operator):
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


class boolop(Operator):
    """An operator that does not always evaluate its right side."""

    __slots__ = ()


class And(boolop):
    __slots__ = ()
    symbol = "and"


class Or(boolop):
    __slots__ = ()
    symbol = "or"


class operator(Operator):
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


class unaryop(Operator):
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


class cmpop(Operator):
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


# --- Nodes with a place ------------------------------------------------------------------------------------------


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


# --- Statements ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class FunctionDef(stmt):
    _fields = ("name", "args", "body", "decorator_list", "returns", "type_params",)
    name: str
    args: arguments
    body: list[stmt]
    decorator_list: list[expr]
    returns: expr | None
    type_params: list[type_param]

@dataclass(slots=True, eq=False, repr=False)
class AsyncFunctionDef(stmt):
    _fields = ("name", "args", "body", "decorator_list", "returns", "type_params",)
    name: str
    args: arguments
    body: list[stmt]
    decorator_list: list[expr]
    returns: expr | None
    type_params: list[type_param]

@dataclass(slots=True, eq=False, repr=False)
class ClassDef(stmt):
    _fields = ("name", "bases", "keywords", "body", "decorator_list", "type_params",)
    name: str
    bases: list[expr]
    keywords: list[keyword]
    body: list[stmt]
    decorator_list: list[expr]
    type_params: list[type_param]

@dataclass(slots=True, eq=False, repr=False)
class Return(stmt):
    _fields = ("value",)
    value: expr | None

@dataclass(slots=True, eq=False, repr=False)
class Delete(stmt):
    _fields = ("targets",)
    targets: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class Assign(stmt):
    _fields = ("targets", "value",)
    targets: list[expr]
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class TypeAlias(stmt):
    _fields = ("name", "type_params", "value",)
    name: expr
    type_params: list[type_param]
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class AugAssign(stmt):
    _fields = ("target", "op", "value",)
    target: expr
    op: operator
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class AnnAssign(stmt):
    _fields = ("target", "annotation", "value", "simple",)
    target: expr
    annotation: expr
    value: expr | None
    simple: int

@dataclass(slots=True, eq=False, repr=False)
class For(stmt):
    _fields = ("target", "iter", "body", "orelse",)
    target: expr
    iter: expr
    body: list[stmt]
    orelse: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class AsyncFor(stmt):
    _fields = ("target", "iter", "body", "orelse",)
    target: expr
    iter: expr
    body: list[stmt]
    orelse: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class While(stmt):
    _fields = ("test", "body", "orelse",)
    test: expr
    body: list[stmt]
    orelse: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class If(stmt):
    _fields = ("test", "body", "orelse",)
    test: expr
    body: list[stmt]
    orelse: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class With(stmt):
    _fields = ("items", "body",)
    items: list[withitem]
    body: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class AsyncWith(stmt):
    _fields = ("items", "body",)
    items: list[withitem]
    body: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class Match(stmt):
    _fields = ("subject", "cases",)
    subject: expr
    cases: list[match_case]

@dataclass(slots=True, eq=False, repr=False)
class Raise(stmt):
    _fields = ("exc", "cause",)
    exc: expr | None
    cause: expr | None

@dataclass(slots=True, eq=False, repr=False)
class Try(stmt):
    _fields = ("body", "handlers", "orelse", "finalbody",)
    body: list[stmt]
    handlers: list[ExceptHandler]
    orelse: list[stmt]
    finalbody: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class TryStar(stmt):
    _fields = ("body", "handlers", "orelse", "finalbody",)
    body: list[stmt]
    handlers: list[ExceptHandler]
    orelse: list[stmt]
    finalbody: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class Assert(stmt):
    _fields = ("test", "msg",)
    test: expr
    msg: expr | None

@dataclass(slots=True, eq=False, repr=False)
class Import(stmt):
    _fields = ("names",)
    names: list[alias]

@dataclass(slots=True, eq=False, repr=False)
class ImportFrom(stmt):
    _fields = ("module", "names", "level",)
    module: str | None
    names: list[alias]
    level: int

@dataclass(slots=True, eq=False, repr=False)
class Global(stmt):
    _fields = ("names",)
    names: list[str]

@dataclass(slots=True, eq=False, repr=False)
class Nonlocal(stmt):
    _fields = ("names",)
    names: list[str]

@dataclass(slots=True, eq=False, repr=False)
class Expr(stmt):
    _fields = ("value",)
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class Pass(stmt):
    _fields = ()

@dataclass(slots=True, eq=False, repr=False)
class Break(stmt):
    _fields = ()

@dataclass(slots=True, eq=False, repr=False)
class Continue(stmt):
    _fields = ()

# --- Expressions -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class BoolOp(expr):
    _fields = ("op", "values",)
    op: boolop
    values: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class NamedExpr(expr):
    _fields = ("target", "value",)
    target: expr
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class BinOp(expr):
    _fields = ("left", "op", "right",)
    left: expr
    op: operator
    right: expr

@dataclass(slots=True, eq=False, repr=False)
class UnaryOp(expr):
    _fields = ("op", "operand",)
    op: unaryop
    operand: expr

@dataclass(slots=True, eq=False, repr=False)
class Lambda(expr):
    _fields = ("args", "body",)
    args: arguments
    body: expr

@dataclass(slots=True, eq=False, repr=False)
class IfExp(expr):
    _fields = ("test", "body", "orelse",)
    test: expr
    body: expr
    orelse: expr

@dataclass(slots=True, eq=False, repr=False)
class Dict(expr):
    _fields = ("keys", "values",)
    keys: list[expr | None]
    values: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class Set(expr):
    _fields = ("elts",)
    elts: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class ListComp(expr):
    _fields = ("elt", "generators",)
    elt: expr
    generators: list[comprehension]

@dataclass(slots=True, eq=False, repr=False)
class SetComp(expr):
    _fields = ("elt", "generators",)
    elt: expr
    generators: list[comprehension]

@dataclass(slots=True, eq=False, repr=False)
class DictComp(expr):
    _fields = ("key", "value", "generators",)
    key: expr
    value: expr
    generators: list[comprehension]

@dataclass(slots=True, eq=False, repr=False)
class GeneratorExp(expr):
    _fields = ("elt", "generators",)
    elt: expr
    generators: list[comprehension]

@dataclass(slots=True, eq=False, repr=False)
class Await(expr):
    _fields = ("value",)
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class Yield(expr):
    _fields = ("value",)
    value: expr | None

@dataclass(slots=True, eq=False, repr=False)
class YieldFrom(expr):
    _fields = ("value",)
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class Compare(expr):
    _fields = ("left", "ops", "comparators",)
    left: expr
    ops: list[cmpop]
    comparators: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class Call(expr):
    _fields = ("func", "args", "keywords",)
    func: expr
    args: list[expr]
    keywords: list[keyword]

@dataclass(slots=True, eq=False, repr=False)
class FormattedValue(expr):
    _fields = ("value", "conversion", "format_spec",)
    value: expr
    conversion: int
    format_spec: expr | None

@dataclass(slots=True, eq=False, repr=False)
class JoinedStr(expr):
    _fields = ("values",)
    values: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class Constant(expr):
    _fields = ("value", "kind",)
    value: object
    kind: str | None

@dataclass(slots=True, eq=False, repr=False)
class Attribute(expr):
    _fields = ("value", "attr", "ctx",)
    value: expr
    attr: str
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class Subscript(expr):
    _fields = ("value", "slice", "ctx",)
    value: expr
    slice: expr
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class Starred(expr):
    _fields = ("value", "ctx",)
    value: expr
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class Name(expr):
    _fields = ("id", "ctx",)
    id: str
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class List(expr):
    _fields = ("elts", "ctx",)
    elts: list[expr]
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class Tuple(expr):
    _fields = ("elts", "ctx",)
    elts: list[expr]
    ctx: expr_context

@dataclass(slots=True, eq=False, repr=False)
class Slice(expr):
    _fields = ("lower", "upper", "step",)
    lower: expr | None
    upper: expr | None
    step: expr | None

# --- Patterns --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class MatchValue(pattern):
    _fields = ("value",)
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class MatchSingleton(pattern):
    _fields = ("value",)
    value: object

@dataclass(slots=True, eq=False, repr=False)
class MatchSequence(pattern):
    _fields = ("patterns",)
    patterns: list[pattern]

@dataclass(slots=True, eq=False, repr=False)
class MatchMapping(pattern):
    _fields = ("keys", "patterns", "rest",)
    keys: list[expr]
    patterns: list[pattern]
    rest: str | None

@dataclass(slots=True, eq=False, repr=False)
class MatchClass(pattern):
    _fields = ("cls", "patterns", "kwd_attrs", "kwd_patterns",)
    cls: expr
    patterns: list[pattern]
    kwd_attrs: list[str]
    kwd_patterns: list[pattern]

@dataclass(slots=True, eq=False, repr=False)
class MatchStar(pattern):
    _fields = ("name",)
    name: str | None

@dataclass(slots=True, eq=False, repr=False)
class MatchAs(pattern):
    _fields = ("pattern", "name",)
    pattern: pattern | None
    name: str | None

@dataclass(slots=True, eq=False, repr=False)
class MatchOr(pattern):
    _fields = ("patterns",)
    patterns: list[pattern]

# --- Type parameters -------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class TypeVar(type_param):
    _fields = ("name", "bound",)
    name: str
    bound: expr | None

@dataclass(slots=True, eq=False, repr=False)
class ParamSpec(type_param):
    _fields = ("name",)
    name: str

@dataclass(slots=True, eq=False, repr=False)
class TypeVarTuple(type_param):
    _fields = ("name",)
    name: str

# --- Parts -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class ExceptHandler(Located):
    _fields = ("type", "name", "body",)
    type: expr | None
    name: str | None
    body: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class arg(Located):
    _fields = ("arg", "annotation",)
    arg: str
    annotation: expr | None

@dataclass(slots=True, eq=False, repr=False)
class keyword(Located):
    _fields = ("arg", "value",)
    arg: str | None
    value: expr

@dataclass(slots=True, eq=False, repr=False)
class alias(Located):
    _fields = ("name", "asname",)
    name: str
    asname: str | None

# --- Parts without a place -------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class comprehension(Node):
    _fields = ("target", "iter", "ifs", "is_async",)
    target: expr
    iter: expr
    ifs: list[expr]
    is_async: int

@dataclass(slots=True, eq=False, repr=False)
class arguments(Node):
    _fields = ("posonlyargs", "args", "vararg", "kwonlyargs", "kw_defaults", "kwarg", "defaults",)
    posonlyargs: list[arg]
    args: list[arg]
    vararg: arg | None
    kwonlyargs: list[arg]
    kw_defaults: list[expr | None]
    kwarg: arg | None
    defaults: list[expr]

@dataclass(slots=True, eq=False, repr=False)
class withitem(Node):
    _fields = ("context_expr", "optional_vars",)
    context_expr: expr
    optional_vars: expr | None

@dataclass(slots=True, eq=False, repr=False)
class match_case(Node):
    _fields = ("pattern", "guard", "body",)
    pattern: pattern
    guard: expr | None
    body: list[stmt]

@dataclass(slots=True, eq=False, repr=False)
class Module(Node):
    _fields = ("body", "type_ignores",)
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
