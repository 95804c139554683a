"""Sessions: the settings in force in a thread, a task or the process, and what happened under them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from nki.launch.record import Launch, Overfull, Refused
from nki.launch.settings import Options
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target

Run = Callable[[list[Any]], list[Any]]


@dataclass
class Session:
    """Options in force, and what happened under them.

    Attributes:
        options: how kernels run.
        launches: the launches made.
        overfull: those refused for memory.
        refused: those refused, each with an error that was not told before.
        reached: the code of the kernels that were launched, refused ones too, and of those they call.
        keep: False where nobody looks at the record: then warnings are told as Python's.
        closed: True from the end of the session on.
    """

    options: Options = field(default_factory=Options)
    launches: list[Launch] = field(default_factory=list)
    overfull: list[Overfull] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    reached: set[CodeType] = field(default_factory=set)
    keep: bool = False
    closed: bool = False

    def checks(self) -> frozenset[str]:
        """The classes of checks in force; no note is looked for that nobody would see."""
        return self.options.checks() if self.keep else self.options.checks() - {"nan"}

    def include(self, inner: Session) -> None:
        """Record what happened under a session inside this one."""
        self.launches += inner.launches
        self.overfull += inner.overfull
        self.reached |= inner.reached
        for found in inner.refused:
            self.refuse(found.kernel, found.error)

    def refuse(self, kernel: str, found: NkiError) -> None:
        """Record the errors of a launch of `kernel`."""
        told = {(d.code, d.span, d.message) for known in self.refused for d in known.error.diagnostics}
        if self.keep and not all((d.code, d.span, d.message) in told for d in found.diagnostics):
            self.refused.append(Refused(kernel, found))


_of_process = Session()
_of_context: ContextVar[Session | None] = ContextVar("session", default=None)


def current() -> Session:
    """The session in force: that of this thread or task, else that of the process."""
    return _of_context.get() or _of_process


@contextlib.contextmanager
def session(**options: Any) -> Iterator[Session]:
    """Run kernels with these :class:`Options` inside the block; yields the record of launches.

    The target may be given by its name. The session holds for the thread or asyncio task that enters the
    block, and for tasks made inside; not for other threads, unless they are started with
    ``contextvars.copy_context().run``.
    """
    before, made = current(), Session(_read(options), keep=True)
    token = _of_context.set(made)
    try:
        yield made
    finally:
        _of_context.reset(token)
        _close(made, before)


@contextlib.contextmanager
def session_of_process(**options: Any) -> Iterator[Session]:
    """As :func:`session`, for every thread that is in no session of its own: what a command runs under."""
    global _of_process
    before, made = _of_process, Session(_read(options), keep=True)
    _of_process = made
    try:
        yield made
    finally:
        _of_process = before
        _close(made, before)


def _read(options: dict[str, Any]) -> Options:
    target = options.get("target")
    return Options(**options) if target is None else Options(**{**options, "target": as_target(target)})


def _close(made: Session, before: Session) -> None:
    made.closed = True
    if before.keep:
        before.include(made)


def inside(held: Session, run: Run, inputs: list[Any]) -> list[Any]:
    """`run` in the session it was made in, while that lasts: frameworks call from threads of their own."""
    if held.closed or _of_context.get() is not None:
        return run(inputs)
    token = _of_context.set(held)
    try:
        return run(inputs)
    finally:
        _of_context.reset(token)


__all__ = ["Session", "current", "inside", "session", "session_of_process"]
