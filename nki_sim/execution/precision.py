"""High-precision mode: tensors of low-precision dtypes stored as float32 (``NKI_PRECISE_FP=0``).

A kernel's own rounding to bfloat16 and float8 goes away, so that what is left of a difference to a
reference is the algorithm's. Times, capacities and checks stay those of the real dtypes.

Source: SDK page "NKI CPU Simulator", precise floating-point mode.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nki_isa.diagnostics import error
from nki_isa.ir.program import Program
from nki_isa.ir.rewrite import on_storages
from nki_isa.machine.dtypes import DTYPES, to_float32
from nki_isa.machine.target import Target
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import Addresses, Array

LOW_PRECISION = frozenset(
    DTYPES[name] for name in ("bfloat16", "float8_e4m3", "float8_e4m3fn", "float8_e5m2")
)
_FLOAT32 = DTYPES["float32"]
_GROWTH = 4  # a float32 takes up to four times the bytes


def high_precision() -> bool:
    """True where the environment asks for it: ``NKI_PRECISE_FP=0``."""
    return os.environ.get("NKI_PRECISE_FP", "1").strip() == "0"


class Widened(NamedTuple):
    """What is run instead of the Programs of a launch, one for each core.

    Attributes:
        programs, placements, inputs, target: as for :func:`nki_sim.cores.device.execute_all`; outputs of
            low-precision dtypes are float32.
    """

    programs: list[Program]
    placements: list[dict[int, tuple[int, int]]]
    inputs: list[Array]
    target: Target


def widened(
    programs: Sequence[Program],
    placements: Sequence[Addresses],
    inputs: Sequence[Array],
    target: Target,
) -> Widened:
    """What runs `programs` with low-precision tensors stored as float32.

    Raises:
        NkiError: NKI-U013, a Program reads the bytes of such a tensor as another dtype.
    """
    wide = [_program(program) for program in programs]
    given = [
        to_float32(np.asarray(array), old.dtype) if new.dtype != old.dtype else array
        for array, old, new in zip(inputs, programs[0].inputs, wide[0].inputs, strict=True)
    ]
    return Widened(wide, [_placement(places) for places in placements], given, _target(target))


def _target(target: Target) -> Target:
    """`target` with on-chip memories that hold every tensor as float32."""
    return replace(
        target,
        sbuf_partition_bytes=target.sbuf_partition_bytes * _GROWTH,
        psum_partition_bytes=target.psum_partition_bytes * _GROWTH,
    )


def _placement(placement: Addresses) -> dict[int, tuple[int, int]]:
    """The places of the tensors of a widened Program in the memories of :func:`_target`."""
    return {index: (partition, byte * _GROWTH) for index, (partition, byte) in placement.items()}


def _program(program: Program) -> Program:
    """`program` with its tensors of low-precision dtypes stored as float32; for execution only.

    Raises:
        NkiError: NKI-U013, the Program reads the bytes of such a tensor as another dtype.
    """
    wide = [_storage(storage) for storage in program.storages]
    return on_storages(program, wide, lambda view: _wide(view, wide[view.storage.index]))


def _wide(view: NkiTensor, new: Storage) -> NkiTensor:
    """`view` of the storage in the place of its own."""
    old = view.storage
    if new is old:
        return view
    if view.dtype != old.dtype:
        raise error(
            "NKI-U013",
            f"{old.name} of {old.dtype} is read as {view.dtype}; "
            "with NKI_PRECISE_FP=0 it is stored as float32",
            help="run this kernel with NKI_PRECISE_FP=1, the default",
        )
    return NkiTensor(view.shape, view.strides, view.offset, _FLOAT32, new, view.dynamic)


def _storage(storage: Storage) -> Storage:
    if storage.dtype not in LOW_PRECISION:
        return storage
    data = storage.data
    if data is not None:
        data = to_float32(np.frombuffer(data, storage.dtype.numpy), storage.dtype).tobytes()
    return replace(storage, dtype=_FLOAT32, data=data)


__all__ = ["LOW_PRECISION", "Widened", "high_precision", "widened"]
