"""What operands of a compute engine obey, each of them."""

from __future__ import annotations

from nki_isa.constraints.access_patterns import (
    consecutive_partitions,
    fits_partition,
    max_dims,
    start_partition,
)
from nki_isa.constraints.data_types import unpacked
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import (
    PSUM,
    SBUF,
)
from nki_isa.constraints.sizes import partitions
from nki_isa.ir.constraint import Constraint


def access(*names: str) -> tuple[Constraint, ...]:
    """What every operand of a compute engine obeys: partitions, start, stride, dimensions."""
    return (
        partitions(*names),
        start_partition(*names),
        consecutive_partitions(*names),
        max_dims(*names),
    )


def tile(*names: str, packed: bool = False) -> tuple[Constraint, ...]:
    """What every streamed operand of the vector, scalar and gpsimd engines obeys.

    Args:
        packed: four-in-one data types are possible.
    """
    common = (memory(*names, SBUF, PSUM), *access(*names), fits_partition(*names))
    return common if packed else (*common, unpacked(*names))
