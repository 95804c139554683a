"""A limit on the time of a traced kernel between two instructions, so that one without end is told.

The steps of traced code are Python's own and are not counted (:mod:`nki.compiler.specializer.steps`).
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator

from nki.compiler.specializer.steps import WithoutEnd
from nki_isa.diagnostics import Diagnostic
from nki_sim.process import positive_setting

VARIABLE = "NKI_SIM_MAX_SECONDS"
DEFAULT = 5
_INTERVAL = 0.25  # seconds between two looks


class TookTooLong(WithoutEnd):
    """A traced kernel took all its time; raised from another thread, which can hand over a class only."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...] = ()):
        most = positive_setting(VARIABLE, DEFAULT)
        found = Diagnostic(
            "NKI-L035",
            f"the kernel is not compiled after {most:,} s of processor time without an instruction",
            help="give the loop around this line a condition that ends it; for a kernel that needs more, set "
            f"{VARIABLE}={2 * most}",
        )
        super().__init__(diagnostics or (found,))


@contextlib.contextmanager
def watched(instructions: Callable[[], int]) -> Iterator[None]:
    """Raises :class:`TookTooLong` in the block when this thread works too long for no instruction.

    Args:
        instructions: how many there are so far.
    """
    ended = threading.Event()
    arguments = threading.get_ident(), positive_setting(VARIABLE, DEFAULT), instructions, ended
    threading.Thread(target=_watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(thread: int, most: int, instructions: Callable[[], int], ended: threading.Event) -> None:
    passed = _time_of(thread)
    seen, since = -1, 0.0
    while not ended.wait(_INTERVAL):
        count, now = instructions(), passed()
        if count != seen:
            seen, since = count, now
        elif now - since > most:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TookTooLong))
            return


def _time_of(thread: int) -> Callable[[], float]:
    """The processor time of a thread, which stands still while a debugger waits; elsewhere the time."""
    if hasattr(time, "pthread_getcpuclockid"):
        clock = time.pthread_getcpuclockid(thread)
        return lambda: time.clock_gettime(clock)
    return time.monotonic
