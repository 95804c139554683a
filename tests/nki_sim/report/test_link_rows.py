"""What links carry during a launch over ranks: rows of the trace, the page and the terminal."""

import json

import numpy as np
import pytest
from rich.console import Console

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.machine.topologies import Link
from nki_sim.report.columns import unpacked
from nki_sim.report.html import page
from nki_sim.report.links import link_rows
from nki_sim.report.terminal import links_table
from nki_sim.report.trace import Traced, events


@nki.jit
def twice(x, groups):
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    again = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="again")
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=sent, src=x)
    ncc.all_to_all([sent], [received], groups, 0)
    ncc.all_reduce([received], [again], groups, nl.add)
    nisa.dma_copy(dst=y, src=again)
    return y


@pytest.fixture(scope="module")
def launch():
    """Two groups of 8 ranks, each on two chips of a trn2.48xlarge."""
    x = np.ones((8, 1024), np.float32)
    groups = ncc.ReplicaGroup([range(8), range(8, 16)])
    with runtime.session(timing=True, data=False) as session:
        nki.simulate(twice, ranks=16)([(x, groups)] * 16)
    return session.launches[0]


def test_rows(launch):
    found = link_rows([core.timeline for core in launch.cores])
    assert found.topology.name == "trn2.48xlarge"
    pairs = {Link(0, 1), Link(1, 0), Link(2, 3), Link(3, 2)}
    assert set(found.rows) == pairs
    for carried in found.rows.values():
        exchange, total = carried
        assert exchange.instruction.opcode == "all_to_all" and total.instruction.opcode == "all_reduce"
        assert exchange.octets == 4 * 4 * 4096  # from 4 ranks of a chip to 4 of the other, an eighth each
        assert exchange.end <= total.begin < total.end <= found.duration
        assert exchange.share == pytest.approx(1) and 0 < total.share <= 1
    ((_, octets, share), *_) = found.busiest(1)
    assert octets == max(sum(one.octets for one in row) for row in found.rows.values()) and 0 < share < 1


def test_no_rows_without_links(launch):
    x = np.ones((8, 16), np.float32)
    with runtime.session(timing=True, data=False) as session:
        nki.simulate(twice, ranks=4)([(x, ncc.ReplicaGroup([range(4)]))] * 4)
    assert link_rows([core.timeline for core in session.launches[0].cores]) is None  # one chip


def test_trace_page_and_terminal(launch):
    cores = [Traced(c.program, c.timeline, c.placement, launch.who(k)) for k, c in enumerate(launch.cores)]
    found = [event for event in events([cores]) if event.get("cat") == "link"]
    assert len(found) == 8 and {e["name"] for e in found} == {"all_to_all", "all_reduce"}
    assert all(e["args"]["bytes"] > 0 and e["args"]["algorithm"] == "mesh" for e in found)
    names = [e["args"]["name"] for e in events([cores]) if e["name"] == "thread_name"]
    assert names[-4:] == ["chip 0 to chip 1", "chip 1 to chip 0", "chip 2 to chip 3", "chip 3 to chip 2"]

    text = page([cores])
    start = text.index("[{")
    shown, _ = json.JSONDecoder().raw_decode(text[start:])
    assert len(shown) == 17 and len(shown[-1]["links"]) == 4
    assert shown[-1]["timeline"]["labels"] == names[-4:]
    assert unpacked(shown[-1]["timeline"]["offsets"]).tolist() == [0, 2, 4, 6, 8]

    console = Console(width=100, record=True)
    console.print(links_table(link_rows([core.timeline for core in launch.cores])))
    told = console.export_text()
    assert "trn2.48xlarge" in told and "chip 1 to chip 0" in told and "71.5" in told
