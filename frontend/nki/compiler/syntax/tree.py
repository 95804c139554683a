"""The syntax tree: the classes and fields of Python's abstract grammar, with places counted in characters.

Names are those of https://docs.python.org/3.12/library/ast.html#abstract-grammar, so that a tree can be
lowered to host nodes by reflection: each class has its namesake, and so has each field.

Places follow the same page, except that columns count characters: lines from 1, columns from 0, the end
exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

from nki.compiler.syntax.node import Located, Node, children
from nki.compiler.syntax.symbols import boolop, cmpop, expr_context, operator, unaryop

#: How deeply a tree may be nested: as many steps as everything that goes through one has room for.
DEPTH = 1000


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
