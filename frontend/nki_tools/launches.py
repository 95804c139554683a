"""What every answer about a kernel call says, as plain values and as text."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from nki.runtime import CoreRun, Launch
from nki_isa.tensor.tensor import NkiTensor

#: Columns of a table that is written to no terminal.
WIDTH = 120


def elapsed(launch: Launch) -> float | None:
    """ns until the last core is done; None if the launch was not timed."""
    times = [core.timeline.total for core in launch.cores if core.timeline]
    return max(times) if times else None


def launch_facts(launch: Launch, facts: Callable[[CoreRun], dict[str, Any]] | None = None) -> dict[str, Any]:
    """One kernel call as plain values; `facts` gives what is said of each core."""
    return {
        "kernel": launch.kernel,
        "inputs": [_described(tensor) for tensor in launch.program.inputs],
        "outputs": [_described(tensor) for tensor in launch.program.outputs],
        "time_ns": elapsed(launch),
        "schedule": launch.schedule,
        "skipped": [
            {
                "instruction": one.instruction.opcode,
                "place": str(one.instruction.stack[-1].span) if one.instruction.stack else None,
                "skipped": one.skipped,
                "of": one.total,
            }
            for one in launch.skipped
        ],
        "cores": [
            {
                "instructions": sum(1 for _ in core.program.walk()),
                "time_ns": core.timeline.total if core.timeline else None,
                **(facts(core) if facts else {}),
            }
            for core in launch.cores
        ],
    }


def as_text(shown: Iterable[RenderableType]) -> str:
    """Tables and lines as text without colours."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False, markup=False)
    with console.capture() as captured:
        for one in shown:
            console.print(one, soft_wrap=isinstance(one, (str, Text)))  # only tables are fitted
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip("\n")


def _described(tensor: NkiTensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}


__all__ = ["WIDTH", "as_text", "elapsed", "launch_facts"]
