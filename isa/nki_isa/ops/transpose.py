"""Transposes of a tile within the core, on the tensor engine or the vector engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from nki_isa.constraints.data_types import same_dtype
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.observed import PSUM_ALIGNMENT
from nki_isa.constraints.operands import PSUM, STUB, elements_per_partition, in_psum, rules, shape_of
from nki_isa.constraints.systolic import fp8_pairs, in_pairs, paired
from nki_isa.constraints.tiles import tile
from nki_isa.cost import Cost, matmuls, streaming
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.base import VECTOR_ENGINE, Array, ComputeInstruction, float32, rows
from nki_isa.rules import tensor_engine
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

TENSOR_ENGINE = Engine.tensor
_LIMITS = {TENSOR_ENGINE: 128, VECTOR_ENGINE: 32}


def _tensor_engine_memory(instruction: Any, target: Any) -> str | None:
    if instruction.on is TENSOR_ENGINE:
        if in_psum(instruction.__dict__["data"]):
            return "data is in PSUM; the tensor engine reads SBUF"
        dst = instruction.__dict__["dst"]
        if isinstance(dst, NkiTensor) and dst.storage.region is not PSUM:
            return "dst is not in PSUM; the tensor engine writes PSUM"
    return None


def _tile_size(instruction: Any, target: Any) -> str | None:
    data, limit = instruction.__dict__["data"], _LIMITS.get(instruction.on)
    if isinstance(data, NkiTensor) and limit is not None:
        size = (data.shape[0], elements_per_partition(data))
        if max(size) > limit:
            return (
                f"data is {size[0]} by {size[1]}; the {instruction.on.name} engine takes {limit} by {limit}"
            )
    return None


def _transposed(instruction: Any, target: Any) -> str | None:
    dst, data = instruction.__dict__["dst"], instruction.__dict__["data"]
    if isinstance(dst, NkiTensor) and isinstance(data, NkiTensor):
        wanted = (elements_per_partition(data), data.shape[0])
        if (dst.shape[0], elements_per_partition(dst)) != wanted:
            return f"dst is {shape_of(dst)}, the transpose of data {shape_of(data)} is {list(wanted)}"
    return None


def _on_tensor_engine(instruction: Any) -> bool:
    return bool(instruction.on is TENSOR_ENGINE)


@instruction
class nc_transpose(ComputeInstruction):
    """dst = data transposed: partitions become elements and elements partitions, bit for bit.

    The tensor engine takes up to [128, 128] from SBUF and writes PSUM, the vector engine up to
    [32, 32] from and to either. If `engine` is not given, the tensor engine is chosen where its
    memories allow (`dst` in PSUM, `data` in SBUF), else the vector engine.

    On NeuronCore-v2 the tensor engine multiplies floats by an identity: NaN and infinity spread
    over the results they are summed into. From v3 on it writes 16-bit elements for fp8, the upper
    byte zero, so `dst` is every second element of its tensor.

    Shapes: `data` [P, ...] with F elements per partition, `dst` [F, ...] with P, equal dtypes.
    Errors: NKI-V101 to V106, V108, V110, V112, V114, V115.
    Source: SDK page nki.isa.nc_transpose; choice of engine: NKI 0.4.0 release notes.
    """

    engines = (TENSOR_ENGINE, VECTOR_ENGINE)
    stateful = True
    source = f"{STUB} (nc_transpose)"
    order = Order.any
    dst: NkiTensor = write()
    data: NkiTensor = read()
    engine: Engine = attribute(Engine, Engine.unknown)
    observed = (*ComputeInstruction.observed, PSUM_ALIGNMENT)
    constraints = rules(
        *tile("dst", "data", packed=True),
        same_dtype("data", "dst", row=tensor_engine.TRANSPOSE_DTYPE),
        Constraint(
            "NKI-V103",
            "dst has the transposed sizes of data, free dimensions flattened.",
            _transposed,
            "allocate dst with partitions and free size of data exchanged",
            STUB,
        ),
        Constraint(
            "NKI-V104",
            "The tensor engine takes 128 by 128, the vector engine 32 by 32.",
            _tile_size,
            "transpose block by block, or use the tensor engine with dst in PSUM",
            STUB,
        ),
        Constraint(
            "NKI-V101",
            "On the tensor engine data is in SBUF and dst in PSUM.",
            _tensor_engine_memory,
            "allocate dst in PSUM and copy data to SBUF, or pass nisa.engine.vector",
            STUB,
        ),
        fp8_pairs(_on_tensor_engine, "nki/guides/architecture/trainium2_arch (built-in transpose)"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(dtype="bfloat16", region=MemoryRegion.psum), "data": t(dtype="bfloat16")}

    def resolve_engine(self) -> Engine:
        if self.engine is not Engine.unknown:
            return super().resolve_engine()
        return TENSOR_ENGINE if in_psum(self.dst) and not in_psum(self.data) else VECTOR_ENGINE

    def destination(self, tensor: NkiTensor) -> NkiTensor:
        """Pairs of bytes for fp8 on the tensor engine."""
        return paired(tensor) if _on_tensor_engine(self) else tensor

    @property
    def uses_engine_state(self) -> bool:
        """False: it asks only for the generation."""
        return False

    def compute(self, state: Any, data: Array) -> Array:
        if self.on is VECTOR_ENGINE:
            return rows(data).T
        if Feature.bit_exact_transpose not in state.target.features and self.data.dtype.kind == "float":
            values = rows(float32(data, self.data))
            with np.errstate(invalid="ignore"):
                return values.T @ np.eye(len(values), dtype=np.float32)
        return in_pairs(self.dst, rows(data).T)

    def cost(self, target: Target) -> Cost:
        lanes, columns = self.data.shape[0], elements_per_partition(self.data)
        if self.on is VECTOR_ENGINE:
            return streaming.elementwise(target, self.on, columns)
        passes = 1
        if self.data.dtype.itemsize == 4:
            passes = 2 if Feature.bit_exact_transpose in target.features else target.fp32_passes
        return matmuls.matmul(target, lanes, passes, columns, lanes, 0)
