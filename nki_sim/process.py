"""What the host process has one of, and its threads share.

Settings of the process hold while any thread needs them. A child made by fork has only the thread that made
it: what others were in the middle of never ends there, so no lock of theirs may be waited for.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

from nki_isa.diagnostics import error

_T = TypeVar("_T")
_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """A lock that is free in a forked child, whoever held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = threading.Lock()


class Importing:
    """Held while a module is imported late, so that no fork falls in between.

    A child would find the module half imported by a thread that it lacks, and wait for it for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.__enter__, after_in_parent=self.__exit__, after_in_child=self._renew
            )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()


importing = Importing()


def _in_child() -> None:
    for lock in _locks:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Shared:
    """A setting of the process that is made when the first thread needs it and undone after the last.

    Args:
        make: makes the setting and gives what undoes it.
    """

    def __init__(self, make: Callable[[], Callable[[], None]]):
        self._make = make
        self._lock = Lock()
        self._users = 0
        self._undo: Callable[[], None] = lambda: None

    def __call__(self) -> Held:
        """It holds inside the block, or the function."""
        return Held(self)

    def take(self) -> None:
        """One more thread needs it."""
        with self._lock:
            if not self._users:
                self._undo = self._make()
            self._users += 1

    def leave(self) -> None:
        """One thread less needs it."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo()


class Held(contextlib.ContextDecorator):
    """A setting of the process that a block, or a function, needs."""

    def __init__(self, setting: Shared):
        self._setting = setting

    def __enter__(self) -> None:
        self._setting.take()

    def __exit__(self, *raised: object) -> None:
        self._setting.leave()


class lazy(Generic[_T]):
    """``functools.cached_property`` without the lock that it has up to Python 3.11."""

    def __init__(self, function: Callable[[Any], _T]):
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[_T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value


def positive_setting(name: str, default: int) -> int:
    """A limit from the environment.

    Raises:
        NkiError: NKI-L032 for a setting that is not a positive number.
    """
    chosen = os.environ.get(name, "").replace("_", "") or str(default)
    if not (chosen.isascii() and chosen.isdecimal() and int(chosen)):
        raise error("NKI-L032", f"{name} is set to {chosen!r}", help="set it to a positive number")
    return int(chosen)


#: Where control groups of version 2 and 1 say how much memory a process may take, and takes.
_GROUPS = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))


def available_bytes() -> int | None:
    """Bytes of memory that the system and the control group leave this process; None if they do not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) << 10)
    for folder, most, now in _GROUPS:
        group = Path("/sys/fs/cgroup") / folder
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int((group / most).read_text()) - int((group / now).read_text()))
    return max(min(found), 0) if found else None


@functools.cache
def _controller() -> Any:
    with importing:
        from threadpoolctl import ThreadpoolController  # looks at every library loaded: not for each import

    return ThreadpoolController()


def _single() -> Callable[[], None]:
    limit = _controller().limit(limits=1, user_api="blas")
    return lambda: limit.restore_original_limits()


def _no_collection() -> Callable[[], None]:
    if not gc.isenabled():
        return lambda: None
    gc.disable()
    return _collect_again


def _collect_again() -> None:
    """The collector takes up its work; where very many objects were made meanwhile, they are old to it."""
    if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
    gc.enable()


#: Objects made in a block beyond which they are old to the collector at once: to look through them takes
#: longer than a tenth of a second.
_MANY = 1 << 18

one_thread = Shared(_single)
"""Matrix products of the process use one thread inside the block.

How a product is shared among threads decides the order of its sums, and so its last bits: with one, a kernel
gives the same bits every time, on every host. A tile's product is too small to share, too: on a busy machine,
starting and joining threads costs more than the product.
"""

no_collection = Shared(_no_collection)
"""The garbage collector rests inside the block.

Nearly all that running a kernel allocates stays, and looking through it again and again costs a quarter of
the time.
"""


_BUFFER = 1024  # elements


class _Arithmetic:
    """See :func:`arithmetic`; a class, as a generator takes a microsecond more."""

    __slots__ = ("_errors", "_usual")

    def __enter__(self) -> None:
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        self._usual = np.setbufsize(_BUFFER)

    def __exit__(self, *raised: Any) -> None:
        np.setbufsize(self._usual)
        self._errors.__exit__(*raised)


def arithmetic() -> contextlib.AbstractContextManager[None]:
    """Numpy computes in this thread as a machine does: infinities and NaN are results, not accidents.

    Its buffers are small, as rows of tiles are not neighbours in memory: numpy 2.3 and later copies such rows
    into a buffer until it is full, which takes as long again as what is computed.
    """
    return _Arithmetic()
