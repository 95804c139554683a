"""Rules of how an engine walks SBUF and PSUM: where it may start, step and how far.

Source: the SDK's architecture guides ("Accessing SBUF/PSUM tensors using compute engines").
"""

from __future__ import annotations

import math
from typing import Any

from nki_isa.constraints.operands import (
    ARCHITECTURE,
    PSUM,
    STUB,
    each_tensor,
    elements_per_partition,
    free_pattern,
    listed,
    region_name,
    start_of,
)
from nki_isa.ir.constraint import Constraint
from nki_isa.tensor.tensor import NkiTensor

_INT16, _UINT16 = 2**15 - 1, 2**16 - 1


def fits_partition(*names: str, source: str = STUB) -> Constraint:
    """Each of `names` has no more elements per partition than a partition of its memory holds (NKI-V104).

    A dimension of stride 0 reads the same elements again and counts once.
    """

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        region = tensor.storage.region
        if elements_per_partition(tensor) <= 2048:  # fits any memory at any width
            return None
        got = math.prod(n for n, stride in zip(tensor.shape[1:], tensor.strides[1:]) if stride)
        capacity = target.psum_partition_bytes if region is PSUM else target.sbuf_partition_bytes
        most = capacity // tensor.dtype.itemsize
        if region.on_chip and got > most:
            return (
                f"has {got} {tensor.dtype} elements per partition, "
                f"a partition of {region_name(region)} holds {most}"
            )
        return None

    rule = f"The free size of {listed(names, 'and')} is at most what one partition holds."
    help = "split the tile along its free dimension"
    return Constraint("NKI-V104", rule, each_tensor(names, test), help, source)


def max_dims(*names: str, limit: int = 4, source: str = ARCHITECTURE) -> Constraint:
    """Each of `names` needs at most `limit` strided free dimensions, contiguous ones merged (NKI-V112).

    A size is a uint16, and the stride between elements that are not contiguous an int16, both in elements.
    """

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if len(tensor.shape) <= limit + 1 and tensor.storage.row_bytes <= _INT16:
            return None
        pattern = free_pattern(tensor)
        if len(pattern) > limit:
            return f"needs {len(pattern)} strided free dimensions, an access pattern has at most {limit}"
        if not tensor.storage.region.on_chip:
            return None
        stride = max((s for s, _ in pattern), key=abs, default=0)
        size = max(tensor.shape[1:], default=0)
        if abs(stride) > _INT16:
            return f"steps {stride} elements in a free dimension, an access pattern steps at most {_INT16}"
        if size > _UINT16:
            return f"has {size} elements in a free dimension, an access pattern has at most {_UINT16}"
        return None

    rule = (
        f"The access pattern of {listed(names, 'and')} has at most {limit} free dimensions, each of at most "
        f"{_UINT16} elements and a stride of at most {_INT16}."
    )
    return Constraint(
        "NKI-V112",
        rule,
        each_tensor(names, test),
        "copy to a contiguous tile, or loop over the outer dimension",
        source,
    )


_STARTS = ((64, (0,)), (32, (0, 64)), (0, (0, 32, 64, 96)))


def start_partition(*names: str, source: str = ARCHITECTURE) -> Constraint:
    """Each of `names` starts at partition 0, 32, 64 or 96 by how many partitions it spans (NKI-V110).

    Checked where the start is known: the storage has an address, or the view
    starts inside its storage (whose own start the placement chooses legally).
    """

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.offset == 0 and tensor.storage.address is None:
            return None
        if not tensor.storage.region.on_chip:
            return None
        start = start_of(tensor)
        if start == 0:
            return None
        count = tensor.shape[0]
        for least, starts in _STARTS:
            if count > least:
                if start in starts:
                    return None
                return f"starts at partition {start} and spans {count}, it must start at {listed(starts)}"
        return None

    rule = (
        f"{listed(names, 'and')} start{'s' * (len(names) == 1)} at partition 0; "
        "up to 64 partitions also at 64; up to 32 also at 32 and 96."
    )
    return Constraint(
        "NKI-V110",
        rule,
        each_tensor(names, test),
        "move the data to an allowed partition with nisa.dma_copy",
        source,
    )


def consecutive_partitions(*names: str, source: str = ARCHITECTURE) -> Constraint:
    """Each of `names` occupies consecutive partitions: engines cannot stride or broadcast them (NKI-V115)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if not tensor.storage.region.on_chip or tensor.shape[0] == 1:
            return None
        row = tensor.storage.row_bytes // tensor.dtype.itemsize
        if row and tensor.strides[0] != row:
            return f"steps {tensor.strides[0] / row:g} partitions per index, it must step 1"
        return None

    rule = f"{listed(names, 'and')} occup{'ies' if len(names) == 1 else 'y'} consecutive partitions."
    return Constraint(
        "NKI-V115",
        rule,
        each_tensor(names, test),
        "broadcast or gather partitions with nisa.dma_copy, nc_stream_shuffle or a matmul",
        source,
    )
