"""The second front end: the user's function runs in Python, with each NKI call recorded.

Nothing of it is copied or compiled anew: closures, classes, generators and exceptions are the user's own, and
so are the lines that a debugger shows. What it shares with the parser's is all behind the call of a function
of nki: one recorder, one set of checks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import FrameType

from nki.compiler.source.host_modules import is_host
from nki.compiler.specializer import printing, stacks
from nki.compiler.specializer.importer import Values
from nki.compiler.specializer.recorder import Recorder
from nki.compiler.specializer.watch import watched


@contextlib.contextmanager
def tracing(recorder: Recorder, values: Values) -> Iterator[None]:
    """Inside the block a kernel is traced into `recorder`."""
    recorder.inline = values.inlined
    with contextlib.ExitStack() as stack:
        stack.enter_context(stacks.tracing(_is_users))
        stack.enter_context(watched(lambda: recorder.emitted))
        if recorder.prints:
            stack.enter_context(printing.everywhere())
        yield


def _is_users(frame: FrameType) -> bool:
    """True for a frame of the user's: not of a package that is the language, nor of what dataclass wrote."""
    code = frame.f_code
    name = code.co_name
    written = code.co_filename.startswith("<string") and (name[:2] == "__" or name == "<lambda>")
    return not written and not is_host(frame.f_globals.get("__name__"))


__all__ = ["tracing"]
