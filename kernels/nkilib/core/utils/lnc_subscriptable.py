"""A function on the host that is told the number of cores as a kernel is: ``f[2](...)``."""

import ast
import inspect
import itertools
import linecache
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Call = TypeVar("Call")


class LncSubscriptable(Generic[Call]):
    """`func` called as ``self[lnc](...)``; while it runs :attr:`lnc` is the number of cores.

    The protocol documents the call for readers and type checkers, so it must say what `func` says::

        reference: "LncSubscriptable[ReferenceProtocol]"
        reference = LncSubscriptable(_reference, ReferenceProtocol)
        \"\"\"The docstring of ReferenceProtocol.__call__.\"\"\"

    Args:
        func: the function.
        protocol: a class whose ``__call__`` has the parameters, annotations and result of `func`.

    Raises:
        TypeError: the protocol, or the docstring under the assignment, differs.
    """

    def __init__(self, func: Callable[..., Any], protocol: type[Call]):
        self._func = func
        self._lnc: int | None = None
        documented = protocol.__call__  # type: ignore[operator]
        differences = _differences(func, documented)
        below = _docstring_below(sys._getframe(1))
        wanted = inspect.getdoc(documented)
        if below is not None and below != wanted:
            differences.append(
                f"the docstring under the assignment is {below!r}, the protocol's is {wanted!r}"
            )
        if differences:
            raise TypeError(f"{func.__name__} and {protocol.__name__} differ: " + "; ".join(differences))

    def __getitem__(self, lnc: int) -> Call:
        """The function for a launch of `lnc` cores."""

        def call(*args: Any, **kwargs: Any) -> Any:
            before, self._lnc = self._lnc, lnc
            try:
                return self._func(*args, **kwargs)
            finally:
                self._lnc = before

        return call  # type: ignore[return-value]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._func.__name__
        raise TypeError(f"{name} is called without a number of cores; write {name}[1](...) or {name}[2](...)")

    @property
    def lnc(self) -> int:
        """The number of cores of the call that runs.

        Raises:
            RuntimeError: none runs.
        """
        if self._lnc is None:
            raise RuntimeError(f"lnc is known while {self._func.__name__} runs")
        return self._lnc


def _differences(func: Callable[..., Any], documented: Callable[..., Any]) -> list[str]:
    """How the signature of `func` is not that of the protocol's ``__call__``."""
    mine, theirs = inspect.signature(func), inspect.signature(documented)
    pairs = list(mine.parameters.values()), list(theirs.parameters.values())[1:]
    names = [[parameter.name for parameter in side] for side in pairs]
    if names[0] != names[1]:
        return [f"the parameters are {names[0]} and {names[1]}"]
    found = [
        f"{a.name} is annotated {a.annotation!r} and {b.annotation!r}"
        for a, b in zip(*pairs)
        if a.annotation != b.annotation
    ]
    if mine.return_annotation != theirs.return_annotation:
        found.append(f"the result is {mine.return_annotation!r} and {theirs.return_annotation!r}")
    return found


def _docstring_below(frame: Any) -> str | None:
    """The string that follows the assignment a frame is at; None if there is none, or no source."""
    text = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    for parent in ast.walk(ast.parse(text)):
        body = getattr(parent, "body", None)
        for statement, following in itertools.pairwise(body) if isinstance(body, list) else ():
            at = statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0)
            if at and isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(following, ast.Expr):
                value = following.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return inspect.cleandoc(value.value)
    return None
