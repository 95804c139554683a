"""What a piece of code does to the world, told by Python's own audit events."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_CODE = ("compile", "exec", "import", "marshal.loads", "pickle.find_class", "ctypes.dlopen")
_PROCESSES = (
    "os.system",
    "os.fork",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pty.spawn",
)
_FILES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree")
_OUTSIDE = ("socket.connect", "socket.bind", "socket.getaddrinfo", "webbrowser.open", "urllib.Request")
_WATCHED = frozenset((*_CODE, *_PROCESSES, *_FILES, *_OUTSIDE, "open"))

_seen: list[tuple[str, Any]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _seen
    if _seen is None or event not in _WATCHED:
        return
    if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        return
    if event == "import" and arguments[0] in sys.modules:
        return
    seen, _seen = _seen, None  # what keeping it does is not an event
    seen.append((event, arguments[0]))
    _seen = seen


@contextlib.contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """The events of the block that run code, start processes, change files or reach out of the machine."""
    global _seen
    if not getattr(sys, "_nki_sim_watching", False):  # a hook stays for good: one is enough
        sys.addaudithook(_hook)
        sys._nki_sim_watching = True  # type: ignore[attr-defined]
    _seen = found = []
    try:
        yield found
    finally:
        _seen = None


def into(path: str) -> None:
    """Append the events of this process from now on to a file, one a line."""
    global _seen

    class File(list[tuple[str, Any]]):
        def append(self, event: tuple[str, Any]) -> None:
            with open(path, "a") as file:
                file.write(f"{event[0]} {event[1]!r}\n")

    sys.addaudithook(_hook)
    _seen = File()
