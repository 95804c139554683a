"""``print`` in a kernel."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from nki.compiler.specializer.recorder import current, is_recording
from nki_isa.ir.instruction import REGISTRY
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.process import Shared

_print = builtins.print


def printed(*values: Any, sep: str | None = " ", **options: Any) -> None:
    """Python's ``print``; under ``nki.simulate`` a tensor prints its values when the machine comes by here.

    What stands before a tensor in the call leads it, as the prefix of ``nl.device_print``. A tensor in PSUM,
    which that does not read, is described as everywhere.

    Source: SDK guide to the simulator.
    """
    if not is_recording() or not current().prints or not any(map(_is_shown, values)):
        _print(*values, sep=sep, **options)
        return
    before: list[str] = []
    for value in values:
        if _is_shown(value):
            current().emit(REGISTRY["device_print"]((sep or " ").join([*before, value.name]), value))
            before = []
        else:
            before.append(str(value))
    if before:
        _print(*before, sep=sep, **options)


def _is_shown(value: Any) -> bool:
    return isinstance(value, NkiTensor) and value.buffer is not MemoryRegion.psum


def _instead() -> Callable[[], None]:
    """Have every ``print`` be :func:`printed`, which outside of kernels is Python's."""
    global _print
    _print, builtins.print = builtins.print, printed

    def undo() -> None:
        builtins.print = _print

    return undo


everywhere = Shared(_instead)
"""``print`` in the functions of a traced kernel, which are Python's own."""
