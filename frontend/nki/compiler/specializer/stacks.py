"""The user's call stacks: which frames are kernel source, and where in it they stand.

What the parser's front end runs is code made from kernel source, which is known; where a kernel is traced,
Python's own code runs, and each function is told apart when it is first met (:func:`tracing`).

Python 3.11 and later know the place of every bytecode; on 3.10 a place is the statement
of the syntax tree that the line belongs to.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import CodeType, FrameType, TracebackType
from typing import Any

from nki.compiler.source import source
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Located, children
from nki_isa.diagnostics import Frame, Span


@dataclass(frozen=True, slots=True)
class KernelCode:
    """A code object made from kernel source.

    Attributes:
        code: refers to the code object, which may go: what is known of it goes with it.
        function: the name that stacks show.
        definition: the tree node it was made from, or one around it: of a traced lambda the file.
    """

    code: weakref.ref[CodeType]
    function: str
    definition: tree.FunctionDef | tree.Module


# By id: two functions of different files with the same text are equal as code objects.
_KERNEL_CODES: dict[int, KernelCode] = {}
_TRACED_CODES: dict[int, KernelCode] = {}  # Python's own code of the user's functions
_OTHER_CODES: dict[int, weakref.ref[CodeType]] = {}  # what else was met while tracing
_FRAMES: dict[tuple[int, int], Frame] = {}
_STACKS: dict[tuple[int, ...], tuple[Frame, ...]] = {}

#: Tables by ids of code of the user's; when one goes, another may get its id.
_by_code: list[dict[Any, Any]] = [_FRAMES, _STACKS]


def goes_with_code(table: dict[Any, Any]) -> None:
    """Empty `table`, whose keys hold ids of kernel code, whenever such code is collected."""
    _by_code.append(table)


def _gone(number: int, _: object) -> None:
    """Forget the code that had this id."""
    known = _KERNEL_CODES.pop(number, None) or _TRACED_CODES.pop(number, None)
    _OTHER_CODES.pop(number, None)
    if known is not None:
        for table in _by_code:
            table.clear()


def _held(code: CodeType) -> weakref.ref[CodeType]:
    return weakref.ref(code, partial(_gone, id(code)))


Place = tuple[int, int, int, int]  # line, column from 0, end line, end column


def register(code: CodeType, function: str, definition: tree.FunctionDef) -> None:
    """Make `code`, and the functions inside it, known as kernel source."""
    _KERNEL_CODES[id(code)] = KernelCode(_held(code), function, definition)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            register(inner, f"{function}.<locals>.{inner.co_name}", definition)


def is_kernel_code(code: CodeType) -> bool:
    """True for code objects made from kernel source."""
    return id(code) in _KERNEL_CODES


_of_user: ContextVar[Callable[[FrameType], bool] | None] = ContextVar("of_user", default=None)


@contextlib.contextmanager
def tracing(of_user: Callable[[FrameType], bool]) -> Iterator[None]:
    """Inside the block Python's own code runs; `of_user` tells which frames of it are the user's."""
    token = _of_user.set(of_user)
    try:
        yield
    finally:
        _of_user.reset(token)


def is_kernel_frame(frame: FrameType) -> bool:
    """True for frames that run kernel source: code made from it, or where a kernel is traced Python's own."""
    of_user = _of_user.get()
    return id(frame.f_code) in _KERNEL_CODES if of_user is None else _is_traced(frame, of_user)


def _is_traced(frame: FrameType, of_user: Callable[[FrameType], bool]) -> bool:
    code = frame.f_code
    if id(code) in _TRACED_CODES:
        return True
    if id(code) in _OTHER_CODES:
        return False
    if of_user(frame):
        name = getattr(code, "co_qualname", code.co_name)
        _TRACED_CODES[id(code)] = KernelCode(
            _held(code), name, source.around(code, frame.f_globals.get("__name__"))
        )
        return True
    _OTHER_CODES[id(code)] = _held(code)
    return False


def _known(number: int) -> KernelCode:
    return _KERNEL_CODES.get(number) or _TRACED_CODES[number]


def outermost(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `function`; stacks begin inside this call."""
    return function(*args, **kwargs)


_OUTERMOST = id(outermost.__code__)


def stack_of(frame: FrameType | None) -> tuple[Frame, ...]:
    """The user's calls that lead to `frame`, outermost first."""
    return stack_at(calls_of(frame))


def calls_of(frame: FrameType | None) -> tuple[int, ...]:
    """The user's calls that lead to `frame`, innermost first: of each the id of its code, and where in it."""
    of_user = _of_user.get()
    mine = _KERNEL_CODES if of_user is None else _TRACED_CODES
    key: list[int] = []
    while frame is not None:
        number = id(frame.f_code)
        if number in mine:
            key += (number, frame.f_lasti)
        elif number == _OUTERMOST:
            break
        elif of_user is not None and number not in _OTHER_CODES and _is_traced(frame, of_user):
            continue  # met for the first time
        frame = frame.f_back
    return tuple(key)


def stack_at(calls: tuple[int, ...]) -> tuple[Frame, ...]:
    """The frames of what :func:`calls_of` gives, outermost first."""
    found = _STACKS.get(calls)
    if found is None:
        pairs = zip(calls[::2], calls[1::2], strict=True)
        found = tuple([_frame(code_of(number), offset) for number, offset in pairs])[::-1]
        _STACKS[calls] = found
    return found


def code_of(number: int) -> CodeType:
    """The code object of kernel source with this id, which runs or is held."""
    code = _known(number).code()
    if code is None:
        raise LookupError(f"the code object {number} is gone")
    return code


def stack_of_traceback(traceback: TracebackType | None) -> tuple[Frame, ...]:
    """The user's calls through which an exception came, outermost first."""
    return tuple(
        _frame(t.tb_frame.f_code, t.tb_lasti) for t in steps(traceback) if is_kernel_frame(t.tb_frame)
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
        kernel = _known(id(code))
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
    if id(code) in _TRACED_CODES:  # Python counts bytes
        column = source.characters(code.co_filename, line, column)
        end_column = source.characters(code.co_filename, end_line, end_column)
    return line, column, end_line, end_column


def _head(definition: tree.FunctionDef | tree.Module, place: Place) -> Place:
    """`place`, but of an `if` or a `for` its condition or what it goes over, which later Pythons say as well.

    Python 3.11 places the truth of a condition, and up to 3.12 the next turn of a loop, at the statement.
    """
    for statement in _statements(definition.body):
        if isinstance(statement, (tree.If, tree.For)) and _whole(statement) == place:
            return _whole(statement.test if isinstance(statement, tree.If) else statement.iter)
    return place


def _whole(node: Located) -> Place:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _place_of_line(code: CodeType, offset: int) -> Place:
    """The place of the statement at the line of one bytecode; of a compound one, its first line."""
    statement = statement_of(code, offset)
    if statement is None:
        line = _line_of(code, offset)
        return line, 0, line, 0
    last: Located = statement
    if getattr(statement, "body", None):
        heads = [n for n in children(statement) if isinstance(n, tree.expr)]
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
    for statement in _statements(_known(id(code)).definition.body):
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
        if is_kernel_frame(step.tb_frame):
            for statement in _statements(_known(id(code)).definition.body):
                if isinstance(statement, (tree.For, tree.While)) and (
                    statement.lineno <= step.tb_lineno <= statement.end_lineno
                ):
                    found = code.co_filename, statement
    return found


def function_around(code: CodeType, statement: tree.stmt) -> tree.FunctionDef | tree.Module:
    """The innermost function of kernel source that `statement` stands in; the file of one outside of all."""
    found = _known(id(code)).definition
    for inner in _statements(found.body):
        if isinstance(inner, tree.FunctionDef) and inner.lineno <= statement.lineno <= inner.end_lineno:
            found = inner
    return found


def _statements(body: Iterable[tree.stmt]) -> Iterator[tree.stmt]:
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, ()))
        for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _statements(branch.body)
