"""Costs of what the sequencer of an engine does itself."""

from __future__ import annotations

from nki_isa.cost import Cost, kept
from nki_isa.machine.target import Target


@kept
def register(target: Target, *, memory: bool = False) -> Cost:
    """A register instruction of a sequencer; `memory` if it loads from or stores to memory."""
    name = "register_memory_ns" if memory else "register_ns"
    time = float(getattr(target, name))
    return Cost(time, time, name)
