"""What instructions leave behind in engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target

Array = NDArray[Any]


@dataclass(slots=True)
class EngineState:
    """What instructions leave behind in engines, outside of the memories.

    Attributes:
        target: the generation that runs.
        accumulators: the accumulator registers of an engine, one float32 per partition.
        rng: states of the random number generators, by engine; the instructions define them.
        arguments: is told the arguments of every activation function that has a valid range.
        rank: the rank of the launch that the core belongs to.
        silent: True where a run is repeated to look into it: what it prints was printed.
    """

    target: Target
    accumulators: dict[Engine, Array] = field(default_factory=dict)
    rng: dict[Engine, Any] = field(default_factory=dict)
    arguments: Callable[[Instruction, Operator, Array], None] | None = None
    silent: bool = False
    rank: int = 0

    def __post_init__(self) -> None:
        for engine in (Engine.vector, Engine.scalar, Engine.gpsimd):
            self.accumulators[engine] = np.zeros(self.target.partitions, np.float32)

    def reset(self) -> None:
        """Back to the state before the first instruction."""
        self.rng.clear()
        for lanes in self.accumulators.values():
            lanes.fill(0)
