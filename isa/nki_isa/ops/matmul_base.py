"""What both matmuls share: tiles of the array, accumulation, the float32 product."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints import accumulation
from nki_isa.constraints.accumulation import Accumulate, Box
from nki_isa.constraints.observed import PSUM_ALIGNMENT, TENSOR
from nki_isa.constraints.systolic import ARRAY
from nki_isa.constraints.values import attribute_rule
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine.dtypes import to_float32
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Target
from nki_isa.tensor.kinds import kind_of
from nki_isa.tensor.tensor import NkiTensor

Array = NDArray[Any]
Fp32 = NDArray[np.float32]


class Matmul(Instruction):
    """What both matmuls share: tiles of the array, accumulation, the float32 product.

    Attributes:
        inferred: True if `accumulate` was left out, and the rule for that settled it.
    """

    dst: NkiTensor
    stationary: NkiTensor
    moving: NkiTensor
    accumulate: Accumulate | None
    tile_position: tuple[int, ...]
    tile_size: tuple[int, ...]

    inferred = False
    engines = (Engine.tensor,)
    settles = ("accumulate",)
    observed: ClassVar[tuple[Constraint, ...]] = (*TENSOR, PSUM_ALIGNMENT)

    def normalise(self) -> None:
        """Tiles as tuples, empty where not given; numbers and numpy's truth values as Python's."""
        if isinstance(self.accumulate, (int, np.bool_)):
            self.accumulate = bool(self.accumulate)
        if type(self.tile_position) is not tuple or type(self.tile_size) is not tuple:
            self.tile_position, self.tile_size = _pair(self.tile_position), _pair(self.tile_size)

    def specialize(self, recorder: Recording) -> None:
        """Settle `accumulate` by what earlier matmuls have written."""
        asked = self.accumulate
        if isinstance(self.dst, NkiTensor) and (asked is None or isinstance(asked, bool)):
            self.accumulate = accumulation.resolve(recorder, self.dst, asked)
            self.inferred = asked is None

    @property
    def accumulates(self) -> bool:
        """True if it adds to what `dst` holds; settled when the kernel is specialized."""
        return bool(self.accumulate)

    def views_read(self) -> list[NkiTensor]:
        """Every tensor it reads; of `dst` only what it accumulates onto."""
        found = super().views_read()
        if self.accumulate is True:
            return found
        parts = self.accumulate if isinstance(self.accumulate, tuple) else ()
        added = [self.dst[_index(box)] for box in parts]
        return [*added, *(t for t in found if t is not self.dst)]

    @property
    def rows(self) -> int:
        """Rows of the array it may use."""
        return self.tile_size[0] if len(self.tile_size) == 2 else ARRAY

    @property
    def columns(self) -> int:
        """Columns of the array it may use."""
        return self.tile_size[1] if len(self.tile_size) == 2 else ARRAY

    def _product(self, dst: Array, stationary: Fp32, moving: Fp32) -> Fp32:
        """stationary.T @ moving of two matrices in the shape of `dst`, added to it if it accumulates."""
        product: Fp32 = np.matmul(stationary.T, moving).reshape(self.dst.shape)
        if isinstance(self.accumulate, tuple):
            for box in self.accumulate:
                product[_index(box)] += to_float32(dst[_index(box)], self.dst.dtype)
        elif self.accumulates:
            product += to_float32(dst, self.dst.dtype)
        return product


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _accumulate_value(i: Any, target: Target) -> str | None:
    value = i.accumulate
    return None if value is None or isinstance(value, bool) else f"accumulate is {kind_of(value)}"


ACCUMULATE = attribute_rule(
    "accumulate is True, False or None.",
    _accumulate_value,
    "pass a value known at compile time, such as accumulate=(i > 0) with i of a Python loop",
    source="nki/api/nki/isa (nc_matmul)",
)


def _pair(value: Any) -> Any:
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else value


ROWS = "128 (or, in tiling mode, the rows of the tile)"
