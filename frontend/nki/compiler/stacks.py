"""The user's call stacks: which frames are kernel source, and where in it they stand.

Python 3.11 and later know the place of every bytecode; on 3.10 a place is the statement
of the syntax tree that the line belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType, TracebackType
from typing import Any

from nki.compiler import tree
from nki_isa.diagnostics import Frame, Span


@dataclass(frozen=True, slots=True)
class KernelCode:
    """A code object made from kernel source.

    Attributes:
        code: the code object; held, so that its id stays its own.
        function: the name that stacks show.
        definition: the tree node it was made from, or one around it.
    """

    code: CodeType
    function: str
    definition: tree.FunctionDef


# By id: two functions of different files with the same text are equal as code objects.
_KERNEL_CODES: dict[int, KernelCode] = {}
_FRAMES: dict[tuple[int, int], Frame] = {}
_STACKS: dict[tuple[int, ...], tuple[Frame, ...]] = {}

Place = tuple[int, int, int, int]  # line, column from 0, end line, end column


def register(code: CodeType, function: str, definition: tree.FunctionDef) -> None:
    """Make `code`, and the functions inside it, known as kernel source."""
    _KERNEL_CODES[id(code)] = KernelCode(code, function, definition)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            register(inner, f"{function}.<locals>.{inner.co_name}", definition)


def is_kernel_code(code: CodeType) -> bool:
    """True for code objects made from kernel source."""
    return id(code) in _KERNEL_CODES


def outermost(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `function`; stacks begin inside this call."""
    return function(*args, **kwargs)


_OUTERMOST = outermost.__code__


def stack_of(frame: FrameType | None) -> tuple[Frame, ...]:
    """The user's calls that lead to `frame`, outermost first."""
    return stack_at(calls_of(frame))


def calls_of(frame: FrameType | None) -> tuple[int, ...]:
    """The user's calls that lead to `frame`, innermost first: of each the id of its code, and where in it."""
    kernel_codes = _KERNEL_CODES
    key: list[int] = []
    while frame is not None:
        code = frame.f_code
        number = id(code)
        if number in kernel_codes:
            key += (number, frame.f_lasti)
        elif code is _OUTERMOST:
            break
        frame = frame.f_back
    return tuple(key)


def stack_at(calls: tuple[int, ...]) -> tuple[Frame, ...]:
    """The frames of what :func:`calls_of` gives, outermost first."""
    found = _STACKS.get(calls)
    if found is None:
        pairs = zip(calls[::2], calls[1::2], strict=True)
        found = tuple([_frame(_KERNEL_CODES[number].code, offset) for number, offset in pairs])[::-1]
        _STACKS[calls] = found
    return found


def code_of(number: int) -> CodeType:
    """The code object of kernel source with this id."""
    return _KERNEL_CODES[number].code


def stack_of_traceback(traceback: TracebackType | None) -> tuple[Frame, ...]:
    """The user's calls through which an exception came, outermost first."""
    return tuple(
        _frame(t.tb_frame.f_code, t.tb_lasti) for t in steps(traceback) if is_kernel_code(t.tb_frame.f_code)
    )


def steps(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """Each entry of a traceback, outermost first."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _frame(code: CodeType, offset: int) -> Frame:
    key = (id(code), offset)
    found = _FRAMES.get(key)
    if found is None:
        kernel = _KERNEL_CODES[id(code)]
        place = place_of(code, offset)
        place = _place_of_line(code, offset) if place is None else _head(kernel.definition, place)
        line, column, end_line, end_column = place
        span = Span(code.co_filename, line, column + 1, end_line, end_column + 1)
        found = _FRAMES[key] = Frame(kernel.function, span)
    return found


def place_of(code: CodeType, offset: int) -> Place | None:
    """The place of one bytecode, where Python keeps it."""
    positions = getattr(code, "co_positions", None)
    if positions is None:
        return None
    line, end_line, column, end_column = next(islice(positions(), offset // 2, None), (None,) * 4)
    if line is None or end_line is None or column is None or end_column is None:
        return None
    return line, column, end_line, end_column


def _head(definition: tree.FunctionDef, place: Place) -> Place:
    """`place`, but of an `if` or a `for` its condition or what it goes over, which later Pythons say as well.

    Python 3.11 places the truth of a condition, and up to 3.12 the next turn of a loop, at the statement.
    """
    for statement in _statements(definition.body):
        if isinstance(statement, (tree.If, tree.For)) and _whole(statement) == place:
            return _whole(statement.test if isinstance(statement, tree.If) else statement.iter)
    return place


def _whole(node: tree.Located) -> Place:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _place_of_line(code: CodeType, offset: int) -> Place:
    """The place of the statement at the line of one bytecode; of a compound one, its first line."""
    statement = statement_of(code, offset)
    if statement is None:
        line = _line_of(code, offset)
        return line, 0, line, 0
    last: tree.Located = statement
    if getattr(statement, "body", None):
        heads = [n for n in tree.children(statement) if isinstance(n, tree.expr)]
        last = heads[-1] if heads else statement
    return statement.lineno, statement.col_offset, last.end_lineno, last.end_col_offset


def _line_of(code: CodeType, offset: int) -> int:
    line = code.co_firstlineno
    for start, end, at in code.co_lines():
        if start <= offset < end and at is not None:
            line = at
    return line


def statement_of(code: CodeType, offset: int) -> tree.stmt | None:
    """The innermost statement that the line of one bytecode of kernel source lies in."""
    return statement_at(code, _line_of(code, offset))


def statement_at(code: CodeType, line: int) -> tree.stmt | None:
    """The innermost statement that `line` of kernel source lies in; of several on one line, the first."""
    found = None
    for statement in _statements(_KERNEL_CODES[id(code)].definition.body):
        if statement.lineno <= line <= statement.end_lineno and (
            found is None or statement.lineno > found.lineno
        ):
            found = statement  # inner ones come after those around them
    return found


def loop_around(traceback: TracebackType | None) -> tuple[str, tree.For | tree.While] | None:
    """The innermost loop of kernel source that an exception came through: its file and statement."""
    found = None
    for step in steps(traceback):
        code = step.tb_frame.f_code
        if is_kernel_code(code):
            for statement in _statements(_KERNEL_CODES[id(code)].definition.body):
                if isinstance(statement, (tree.For, tree.While)) and (
                    statement.lineno <= step.tb_lineno <= statement.end_lineno
                ):
                    found = code.co_filename, statement
    return found


def function_around(code: CodeType, statement: tree.stmt) -> tree.FunctionDef:
    """The innermost function of kernel source that `statement` stands in."""
    found = _KERNEL_CODES[id(code)].definition
    for inner in _statements(found.body):
        if isinstance(inner, tree.FunctionDef) and inner.lineno <= statement.lineno <= inner.end_lineno:
            found = inner
    return found


def _statements(body: Iterable[tree.stmt]) -> Iterator[tree.stmt]:
    for statement in body:
        yield statement
        for part in ("body", "orelse"):
            yield from _statements(getattr(statement, part, ()))
