"""Collectives: instructions in which ranks exchange tensors.

A rank is a logical core with its own HBM; a launch runs one Program per rank. The ranks of a group meet in a
collective: it starts when all of them, and all physical cores of each, have reached it. It runs beside the
engines; what uses its tensors afterwards waits for it, as for a DMA. With two physical cores, core k of a
rank exchanges with core k of the others; tensors in shared HBM are the same for both.

Reductions are made in float32, in the order of the group, and rounded once to the data type of `dsts`; in
which order the hardware adds is not published.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from nki_isa.constraints.descriptors import PRIORITY
from nki_isa.constraints.operands import SBUF, region_name, rules, shape_of
from nki_isa.constraints.operators import operator_in
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import Cost, links
from nki_isa.cost.links import Exchange, Groups
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, reads, writes
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine.dtypes import to_float32
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target
from nki_isa.machine.topologies import Topology, topology_of
from nki_isa.ops.meeting import Array, Grouped, Meeting, Seat
from nki_isa.rules import programs
from nki_isa.tensor.kinds import Kind, define, is_whole
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

PAGE = "nki/api/nki.collectives"
_GROUPS = "write nki.collectives.ReplicaGroup([[0, 1], [2, 3]])"


def _is_groups(value: Any) -> bool:
    groups = getattr(value, "groups", value)
    listed = (list, tuple, range)
    return (
        isinstance(groups, listed)
        and bool(groups)
        and all(isinstance(g, listed) and len(g) and all(map(is_whole, g)) for g in groups)
    )


define(
    "Groups",
    Kind(
        "a ReplicaGroup with a rank in each group",
        _is_groups,
        lambda value: tuple(tuple(int(r) for r in group) for group in getattr(value, "groups", value)),
        _GROUPS,
        "NKI-V142",
    ),
)


class OnLinks(Grouped, Instruction):
    """What runs on the links of a rank, beside its engines and DMA queues.

    Class attributes:
        sources: fields with the lists of tensors it sends; `dsts` or `dsts_by_channel` receive.
        sized: what the size of a source's dimension `collective_dim` is multiplied by, and that of a
            destination's, for both to be equal: ``"src"``, ``"dst"`` or neither, by the ranks of a group.
        in_sbuf: True if its tensors may be in SBUF.
        coalesced: True if it takes several tensors, in HBM.
        by_channel: True if its lists have a tensor for each channel.
        along_columns: True if tiles in SBUF may be joined along their free dimension.
    """

    sources: ClassVar[tuple[str, ...]] = ("srcs",)
    received: ClassVar[str] = "dsts"
    sized: ClassVar[str] = ""
    in_sbuf: ClassVar[bool] = False
    coalesced: ClassVar[bool] = False
    by_channel: ClassVar[bool] = False
    along_columns: ClassVar[bool] = False

    engines = (Engine.dma,)
    namespace = "nki.collectives"
    source = PAGE
    order = Order.any

    @property
    def groups(self) -> Groups:
        """The ranks that meet, by group, each in order."""
        found: Groups = self.__dict__["replica_group"]
        return found


class Collective(OnLinks, Meeting):
    """What all collectives have in common: ranks meet in it and exchange data."""

    listened_together = True

    @property
    def what(self) -> tuple[Any, ...]:
        """What all ranks of a meeting must say alike."""
        attributes = [
            (name, value)
            for name, value in self.__dict__.items()
            if name in ("replica_group", "source_target_pairs", "op", "collective_dim", "channel_ids")
        ]
        tensors = [(t.shape, t.dtype) for t in (*self.reads, *self.writes)]
        return self.opcode, *attributes, *tensors

    def partners(self, seat: Seat) -> frozenset[tuple[int, int]]:
        ranks = [rank for rank in self.group_of(seat.rank) if rank < seat.ranks] or [seat.rank]
        return frozenset((rank, core) for rank in ranks for core in range(seat.cores))

    def agrees(self, other: Instruction) -> bool:
        return isinstance(other, Collective) and self.what == other.what

    def said(self) -> str:
        source = self.__dict__[self.sources[0]][0]
        op = self.__dict__.get("op")
        named = f"{op.name}, " if op is not None else ""
        return f"{self.opcode}({named}{', '.join(map(str, self.groups))}) of {source.dtype}{shape_of(source)}"

    def lines(self, seats: Sequence[Seat]) -> list[list[int]]:
        """Core k of each rank exchanges with core k of the others."""
        place = {(seat.rank, seat.core): k for k, seat in enumerate(seats)}
        ranks = self.group_of(seats[0].rank)
        return [[place[rank, core] for rank in ranks] for core in sorted({seat.core for seat in seats})]

    def deliver(
        self, seats: Sequence[Seat], calls: Sequence[Any], sent: Sequence[Sequence[Array]]
    ) -> list[list[Array | None]]:
        return self.exchange([seat.rank for seat in seats], sent)

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """What each rank receives.

        Args:
            ranks: those that meet, in order.
            sent: what each of them reads, as stored, in the order of :attr:`reads`.

        Returns:
            For each of them an array for each destination, masked where it keeps what it holds, or None if
            it keeps all of it.
        """
        raise NotImplementedError(self.opcode)

    def specialize(self, recorder: Recording) -> None:
        """Say what compilers were seen to refuse of where it stands."""
        recorder.collectives.append(self)
        if recorder.in_device_loop:
            recorder.tell(
                programs.COLLECTIVE_IN_LOOP,
                f"{self.opcode} stands in a loop that runs on the device",
                help="unroll the loop: write range",
            )
        if recorder.grid < recorder.target.logical_cores:
            recorder.tell(
                programs.COLLECTIVE_ON_ONE_CORE,
                f"{self.opcode}: the kernel is launched on {recorder.grid} core of a logical core of "
                f"{recorder.target.logical_cores}",
                help=f"launch it with kernel[{recorder.target.logical_cores}](...)",
            )
        for tensor in self.named():
            if tensor.buffer.is_hbm and not recorder.is_named(tensor.storage):
                recorder.tell(
                    programs.COLLECTIVE_UNNAMED,
                    f"{self.opcode}: {tensor.name} was allocated without name=",
                    help='name what collectives use: nl.ndarray(..., buffer=nl.shared_hbm, name="sent")',
                )

    def named(self) -> list[NkiTensor]:
        """The tensors of the kernel that it uses, which should have names."""
        return [*self.reads, *self.writes]

    def cost(self, target: Target) -> Cost:
        """A start, the hops of its algorithm, and the busiest link or rank."""
        topology = self.topology(target)
        return links.collective(target, topology, self.route(target, topology))

    def topology(self, target: Target) -> Topology:
        """That of what it runs on: the smallest machine that has the ranks it names."""
        return topology_of(target.name, 1 + max(rank for group in self.groups for rank in group))

    def octets(self) -> int:
        """Bytes that a rank sends of what it reads."""
        return sum(t.size * t.dtype.itemsize for t in self.__dict__[self.sources[0]])

    def route(self, target: Target, topology: Topology) -> Exchange:
        """How it goes over the links of `topology`."""
        raise NotImplementedError(self.opcode)


# --- rules


def told(broken: Callable[[Any, Target], str | None]) -> Callable[[Any, Target], str | None]:
    """`broken` of calls whose arguments are of the right kinds."""
    return lambda i, target: None if i.misfits else broken(i, target)


def _lists(i: Any) -> list[tuple[str, list[NkiTensor]]]:
    return [(name, i.__dict__[name]) for name in (*i.sources, i.received)]


@told
def _counts(i: Any, target: Target) -> str | None:
    lists = _lists(i)
    first, count = lists[0][0], len(lists[0][1])
    if not count:
        return f"{first} is empty"
    for name, tensors in lists[1:]:
        if len(tensors) != count:
            return f"{name} has {len(tensors)} tensors, {first} has {count}"
    return None


@told
def _shapes(i: Any, target: Target) -> str | None:
    dim = i.__dict__.get("collective_dim", 0)
    count = len(i.groups[0])
    lists = _lists(i)
    for tensors in zip(*(tensors for _, tensors in lists)):
        (*sources, dst) = tensors
        for name, src in zip(i.sources, sources):
            if dim >= len(src.shape):
                return f"collective_dim is {dim}, {name} is of shape {shape_of(src)}"
            factors = count if i.sized == "src" else 1, count if i.sized == "dst" else 1
            wide, narrow = (list(tensor.shape) for tensor in (src, dst))
            wide[dim] *= factors[0]
            if dim < len(narrow):
                narrow[dim] *= factors[1]
            if wide != narrow:
                times = f", whose dimension {dim} counts {count} times for {count} ranks"
                told = times if i.sized else ""
                other = (src, name, dst, i.received) if i.sized != "dst" else (dst, i.received, src, name)
                return (
                    f"{other[1]} is of shape {shape_of(other[0])}{told}, {other[3]} of shape "
                    f"{shape_of(other[2])}"
                )
    return None


@told
def _divides(i: Any, target: Target) -> str | None:
    count = len(i.groups[0])
    for src in i.srcs:
        if src.shape and src.shape[0] % count:
            return (
                f"srcs is of shape {shape_of(src)}, and {src.shape[0]} rows are not divided by {count} ranks"
            )
    return None


@told
def _dtypes(i: Any, target: Target) -> str | None:
    lists = _lists(i)
    first = lists[0][0]
    for tensors in zip(*(tensors for _, tensors in lists)):
        for (name, _), tensor in zip(lists[1:], tensors[1:]):
            if tensor.dtype != tensors[0].dtype:
                return f"{name} is {tensor.dtype}, {first} is {tensors[0].dtype}"
    return None


@told
def _memories(i: Any, target: Target) -> str | None:
    tensors = [(name, tensor) for name, listed in _lists(i) for tensor in listed]
    for name, tensor in tensors:
        region = tensor.storage.region
        if not region.is_hbm and not (region is SBUF and i.in_sbuf):
            allowed = "HBM or SBUF" if i.in_sbuf else "HBM"
            return f"{name} is in {region_name(region)}, it must be in {allowed}"
    if len({tensor.storage.region.is_hbm for _, tensor in tensors}) > 1:
        return "its tensors are in HBM and in SBUF; all must be in one of them"
    on_chip = bool(tensors) and not tensors[0][1].storage.region.is_hbm
    if len(i.__dict__[i.sources[0]]) > 1 and not i.by_channel and (on_chip or not i.coalesced):
        return f"{i.sources[0]} has several tensors" + (", in SBUF" if i.coalesced else "")
    return None


@told
def _dimension(i: Any, target: Target) -> str | None:
    dim = i.collective_dim
    on_chip = bool(i.srcs) and not i.srcs[0].storage.region.is_hbm
    most = 1 if on_chip and i.along_columns else 0
    return None if 0 <= dim <= most else f"collective_dim is {dim}, it must be {'0 or 1' if most else '0'}"


@told
def _two_dimensions(i: Any, target: Target) -> str | None:
    for name, tensors in _lists(i):
        for tensor in tensors:
            if not tensor.storage.region.is_hbm and len(tensor.shape) != 2:
                return f"{name} is in SBUF and of shape {shape_of(tensor)}, it must have two dimensions"
    return None


@told
def _even_groups(i: Any, target: Target) -> str | None:
    ranks = [rank for group in i.groups for rank in group]
    if len(set(ranks)) < len(ranks) or min(ranks) < 0:
        return f"a rank is in two groups of {i.groups}, or is negative"
    sizes = sorted({len(group) for group in i.groups})
    return f"its groups have {sizes[0]} and {sizes[-1]} ranks" if len(sizes) > 1 else None


@told
def _seen_groups(i: Any, target: Target) -> str | None:
    for group in i.groups:
        if target.name == "trn1":
            of_four_chips = len({rank // 8 for rank in group}) == 1 and len(group) in (1, 2, 4, 8)
            runs = of_four_chips or sorted(group) == list(range(32))
        else:
            runs = sorted(group) == list(range(min(group), max(group) + 1))
        if not runs:
            return f"the group {list(group)} has {len(group)} ranks" + (
                ", on trn1" if target.name == "trn1" else ", which do not follow one another"
            )
    return None


_DIMENSION = attribute_rule(
    "collective_dim is 0; of an all_gather in SBUF 0 or 1.", _dimension, "pass collective_dim=0", source=PAGE
)
COLLECTIVE_RULES = (
    Constraint(
        "NKI-V142",
        "Each rank is in one group, and all groups are of one size.",
        _even_groups,
        _GROUPS,
        PAGE + "; that they are of one size follows from the shapes, which are the same on all ranks",
    ),
    Constraint(
        "NKI-V103", "There are as many sources as destinations.", _counts, "pass lists of one length", PAGE
    ),
    Constraint(
        "NKI-V101",
        "All tensors are in HBM, or all in SBUF where it is supported, several of them only in HBM.",
        _memories,
        "copy what it sends to a tensor of the kernel's own in HBM, and call it once for each tensor",
        PAGE,
    ),
    Constraint(
        "NKI-V103",
        "Tensors in SBUF have two dimensions.",
        _two_dimensions,
        "reshape them to (partitions, elements)",
        PAGE,
    ),
    Constraint(
        "NKI-V105",
        "Sources and destinations are of one data type.",
        _dtypes,
        "convert before or after it",
        PAGE,
    ),
    PRIORITY,
)
SHAPES = Constraint(
    "NKI-V103",
    "Source and destination agree in shape, the gathered or scattered dimension times the ranks of a group.",
    _shapes,
    "allocate dsts by the number of ranks in a group",
    PAGE,
)
OPERATOR = operator_in("op", "add", "minimum", "maximum", source=PAGE)


def reduced(op: Operator, arrays: Sequence[Array], tensor: Any) -> Array:
    """`arrays`, stored as `tensor` is, reduced in float32 from the first on."""
    function: Any = op.function
    reduced: Array = functools.reduce(function, [to_float32(array, tensor.dtype) for array in arrays])
    return reduced


def _each(
    exchanged: Callable[[int, list[Array]], list[Array]], sent: Sequence[Sequence[Array]]
) -> list[list[Array | None]]:
    """What each rank receives, by `exchanged` of a tensor's number in the lists and all ranks' arrays."""
    by_tensor = [exchanged(k, list(arrays)) for k, arrays in enumerate(zip(*sent))]
    return [list(received) for received in zip(*by_tensor)]


def pair_of(t: MakeTile) -> dict[str, Any]:
    made = functools.partial(t, region=MemoryRegion.shared_hbm)
    return {"srcs": [made()], "dsts": [made()]}


# --- instructions


@instruction
class all_reduce(Collective):
    """Each rank of a group receives the reduction of all ranks' `srcs` by `op`, element by element.

    Shapes: `srcs` and `dsts` are alike; one tensor in SBUF, of two dimensions, or any number in HBM.
    Errors: NKI-V101, V103, V105, V107, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    op: Operator = attribute(Operator)
    priority: int | None = attribute(int, None)

    in_sbuf = coalesced = True
    constraints = rules(*COLLECTIVE_RULES, SHAPES, OPERATOR)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**pair_of(t), "replica_group": ((0,),), "op": "add"}

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """Everyone receives the reduction."""
        return _each(lambda k, arrays: [reduced(self.op, arrays, self.srcs[k])] * len(arrays), sent)

    def route(self, target: Target, topology: Topology) -> Exchange:
        """A reduce-scatter and an all-gather."""
        return links.exchange(target, topology, self.groups, self.octets() / len(self.groups[0]), both=True)


@instruction
class all_gather(Collective):
    """Each rank of a group receives the `srcs` of all its ranks, one after the other along `collective_dim`.

    Shapes: `dsts` are as `srcs`, with the size of `collective_dim` times the ranks of a group. One tensor in
    SBUF, of two dimensions, or any number in HBM; `collective_dim` is 0, in SBUF 0 or 1.
    Errors: NKI-V101, V103, V105, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    collective_dim: int = attribute(int)
    priority: int | None = attribute(int, None)

    sized = "src"
    in_sbuf = coalesced = along_columns = True
    constraints = rules(*COLLECTIVE_RULES, _DIMENSION, SHAPES)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**pair_of(t), "replica_group": ((0,),), "collective_dim": 0}

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """Everyone receives all of it."""
        return _each(lambda k, arrays: [np.concatenate(arrays, self.collective_dim)] * len(arrays), sent)

    def route(self, target: Target, topology: Topology) -> Exchange:
        """Each rank's part goes to all."""
        return links.exchange(target, topology, self.groups, self.octets())


@instruction
class reduce_scatter(Collective):
    """Rank k of a group receives part k, along `collective_dim`, of all ranks' `srcs` reduced by `op`.

    Shapes: `srcs` are as `dsts`, with the size of dimension 0 times the ranks of a group. One tensor in SBUF,
    of two dimensions, or any number in HBM; `collective_dim` is 0.
    Errors: NKI-V101, V103, V105, V107, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    collective_dim: int = attribute(int)
    op: Operator = attribute(Operator)
    priority: int | None = attribute(int, None)

    sized = "dst"
    in_sbuf = coalesced = True
    constraints = rules(*COLLECTIVE_RULES, _DIMENSION, SHAPES, OPERATOR)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**pair_of(t), "replica_group": ((0,),), "collective_dim": 0, "op": "add"}

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """Everyone receives its part of the reduction."""
        return _each(
            lambda k, arrays: np.split(
                reduced(self.op, arrays, self.srcs[k]), len(ranks), self.collective_dim
            ),
            sent,
        )

    def route(self, target: Target, topology: Topology) -> Exchange:
        """The sum of each part goes to its rank."""
        return links.exchange(target, topology, self.groups, self.octets() / len(self.groups[0]))


@instruction
class all_to_all(Collective):
    """Rank k of a group receives part k, along `collective_dim`, of each rank's `srcs`, in their order.

    Shapes: `srcs` and `dsts` are alike, in HBM; the ranks of a group divide dimension 0.
    Errors: NKI-V101, V103, V105, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    replica_group: Groups = attribute(tuple)
    collective_dim: int = attribute(int)
    priority: int | None = attribute(int, None)

    coalesced = True
    constraints = rules(
        *COLLECTIVE_RULES,
        _DIMENSION,
        SHAPES,
        Constraint(
            "NKI-V103",
            "The ranks of a group divide dimension 0.",
            _divides,
            "pad dimension 0 to a multiple of the ranks",
            PAGE,
        ),
    )

    observed = (
        Constraint(
            "NKI-C027",
            "A group is one that was seen to run.",
            _seen_groups,
            "make groups of ranks that follow one another, on trn1 2, 4 or 8 of four chips, or all 32",
            "public notes of inf2, trn1 and trn2",
            programs.ALL_TO_ALL_GROUPS,
        ),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**pair_of(t), "replica_group": ((0,),), "collective_dim": 0}

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """Parts change places with ranks."""

        def parts(k: int, arrays: list[Array]) -> list[Array]:
            split = [np.split(array, len(arrays), self.collective_dim) for array in arrays]
            return [np.concatenate(mine, self.collective_dim) for mine in zip(*split)]

        return _each(parts, sent)

    def route(self, target: Target, topology: Topology) -> Exchange:
        """A part for each other rank."""
        return links.all_to_all(topology, self.groups, self.octets() / len(self.groups[0]))
