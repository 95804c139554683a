"""How collectives go over the links of machines, against statements of their own and public measurements."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nki_isa.cost import links
from nki_isa.machine.targets import TARGETS, TRN1, TRN2, TRN3
from nki_isa.machine.topologies import TOPOLOGIES, topology_of
from nki_isa.ops.samples import sample

NAMES = {topology.name: topology for topology in TOPOLOGIES}
BOTH_WAYS = pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda m: m.name.replace(" ", "-"))


def hops(topology, a, b):
    """The fewest links between two chips of one machine, by the shape of the grid alone."""
    if topology.switched:
        return 2 * (a != b)
    total = 0
    for x, y, size in zip(topology.place(a), topology.place(b), topology.grid):
        apart = abs(x - y)
        total += min(apart, size - apart) if topology.closed else apart
    return total


@BOTH_WAYS
def test_paths_are_whole_and_short(topology):
    for a, b in itertools.product(range(0, topology.chips, 3), range(0, topology.chips, 5)):
        path = topology.path(a, b)
        assert len(path) == hops(topology, a, b)
        ends = [a, *(link.target for link in path)]
        assert [link.source for link in path] == ends[:-1] and ends[-1] == b
        assert all(topology.rate(link) > 0 for link in path)


@BOTH_WAYS
def test_all_chips_stand_apart(topology):
    assert len({topology.place(chip) for chip in range(topology.chips)}) == topology.chips
    assert topology.chip(topology.ranks - 1) == topology.chips - 1
    assert topology.chips % (topology.node // topology.ranks_per_chip) == 0


def test_two_machines_meet_on_the_network():
    topology = NAMES["trn2.48xlarge"]
    path = topology.path(3, 18)
    assert [str(link) for link in path] == ["chip 3 to the network", "the network to chip 18"]
    assert topology.path(17, 18) == tuple(link._replace(source=17, target=18) for link in topology.path(1, 2))


@pytest.mark.parametrize("target, ranks, name", [
    ("trn1", 2, "trn1.2xlarge"), ("trn1", 8, "inf2.24xlarge"), ("trn1", 32, "trn1.32xlarge"),
    ("trn1", 64, "trn1.32xlarge"), ("trn2", 5, "trn2.48xlarge"), ("trn2", 65, "Trn2 UltraServer"),
    ("trn3", 16, "Trn3 server"), ("trn3", 576, "Trn3 Gen2 UltraServer"),
])  # fmt: skip
def test_the_smallest_machine_with_the_ranks(target, ranks, name):
    assert topology_of(target, ranks).name == name


@pytest.mark.parametrize("ranks, low, high", [(32, 25.7, 27.5), (8, 6.3, 6.7)])
def test_measured_rates_of_all_to_all(ranks, low, high):
    """Public notes: GB/s for a core and direction, with 100 MB for each other rank."""
    topology = topology_of("trn1", ranks)
    found = links.all_to_all(topology, (tuple(range(ranks)),), 100e6)
    assert low <= 100e6 * (ranks - 1) / links.collective(TRN1, topology, found).busy <= high


@pytest.mark.parametrize("octets, low, high", [(32, 6, 16), (2048, 6, 16), (16384, 12, 35)])
def test_published_samples_of_all_gather(octets, low, high):
    """nccom-test, 32 ranks, hardware not named: 6.2, 8.2 and 23.2 us; the assumed start is 10."""
    topology = topology_of("trn2", 32)
    found = links.exchange(TRN2, topology, (tuple(range(32)),), octets)
    assert low <= links.collective(TRN2, topology, found).busy / 1000 <= high


@pytest.mark.parametrize("whole, name, hops", [
    (1 << 19, "mesh", 2), (1 << 22, "rdh", 5), (1 << 27, "kangaring", 31),
])  # fmt: skip
def test_sizes_decide_the_algorithm(whole, name, hops):
    topology = topology_of("trn2", 64)
    found = links.exchange(TRN2, topology, (tuple(range(64)),), whole / 64)
    assert (found.algorithm, found.hops) == (name, hops)
    twice = links.exchange(TRN2, topology, (tuple(range(64)),), whole / 64, both=True)
    assert twice.hops == 2 * hops
    assert sum(twice.loads.values()) == pytest.approx(2 * sum(found.loads.values()))


def test_one_rank_of_each_chip_goes_round_one_by_one():
    topology = topology_of("trn2", 64)
    group = (tuple(range(0, 64, 4)),)
    found = links.exchange(TRN2, topology, group, 1 << 26)
    assert (found.algorithm, found.hops) == ("ring", 15)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_arrives_has_crossed_links(data):
    """Bytes times the links between their chips, summed over all pairs; each rank receives all parts once."""
    target = data.draw(st.sampled_from([TRN1, TRN2, TRN3]))
    size = data.draw(st.sampled_from([2, 4, 8]))
    groups = data.draw(st.integers(1, 3))
    topology = topology_of(target.name, 32)
    ranks = data.draw(st.permutations(range(32)))[: size * groups]
    made = tuple(tuple(ranks[k * size : (k + 1) * size]) for k in range(groups))
    found = links.all_to_all(topology, made, 5.0)
    crossed = sum(
        5.0 * hops(topology, topology.chip(a), topology.chip(b))
        for group in made
        for a, b in itertools.permutations(group, 2)
    )
    assert sum(found.loads.values()) == pytest.approx(crossed)
    assert found.local == 5.0 * (size - 1)
    pairs = tuple(zip(made[0], made[0][1:]))
    moved = links.permute(topology, pairs, 7.0)
    assert sum(moved.loads.values()) == pytest.approx(
        sum(7.0 * hops(topology, topology.chip(a), topology.chip(b)) for a, b in pairs)
    )
    assert links.exchange(target, topology, made, 3.0).local == 3.0 * (size - 1)


def test_between_machines_each_step_waits_for_the_network():
    topology = topology_of("trn2", 64)
    found = links.exchange(TRN2, topology, (tuple(range(128)),), 64)
    assert found.far == 1
    time = links.collective(TRN2, topology, found).busy
    assert time > TRN2.collective_start_ns + TRN2.network_hop_ns


@pytest.mark.parametrize("opcode", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_a_rank_alone_only_starts(opcode):
    for target in TARGETS.values():
        assert sample(opcode).cost(target).busy == target.collective_start_ns


def test_chips_of_inf2_stand_in_a_line():
    """The machine of six chips has no link from the last to the first."""
    line = NAMES["inf2.24xlarge"]
    assert [len(line.path(0, chip)) for chip in range(line.chips)] == [0, 1, 2, 3, 4, 5]
    assert len(NAMES["inf2.48xlarge"].path(0, 11)) == 1
