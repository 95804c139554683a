"""What every node of a tree has: its parts, its place, its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nki_isa.diagnostics import Span

_PLACE = ("lineno", "col_offset", "end_lineno", "end_col_offset")


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """Anything in a tree; `_fields` names its parts in the order of the abstract grammar."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(name for name in cls.__dict__.get("__slots__", ()) if name not in _PLACE)

    def __repr__(self) -> str:
        return dump(self)


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
