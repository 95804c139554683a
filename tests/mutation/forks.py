"""Work in a fork of this process, which shares what is imported and is stopped when it takes too long."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable

MEMORY = 6 << 30  # bytes a fork may hold
Tell = Callable[[str], None]


def limit(seconds: float) -> None:
    """End this process when it has used `seconds` more of processor time, unless another limit is set."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def forked(run: Callable[[Tell], int], hear: Tell, patience: float | None = None) -> int | None:
    """The exit code of `run` in a fork; None if a :func:`limit` or `patience`, in seconds, ended it.

    `hear` gets each line that `run` tells, as it is told.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _work(run, writing)
    os.close(writing)
    until = None if patience is None else time.monotonic() + patience
    rest = b""
    with open(reading, "rb", buffering=0) as pipe:
        while ended := select.select([pipe], [], [], until and max(until - time.monotonic(), 0))[0]:
            told = pipe.read(1 << 16)
            if not told:
                break
            *lines, rest = (rest + told).split(b"\n")
            for line in lines:
                hear(line.decode())
    with contextlib.suppress(ProcessLookupError):
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.killpg(child, signal.SIGKILL)  # what it started
    code = os.waitstatus_to_exitcode(status)
    return code if ended and code != -signal.SIGPROF else None


def _work(run: Callable[[Tell], int], writing: int) -> None:
    """What the fork does: no output, and a process group of its own."""
    code = 70
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))

        def tell(line: str) -> None:
            os.write(writing, f"{line}\n".encode())

        code = run(tell)
    finally:
        os._exit(code)
