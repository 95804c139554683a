"""Costs of collectives: which algorithm they take, how many hops, what each link of a machine carries.

The algorithms, and the sizes from which each is taken, are those of the vendor's guide on collectives inside
a server: up to 1 MiB every chip sends to all others at once (mesh), then chips exchange in pairs (RDH), and
from 56 MiB on parts go round rings. Which way data take is this module's own: :meth:`Topology.path`.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

from nki_isa.cost import Cost
from nki_isa.machine.target import Target
from nki_isa.machine.topologies import Link, Topology

#: The ranks of each group.
Groups = tuple[tuple[int, ...], ...]
Pairs = tuple[tuple[int, int], ...]


class Exchange(NamedTuple):
    """How a collective goes.

    Attributes:
        algorithm: its name.
        hops: how often data wait for data, one after the other.
        loads: bytes that cross each link.
        local: bytes that the busiest rank moves.
        far: how often data wait for data of another machine, on the network.
    """

    algorithm: str
    hops: int
    loads: dict[Link, float]
    local: float
    far: int = 0

    def of(self, octets: float) -> Exchange:
        """The same, of parts of so many bytes where this one is of parts of one byte."""
        loads = {link: count * octets for link, count in self.loads.items()}
        return self._replace(loads=loads, local=self.local * octets)


def exchange(
    target: Target, topology: Topology, groups: Groups, octets: float, *, both: bool = False
) -> Exchange:
    """An all-gather, a reduce-scatter, or (`both`) one after the other.

    Args:
        octets: of the part that each rank has, or receives.
    """
    whole = octets * len(groups[0])
    if whole < target.link_mesh_bytes:
        found = _mesh(topology, groups, both)
    elif whole < target.link_rdh_bytes:
        found = _doubling(topology, groups, both) or _ring(topology, groups, both)
    else:
        found = _ring(topology, groups, both)
    return found.of(octets)


def all_to_all(topology: Topology, groups: Groups, octets: float) -> Exchange:
    """Every rank sends another part, of so many bytes, to each other one; always at once."""
    return _all_to_all(topology, groups).of(octets)


def permute(topology: Topology, pairs: Pairs, octets: float) -> Exchange:
    """Each first rank of a pair sends so many bytes to the second."""
    return _permute(topology, pairs).of(octets)


@functools.lru_cache(maxsize=1024)
def _mesh(topology: Topology, groups: Groups, both: bool) -> Exchange:
    """A chip's parts go to every other chip, then to the ranks there."""
    loads: dict[Link, float] = {}
    size, times = len(groups[0]), 2 if both else 1
    for chips in _by_chip(topology, groups):
        for source, target in itertools.permutations(chips, 2):
            _carry(loads, topology.path(source, target), chips[source] * times)
    hops = 0 if size == 1 else 2 if loads else 1
    far = min(1, _machines(topology, groups) - 1)
    return Exchange("mesh", hops * times, loads, (size - 1) * times, far * times)


@functools.lru_cache(maxsize=1024)
def _doubling(topology: Topology, groups: Groups, both: bool) -> Exchange | None:
    """Chips exchange in pairs, twice as much each time; None where they are not a power of two."""
    loads: dict[Link, float] = {}
    hops, times = 0, 2 if both else 1
    for chips in _by_chip(topology, groups):
        order, count = list(chips), len(chips)
        if count & (count - 1) or count == 1:
            return None
        for step in range(count.bit_length() - 1):
            for place, source in enumerate(order):
                path = topology.path(source, order[place ^ (1 << step)])
                _carry(loads, path, chips[source] * (1 << step) * times)
        hops = max(hops, count.bit_length() - 1 + any(ranks > 1 for ranks in chips.values()))
    far = (_machines(topology, groups) - 1).bit_length()
    return Exchange("rdh", hops * times, loads, (len(groups[0]) - 1) * times, far * times)


@functools.lru_cache(maxsize=1024)
def _ring(topology: Topology, groups: Groups, both: bool) -> Exchange:
    """Parts go round; two ranks of a chip are one station where all of a chip's ranks take part."""
    loads: dict[Link, float] = {}
    size, times = len(groups[0]), 2 if both else 1
    paired = topology.ranks_per_chip > 1
    for chips in _by_chip(topology, groups):
        order = _round(topology, chips)
        paired &= all(ranks == topology.ranks_per_chip for ranks in chips.values())
        parallel = topology.rings if len(order) >= topology.chips else 2
        if len(order) > 1:
            for a, b in zip(order, (*order[1:], order[0]), strict=True):
                for source, target in ((a, b), (b, a)):
                    _carry(loads, topology.path(source, target), (size - 1) * times / parallel)
    hops = (size // 2 if paired else size) - 1 or int(size > 1)
    name, machines = "kangaring" if paired else "ring", _machines(topology, groups)
    far = machines if machines > 1 else 0
    return Exchange(name, hops * times, loads, (size - 1) * times, far * times)


@functools.lru_cache(maxsize=1024)
def _all_to_all(topology: Topology, groups: Groups) -> Exchange:
    loads: dict[Link, float] = {}
    size = len(groups[0])
    for chips in _by_chip(topology, groups):
        for source, target in itertools.permutations(chips, 2):
            _carry(loads, topology.path(source, target), chips[source] * chips[target])
    return Exchange("mesh", int(size > 1), loads, size - 1, min(1, _machines(topology, groups) - 1))


@functools.lru_cache(maxsize=1024)
def _permute(topology: Topology, pairs: Pairs) -> Exchange:
    loads: dict[Link, float] = {}
    hops = 0
    for source, target in pairs:
        path = topology.path(topology.chip(source), topology.chip(target))
        hops = max(hops, len(path), int(source != target))
        _carry(loads, path, 1)
    return Exchange("permute", hops, loads, float(hops > 0), min(1, _machines(topology, pairs) - 1))


def _carry(loads: dict[Link, float], path: tuple[Link, ...], parts: float) -> None:
    for link in path:
        loads[link] = loads.get(link, 0.0) + parts


def _by_chip(topology: Topology, groups: Groups) -> list[dict[int, int]]:
    """For each group, how many of its ranks each chip has."""
    found = []
    for group in groups:
        chips: dict[int, int] = {}
        for rank in group:
            chips[topology.chip(rank)] = chips.get(topology.chip(rank), 0) + 1
        found.append(chips)
    return found


def _machines(topology: Topology, groups: Groups) -> int:
    """Of how many machines a group has ranks."""
    return max(len({rank // topology.ranks for rank in group}) for group in groups)


def _round(topology: Topology, chips: dict[int, int]) -> list[int]:
    """Chips in an order in which neighbours are near: every other row of the grid backwards."""

    def key(chip: int) -> tuple[int, ...]:
        place: list[int] = []
        turned = False
        for position, size in zip(topology.place(chip), topology.grid, strict=True):
            place.append(size - 1 - position if turned else position)
            turned ^= bool(position % 2)
        return chip // topology.chips, *place

    return sorted(chips, key=key)


def slowest(topology: Topology, exchange: Exchange) -> float:
    """ns in which the busiest link carries what crosses it."""
    return max((octets / topology.rate(link) for link, octets in exchange.loads.items()), default=0.0)


def collective(target: Target, topology: Topology, exchange: Exchange) -> Cost:
    """A collective: its start, its hops, and the busiest of the links, or of the ranks.

    Args:
        topology: of the machine it runs on.
        exchange: how it goes there.
    """
    links, ranks = slowest(topology, exchange), exchange.local / target.rank_bytes_per_ns
    waits = exchange.hops * target.link_hop_ns + exchange.far * target.network_hop_ns
    time = target.collective_start_ns + waits + max(links, ranks)
    rate = "link_bytes_per_ns" if links > ranks else "rank_bytes_per_ns"
    return Cost(time, time, "collective_start_ns", rate)
