"""Values of tensors in a debugger, under ``nki.simulate``: what the kernel has done so far is run for them.

A kernel is recorded before it runs, so a debugger that stops in it stops while it is recorded.

Source: SDK guide to the simulator (breakpoints, to inspect the values of tensors).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from contextvars import Context
from dataclasses import replace
from types import FrameType
from typing import Any

from nki.compiler.specializer.recorder import Recorder, current
from nki.compiler.specializer.stacks import is_kernel_frame
from nki.launch.arrays import to_numpy
from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.tensor.shown import showing
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import execute
from nki_sim.placement.fit_in_memory import fit

_DEBUGGERS = ("bdb", "pdb", "IPython", "ipdb", "debugpy", "_pydevd_bundle", "pydevd")


@contextlib.contextmanager
def values_in_debuggers() -> Iterator[None]:
    """Inside the block, a debugger that stops in a kernel shows the values of tensors."""
    with showing(_values):
        yield


def _values(tensor: NkiTensor) -> str:
    """The values of `tensor` as the kernel has left it, on lines of their own; only for a debugger."""
    if not _asked_by_debugger(sys._getframe(1)):
        return ""
    recorder = current()
    if recorder.in_device_loop:
        return " (inside a loop that the device runs: its values are known after the loop)"
    if recorder.grid > 1:
        return " (of one of several cores: its values are known when all have run)"
    try:
        return f"\n{Context().run(_so_far, recorder, tensor)}"
    except NkiError as found:
        return f" ({found.diagnostics[0].message})"


def _asked_by_debugger(frame: FrameType | None) -> bool:
    """True if a debugger stands between the kernel and `frame`, as it does while it waits for a command."""
    while frame is not None and not is_kernel_frame(frame):
        if frame.f_globals.get("__name__", "").partition(".")[0] in _DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def _so_far(recorder: Recorder, tensor: NkiTensor) -> Any:
    """The elements of `tensor` after all that was recorded."""
    program = recorder.program
    shown = Storage(len(program.storages), "shown", MemoryRegion.shared_hbm, tensor.shape, tensor.dtype)
    copied = NkiTensor.whole(shown)
    until = replace(
        program,
        storages=[*program.storages, shown],
        outputs=[copied],
        body=[*program.body, REGISTRY["dma_copy"](dst=copied, src=tensor)],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # what it prints was not printed yet
        fitted = fit(until, recorder.target)
        arrays = [to_numpy(array) for array in recorder.arrays]
        done = execute(fitted.program, fitted.placement.addresses, arrays)
    return done.outputs[0]
