"""Instructions that move elements by index or by partition within SBUF and PSUM."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.data_types import dtypes, same_dtype
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import SBUF, STUB, elements_per_partition, free_size_of, rules, start_of
from nki_isa.constraints.sizes import (
    elements,
    partitions_multiple,
    same_elements_per_partition,
    same_partitions,
)
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule, value_in
from nki_isa.cost import Cost, streaming
from nki_isa.diagnostics import error
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, write
from nki_isa.ir.instruction import MakeTile, Order, Starts, instruction
from nki_isa.ops.base import GPSIMD_ENGINE, VECTOR_ENGINE, Array, ComputeInstruction, rows, updating
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_QUADRANT = 32
_KEEP = 255  # mask value: the partition keeps what it holds
_VALID = frozenset((*range(_QUADRANT), _KEEP))
_STARTS = {1: (0, 32, 64, 96), 2: (0, 64), 3: (0,), 4: (0,)}  # by quadrants in use


def _bad_mask(instruction: Any, target: Any) -> str | None:
    mask = instruction.__dict__["shuffle_mask"]
    if not isinstance(mask, tuple) or len(mask) != _QUADRANT:
        count = len(mask) if isinstance(mask, tuple) else mask
        return f"shuffle_mask has {count} elements, it must have {_QUADRANT}"
    if set(map(type, mask)) == {int} and _VALID.issuperset(mask):
        return None
    for k, value in enumerate(mask):
        if not isinstance(value, (int, np.integer)) or not (0 <= value < _QUADRANT or value == _KEEP):
            return f"shuffle_mask[{k}] is {value!r}, it must be 0 to {_QUADRANT - 1}, or {_KEEP}"
    return None


def _mask_inside(instruction: Any, target: Any) -> str | None:
    dst, src = instruction.__dict__["dst"], instruction.__dict__["src"]
    if not isinstance(dst, NkiTensor) or not isinstance(src, NkiTensor):
        return None
    whole = src.shape[0] >= dst.shape[0] and src.shape[0] % _QUADRANT == 0
    if not whole and _bad_mask(instruction, target) is None:
        for lane, taken in _moves(instruction.shuffle_mask, dst.shape[0]):
            if taken >= src.shape[0]:
                return f"partition {lane} of dst takes partition {taken} of src, which has {src.shape[0]}"
    return None


def _moves(mask: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    """(partition of dst, partition of src) for those of the `count` partitions that the mask moves."""
    return [
        (lane, lane // _QUADRANT * _QUADRANT + mask[lane % _QUADRANT])
        for lane in range(count)
        if mask[lane % _QUADRANT] != _KEEP
    ]


def _quadrant_starts(instruction: Any, target: Any) -> str | None:
    tensors = {n: instruction.__dict__[n] for n in ("src", "dst")}
    if not all(isinstance(t, NkiTensor) and t.shape[0] <= 128 for t in tensors.values()):
        return None
    quadrants = math.ceil(max(t.shape[0] for t in tensors.values()) / _QUADRANT)
    for name, tensor in tensors.items():
        if (tensor.offset or tensor.storage.address) and start_of(tensor) not in _STARTS[quadrants]:
            return (
                f"{name} starts at partition {start_of(tensor)}; with {quadrants * _QUADRANT} active "
                f"partitions it must start at {' or '.join(map(str, _STARTS[quadrants]))}"
            )
    return None


@instruction
class nc_stream_shuffle(ComputeInstruction):
    """Partition i of each quadrant of `dst` = partition shuffle_mask[i] of the same quadrant of `src`.

    A mask value of 255 leaves the partition of `dst` as it is. Bits are copied. `src` may have
    fewer partitions than `dst`, as far as the mask takes none it lacks. In place is allowed.

    Shapes: equal data types and elements per partition; `shuffle_mask` has 32 ints.
    Errors: NKI-V101 to V105, V108, V110 to V112, V115.
    Source: SDK page nki.isa.nc_stream_shuffle.
    """

    engines = (VECTOR_ENGINE,)
    starts = Starts.lanes
    source = f"{STUB} (nc_stream_shuffle)"
    order = Order.streamed
    dst: NkiTensor = write()
    src: NkiTensor = read()
    shuffle_mask: tuple[int, ...] = attribute(tuple)
    constraints = rules(
        *tile("dst", "src", packed=True),
        same_dtype("src", "dst"),
        same_elements_per_partition("src", "dst"),
        attribute_rule("shuffle_mask has 32 ints of 0 to 31, or 255.", _bad_mask, "pass a list of 32 ints"),
        attribute_rule(
            "The mask takes partitions that src has.", _mask_inside, "pass all partitions the mask names"
        ),
        Constraint(
            "NKI-V110",
            "src and dst start where as many quadrants as the larger of them spans can start.",
            _quadrant_starts,
            "move the data to an allowed partition with nisa.dma_copy",
            STUB,
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "src": t(), "shuffle_mask": list(range(31, -1, -1))}

    def normalise(self) -> None:
        if _KEEP in self.shuffle_mask:
            updating(self, "dst")

    def compute(self, *arrays: Array) -> Array:
        src = rows(arrays[-1])
        moves = _moves(self.shuffle_mask, self.dst.shape[0])
        result = (
            rows(arrays[0]).copy() if len(arrays) == 2 else np.empty((len(moves), src.shape[1]), src.dtype)
        )
        if moves:
            lanes, taken = zip(*moves, strict=True)
            result[list(lanes)] = src[list(taken)]
        return result

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst))


def check_indices(name: str, indices: Array, limit: int) -> None:
    """Refuse indices outside ``[0, limit)``: NKI-H001 with the first of them and its partition."""
    outside = np.argwhere(indices >= limit)
    if len(outside):
        lane, place = outside[0]
        raise error(
            "NKI-H001",
            f"{name}[{lane}, {place}] is {indices[lane, place]}, the indexed dimension has {limit} elements",
            help="clip the indices, or pad the data",
        )


_GROUP = 512  # elements one instruction of the ISA gathers


@instruction
class nc_n_gather(ComputeInstruction):
    """dst[p, i] = data[p, indices[p, i]], within each partition, free dimensions flattened.

    It becomes ceil(n / 512) instructions of the ISA. An index outside `data` stops the kernel
    (NKI-H001); on hardware it is undefined.

    Shapes: all in SBUF with the same partitions; `indices` uint32 with as many elements per
    partition as `dst`; `dst` has the data type of `data`.
    Errors: NKI-V101 to V105, V108, V110, V112, V115, H001.
    Source: SDK page nki.isa.nc_n_gather. No cost is published; one cycle per element is assumed.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (nc_n_gather)"
    order = Order.shuffled
    assumed = "one element per cycle after the start of a gpsimd instruction"
    dst: NkiTensor = write()
    data: NkiTensor = read()
    indices: NkiTensor = read()
    constraints = rules(
        *tile("dst", "data", "indices", packed=True),
        memory("dst", "data", "indices", SBUF),
        same_partitions("data", "indices", "dst"),
        same_elements_per_partition("indices", "dst"),
        same_dtype("data", "dst"),
        dtypes("indices", ("uint32",)),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "data": t(), "indices": t(dtype="uint32")}

    def compute(self, data: Array, indices: Array) -> Array:
        places, values = rows(indices), rows(data)
        check_indices("indices", places, values.shape[1])
        return np.take_along_axis(values, places.astype(np.intp), axis=1)

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        more = (math.ceil(n / _GROUP) - 1) * target.gpsimd_start_cycles
        return streaming.gpsimd(target, n, extra_cycles=more)


_CORE_PARTITIONS = 16
_RUNS = (1, 2, 4, 8, 16, 32)
_MOST_INDICES = 4096


def _valid(instruction: Any) -> int:
    """Indices each core uses."""
    most = _CORE_PARTITIONS * elements_per_partition(instruction.index)
    given = instruction.num_valid_indices
    return most if given is None else int(given)


def _index_count(instruction: Any, target: Any) -> str | None:
    index, given = instruction.__dict__["index"], instruction.__dict__["num_valid_indices"]
    if not isinstance(index, NkiTensor):
        return None
    most = min(_CORE_PARTITIONS * elements_per_partition(index), _MOST_INDICES)
    if given is not None and not isinstance(given, (int, np.integer)):
        return f"num_valid_indices is {given!r}, it must be an int or None"
    if not 1 <= _valid(instruction) <= most:
        return f"{_valid(instruction)} indices per core are asked for, between 1 and {most} are possible"
    return None


def _gathered(instruction: Any, target: Any) -> int | None:
    if _index_count(instruction, target) or not isinstance(instruction.num_elem_per_idx, int):
        return None
    if free_size_of(instruction, "index") is None:
        return None
    return _valid(instruction) * int(instruction.num_elem_per_idx)


@instruction
class local_gather(ComputeInstruction):
    """Each gpsimd core gathers from its 16 partitions of `src_buffer`, at the indices in its 16 of `index`.

    A core reads its indices down the partitions first, takes the first `num_valid_indices` of
    them, and copies from each of its partitions `num_elem_per_idx` elements that start there:
    ``dst[p, i, e] = src_buffer[p, indices[i] + e]``, free dimensions flattened. An index outside
    stops the kernel (NKI-H001); on hardware it is undefined.

    Shapes: the same partitions, a multiple of 16; `index` uint16; `dst` of the data type of
    `src_buffer` with num_valid_indices * num_elem_per_idx elements per partition.
    Errors: NKI-V101 to V105, V108, V110 to V112, V115, H001.
    Source: SDK page nki.isa.local_gather and its example.
    """

    engines = (GPSIMD_ENGINE,)
    source = f"{STUB} (local_gather)"
    order = Order.shuffled
    dst: NkiTensor = write()
    src_buffer: NkiTensor = read()
    index: NkiTensor = read()
    num_elem_per_idx: int = attribute(int, 1)
    num_valid_indices: int | None = attribute(int, None)
    constraints = rules(
        *tile("dst", "src_buffer", "index", packed=True),
        memory("dst", "src_buffer", "index", SBUF),
        same_partitions("src_buffer", "index", "dst"),
        partitions_multiple("src_buffer", _CORE_PARTITIONS),
        same_dtype("src_buffer", "dst"),
        dtypes("index", ("uint16",)),
        value_in("num_elem_per_idx", _RUNS),
        attribute_rule(
            "A core uses 1 to 4096 indices, at most those of its 16 partitions.",
            _index_count,
            "pass num_valid_indices, and gather in several steps",
        ),
        elements("dst", _gathered, "num_valid_indices * num_elem_per_idx elements"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {
            "dst": t(),
            "src_buffer": t(),
            "index": t((128, 8), "uint16"),
            "num_elem_per_idx": 1,
            "num_valid_indices": 128,
        }

    def compute(self, src_buffer: Array, index: Array) -> Array:
        values, run, count = rows(src_buffer), self.num_elem_per_idx, _valid(self)
        cores = rows(index).reshape(-1, _CORE_PARTITIONS, index[0].size)
        starts = cores.transpose(0, 2, 1).reshape(len(cores), -1)[:, :count].astype(np.intp)
        check_indices("index", starts, values.shape[1] - run + 1)
        places = (starts[:, :, None] + np.arange(run)).reshape(len(cores), -1)
        return np.take_along_axis(values, np.repeat(places, _CORE_PARTITIONS, axis=0), axis=1)

    def cost(self, target: Target) -> Cost:
        run = self.num_elem_per_idx
        per_cycle = ((28 + 4 * run) / (4 * run)) / min(4 / self.dst.dtype.itemsize, run)
        return streaming.gpsimd(target, _valid(self) * run, factor=per_cycle)
