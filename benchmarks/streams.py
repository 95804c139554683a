"""Instruction streams built directly, without the front end: a kernel as the calls it would make."""

from __future__ import annotations

from typing import Any

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor


class Stream:
    """A Program in the making; ``stream.nc_matmul(...)`` appends that instruction."""

    def __init__(self, name: str, target: str):
        self.program = Program(name, target)

    def tensor(
        self,
        region: str,
        shape: tuple[int, ...],
        dtype: str,
        kind: str = "local",
        address: tuple[int, int] | None = None,
    ) -> NkiTensor:
        """A new storage, whole."""
        storages = self.program.storages
        index = len(storages)
        name = f"t{index}"
        storage = Storage(index, name, MemoryRegion(region), shape, as_dtype(dtype), address, kind)
        storages.append(storage)
        view = NkiTensor.whole(storage)
        if kind == "input":
            self.program.inputs.append(view)
        return view

    def input(self, shape: tuple[int, ...], dtype: str) -> NkiTensor:
        """A kernel argument."""
        return self.tensor("shared_hbm", shape, dtype, kind="input")

    def output(self, shape: tuple[int, ...], dtype: str) -> NkiTensor:
        """A result in HBM."""
        view = self.tensor("shared_hbm", shape, dtype)
        self.program.outputs.append(view)
        return view

    def sbuf(self, shape: tuple[int, ...], dtype: str, address: tuple[int, int] | None = None) -> NkiTensor:
        """A tile in SBUF."""
        return self.tensor("sbuf", shape, dtype, address=address)

    def psum(self, shape: tuple[int, ...], dtype: str = "float32") -> NkiTensor:
        """A tile in PSUM."""
        return self.tensor("psum", shape, dtype)

    def load(self, source: NkiTensor) -> NkiTensor:
        """A tile with what `source` holds in HBM."""
        tile = self.sbuf(source.shape, source.dtype)
        self.dma_copy(dst=tile, src=source)
        return tile

    def copy_on(self, engine: str, dst: NkiTensor, src: NkiTensor) -> None:
        """A tensor_copy on the engine of that name."""
        self.tensor_copy(dst=dst, src=src, engine=Engine[engine])

    def __getattr__(self, opcode: str) -> Any:
        if opcode not in REGISTRY:
            raise AttributeError(opcode)

        def emit(*args: Any, **kwargs: Any) -> Instruction:
            instruction = REGISTRY[opcode](*args, **kwargs)
            self.program.body.append(instruction)
            return instruction

        return emit
