"""`breakpoint()`, pdb and tracebacks stop on the user's own lines, with the user's own names."""

from __future__ import annotations

import bdb
import io
import pdb
import sys
import traceback
from types import FrameType
from typing import Any

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki_isa.diagnostics import NkiError

A = np.ones((2, 4), np.float32)


def doubled(value):
    twice = 2 * value
    breakpoint()
    return twice


@nki.jit
def kernel(x):
    total = 0
    for i in range(2):
        total += doubled(i)
    while total > 0:
        total -= 1
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)


FIRST = kernel.function.__code__.co_firstlineno  # the decorator's line


def test_breakpoint_stops_in_the_users_function(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[tuple[Any, ...]] = []

    def hook(*args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        caller = frame.f_back
        assert caller is not None
        stops.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno, dict(frame.f_locals)))
        stops.append(
            (caller.f_code.co_filename, caller.f_code.co_name, caller.f_lineno, caller.f_locals["i"])
        )

    monkeypatch.setattr(sys, "breakpointhook", hook)
    specialize(kernel, A)
    line = doubled.__code__.co_firstlineno + 2
    assert stops == [
        (__file__, "doubled", line, {"value": 0, "twice": 0}),
        (__file__, "kernel", FIRST + 4, 0),
        (__file__, "doubled", line, {"value": 1, "twice": 2}),
        (__file__, "kernel", FIRST + 4, 1),
    ]


class Lines(bdb.Bdb):
    """Stops at every line of this file and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def user_line(self, frame: FrameType) -> None:
        if frame.f_code.co_filename == __file__:
            self.seen.append((frame.f_code.co_name, frame.f_lineno))


def test_a_debugger_steps_through_the_users_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "breakpointhook", lambda: None)
    specialize(kernel, A)  # parsing and lowering are done
    lines = Lines()
    lines.runcall(specialize, kernel, A)
    steps = [(name, line - FIRST) for name, line in lines.seen if name == "kernel"]
    loop = [("kernel", 3), ("kernel", 4)]
    turn = [("kernel", 5), ("kernel", 6)]
    assert steps == [
        ("kernel", 2),
        *loop,
        *loop,
        ("kernel", 3),
        *_turns(turn, steps),
        ("kernel", 7),
        ("kernel", 8),
    ]
    first = doubled.__code__.co_firstlineno
    assert [line - first for name, line in lines.seen if name == "doubled"] == [1, 2, 3] * 2


def _turns(turn: list[tuple[str, int]], steps: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Two turns of the while loop and its last test; making the loop is one more stop at its line or none."""
    expected = [*turn, *turn, turn[0]]
    return [turn[0], *expected] if steps[6:8] == [turn[0], turn[0]] else expected


def test_a_breakpoint_set_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "breakpointhook", lambda: None)
    output = io.StringIO()
    debugger = pdb.Pdb(
        stdin=io.StringIO("p total\nw\ncontinue\ncontinue\n"), stdout=output, nosigint=True, readrc=False
    )
    debugger.use_rawinput = False
    debugger.set_break(__file__, FIRST + 4)
    debugger.runcall(specialize, kernel, A)
    debugger.clear_all_breaks()
    text = output.getvalue()
    assert f"{__file__}({FIRST + 4})kernel()" in text
    assert "-> total += doubled(i)" in text


def fails(x):
    values = [1, 2]
    return values[x.shape[0]]


def test_the_cause_of_an_error_has_the_users_frames() -> None:
    with pytest.raises(NkiError) as found:
        specialize(fails, A)
    cause = found.value.__cause__
    assert isinstance(cause, IndexError)
    last = traceback.extract_tb(cause.__traceback__)[-1]
    assert (last.filename, last.name, last.lineno) == (__file__, "fails", fails.__code__.co_firstlineno + 2)
    assert last.line == "return values[x.shape[0]]"
    tb = cause.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    assert tb is not None and tb.tb_frame.f_locals["values"] == [1, 2]
