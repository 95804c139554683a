"""What is told to the person who wrote the script unasked: errors that nothing caught, and warnings."""

from __future__ import annotations

import itertools
import linecache
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import replace
from types import FrameType, TracebackType

from nki import rendering
from nki.compiler.language import names
from nki_isa.diagnostics import Diagnostic, Frame, NkiError, Severity, Span
from nki_isa.diagnostics.codes import Category

# Frames of these packages are not the user's.
_OWN_PACKAGES = {"nki", "nki_isa", "nki_sim", "nki_tools"}
_OURS = {*_OWN_PACKAGES, "nki_cli", "nkilib"}

# Nor are those of the standard library, and of what is installed, here or for another interpreter.
_STANDARD = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})
_INSTALLED = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))


def install() -> None:
    """Show a refused kernel as text instead of a traceback where a script or notebook lets the error through.

    Wraps ``sys.excepthook``; every other exception goes to the hook that was there before, and so
    does a mistake of this project, whose traceback helps to mend it. Notebooks ask an exception for
    its lines by a method of the name set here.
    """
    before = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, where: TracebackType | None) -> None:
        told = told_as(value)
        if told is not None and not is_internal(told):
            print(rendering.plain(diagnostics_of(told)), file=sys.stderr)
        else:
            before(kind, value, where)

    def render(found: NkiError) -> list[str]:
        if is_internal(found):
            return "".join(traceback.format_exception(found)).splitlines()
        return rendering.plain(diagnostics_of(found)).splitlines()

    sys.excepthook = show
    setattr(NkiError, "_render_traceback_", render)  # noqa: B010  (the class is another floor's)


def told_as(found: BaseException) -> NkiError | None:
    """`found` as an error of ours: one, or Python's about a name that nki does not have; None for others."""
    if isinstance(found, NkiError):
        return found
    told = names.explained(found)
    return told.with_traceback(found.__traceback__) if told is not None else None


class NkiWarning(RuntimeWarning):
    """A warning about a kernel, at the line it is about; Python's warning filters say what becomes of it."""


_told: dict[str | tuple[str, type[Warning], int], int] = {}  # Python's record of the warnings it has shown


def warn(found: Iterable[Diagnostic]) -> None:
    """Tell the warnings among `found` as Python's, each once where no filter says otherwise."""
    for told in (d for d in found if d.severity is Severity.warning):
        place = told.span or _caller()
        help = f" (help: {told.help})" if told.help else ""
        text = f"[{told.code}] {told.message}{help}"
        warnings.warn_explicit(text, NkiWarning, place.file, place.line, registry=_told)


def _caller() -> Span:
    """The line of the user's that called us."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_own(frame):
        frame = frame.f_back
    return Span(frame.f_code.co_filename, frame.f_lineno) if frame else Span("<unknown>", 1)


def is_internal(found: NkiError) -> bool:
    """True for a mistake of this project."""
    return any(d.category is Category.internal for d in found.diagnostics)


def diagnostics_of(found: NkiError, start: str | None = None) -> tuple[Diagnostic, ...]:
    """The diagnostics of `found`, joined to the calls of the user's script it came through.

    One without a place (a wrong argument of the call) gets the user's innermost line; one with a call
    chain gets the script's calls in front of it.

    Args:
        start: the file the user's code starts in; frames before the first one in it are left out.
    """
    calls = tuple(
        Frame(frame.f_code.co_name, _span(frame, number, at))
        for frame, number, at in _user_frames(found.__traceback__, start)
    )
    if not calls:
        return found.diagnostics
    return tuple(
        d.at(calls[-1].span, calls) if d.span is None else replace(d, stack=calls + d.stack) if d.stack else d
        for d in found.diagnostics
    )


def user_place(found: BaseException, start: str | None = None) -> Span | None:
    """The innermost of the user's lines that `found` came through before it came through ours."""
    frames = _user_frames(found.__traceback__, start)
    return _span(*frames[-1]) if frames else None


def came_through_us(found: BaseException, start: str) -> bool:
    """True if frames of this project stand below the user's: then what is not an NkiError is our mistake."""
    return any(_is_own(frame) for frame, _, _ in _frames(found.__traceback__, start))


def user_traceback(found: BaseException, start: str) -> str:
    """The traceback of `found` as Python prints it, from the first frame in the file `start` on."""
    summary = traceback.TracebackException.from_exception(found)
    waiting: list[traceback.TracebackException | None] = [summary]
    seen: set[int] = set()
    while waiting:
        described = waiting.pop()
        if described is None or id(described) in seen:
            continue
        seen.add(id(described))
        files = [line.filename for line in described.stack]
        if start in files:
            described.stack = traceback.StackSummary.from_list(described.stack[files.index(start) :])
        waiting += [described.__cause__, described.__context__]
    return "".join(summary.format()).rstrip("\n")


def is_of_user(module: str, file: str | None) -> bool:
    """True for a module that the user's script brought along: neither installed nor of this project."""
    return file is not None and module.partition(".")[0] not in _OURS and not _is_library(file)


_Step = tuple[FrameType, int, int]  # a frame of a traceback, its line, its bytecode offset


def _frames(found: TracebackType | None, start: str | None) -> list[_Step]:
    """The steps of a traceback from the first in the file `start` on, the import machinery left out."""
    steps: list[_Step] = []
    while found is not None:
        steps.append((found.tb_frame, found.tb_lineno, found.tb_lasti))
        found = found.tb_next
    files = [frame.f_code.co_filename for frame, _, _ in steps]
    first = files.index(start) if start in files else 0
    kept = zip(steps[first:], files[first:], strict=True)
    return [step for step, file in kept if not file.startswith("<frozen importlib")]


def _user_frames(found: TracebackType | None, start: str | None) -> list[_Step]:
    """The steps in the user's files up to this project's first; from there on a kernel's own stack tells."""
    outside = itertools.takewhile(lambda step: not _is_own(step[0]), _frames(found, start))
    return [step for step in outside if not _is_library(step[0].f_code.co_filename)]


def _is_library(file: str) -> bool:
    return file.startswith(_STANDARD) or any(folder in file for folder in _INSTALLED)


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OWN_PACKAGES


def _span(frame: FrameType, number: int, offset: int) -> Span:
    """The expression a frame stood at where Python knows it (3.11 and later), else its whole line."""
    code = frame.f_code
    file = code.co_filename
    if hasattr(code, "co_positions"):
        position = next(itertools.islice(code.co_positions(), offset // 2, None), (None, None, None, None))
        line, end_line, column, end_column = position
        if line and end_line and column is not None and end_column is not None:
            start, end = _characters(file, line, column), _characters(file, end_line, end_column)
            return Span(file, line, start + 1, end_line, end + 1)
    text = linecache.getline(file, number).rstrip()
    indent = len(text) - len(text.lstrip())
    return Span(file, number, indent + 1, number, max(len(text), indent + 1) + 1)


def _characters(file: str, number: int, octets: int) -> int:
    """A column that counts UTF-8 bytes, as Python's code objects have it, in characters."""
    return len(linecache.getline(file, number).encode()[:octets].decode(errors="ignore"))
