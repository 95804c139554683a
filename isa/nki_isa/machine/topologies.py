"""How the chips of the machines that ranks run on are connected, and how fast each link is.

A rank is a logical core; ranks count through the chips in order. A launch runs on the smallest machine of its
generation that has its ranks (:func:`topology_of`), all of which its collectives name.

Chips stand in a grid whose rows close to rings (a torus), in a chain, or behind switches. Data go along the
first dimension first, the shorter way round. Units: bytes per nanosecond (= GB/s) of one direction of a link.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from nki_isa.machine.target import Figure, assumed, measured, published
from nki_isa.machine.targets import TARGETS
from nki_isa.machine.targets.sources import COLLECTIVES_MEASURED, LINK_SHARE, TRN2_PAGE, TRN3_PAGE


class Link(NamedTuple):
    """One direction of a link: between chips, or of a chip with a switch or the network, one of `_FAR`."""

    source: int
    target: int

    def __str__(self) -> str:
        return f"{_end(self.source)} to {_end(self.target)}"


_NETWORK = -3
_FAR = {-1: "the server's switch", -2: "the rack's switch", _NETWORK: "the network"}


def _end(number: int) -> str:
    return _FAR.get(number, f"chip {number}")


@dataclass(frozen=True, eq=False)
class Topology:
    """The chips and links of a machine, or of several that links connect; compared by identity.

    Attributes:
        name: as the vendor calls it.
        target: its generation.
        grid: chips of each dimension.
        ranks_per_chip: logical cores of a chip.
        rates: what one direction of a link carries, for each dimension; behind switches for each level: to
            chips of the same server, to others.
        closed: True if rows of the grid are rings, False if they are chains.
        switched: True if chips are connected by switches: each row of the last dimension is a server.
        server_chips: chips of one server, which pages call a node; all of them if 0.
        network: what one direction of the network carries for each chip, to other machines of the kind.
    """

    name: str
    target: str
    grid: tuple[int, ...]
    ranks_per_chip: int
    rates: tuple[Figure, ...] = ()
    closed: bool = True
    switched: bool = False
    server_chips: int = 0
    network: Figure | None = None

    @property
    def chips(self) -> int:
        """How many chips it has."""
        return math.prod(self.grid)

    @property
    def ranks(self) -> int:
        """How many ranks it has."""
        return self.chips * self.ranks_per_chip

    @property
    def node(self) -> int:
        """How many ranks one server has."""
        return (self.server_chips or self.chips) * self.ranks_per_chip

    def chip(self, rank: int) -> int:
        """The chip of a rank, which those of other machines follow."""
        return rank // self.ranks_per_chip

    def place(self, chip: int) -> tuple[int, ...]:
        """Where a chip stands in the grid of its machine."""
        found, chip = [], chip % self.chips
        for size in reversed(self.grid):
            chip, position = divmod(chip, size)
            found.append(position)
        return tuple(reversed(found))

    def path(self, source: int, target: int) -> tuple[Link, ...]:
        """The links that data take from one chip to another."""
        return _path(self, source, target)

    def rate(self, link: Link) -> float:
        """What a link carries."""
        if min(link) == _NETWORK:
            return float(self.network.value) if self.network else 1.0
        if self.switched:
            return float(self.rates[-min(link) - 1].value)
        places = self.place(link.source), self.place(link.target)
        dimension = next(k for k, (a, b) in enumerate(zip(*places, strict=True)) if a != b)
        return float(self.rates[dimension].value)

    @property
    def rings(self) -> int:
        """Rings through all chips that share no direction of a link: two directions for each dimension.

        Source: the vendor's guide on collectives inside a server, which names two cycles on a 2-D torus.
        """
        return 2 * sum(size > 1 for size in self.grid) if self.closed else 1


@functools.cache
def _path(topology: Topology, source: int, target: int) -> tuple[Link, ...]:
    if source == target:
        return ()
    if source // topology.chips != target // topology.chips:
        return Link(source, _NETWORK), Link(_NETWORK, target)
    first = source - source % topology.chips
    here, there = list(topology.place(source)), topology.place(target)
    if topology.switched:
        switch = -1 if here[:-1] == list(there[:-1]) else -2
        return Link(source, switch), Link(switch, target)
    links = []
    for dimension, size in enumerate(topology.grid):
        forward = (there[dimension] - here[dimension]) % size
        backward = size - forward
        short = forward < backward or (forward == backward and here[dimension] % 2 == 0)  # halfway: in turn
        step = 1 if (short if topology.closed else there[dimension] > here[dimension]) else -1
        while here[dimension] != there[dimension]:
            before = first + _number(topology, here)
            here[dimension] = (here[dimension] + step) % size
            links.append(Link(before, first + _number(topology, here)))
    return tuple(links)


def _number(topology: Topology, place: list[int]) -> int:
    return functools.reduce(lambda number, pair: number * pair[0] + pair[1], zip(topology.grid, place), 0)


def _link(target: str) -> Figure:
    found = TARGETS[target]
    return Figure(found.link_bytes_per_ns, found.source("link_bytes_per_ns"))


_TRN1, _TRN2 = _link("trn1"), _link("trn2")
_INF2 = measured(14.9, COLLECTIVES_MEASURED + "; 8 ranks of an inf2.24xlarge: 6.5 per core")
_TRN2_Z = assumed(35.7, f"{TRN2_PAGE}: 256 for a chip between servers, 64 for a direction, {LINK_SHARE}")
_TRN2_ULTRA = _TRN2_Z, _TRN2, _TRN2
_TRN3 = _link("trn3"), assumed(178.7, f"{TRN3_PAGE}: 320 for a chip between servers, {LINK_SHARE}")

_EFA = published(25.0, f"{TRN2_PAGE}, {TRN3_PAGE}: 3,200 Gbps for 16 chips")
_EFA_TRN1 = published(6.25, "SDK page trn1-arch: 800 Gbps for 16 chips")
_EFA_INF2 = assumed(1.04, "100 Gbps of the instance for 12 chips")

TOPOLOGIES: tuple[Topology, ...] = (
    Topology("trn1.2xlarge", "trn1", (1,), 2),
    Topology("inf2.24xlarge", "trn1", (6,), 2, (_INF2,), closed=False),
    Topology("inf2.48xlarge", "trn1", (12,), 2, (_INF2,), network=_EFA_INF2),
    Topology("trn1.32xlarge", "trn1", (4, 4), 2, (_TRN1, _TRN1), network=_EFA_TRN1),
    Topology("trn2.3xlarge", "trn2", (1,), 4),
    Topology("trn2.48xlarge", "trn2", (4, 4), 4, (_TRN2, _TRN2), network=_EFA),
    Topology("Trn2 UltraServer", "trn2", (4, 4, 4), 4, _TRN2_ULTRA, server_chips=16, network=_EFA),
    Topology("Trn3 server", "trn3", (1, 4), 4, _TRN3, switched=True),
    Topology("Trn3 Gen1 UltraServer", "trn3", (4, 16), 4, _TRN3, switched=True, server_chips=16),
    Topology("Trn3 Gen2 UltraServer", "trn3", (36, 4), 4, _TRN3, switched=True, server_chips=4, network=_EFA),
)
"""All of them; those of a generation by how many ranks they have."""


@functools.cache
def topology_of(target: str, ranks: int) -> Topology:
    """That of the smallest machine of a generation with so many ranks; else of the largest, several times."""
    own = [topology for topology in TOPOLOGIES if topology.target == target]
    return next((topology for topology in own if topology.ranks >= ranks), own[-1])
