"""Permutations: collectives in which each rank sends to one other; and how a rank knows which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nki_isa.constraints.operands import rules
from nki_isa.constraints.values import attribute_rule
from nki_isa.cost import Cost, links, sequencer
from nki_isa.cost.links import Exchange, Groups
from nki_isa.ir.fields import attribute, reads, register_read, register_write, writes
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target
from nki_isa.machine.topologies import Topology
from nki_isa.ops.collective import (
    COLLECTIVE_RULES,
    OPERATOR,
    PAGE,
    SHAPES,
    Collective,
    pair_of,
    reduced,
    told,
)
from nki_isa.ops.meeting import Array, Grouped
from nki_isa.tensor.kinds import Kind, define, is_whole, list_of
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor


def _flat(value: Any) -> list[Any]:
    return [item[0] if isinstance(item, (list, tuple)) and len(item) == 1 else item for item in value]


define(
    "list[list[NkiTensor]]",
    Kind(
        "a list of lists of one tensor, one for each channel",
        lambda value: (
            isinstance(value, (list, tuple)) and all(isinstance(v, NkiTensor) for v in _flat(value))
        ),
        _flat,
        "pass [[tensor]]",
    ),
)
_RANKS = list_of(Kind("an int", is_whole, int, code="NKI-V111"), "a pair of ranks", "pass (source, target)")
define(
    "list[tuple[int, int]]",
    list_of(_RANKS, "a list of pairs of ranks", "pass pairs of ranks, such as [(0, 1), (1, 0)]"),
)


@told
def _pairs_once(i: Any, target: Target) -> str | None:
    for k, what in enumerate(("source", "target")):
        ranks = [pair[k] for pair in i.source_target_pairs if len(pair) == 2]
        if len(ranks) < len(i.source_target_pairs) or not ranks:
            return f"source_target_pairs is {i.source_target_pairs!r}"
        twice = next((rank for rank in ranks if ranks.count(rank) > 1), None)
        if twice is not None:
            return f"rank {twice} is the {what} of several pairs"
        if min(ranks) < 0:
            return f"rank {min(ranks)} is negative"
    return None


@instruction
class collective_permute(Collective):
    """For each pair of ranks, the `dsts` of the second receive the `srcs` of the first.

    A rank that no pair names as a target keeps what its `dsts` hold.

    Shapes: one tensor each in HBM, alike.
    Errors: NKI-V101, V103, V105, V111; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs: list[NkiTensor] = reads()
    dsts: list[NkiTensor] = writes()
    source_target_pairs: list[tuple[int, int]] = attribute(tuple)
    priority: int | None = attribute(int, None)

    constraints = rules(
        *COLLECTIVE_RULES[1:],
        SHAPES,
        attribute_rule(
            "A rank is the source of one pair and the target of one at most.",
            _pairs_once,
            "pass pairs such as [(0, 1), (1, 0)]",
            source=PAGE,
        ),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**pair_of(t), "source_target_pairs": ((0, 0),)}

    @property
    def groups(self) -> Groups:
        """All ranks that a pair names."""
        return (tuple(sorted({rank for pair in self.source_target_pairs for rank in pair})),)

    def group_of(self, rank: int) -> tuple[int, ...]:
        """A rank that no pair names passes alone."""
        return super().group_of(rank) or (rank,)

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """By pairs."""
        sender = {target: source for source, target in self.source_target_pairs}
        return [list(sent[ranks.index(sender[r])]) if r in sender else [None] for r in ranks]

    def route(self, target: Target, topology: Topology) -> Exchange:
        """All pairs at once."""
        return links.permute(topology, tuple(self.source_target_pairs), self.octets())


@told
def _channels(i: Any, target: Target) -> str | None:
    channels = tuple(i.channel_ids)
    if channels != tuple(range(len(channels))) or not channels:
        return f"channel_ids is {channels}, it must be consecutive from 0 on"
    if len(channels) != len(i.__dict__[i.received]):
        return f"channel_ids names {len(channels)} channels, {i.received} has {len(i.__dict__[i.received])}"
    topology = i.topology(target)
    chips = min(len({topology.chip(rank) for rank in group}) for group in i.groups)
    most = 4 if chips >= topology.server_chips > 0 or chips >= topology.chips else 2
    if len(channels) > most:
        where = f"{chips} of the {topology.server_chips or topology.chips} chips of a {topology.name}"
        return f"channel_ids names {len(channels)} channels, a group on {where} has {most} at most"
    return None


_CHANNELS = attribute_rule(
    "There is a tensor for each channel; channels count from 0, to 3 where a group has ranks on all chips "
    "of a server, else to 1.",
    _channels,
    "pass channel_ids=[0, 1] with two tensors each",
    source=PAGE,
)


class _Ring(Collective):
    """Each rank of a group sends to the one after it, and the last to the first."""

    received = "dsts_by_channel"
    by_channel = True

    def route(self, target: Target, topology: Topology) -> Exchange:
        """To the next rank of the group."""
        pairs = tuple(pair for group in self.groups for pair in zip(group, (*group[1:], group[0])))
        return links.permute(topology, pairs, self.octets())


@instruction
class collective_permute_implicit(_Ring):
    """Each rank of a group receives the tensors of the rank before it in the group, in a ring.

    The ring is the order of the group; in which order the hardware connects ranks is not published, which is
    why kernels ask collective_permute_implicit_current_processing_rank_id whose data they have.

    Shapes: for each channel a list of one tensor in HBM; sources and destinations are alike.
    Errors: NKI-V101, V103, V105, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs_by_channel: list[list[NkiTensor]] = reads()
    dsts_by_channel: list[list[NkiTensor]] = writes()
    replica_group: Groups = attribute(tuple)
    channel_ids: tuple[int, ...] = attribute(tuple, (0,))
    priority: int | None = attribute(int, None)

    sources = ("srcs_by_channel",)
    in_sbuf = True
    constraints = rules(*COLLECTIVE_RULES, SHAPES, _CHANNELS)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        pair = pair_of(t)
        return {
            "srcs_by_channel": pair["srcs"],
            "dsts_by_channel": pair["dsts"],
            "replica_group": ((0,),),
        }

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """From the rank before."""
        return [list(sent[k - 1]) for k in range(len(ranks))]


@instruction
class collective_permute_implicit_reduce(_Ring):
    """As collective_permute_implicit, of ``op(srcs0, srcs1)``, which each rank makes of its own tensors.

    Shapes: for each channel a list of one tensor in HBM; sources and destinations are alike.
    Errors: NKI-V101, V103, V105, V107, V111, V142; NKI-U012 for ranks the launch has not; NKI-H020.
    Source: SDK API page nki.collectives.
    """

    srcs0_by_channel: list[list[NkiTensor]] = reads()
    srcs1_by_channel: list[list[NkiTensor]] = reads()
    dsts_by_channel: list[list[NkiTensor]] = writes()
    replica_group: Groups = attribute(tuple)
    op: Operator = attribute(Operator)
    channel_ids: tuple[int, ...] = attribute(tuple, (0,))
    priority: int | None = attribute(int, None)

    sources = ("srcs0_by_channel", "srcs1_by_channel")
    in_sbuf = True
    constraints = rules(*COLLECTIVE_RULES, SHAPES, _CHANNELS, OPERATOR)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        pair = pair_of(t)
        return {
            "srcs0_by_channel": pair["srcs"],
            "srcs1_by_channel": pair_of(t)["srcs"],
            "dsts_by_channel": pair["dsts"],
            "replica_group": ((0,),),
            "op": "add",
        }

    def exchange(self, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> list[list[Array | None]]:
        """The reduction of the rank before."""
        channels = range(len(self.srcs0_by_channel))
        made: list[list[Array | None]] = [
            [
                reduced(self.op, (arrays[k], arrays[len(channels) + k]), self.srcs0_by_channel[k])
                for k in channels
            ]
            for arrays in sent
        ]
        return [made[k - 1] for k in range(len(ranks))]


# --- who a rank is


@instruction
class rank_id(Instruction):
    """The rank that runs, in a new register; 0 in a launch of one.

    Shapes: returns a register.
    Errors: NKI-V111.
    Source: SDK API page nki.collectives.
    """

    dst: VirtualRegister = register_write()
    name: str | None = attribute(str, None)

    engines = (Engine.sync,)
    namespace = "nki.collectives"
    stateful = True
    source = PAGE
    order = Order.streamed
    constraints = rules()

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(0)}

    def compute(self, state: Any) -> int:
        """The rank."""
        return int(state.rank)

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target)


@instruction
class collective_permute_implicit_current_processing_rank_id(Grouped, Instruction):
    """The rank whose data a rank has after `iteration_id` turns of the ring, in a new register.

    In turn 0 it is the rank itself, then the one before it, and so on; see collective_permute_implicit.

    Shapes: `iteration_id` is an int or a register; returns a register.
    Errors: NKI-V100, V111, V142; NKI-U012 for ranks the launch has not.
    Source: SDK API page nki.collectives.
    """

    dst: VirtualRegister = register_write()
    iteration_id = register_read()
    replica_group: Groups = attribute(tuple)
    channel_id: int = attribute(int, 0)
    name: str | None = attribute(str, None)

    engines = (Engine.sync,)
    namespace = "nki.collectives"
    stateful = True
    source = PAGE
    order = Order.streamed
    constraints = rules(COLLECTIVE_RULES[0])

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(0), "iteration_id": 0, "replica_group": ((0,),)}

    @property
    def groups(self) -> Groups:
        """The ranks of each ring."""
        return self.replica_group

    def compute(self, state: Any, iteration_id: int) -> int:
        """The rank so many places before this one."""
        group = self.group_of(state.rank)
        return group[(group.index(state.rank) - int(iteration_id)) % len(group)]

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target)
