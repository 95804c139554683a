"""Syntax trees as data that cannot execute: JSON text, one row for each node, and back.

A row is ``[kind, line, column, end line, end column, part, ...]``: the place only where the kind has one, the
parts in the order of the fields. A part that is a node is the number of its row, counted after the shared
symbols; rows come before the rows that name them. What is read back is checked against the fields of
:mod:`nki.compiler.syntax.tree`: any text at all gives either a tree or :class:`DamagedTree`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Located, Node


class DamagedTree(Exception):
    """The text is not that of a tree."""


_SYMBOLS: tuple[Node, ...] = (
    *(symbols.LOAD, symbols.STORE, symbols.DEL),
    *symbols.BOOL_OPS.values(),
    *symbols.UNARY_OPS.values(),
    *symbols.BINARY_OPS.values(),
    *symbols.COMPARE_OPS.values(),
)
_SYMBOL_NUMBERS = {id(symbol): number for number, symbol in enumerate(_SYMBOLS)}


def _concrete(kind: type[Node]) -> list[type[Node]]:
    return [kind, *(inner for derived in kind.__subclasses__() for inner in _concrete(derived))]


_KINDS = tuple(
    kind
    for kind in dict.fromkeys(_concrete(Node))
    if kind not in (Node, Located, tree.stmt, tree.expr, tree.pattern, tree.type_param)
    and not issubclass(kind, symbols.Symbol)
)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


@dataclass(frozen=True, slots=True)
class _Part:
    """What a field holds: nodes or plain values of `kind`, or a list of them."""

    name: str
    kind: type
    is_node: bool
    is_list: bool
    may_be_none: bool


_PLAIN: dict[str, type] = {"str": str, "int": int, "object": object}


def _part(name: str, annotation: str) -> _Part:
    inner = annotation.removeprefix("list[").removesuffix("]")
    word = inner.removesuffix(" | None")
    kind = _PLAIN.get(word) or getattr(tree, word)
    return _Part(name, kind, issubclass(kind, Node), annotation.startswith("list["), inner != word)


def _parts(kind: type[Node]) -> tuple[_Part, ...]:
    annotations = kind.__annotations__ if kind._fields else {}
    return tuple(_part(name, annotations[name]) for name in kind._fields)


_PARTS = {kind: _parts(kind) for kind in _KINDS}
_ROWS = {
    number: (kind, 1 + 4 * issubclass(kind, Located), parts)
    for number, (kind, parts) in enumerate(_PARTS.items())
}


# --- constants ----------------------------------------------------------------------------------------------

# tag: (type, its text, the value of a text)
_CONSTANTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "i": (int, hex, lambda text: int(text, 16)),
    "f": (float, float.hex, float.fromhex),
    "c": (complex, lambda value: float.hex(value.imag), lambda text: complex(0, float.fromhex(text))),
    "b": (bytes, bytes.hex, bytes.fromhex),
    "e": (type(...), lambda value: "", lambda text: ...),
}
_TAGS = {kind: tag for tag, (kind, _, _) in _CONSTANTS.items()}


def _plain(value: Any) -> Any:
    """A value as JSON: text, small integers, True, False and None as they are, others as ``[tag, text]``."""
    if value is None or type(value) in (bool, str) or (type(value) is int and abs(value) < 1 << 53):
        return value
    tag = _TAGS[type(value)]
    return [tag, _CONSTANTS[tag][1](value)]


def _constant(part: _Part, value: Any) -> Any:
    if type(value) is list:
        tag, text = value
        value = _CONSTANTS[tag][2](text)
    if type(value) is not part.kind and part.kind is not object and not (value is None and part.may_be_none):
        raise DamagedTree("a value of the wrong kind")
    return value


# --- a tree to text -----------------------------------------------------------------------------------------


def encode(module: tree.Module) -> str:
    """The text of a tree."""
    rows: list[list[Any]] = []
    numbers: list[int] = []  # those of finished nodes whose parents are not finished
    todo: list[tuple[Node, bool]] = [(module, False)]
    while todo:
        node, is_ready = todo.pop()
        if is_ready:
            rows.append(_row(node, numbers))
            numbers.append(len(_SYMBOLS) + len(rows) - 1)
        elif isinstance(node, symbols.Symbol):
            numbers.append(_SYMBOL_NUMBERS[id(node)])
        else:
            todo.append((node, True))
            for part in _PARTS[type(node)]:  # the first is finished last: its number is on top
                if part.is_node:
                    value = getattr(node, part.name)
                    if part.is_list:
                        todo += [(item, False) for item in value if item is not None]
                    elif value is not None:
                        todo.append((value, False))
    return json.dumps(rows, separators=(",", ":"))


def _row(node: Node, numbers: list[int]) -> list[Any]:
    """The row of a node whose children's numbers are the last of `numbers`, the first child's last of all."""
    row: list[Any] = [_KIND_NUMBERS[type(node)]]
    if isinstance(node, Located):
        row += [node.lineno, node.col_offset, node.end_lineno, node.end_col_offset]
    for part in _PARTS[type(node)]:
        value = getattr(node, part.name)
        if not part.is_list:
            row.append(value if value is None else numbers.pop() if part.is_node else _plain(value))
        elif part.is_node:
            row.append([None if item is None else numbers.pop() for item in value])
        else:
            row.append([_plain(item) for item in value])
    return row


# --- and back -----------------------------------------------------------------------------------------------


def decode(text: str) -> tree.Module:
    """The tree of a text that :func:`encode` made.

    Raises:
        DamagedTree: no tree has this text, or it is nested more deeply than
            :data:`nki.compiler.syntax.tree.DEPTH`.
    """
    try:
        return _decoded(json.loads(text))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as why:
        raise DamagedTree(str(why)) from why


def _decoded(rows: list[list[Any]]) -> tree.Module:
    """The tree of these rows; what does not fit raises one of the errors that :func:`decode` names."""
    first, depth = len(_SYMBOLS), 0
    nodes: list[Any] = [*_SYMBOLS]
    depths: list[int | None] = [0] * first  # None for a node that has a parent

    def child(part: _Part, number: Any) -> Any:
        nonlocal depth
        if number is None and part.may_be_none:
            return None
        if type(number) is not int or number < 0 or not isinstance(nodes[number], part.kind):
            raise DamagedTree("a node of the wrong kind")
        if number >= first:
            below = depths[number]
            if below is None:
                raise DamagedTree("a node with two parents")
            depths[number] = None
            if below > depth:
                depth = below
        return nodes[number]

    for row in rows:
        depth = 0
        kind, head, parts = _ROWS[row[0]]
        if len(row) != head + len(parts):
            raise DamagedTree("a row of the wrong length")
        made: list[Any] = row[1:head]
        for place in made:
            if type(place) is not int or place < 0:
                raise DamagedTree("not a place")
        for part, value in zip(parts, row[head:]):
            if not part.is_list:
                made.append(child(part, value) if part.is_node else _constant(part, value))
            elif type(value) is not list:
                raise DamagedTree("not a list")
            else:
                made.append([child(part, v) if part.is_node else _constant(part, v) for v in value])
        nodes.append(kind(*made))
        depths.append(depth + 1)
        if depth >= tree.DEPTH:
            raise DamagedTree("nested too deeply")
    if not isinstance(nodes[-1], tree.Module) or any(depth is not None for depth in depths[first:-1]):
        raise DamagedTree("no module, or loose parts")
    return nodes[-1]
