"""Runs the user's script as ``__main__`` and gathers what its kernels did and what went wrong."""

from __future__ import annotations

import ast
import contextlib
import enum
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, ModuleType

from nki import runtime, uncaught
from nki.compiler.checker.check import check_file
from nki.compiler.syntax.parsed import deep_recursion
from nki_isa.diagnostics import Diagnostic, NkiError, Severity, Span, error
from nki_isa.machine.target import Target

_VARIABLE = "NEURON_PLATFORM_TARGET_OVERRIDE"


class Prints(enum.Enum):
    """Where what the script prints goes; its standard error is left alone."""

    out = "standard output"
    err = "standard error"
    nowhere = "nowhere"


@dataclass(frozen=True)
class Outcome:
    """What running a script gave.

    Attributes:
        launches: the kernel calls that were accepted, in order.
        overfull: the kernel calls that were refused because memory cannot hold what they need.
        refused: the kernel calls that were refused, for whatever reason.
        diagnostics: what was refused, warned of or noted.
        caught: the errors of kernel calls that the script caught.
        reached: resolved file and first line of the kernels that were called.
        traceback: a Python error outside of kernels, as text, or None.
        status: the status the script asked to exit with, 0 if it ended by itself.
    """

    launches: list[runtime.Launch] = field(default_factory=list)
    overfull: list[runtime.Overfull] = field(default_factory=list)
    refused: list[runtime.Refused] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    caught: list[Diagnostic] = field(default_factory=list)
    reached: frozenset[tuple[str, int]] = frozenset()
    traceback: str | None = None
    status: int = 0

    @property
    def told(self) -> list[Diagnostic]:
        """The diagnostics, with the errors that the script caught as warnings."""
        note = "the script caught this error"
        caught = (replace(d, severity=Severity.warning, notes=(*d.notes, note)) for d in self.caught)
        return [*caught, *self.diagnostics]

    @property
    def errors(self) -> list[Diagnostic]:
        """Diagnostics that stop a kernel or the script."""
        return [d for d in self.diagnostics if d.severity is Severity.error]


_IMPORTS_NKI = re.compile(r"^\s*(?:import|from)\s+(?:nki|nkilib|neuronxcc)\b", re.MULTILINE)


def files_of(path: str) -> list[str]:
    """`path`, or for a folder the Python files under it that import nki, in order."""
    if not Path(path).is_dir():
        return [path]
    inside = sorted(p for p in Path(path).rglob("*.py") if not any(n.startswith(".") for n in p.parts[1:]))
    found = [str(p) for p in inside if _IMPORTS_NKI.search(p.read_text("utf-8", errors="replace"))]
    return found or [path]


def unreadable(path: str) -> Diagnostic | None:
    """Why `path` cannot be run or checked (NKI-L026), or None."""
    file = Path(path)
    problem = help = None
    if not file.exists():
        problem, help = f"{path} does not exist", "check the spelling and the working directory"
        near = sorted(p.name for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        if near and len(near) <= 12:
            help = f"{file.parent} holds {', '.join(near)}"
    elif file.is_dir():
        problem, help = f"{path} is a directory", "name one Python file in it"
    elif not file.is_file():
        problem, help = f"{path} is a device or a pipe", "name a file of Python source"
    else:
        try:
            file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as found:
            problem = f"{path} is not text: byte {found.start} is not UTF-8"
            help = "name a file of Python source"
        except OSError as found:
            problem, help = f"{path} cannot be read: {found.strerror}", "check its permissions"
        else:
            if file.suffix not in (".py", ""):
                problem, help = f"{path} is not a Python file", "name a file that ends in .py"
    return Diagnostic("NKI-L026", problem, help=help) if problem else None


def run_script(
    path: str,
    options: runtime.Options,
    arguments: Sequence[str] = (),
    *,
    prints: Prints = Prints.out,
    whole_traceback: bool = False,
) -> Outcome:
    """Run the file at `path` as ``__main__`` with these options for its kernels.

    Without data kernels return zeros, so what the script finds wrong with them does not count: a
    comparison that fails does not end it, an exception after a kernel call is a note or a warning, and the
    status it exits with is ignored.

    Args:
        arguments: what the script finds in ``sys.argv[1:]``.
        prints: where the script's own output goes.
        whole_traceback: True shows tracebacks from the command's start, not the script's.
    """
    status, error_text = 0, None
    diagnostics: list[Diagnostic] = []
    passed: list[NkiError] = []
    with (
        _as_main(path, arguments, options.target, prints),
        _arithmetic_warnings(options.data),
        runtime.session_of_process(**vars(options)) as session,
    ):
        try:
            _execute(path, verdicts=options.data)
        except NkiError as found:
            passed.append(found)
            diagnostics += uncaught.diagnostics_of(found, path)
            if uncaught.is_internal(found):
                error_text = _traceback(found, None if whole_traceback else path)
        except SystemExit as asked:
            status = asked.code if isinstance(asked.code, int) else 0 if asked.code is None else 1
            if isinstance(asked.code, str):
                print(asked.code, file=sys.stderr)
            if session.launches and not options.data:
                diagnostics += [_exited_on_zeros(asked, path)] * bool(status)
                status = 0
        except BrokenPipeError:  # whoever reads what the script prints has left
            raise
        except Exception as found:  # whatever the user's script raises is the user's to see
            if isinstance(found, SyntaxError) and not uncaught.came_through_us(found, path):
                mine = found.filename == path  # by the codes that check gives them
                diagnostics += (_text_of(path, options.profile) if mine else []) or [_syntax_error(found)]
            elif (told := uncaught.told_as(found)) is not None:
                diagnostics += _text_of(path, options.profile) or uncaught.diagnostics_of(told, path)
            elif session.launches and not options.data and not uncaught.came_through_us(found, path):
                diagnostics.append(_stopped_on_zeros(found, path))
            else:
                diagnostics.append(_script_error(found, path))
                error_text = _traceback(found, None if whole_traceback else path)
    caught = dict.fromkeys(
        d for r in session.refused if r.error not in passed for d in uncaught.diagnostics_of(r.error, path)
    )
    reached = frozenset((str(Path(c.co_filename).resolve()), c.co_firstlineno) for c in session.reached)
    outcome = Outcome(
        session.launches, session.overfull, session.refused, [], [*caught], reached, error_text, status
    )
    for launch in session.launches:
        outcome.diagnostics.extend(d for d in launch.diagnostics if d not in outcome.diagnostics)
    outcome.diagnostics.extend(diagnostics)
    return outcome


class _SkipVerdicts(ast.NodeTransformer):
    """Lets each ``assert`` and each call that stands alone go on after an AssertionError.

    Both are evaluated: kernels called in them are reached, and one that compares is not believed.
    """

    def visit_Assert(self, node: ast.Assert) -> ast.Try:
        return self._going_on(node)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return self._going_on(node) if isinstance(node.value, ast.Call) else node

    def _going_on(self, node: ast.stmt) -> ast.Try:
        failed = ast.Name("AssertionError", ast.Load())
        skip = ast.ExceptHandler(type=failed, name=None, body=[ast.Pass()])
        made = ast.Try(body=[node], handlers=[skip], orelse=[], finalbody=[])
        return ast.fix_missing_locations(ast.copy_location(made, node))


def _package_of(path: str) -> tuple[str, Path]:
    """The package `path` is a module of (empty for a plain script), and the folder it is imported from."""
    folder = Path(path).resolve().parent
    names: list[str] = []
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names), folder


def _execute(path: str, *, verdicts: bool) -> None:
    """Run a file as ``__main__``; without `verdicts` it goes on where a comparison fails, kernels do not.

    A module of a package runs as ``python -m`` runs it, so that its relative imports work.

    (Kernels are compiled from their text, not from the code object made here.)
    """
    linecache.getlines(path)  # kept, for a script that changes its working directory
    code = _compiled(path, verdicts)
    module = ModuleType("__main__")
    module.__file__ = path
    module.__package__ = _package_of(path)[0] or None
    before = sys.modules.get("__main__")
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)
    finally:
        if before is not None:
            sys.modules["__main__"] = before


def _compiled(path: str, verdicts: bool) -> CodeType:
    """The code of a file.

    Raises:
        NkiError: NKI-L004 where Python gives up for another reason than a mistake of syntax.
    """
    try:
        with deep_recursion():
            parsed = ast.parse(Path(path).read_bytes(), path)
            parsed = parsed if verdicts else _SkipVerdicts().visit(parsed)
            return compile(parsed, path, "exec", dont_inherit=True)
    except (RecursionError, MemoryError):
        problem, help = "it is nested too deeply", "name inner parts in statements of their own"
    except ValueError as found:
        problem, help = str(found), "remove these characters"
    raise error("NKI-L004", f"Python cannot read the file: {problem}", help=help, span=Span(path, 1))


@contextlib.contextmanager
def _as_main(path: str, arguments: Sequence[str], target: Target | None, prints: Prints) -> Iterator[None]:
    """The process as ``python path arguments...`` has it, with the target in the environment."""
    modules = set(sys.modules)
    argv, paths, variable = sys.argv, list(sys.path), os.environ.get(_VARIABLE)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(_package_of(path)[1]))
    if target is not None:
        os.environ[_VARIABLE] = target.name
    try:
        with open(os.devnull, "w") as nowhere:
            stream = {Prints.out: sys.stdout, Prints.err: sys.stderr, Prints.nowhere: nowhere}[prints]
            with contextlib.redirect_stdout(stream):
                yield
    finally:
        sys.stdout.flush()
        sys.argv, sys.path[:] = argv, paths
        for name in set(sys.modules) - modules:  # another script may have a module of that name
            if uncaught.is_of_user(name, getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
        if variable is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = variable


@contextlib.contextmanager
def _arithmetic_warnings(shown: bool) -> Iterator[None]:
    """Leave out what the script's own numpy says about zeros that stand for results."""
    with warnings.catch_warnings():
        if not shown:
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _traceback(found: BaseException, start: str | None) -> str:
    if start is None:
        return "".join(traceback.format_exception(found)).rstrip("\n")
    return uncaught.user_traceback(found, start)


def _syntax_error(found: SyntaxError) -> Diagnostic:
    span = None
    if found.filename and found.lineno:
        column = max(found.offset or 1, 1)
        end = found.end_offset if found.end_lineno == found.lineno and found.end_offset else column + 1
        span = Span(found.filename, found.lineno, column, found.lineno, max(end, column + 1))
    return Diagnostic("NKI-L004", f"Python cannot read the file: {found.msg}", span=span)


def _stopped_on_zeros(found: Exception, path: str) -> Diagnostic:
    """A note for a comparison that failed, a warning for what else ended the script."""
    if isinstance(found, AssertionError):
        severity = Severity.note
        message = (
            "a comparison of the script failed; kernels return zeros here, so it says nothing about them"
        )
    else:
        severity = Severity.warning
        message = f"the script ended with {_described(found)}; kernels return zeros here, which may be why"
    return Diagnostic(
        "NKI-L030",
        message,
        span=uncaught.user_place(found, path),
        notes=("what the script does after it was not checked",),
        severity=severity,
    )


def _exited_on_zeros(asked: SystemExit, path: str) -> Diagnostic:
    return Diagnostic(
        "NKI-L030",
        f"the script ended itself with status {asked.code!r}; kernels return zeros here, which may be why",
        span=uncaught.user_place(asked, path),
        notes=("what the script does after it was not checked",),
        severity=Severity.note,
    )


def _described(found: Exception) -> str:
    text = str(found).strip().partition("\n")[0]
    return f"{type(found).__name__}: {text}" if text else type(found).__name__


def _text_of(path: str, profile: str) -> list[Diagnostic]:
    """Everything wrong with the text of a file that asks for what nki does not have."""
    return [d for d in check_file(path, profile) if d.severity is Severity.error]


def _script_error(found: Exception, path: str) -> Diagnostic:
    place = uncaught.user_place(found, path)
    if uncaught.came_through_us(found, path):
        return Diagnostic(
            "NKI-I004", _described(found), span=place, help="report it with the kernel and this traceback"
        )
    return Diagnostic("NKI-L031", _described(found), span=place)
