"""Builds the expressions of the syntax tree: one method per rule or alias of grammar.lark.

A method gets the values of its rule (see the top of the grammar) and the indices of its first and last token.
What a context-free grammar cannot say is checked here: what may be assigned to, and what may stand next to
each other in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from nki.compiler.syntax import literals, tree
from nki.compiler.syntax.lexer import LAYOUT, Tokens
from nki.compiler.syntax.node import Located
from nki.compiler.syntax.symbols import BINARY_OPS, BOOL_OPS, COMPARE_OPS, DEL, LOAD, STORE, UNARY_OPS
from nki.compiler.syntax.tree import expr
from nki_isa.diagnostics import Diagnostic

Place = tuple[int, int, int, int]
Items = tuple[Any, Any]
"""What stands in brackets: an item, then a list of clauses, a tuple of further items, or None (no comma)."""

_COMMENT = re.compile("#.*")
_TARGETS = {"assigned to": STORE, "deleted": DEL}

# How an expression that cannot be a target is called in a message.
_DESCRIPTIONS = {
    tree.Call: "a call",
    tree.Constant: "a literal",
    tree.JoinedStr: "an f-string",
    tree.Compare: "a comparison",
    tree.Lambda: "a lambda",
    tree.IfExp: "a conditional expression",
    tree.NamedExpr: "a named expression",
    tree.Dict: "a dict",
    tree.Set: "a set",
    tree.Await: "an await expression",
    tree.Yield: "a yield expression",
    tree.BinOp: "an operation",
    tree.UnaryOp: "an operation",
    tree.BoolOp: "an operation",
    tree.Tuple: "a tuple",
    tree.List: "a list",
    tree.ListComp: "a comprehension",
    tree.GeneratorExp: "a generator expression",
}


class ExpressionBuilder:
    """Makes expressions of the tokens of one text; mistakes go to the diagnostics of the tokens."""

    def __init__(self, tokens: Tokens):
        self._tokens = tokens
        self._types, self._texts = tokens.types, tokens.texts
        self._lines, self._columns = tokens.lines, tokens.columns
        self._end_lines, self._end_columns = tokens.end_lines, tokens.end_columns

    def _at(self, start: int, end: int) -> Place:
        """The place from token `start` to token `end`, without the layout at its end."""
        while self._types[end] in LAYOUT and end > start:
            end -= 1
        return self._lines[start], self._columns[start], self._end_lines[end], self._end_columns[end]

    def _error(self, code: str, message: str, start: int, end: int, help: str) -> None:
        self._tokens.diagnostics.append(Diagnostic(code, message, self._tokens.span(start, end), help=help))

    def _error_at(self, code: str, message: str, node: Located, help: str) -> None:
        self._tokens.diagnostics.append(Diagnostic(code, message, node.span(self._tokens.file), help=help))

    def _store(self, target: Any, deed: str = "assigned to", nested: bool = True) -> Any:
        """`target` as something that is assigned to or deleted; a sequence only if `nested`."""
        match target:
            case tree.Name() | tree.Attribute() | tree.Subscript():
                target.ctx = _TARGETS[deed]
            case tree.Tuple() | tree.List() if nested:
                target.ctx = _TARGETS[deed]
                for item in target.elts:
                    self._store(item, deed)
            case tree.Starred() if nested and deed == "assigned to":
                target.ctx = STORE
                self._store(target.value)
            case _:
                constant = isinstance(target, tree.Constant) and target.value in (None, True, False)
                what = f"`{target.value}`" if constant else _DESCRIPTIONS.get(type(target), "this expression")
                help = "Only a name, an attribute or a subscript can be, or a tuple of them."
                if isinstance(target, tree.Compare | tree.Constant):
                    help += " To compare, write `==`."
                self._error_at("NKI-L006", f"{what} cannot be {deed}", target, help)
        return target

    # --- Operators ------------------------------------------------------------------------------------------

    def walrus(self, target: tree.Name, value: expr, start: int, end: int) -> expr:
        return tree.NamedExpr(*self._at(start, end), self._store(target), value)

    def conditional(self, body: expr, rest: tuple[expr, expr], start: int, end: int) -> expr:
        test, orelse = rest
        return tree.IfExp(*self._at(start, end), test, body, orelse)

    def lambda_(self, parameters: tree.arguments | None, body: expr, start: int, end: int) -> expr:
        return tree.Lambda(*self._at(start, end), parameters or no_parameters(), body)

    def or_test(self, first: expr, rest: list[expr], start: int, end: int) -> expr:
        return tree.BoolOp(*self._at(start, end), BOOL_OPS["or"], [first, *rest])

    def and_test(self, first: expr, rest: list[expr], start: int, end: int) -> expr:
        return tree.BoolOp(*self._at(start, end), BOOL_OPS["and"], [first, *rest])

    def comparison(self, left: expr, rest: list[tuple[Any, expr]], start: int, end: int) -> expr:
        ops = [COMPARE_OPS[op if isinstance(op, str) else " ".join(op)] for op, _ in rest]
        return tree.Compare(*self._at(start, end), left, ops, [right for _, right in rest])

    def operand(self, op: str, right: expr, _start: int, end: int) -> Any:
        return op, right, end

    def binary(self, left: expr, rest: list[Any], start: int, _end: int) -> expr:
        line, column = self._lines[start], self._columns[start]
        for op, right, end in rest:
            end_line, end_column = self._end_lines[end], self._end_columns[end]
            left = tree.BinOp(line, column, end_line, end_column, left, BINARY_OPS[op], right)
        return left

    def power(self, left: expr, right: expr, start: int, end: int) -> expr:
        return tree.BinOp(*self._at(start, end), left, BINARY_OPS["**"], right)

    def unary(self, op: str, operand: expr, start: int, end: int) -> expr:
        return tree.UnaryOp(*self._at(start, end), UNARY_OPS[op], operand)

    def await_(self, value: expr, start: int, end: int) -> expr:
        return tree.Await(*self._at(start, end), value)

    def yield_(self, value: expr | None, start: int, end: int) -> expr:
        return tree.Yield(*self._at(start, end), value)

    def yield_from(self, value: expr, start: int, end: int) -> expr:
        return tree.YieldFrom(*self._at(start, end), value)

    def star_expr(self, value: expr, start: int, end: int) -> expr:
        return tree.Starred(*self._at(start, end), value, LOAD)

    # --- Primaries ------------------------------------------------------------------------------------------

    def primary(self, node: expr, trailers: list[Any], start: int, _end: int) -> expr:
        line, column = self._lines[start], self._columns[start]
        for make, payload, end in trailers:
            node = make((line, column, self._end_lines[end], self._end_columns[end]), node, payload)
        return node

    def attribute_trailer(self, name: str, _start: int, end: int) -> Any:
        return _attribute, name, end

    def call_trailer(self, given: Any, start: int, end: int) -> Any:
        args, keywords, generator = given or ([], [], None)
        if generator is not None:
            place = self._at(start, end)
            generator.lineno, generator.col_offset, generator.end_lineno, generator.end_col_offset = place
        return _call, (args, keywords), end

    def subscript_trailer(self, index: expr, _start: int, end: int) -> Any:
        if isinstance(index, tree.Starred):
            place = index.lineno, index.col_offset, index.end_lineno, index.end_col_offset
            index = tree.Tuple(*place, [index], LOAD)
        return _subscript, index, end

    def closed_slice(self, lower: expr, rest: tuple[Any, Any], start: int, end: int) -> expr:
        return tree.Slice(*self._at(start, end), lower, *rest)

    def open_slice(self, rest: tuple[Any, Any], start: int, end: int) -> expr:
        return tree.Slice(*self._at(start, end), None, *rest)

    def name(self, name: str, start: int, _end: int) -> expr:
        return tree.Name(
            self._lines[start],
            self._columns[start],
            self._end_lines[start],
            self._end_columns[start],
            name,
            LOAD,
        )

    def number(self, text: str, start: int, end: int) -> expr:
        try:
            value = literals.number(text)
        except ValueError as error:
            self._error("NKI-L008", str(error), start, end, "Write it in hexadecimal, or compute it.")
            value = 0
        return tree.Constant(*self._at(start, end), value, None)

    def singleton(self, text: str, start: int, end: int) -> expr:
        return tree.Constant(*self._at(start, end), {"None": None, "True": True, "False": False}[text], None)

    def ellipsis(self, start: int, end: int) -> expr:
        return tree.Constant(*self._at(start, end), ..., None)

    def tail(self, items: list[Any], _start: int, _end: int) -> tuple[Any, ...]:
        return tuple(items)

    def no_tail(self, _start: int, _end: int) -> tuple[Any, ...]:
        return ()

    def tuple_(self, first: expr, rest: tuple[expr, ...], start: int, end: int) -> expr:
        return tree.Tuple(*self._at(start, end), [first, *rest], LOAD)

    def items(self, first: Any, rest: Any, _start: int, _end: int) -> Items:
        return first, rest

    def comp_for(
        self, is_async: bool | None, target: expr, iterable: expr, ifs: list[expr], _start: int, _end: int
    ) -> tree.comprehension:
        return tree.comprehension(self._store(target), iterable, ifs, int(bool(is_async)))

    def parenthesised(self, group: Any, start: int, end: int) -> expr:
        place = self._at(start, end)
        if group is None:
            return tree.Tuple(*place, [], LOAD)
        if isinstance(group, expr):
            return group
        first, rest = group
        if isinstance(rest, list):
            return tree.GeneratorExp(*place, self._element(first), rest)
        if rest is not None:
            return tree.Tuple(*place, [first, *rest], LOAD)
        if isinstance(first, tree.Starred):
            self._error_at("NKI-L004", "`*` unpacks into nothing here", first, "Write `(*x,)` for a tuple.")
        only: expr = first
        return only

    def list_(self, items: Items | None, start: int, end: int) -> expr:
        place = self._at(start, end)
        if items is None:
            return tree.List(*place, [], LOAD)
        first, rest = items
        if isinstance(rest, list):
            return tree.ListComp(*place, self._element(first), rest)
        return tree.List(*place, [first, *(rest or ())], LOAD)

    def dict_or_set_item(self, key: expr, value: expr | None, _start: int, _end: int) -> Any:
        return key if value is None else (key, value)

    def dict_unpack_item(self, value: expr, _start: int, _end: int) -> Any:
        return None, value

    def braces(self, items: Items | None, start: int, end: int) -> expr:
        place = self._at(start, end)
        if items is None:
            return tree.Dict(*place, [], [])
        first, rest = items
        if isinstance(rest, list):
            if isinstance(first, tuple):
                if first[0] is None:
                    self._error_at(
                        "NKI-L004",
                        "`**` stands in a dict comprehension",
                        first[1],
                        "Write `key: value for ...`.",
                    )
                key, value = first
                return tree.DictComp(*place, key, value, rest)
            return tree.SetComp(*place, self._element(first), rest)
        every = [first, *(rest or ())]
        pairs = [item for item in every if isinstance(item, tuple)]
        if not pairs:
            return tree.Set(*place, every)
        for item in every:
            if not isinstance(item, tuple):
                self._error_at("NKI-L004", "a dict has an entry without a value", item, "Write `key: value`.")
        return tree.Dict(*place, [key for key, _ in pairs], [value for _, value in pairs])

    def _element(self, node: expr) -> expr:
        """The element of a comprehension, which is not an unpacking."""
        if isinstance(node, tree.Starred):
            self._error_at("NKI-L004", "`*` stands in a comprehension", node, "Add a second `for` instead.")
        return node

    # --- Strings --------------------------------------------------------------------------------------------

    def string(self, text: str, start: int, end: int) -> list[expr]:
        return [self._constant(text, literals.string, "u" if text[0] in "uU" else None, start, end)]

    def _constant(self, text: str, decode: Any, kind: str | None, start: int, end: int) -> tree.Constant:
        try:
            value = decode(text)
        except ValueError as error:
            self._error(
                "NKI-L008", str(error), start, end, "Correct the escape, or write `r` before the string."
            )
            value = ""
        return tree.Constant(*self._at(start, end), value, kind)

    def strings(self, parts: list[Any], start: int, end: int) -> expr:
        place = self._at(start, end)
        if not any(isinstance(part, tuple) for part in parts):
            return self._joined_constant(place, [part[0] for part in parts], start, end)
        pieces = [piece for part in parts for piece in (part[0] if isinstance(part, tuple) else part)]
        if any(isinstance(piece, tree.Constant) and isinstance(piece.value, bytes) for piece in pieces):
            self._mixed(start, end)
            pieces = []
        return tree.JoinedStr(*place, _merged(pieces))

    def _joined_constant(self, place: Place, parts: list[tree.Constant], start: int, end: int) -> expr:
        if len(parts) == 1:
            return parts[0]
        values: list[Any] = [part.value for part in parts]
        kinds = {type(value) for value in values}
        if len(kinds) > 1:
            self._mixed(start, end)
            values = [""]
        return tree.Constant(*place, type(values[0])().join(values), parts[0].kind)

    def _mixed(self, start: int, end: int) -> None:
        message = "bytes and text literals stand side by side"
        self._error("NKI-L004", message, start, end, "Give all of them the prefix `b`, or none.")

    def fstring(self, opening: str, parts: list[list[expr]], start: int, _end: int) -> Any:
        return ([piece for part in parts for piece in part],)

    def fstring_text(self, text: str, start: int, end: int) -> list[expr]:
        return [self._constant(text, literals.unescape, None, start, end)]

    def fstring_raw_text(self, text: str, start: int, end: int) -> list[expr]:
        return [tree.Constant(*self._at(start, end), text, None)]

    def fstring_field(
        self, value: expr, mark: int | None, conversion: int | None, spec: expr | None, start: int, end: int
    ) -> list[expr]:
        field = tree.FormattedValue(
            *self._at(start, end), value, -1 if conversion is None else conversion, spec
        )
        if mark is None:
            return [field]
        if conversion is None and spec is None:
            field.conversion = ord("r")
        begin = self._end_lines[start], self._end_columns[start]
        middle = self._end_lines[mark], self._end_columns[mark]
        stop = self._lines[mark + 1], self._columns[mark + 1]
        blanks = _COMMENT.sub("", self._tokens.source(middle, stop))
        return [tree.Constant(*begin, *stop, self._tokens.source(begin, middle) + blanks, None), field]

    def debug_mark(self, start: int, _end: int) -> int:
        return start

    def conversion(self, name: str, start: int, end: int) -> int:
        if name not in ("s", "r", "a"):
            self._error("NKI-L004", f"`!{name}` is not a conversion", start, end, "Write `!s`, `!r` or `!a`.")
        return ord(name[0])

    def format_spec(self, parts: list[list[expr]], start: int, end: int) -> expr:
        return tree.JoinedStr(*self._at(start, end), _merged(piece for part in parts for piece in part))


def _call(place: Place, function: expr, given: tuple[list[expr], list[tree.keyword]]) -> expr:
    return tree.Call(*place, function, *given)


def _subscript(place: Place, value: expr, index: expr) -> expr:
    return tree.Subscript(*place, value, index, LOAD)


def _attribute(place: Place, value: expr, name: str) -> expr:
    return tree.Attribute(*place, value, name, LOAD)


def _merged(pieces: Iterable[expr]) -> list[expr]:
    """The pieces of an f-string without empty text, and with neighbouring texts as one."""
    merged: list[expr] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if not isinstance(piece, tree.Constant):
            merged.append(piece)
        elif isinstance(last, tree.Constant):
            last.value = f"{last.value}{piece.value}"
            last.end_lineno, last.end_col_offset = piece.end_lineno, piece.end_col_offset
        elif piece.value:
            merged.append(piece)
    return merged


def no_parameters() -> tree.arguments:
    """The parameters of a function without any."""
    return tree.arguments([], [], None, [], [], None, [])
