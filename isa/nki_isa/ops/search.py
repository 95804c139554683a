"""Instructions that find values: the largest eight, their places, the nonzero, the bounds of segments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.access_patterns import max_dims
from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import SBUF, STUB, elements_per_partition, free_size_of, rules
from nki_isa.constraints.sizes import (
    elements,
    free_size,
    partitions,
    partitions_multiple,
    same_partitions,
    same_shape,
)
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.machine.dtypes import cast
from nki_isa.machine.target import Feature
from nki_isa.ops.base import GPSIMD_ENGINE, VECTOR_ENGINE, Array, ComputeInstruction, float32, rows, updating
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_LEAST, _MOST = 8, 16384  # elements per partition that the eight-value instructions read
_INDEX_TYPES = ("uint16", "uint32")


@instruction
class max8(ComputeInstruction):
    """dst = the eight largest values of each partition of `src`, in descending order.

    Compared as float32; NaN counts as the largest.

    Shapes: `src` has 8 to 16384 elements per partition and up to two free dimensions, `dst` 8.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.max8.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (max8)"
    order = Order.first
    dst: NkiTensor = write()
    src: NkiTensor = read()
    constraints = rules(
        *tile("dst", "src"),
        max_dims("src", limit=2, source=STUB),
        same_partitions("src", "dst"),
        free_size("src", _MOST, least=_LEAST),
        elements("dst", 8, "the eight largest values"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 8)), "src": t()}

    def compute(self, src: Array) -> Array:
        values = rows(float32(src, self.src))
        top = np.partition(values, values.shape[1] - 8, axis=1)[:, -8:]
        return np.sort(top, axis=1)[:, ::-1]

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.src))


def _occurrences(data: Array, vals: Array, order: range) -> tuple[Array, Array]:
    """Places of eight values per partition: equal values take successive places, in the `order` of columns.

    Returns:
        The places, and whether each value was found, both partitions by eight.
    """
    places = np.zeros(vals.shape, np.int64)
    found = np.zeros(vals.shape, np.bool_)
    lanes = np.arange(len(vals))
    for turn, k in enumerate(order):
        earlier = list(order[:turn])
        rank = (vals[:, earlier] == vals[:, k : k + 1]).sum(axis=1)
        equal = data == vals[:, k : k + 1]
        if rank.any():  # not the first place of the value: count them
            equal &= np.cumsum(equal, axis=1, dtype=np.int32) == rank[:, None] + 1
        places[:, k] = equal.argmax(axis=1)
        found[:, k] = equal[lanes, places[:, k]]
    return places, found


@instruction
class nc_find_index8(ComputeInstruction):
    """dst = the index in `data` of each of eight `vals` per partition: the first place that holds it.

    Equal values in `vals` get successive places. A value that is not there gets all ones
    (0xFFFF or 0xFFFFFFFF). Compared as float32.

    Shapes: `data` has 8 to 16384 elements per partition, `vals` and `dst` 8; `data` and `vals`
    have up to two free dimensions; `dst` is uint16 or uint32.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.nc_find_index8.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (nc_find_index8)"
    order = Order.first
    dst: NkiTensor = write()
    data: NkiTensor = read()
    vals: NkiTensor = read()
    constraints = rules(
        *tile("dst", "data", "vals"),
        max_dims("data", "vals", limit=2, source=STUB),
        same_partitions("data", "vals", "dst"),
        free_size("data", _MOST, least=_LEAST),
        elements("vals", 8, "the eight values to find"),
        elements("dst", 8, "one index for each value"),
        dtypes("dst", _INDEX_TYPES),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 8), "uint32"), "data": t(), "vals": t((128, 8))}

    def compute(self, data: Array, vals: Array) -> Array:
        places, found = _occurrences(rows(float32(data, self.data)), rows(float32(vals, self.vals)), range(8))
        return np.where(found, places, -1).astype(self.dst.dtype.numpy)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.data))


@instruction
class nc_match_replace8(ComputeInstruction):
    """dst = data with the first place of each of eight `vals` per partition replaced by `imm`.

    Equal values in `vals` replace successive places, the last column taking the first place.
    `dst_idx` receives the places; a value that is not there gets all ones, as in
    :class:`nc_find_index8`. Compared as float32.

    Shapes: `dst` has the shape of `data`; `vals` and `dst_idx` have 8 elements per partition.
    Errors: NKI-V101 to V105, V108, V110 to V112, V115.
    Source: SDK page nki.isa.nc_match_replace8; all ones: assumed as nc_find_index8 documents.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (nc_match_replace8)"
    order = Order.streamed
    dst: NkiTensor = write()
    data: NkiTensor = read()
    vals: NkiTensor = read()
    imm: float = attribute(float)
    dst_idx: NkiTensor | None = write(None)
    constraints = rules(
        *tile("dst", "data", "vals", "dst_idx"),
        *same_shape("data", "dst"),
        same_partitions("data", "vals", "dst_idx"),
        elements("vals", 8, "the eight values to replace"),
        elements("dst_idx", 8, "one index for each value"),
        dtypes("dst_idx", (*_INDEX_TYPES, "int16", "int32")),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "data": t(), "vals": t((128, 8)), "imm": -1.0}

    def compute(self, data: Array, vals: Array) -> tuple[Array, Array | None]:
        lanes = rows(data)
        values = float32(lanes, self.data)
        places, found = _occurrences(values, rows(float32(vals, self.vals)), range(7, -1, -1))
        hit = np.zeros(values.shape, np.bool_)
        lane, column = np.nonzero(found)
        hit[lane, places[lane, column]] = True
        imm = np.array([self.imm], np.float32)
        if self.data.dtype == self.dst.dtype:
            result = np.where(hit, cast(imm, self.dst.dtype), lanes)
        else:
            result = np.where(hit, imm, values)
        index = None
        if self.dst_idx is not None:
            index = np.where(found, places, -1).astype(self.dst_idx.dtype.numpy)
        return result, index

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.data))


_CORE_PARTITIONS = 16  # partitions each of the eight gpsimd cores serves


def _one_more(instruction: Any, target: Any) -> int | None:
    count = free_size_of(instruction, "src")
    return None if count is None else count + 1


@instruction
class nonzero_with_count(ComputeInstruction):
    """dst = the indices of the nonzero elements of `src`, padding, and last their number.

    Each gpsimd core works on the first of its 16 partitions: only partitions 0, 16, ..., 112
    are read and written, the others of `dst` keep their values. `index_offset` is added to the
    indices, `padding_val` fills up. No cost is published; one cycle per element is assumed.

    Shapes: `src` float32 or int32 and `dst` int32 in SBUF, `dst` with one element per partition
    more than `src`.
    Errors: NKI-V101 to V105, V108, V110 to V112, V115.
    Source: SDK page nki.isa.nonzero_with_count.
    """

    engines = (GPSIMD_ENGINE,)
    needs = Feature.nonzero_search
    source = f"{STUB} (nonzero_with_count)"
    order = Order.first
    assumed = "one element per cycle after the start of a gpsimd instruction"
    dst: NkiTensor = write()
    src: NkiTensor = read()
    index_offset: int = attribute(int, 0)
    padding_val: int = attribute(int, -1)
    constraints = rules(
        *tile("dst", "src"),
        memory("dst", "src", SBUF),
        same_partitions("src", "dst"),
        dtypes("src", ("float32", "int32")),
        dtypes("dst", ("int32",)),
        elements("dst", _one_more, "an index for each element of src, and the count"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 129), "int32"), "src": t()}

    def normalise(self) -> None:
        if isinstance(self.dst, NkiTensor) and self.dst.shape[0] > 1:
            updating(self, "dst")

    def compute(self, *arrays: Array) -> Array:
        values = rows(arrays[-1])
        result = np.empty((len(values), values.shape[1] + 1), np.int32)
        if len(arrays) == 2:
            result[:] = rows(arrays[0])
        for lane in range(0, len(values), _CORE_PARTITIONS):
            places = np.flatnonzero(values[lane])
            result[lane] = self.padding_val
            result[lane, : len(places)] = (places + self.index_offset).astype(np.int32)
            result[lane, -1] = len(places)
        return result

    def cost(self, target: Target) -> Cost:
        return streaming.gpsimd(target, elements_per_partition(self.src))


def _two_per_segment(instruction: Any, target: Any) -> int | None:
    count = free_size_of(instruction, "segment_ids")
    return None if count is None else 2 * count


@instruction
class sequence_bounds(ComputeInstruction):
    """dst = for each element the start and the end (exclusive) of the run of equal ids around it.

    All starts come first, then all ends. Elements of id 0 are padding: start n (the length),
    end -1. No cost is published; one cycle per element is assumed.

    Shapes: `segment_ids` [1, n], `dst` [1, 2, n], float32 or int32.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.sequence_bounds and its example.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (sequence_bounds)"
    order = Order.first
    assumed = "one element per cycle after the start of a gpsimd instruction"
    dst: NkiTensor = write()
    segment_ids: NkiTensor = read()
    constraints = rules(
        *tile("dst", "segment_ids"),
        partitions("dst", "segment_ids", limit=1, source=STUB),
        memory("dst", "segment_ids", SBUF),
        dtypes("dst", ("float32", "int32")),
        dtypes("segment_ids", ("float32", "int32")),
        elements("dst", _two_per_segment, "a start and an end for each element"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((1, 2, 128)), "segment_ids": t((1, 128))}

    def compute(self, segment_ids: Array) -> Array:
        ids = segment_ids.reshape(-1)
        n = len(ids)
        change = np.flatnonzero(ids[1:] != ids[:-1]) + 1
        edges = np.concatenate([[0], change, [n]])
        run = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        padding = ids == 0
        starts = np.where(padding, n, edges[run])
        ends = np.where(padding, -1, edges[run + 1])
        return np.stack([starts, ends])[None]

    def cost(self, target: Target) -> Cost:
        return streaming.gpsimd(target, elements_per_partition(self.segment_ids))


def _snake_length(instruction: Any, target: Any) -> str | None:
    n, val, src = (instruction.__dict__[k] for k in ("n", "val_dst", "src"))
    if not isinstance(n, (int, np.integer)) or not 8 <= n < 65536:
        return f"n is {n!r}, it must be an int from 8 to 65535"
    if isinstance(val, NkiTensor) and elements_per_partition(val) > min(n, 32767):
        return f"val_dst has {elements_per_partition(val)} elements per partition, at most {min(n, 32767)}"
    if isinstance(src, NkiTensor) and elements_per_partition(src) < math.ceil(n / _CORE_PARTITIONS):
        return (
            f"src has {elements_per_partition(src)} elements per partition, "
            f"n {n} needs {math.ceil(n / _CORE_PARTITIONS)}"
        )
    return None


@instruction
class topk(ComputeInstruction):
    """The K largest of each group of 16 partitions of `src`, ascending, with their indices.

    A group of 16 partitions holds one list of `n` elements, element e in partition e % 16,
    column e // 16. Every partition of the group receives the group's result; of equal values
    the ones of lower index are taken. The SDK page leaves both open.

    Shapes: `src` and `val_dst` bfloat16, `idx_dst` uint32, all in SBUF; partitions a multiple
    of 16; K is the free size of `val_dst` and `idx_dst`, 1 to 32767 and at most `n`; `n` is 8 to
    65535 and fits `src`.
    Errors: NKI-V101 to V105, V108, V110 to V112, V115.
    Source: SDK page nki.isa.topk.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (topk)"
    order = Order.first
    val_dst: NkiTensor = write()
    idx_dst: NkiTensor = write()
    src: NkiTensor = read()
    n: int = attribute(int)
    constraints = rules(
        *tile("val_dst", "idx_dst", "src"),
        memory("val_dst", "idx_dst", "src", SBUF),
        dtypes("src", ("bfloat16",)),
        dtypes("val_dst", ("bfloat16",)),
        dtypes("idx_dst", ("uint32",)),
        *same_shape("val_dst", "idx_dst"),
        same_partitions("src", "val_dst"),
        partitions_multiple("src", _CORE_PARTITIONS),
        attribute_rule(
            "n is 8 to 65535, at least K, and fits src.", _snake_length, "pass n as the number of elements"
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "val_dst": t((128, 8), "bfloat16"),
            "idx_dst": t((128, 8), "uint32"),
            "src": t(dtype="bfloat16"),
            "n": 2000,
        }

    def compute(self, src: Array) -> tuple[Array, Array]:
        count = elements_per_partition(self.val_dst)
        groups = rows(src).reshape(-1, _CORE_PARTITIONS, src[0].size)
        snakes = groups.transpose(0, 2, 1).reshape(len(groups), -1)[:, : self.n]
        order = np.argsort(-snakes.astype(np.float32), axis=1, kind="stable")[:, :count][:, ::-1]
        values = np.take_along_axis(snakes, order, axis=1)
        return (
            np.repeat(values, _CORE_PARTITIONS, axis=0),
            np.repeat(order.astype(np.uint32), _CORE_PARTITIONS, axis=0),
        )

    def cost(self, target: Target) -> Cost:
        cycles = target.gpsimd_topk_cycles * self.n + elements_per_partition(self.val_dst)
        time = cycles / target.gpsimd_ghz
        return Cost(time, time, "gpsimd_topk_cycles", "gpsimd_topk_cycles")
