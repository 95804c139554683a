"""Collectives whose sizes are known at run time only.

A tensor of metadata says how many elements a rank sends to each other one and where they begin; tensors count
as flat rows of elements. Without displacements of what it receives, `dsts` is dealt in equal slots, one for
each rank of the group, and a chunk begins at the start of its slot. What is sent nothing keeps its bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nki_isa.constraints.operands import SBUF, region_name, rules, shape_of
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import links
from nki_isa.cost.links import Exchange, Groups
from nki_isa.diagnostics import error
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read_write, reads, writes
from nki_isa.ir.instruction import Instruction, MakeTile, instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine.target import Feature, Target
from nki_isa.machine.topologies import Topology, topology_of
from nki_isa.ops.collective import COLLECTIVE_RULES, PAGE, Collective, OnLinks, told
from nki_isa.ops.meeting import Array
from nki_isa.rules import programs
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.strides import is_row_major
from nki_isa.tensor.tensor import NkiTensor

_SLOTS = 3, 4  # rows of the metadata: with the displacements of what is received, one more


class Chunk(NamedTuple):
    """Elements that go from one rank of a group to another, each by its place in it.

    Attributes:
        source, target: places of the two ranks.
        start: first element in `srcs`.
        elements: how many.
        place: first element in `dsts`.
    """

    source: int
    target: int
    start: int
    elements: int
    place: int


class Variable(OnLinks):
    """What all forms share: the rows of the metadata, and their rules.

    Class attributes:
        gathers: True if a rank sends one chunk to all.
    """

    gathers: ClassVar[bool] = False

    srcs: list[NkiTensor]
    dsts: list[NkiTensor]
    replica_group: Groups
    metadata_tensor: NkiTensor
    recv_counts_known: bool
    has_rdispls: bool

    def rows(self, first: int, last: int) -> NkiTensor:
        """Rows of the metadata; all of it where its shape is not what it must be."""
        table = self.metadata_tensor
        if table.shape != metadata_shape(self):
            return table
        columns = slice(0, 1 if self.gathers and last <= 2 else len(self.replica_group[0]))
        if len(table.shape) == 3:
            return table[:, first:last, columns]
        return table[first:last, columns]

    def inputs(self) -> list[NkiTensor]:
        """The rows of the metadata that it reads."""
        return [self.rows(0, 2), *([self.rows(3, 4)] if self.has_rdispls else [])]

    def counted(self) -> list[NkiTensor]:
        """The row of the metadata that it writes, if any: how many elements came from each rank."""
        return [] if self.recv_counts_known else [self.rows(2, 3)]

    def specialize(self, recorder: Recording) -> None:
        """Say what the vendor restricts, and what compilers were seen to refuse."""
        target: Target = recorder.target
        topology = topology_on(self, target)
        inside = [
            group for group in self.replica_group if len({rank // topology.node for rank in group}) == 1
        ]
        if not self.gathers and any(len(group) > 1 for group in inside):
            recorder.tell(
                programs.VARIABLE_IN_A_SERVER,
                f"{self.opcode}: the ranks {inside[0]} are of one server; at this level they are of as many "
                "servers as there are ranks",
                help="pad to equal counts and write all_to_all",
            )
        if recorder.grid < target.logical_cores and (self.gathers or topology.switched):
            recorder.tell(
                programs.VARIABLE_ON_ONE_CORE,
                f"{self.opcode}: the kernel is launched on {recorder.grid} core of a logical core of "
                f"{target.logical_cores}",
                help=f"launch it with kernel[{target.logical_cores}](...)",
            )
            return
        super().specialize(recorder)


def topology_on(i: Any, target: Target) -> Topology:
    """What a call runs on."""
    return topology_of(target.name, 1 + max(rank for group in i.replica_group for rank in group))


def metadata_shape(i: Any) -> tuple[int, ...]:
    """The shape that the metadata of a call must have."""
    table = _SLOTS[i.has_rdispls], len(i.replica_group[0])
    return table if i.metadata_tensor.storage.region.is_hbm else (1, *table)


# --- rules


@told
def _table(i: Any, target: Target) -> str | None:
    table, wanted = i.metadata_tensor, metadata_shape(i)
    if table.storage.region is SBUF and table.shape != wanted and table.shape[-2:] == wanted[-2:]:
        return f"metadata_tensor is in SBUF and of shape {shape_of(table)}, it must be of {list(wanted)}"
    if table.shape != wanted:
        return f"metadata_tensor is of shape {shape_of(table)}, it must be of {list(wanted)}"
    return None


@told
def _table_memory(i: Any, target: Target) -> str | None:
    region = i.metadata_tensor.storage.region
    return (
        None
        if region.is_hbm or region is SBUF
        else f"metadata_tensor is in {region_name(region)}, it must be in HBM or SBUF"
    )


@told
def _table_dtype(i: Any, target: Target) -> str | None:
    dtype = i.metadata_tensor.dtype
    return None if dtype == "uint32" else f"metadata_tensor is {dtype}, it must be uint32"


@told
def _flat(i: Any, target: Target) -> str | None:
    for name in ("srcs", "dsts"):
        for tensor in i.__dict__[name]:
            if not is_row_major(tensor.shape, tensor.strides):
                return f"{name} is a view with gaps, {shape_of(tensor)} of {tensor.name}"
    return None


@told
def _slots(i: Any, target: Target) -> str | None:
    count = len(i.replica_group[0])
    for dst in i.dsts:
        if not i.has_rdispls and dst.size % count:
            return f"dsts is of shape {shape_of(dst)}, and {count} ranks do not divide {dst.size} elements"
    return None


@told
def _of_one_chip(i: Any, target: Target) -> str | None:
    topology = topology_on(i, target)
    for group in i.replica_group:
        if len(group) != 4 or len({topology.chip(rank) for rank in group}) != 1:
            return f"the group {list(group)} is not the 4 ranks of a chip"
    return None


@told
def _no_displacements(i: Any, target: Target) -> str | None:
    return "has_rdispls is True" if i.has_rdispls else None


@told
def _whole_chips(i: Any, target: Target) -> str | None:
    topology = topology_on(i, target)
    for group in i.replica_group:
        run = list(range(group[0], group[0] + len(group)))
        chips = len(group) // topology.ranks_per_chip
        if topology.switched and (list(group) != run or len(group) % topology.ranks_per_chip or chips < 2):
            return f"the group {list(group)} is not all ranks, one after the other, of two chips or more"
    return None


@told
def _displacements_between_servers(i: Any, target: Target) -> str | None:
    topology = topology_on(i, target)
    if not i.has_rdispls or topology.switched:
        return None
    for group in i.replica_group:
        servers = {rank // topology.node for rank in group}
        if len(servers) < len(group) or len({rank % topology.node for rank in group}) > 1:
            return f"has_rdispls is True, and the group {list(group)} is not of one rank of each server"
    return None


@told
def _exact_slots(i: Any, target: Target) -> str | None:
    count = len(i.replica_group[0])
    for src, dst in zip(i.srcs, i.dsts):
        if not i.has_rdispls and dst.size != count * src.size:
            return f"dsts has {dst.size} elements, srcs {src.size}, and there are {count} ranks"
    return None


VARIABLE_RULES = (
    *COLLECTIVE_RULES,
    Constraint(
        "NKI-V103",
        "metadata_tensor has 3 rows, 4 with displacements of what is received, and a column for each rank "
        "of a group; in SBUF they are on one partition.",
        _table,
        "allocate it as nl.ndarray((3, ranks), dtype=nl.uint32, buffer=nl.shared_hbm), in SBUF (1, 3, ranks)",
        PAGE,
    ),
    Constraint(
        "NKI-V101",
        "metadata_tensor is in HBM or SBUF.",
        _table_memory,
        "copy it to a tensor in nl.shared_hbm",
        PAGE,
    ),
    Constraint(
        "NKI-V105", "metadata_tensor is uint32.", _table_dtype, "write metadata.view(nl.uint32)", PAGE
    ),
    Constraint(
        "NKI-V019",
        "srcs and dsts are rows of elements without gaps.",
        _flat,
        "copy it to a tensor of its own with nisa.dma_copy",
        PAGE + ": they count as flat",
    ),
    Constraint(
        "NKI-V103",
        "Without displacements the ranks of a group divide the elements of dsts.",
        _slots,
        "pad dsts to a multiple of the ranks",
        PAGE,
    ),
)
GATHER_RULES = (
    Constraint(
        "NKI-V142",
        "A group of an all_gather_v is the 4 ranks of a chip.",
        _of_one_chip,
        "write nki.collectives.ReplicaGroup([[0, 1, 2, 3]]), or all_gather",
        PAGE,
    ),
    attribute_rule(
        "all_gather_v takes no displacements of what is received.",
        _no_displacements,
        "leave has_rdispls out: each rank's chunk begins at its slot",
        source=PAGE,
    ),
)
ALL_TO_ALL_RULES = (
    Constraint(
        "NKI-V142",
        "On machines with switches a group is all ranks of two chips or more, one after the other.",
        _whole_chips,
        "name all of them, such as ReplicaGroup([range(8)]), and let ranks that take no part send 0 elements",
        PAGE,
    ),
    attribute_rule(
        "Without switches displacements of what is received need groups of one rank of each server.",
        _displacements_between_servers,
        "leave has_rdispls out: each rank's chunk begins at its slot",
        source=PAGE + " at 0.7; at 0.6 machines without switches take none",
    ),
)
OBSERVED = (
    Constraint(
        "NKI-C028",
        "Without displacements dsts has the elements of srcs times the ranks of a group.",
        _exact_slots,
        "allocate dsts with as many elements as srcs times the ranks",
        "a public note of trn2",
        programs.VARIABLE_SLOTS,
    ),
)

# --- what is exchanged


class Moving(Variable, Collective):
    """What moves the data."""

    partial = True

    def table(self, sent: Sequence[Array]) -> Array:
        """The metadata of a rank, of what it reads: sources first."""
        counts = sent[1].reshape(2, -1)
        size = len(self.replica_group[0])
        made = np.zeros((4, size), np.int64)
        made[:2] = counts  # of a gather the first column holds for all
        if self.has_rdispls:
            made[3] = sent[2].reshape(-1)
        return made

    def chunks(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[Chunk]:
        """What goes where.

        Raises:
            NkiError: NKI-H001, it goes beyond a tensor or a slot.
        """
        tables = [self.table(one) for one in sent]
        src, dst = self.srcs[0].size, self.dsts[0].size
        slot = dst // len(ranks)
        found = []
        for source, table in enumerate(tables):
            for target in range(len(ranks)):
                count, start = int(table[0, target]), int(table[1, target])
                place = int(tables[target][3, source]) if self.has_rdispls else source * slot
                end = dst if self.has_rdispls else place + slot
                if start + count > src:
                    self._outside(
                        f"rank {ranks[source]} sends elements {start} to {start + count - 1} to rank "
                        f"{ranks[target]}, srcs has {src}"
                    )
                if place + count > end:
                    room = f"dsts has {dst}" if self.has_rdispls else f"its slot of dsts has {slot}"
                    self._outside(
                        f"rank {ranks[target]} receives {count} elements of rank {ranks[source]}"
                        + (f" at element {place}" if self.has_rdispls else "")
                        + f", {room}"
                    )
                if count:
                    found.append(Chunk(source, target, start, count, place))
        return found

    def _outside(self, told: str) -> None:
        raise error(
            "NKI-H001",
            f"{self.opcode}: {told}",
            help="check rows 0 and 1 of metadata_tensor, which count elements, and the sizes of both tensors",
        )

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """Chunks to their places; and how many elements came, where that is asked."""
        shape, dtype = self.dsts[0].shape, sent[0][0].dtype
        landed = [np.ma.masked_all(self.dsts[0].size, dtype) for _ in ranks]
        counts = np.zeros((len(ranks), len(ranks)), np.uint32)
        for c in self.chunks(ranks, sent):
            values = sent[c.source][0].reshape(-1)[c.start : c.start + c.elements]
            landed[c.target][c.place : c.place + c.elements] = values
            counts[c.target, c.source] = c.elements
        row = [table.shape for table in self.counted()]
        return [
            [landed[k].reshape(shape), *(counts[k].reshape(size) for size in row)] for k in range(len(ranks))
        ]

    def used(self, place: int, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> Instruction:
        """The call with the elements that this rank sends and receives."""
        made = copy.copy(self)
        src, dst = (tensor.reshape((tensor.size,)) for tensor in (self.srcs[0], self.dsts[0]))
        chunks = self.chunks(ranks, sent)
        parts = dict.fromkeys((c.start, c.elements) for c in chunks if c.source == place)
        made.srcs = [src[start : start + count] for start, count in parts]
        made.dsts = [dst[c.place : c.place + c.elements] for c in chunks if c.target == place]
        return made

    def route(self, target: Target, topology: Topology) -> Exchange:
        """As if all of `srcs` went out."""
        octets = self.octets()
        if self.gathers:
            return links.exchange(target, topology, self.groups, octets)
        return links.all_to_all(topology, self.groups, octets / len(self.groups[0]))


class _AtOnce(Moving):
    """An instruction that reads the metadata and moves the data."""

    def views_read(self) -> list[NkiTensor]:
        """Sources and the rows of the metadata that say what to send."""
        return [*self.srcs, *self.inputs()]

    def views_written(self) -> list[NkiTensor]:
        """Destinations, and the row of the metadata that says what came."""
        return [*self.dsts, *self.counted()]


def sample_of(t: MakeTile, ranks: int) -> dict[str, Any]:
    def made(shape: tuple[int, ...], dtype: str = "float32") -> NkiTensor:
        return t(shape, dtype, MemoryRegion.shared_hbm)

    return {
        "srcs": [made((128, 128))],
        "dsts": [made((ranks * 128, 128))],
        "replica_group": (tuple(range(ranks)),),
        "metadata_tensor": made((3, ranks), "uint32"),
    }


# --- instructions


@instruction
class all_to_all_v(_AtOnce):
    """Each rank of a group sends another number of elements to each other one; the data say how many.

    Row 0 of `metadata_tensor` has how many elements go to each rank, row 1 where in `srcs` they begin; row 2
    receives how many came from each, unless `recv_counts_known`; row 3, with `has_rdispls`, has where in
    `dsts` they go. Without it they go to the start of the sender's slot, ``dsts.size / ranks`` elements.

    Shapes: one tensor each in HBM, of any sizes; uint32 metadata (3 or 4, ranks), in SBUF (1, 3 or 4, ranks).
    Errors: NKI-V019, V101, V103, V105, V111, V142; NKI-C029, C030; NKI-U012; NKI-H001, H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    metadata_tensor: NkiTensor = read_write()
    recv_counts_known: bool = attribute(bool, False)
    has_rdispls: bool = attribute(bool, False)
    priority: int | None = attribute(int, None)

    constraints = rules(*VARIABLE_RULES, *ALL_TO_ALL_RULES)
    observed = OBSERVED

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return sample_of(t, 8)


@instruction
class all_gather_v(_AtOnce):
    """Each rank of a group sends one chunk to all; the data say how many elements it has.

    The first column of rows 0 and 1 of `metadata_tensor` has how many elements and where in `srcs` they
    begin; row 2 receives how many came from each rank, unless `recv_counts_known`. They go to the start of
    the sender's slot of `dsts`, ``dsts.size / ranks`` elements.

    Shapes: as all_to_all_v; groups of the 4 ranks of a chip.
    Errors: NKI-V019, V101, V103, V105, V111, V142; NKI-C030; NKI-U012; NKI-H001, H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    metadata_tensor: NkiTensor = read_write()
    recv_counts_known: bool = attribute(bool, False)
    has_rdispls: bool = attribute(bool, False)
    priority: int | None = attribute(int, None)

    needs = Feature.sizes_by_data
    gathers = True
    constraints = rules(*VARIABLE_RULES, *GATHER_RULES)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return sample_of(t, 4)
