"""Nodes without parts, operators and contexts: one shared instance of each in the tables below."""

from __future__ import annotations

from typing import ClassVar

from nki.compiler.syntax.node import Node


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
