"""Races between a collective in flight and its buffers: of other ranks, and of the other core of a rank."""

import numpy as np
import pytest

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.filterwarnings("ignore::nki.uncaught.NkiWarning")

RANKS = 8


def hbm(x, name):
    return nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=name)


@nki.jit
def steps(x, groups, how, turns):
    """`turns` exchanges, each of what the one before brought, plus one."""
    pairs = [(hbm(x, f"sent{k}"), hbm(x, f"received{k}")) for k in range(2 if how == "two pairs" else 1)]
    other = hbm(x, "other")
    y = hbm(x, "y")
    nisa.dma_copy(dst=pairs[0][0], src=x)
    for turn in range(turns):
        sent, received = pairs[turn % len(pairs)]
        ncc.all_to_all([sent], [received], groups, 0)
        if how != "unused":
            tile = nl.load(received)
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
            nisa.dma_copy(dst=pairs[(turn + 1) % len(pairs)][0], src=tile)
        if how == "met":
            ncc.all_reduce([sent], [other], groups, nl.add)
        if how == "met in part":
            ncc.all_reduce(
                [sent], [other], ncc.ReplicaGroup([[2 * k, 2 * k + 1] for k in range(RANKS // 2)]), nl.add
            )
        if how == "handed on":
            ncc.all_reduce([received], [other], groups, nl.add)
    nisa.dma_copy(dst=y, src=received)
    return y


def findings(how, turns=2, groups=None):
    x = np.random.default_rng(0).random((RANKS, RANKS, 4), np.float32)
    groups = ncc.ReplicaGroup(groups or [range(RANKS)])
    with runtime.session() as session:
        nki.simulate(steps, ranks=RANKS)(lambda rank: (x[rank], groups, how, turns))
    return [d for d in session.launches[0].diagnostics if d.code == "NKI-H024"]


def test_one_pair_for_two_exchanges():
    """The faster rank's second send lands in what the slower one still reads."""
    (found,) = findings("one pair")
    assert "all_to_all receives in received0" in found.message and "its 8 ranks have not met" in found.message
    assert found.span.file == __file__ and "dma_copy uses it here" in found.labels[0].message
    assert "two in turn" in found.help


@pytest.mark.parametrize("how, turns, count", [
    ("one pair", 1, 0), ("unused", 2, 0), ("two pairs", 2, 0), ("two pairs", 4, 0), ("met", 3, 0),
    ("met in part", 2, 1), ("handed on", 2, 1),
])  # fmt: skip
def test_what_orders_an_exchange(how, turns, count):
    """Two pairs in turn do, and any meeting of all ranks after the last use; one of some of them does not.

    Nor does a collective that reads the tensor itself: who is through with it, others need not be.
    """
    assert len(findings(how, turns)) == count


def test_a_rank_alone_waits_for_itself():
    assert not findings("one pair", groups=[[k] for k in range(RANKS)])


@nki.jit
def apart(x, how):
    """Each core exchanges a tensor of its own; one of them then reads the other's."""
    core = nl.program_id(0)
    sent = [hbm(x, f"sent{k}") for k in range(2)]
    received = [hbm(x, f"received{k}") for k in range(2)]
    y = nl.ndarray((2, *x.shape), dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=sent[core], src=x)
    ncc.all_reduce([sent[core]], [received[core]], ncc.ReplicaGroup([[0, 1]]), nl.add)
    if how == "barrier":
        nisa.core_barrier(received[1 - core], (0, 1))
    if how == "overwritten":
        nisa.dma_copy(dst=sent[1 - core], src=received[core])
    nisa.dma_copy(dst=y[core], src=received[core if how in ("own", "overwritten") else 1 - core])
    return y


@pytest.mark.parametrize(
    "how, name", [("own", None), ("barrier", None), ("crossed", "received"), ("overwritten", "sent")]
)
def test_a_collective_of_the_other_core(how, name):
    """A core waits for its own collective, not for that of the other core with other tensors."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4) + 1
    launched = nki.simulate(apart, ranks=2)[2]
    if name is None:
        for y in launched([(x, how), (2 * x, how)]):
            np.testing.assert_array_equal(y, [3 * x, 3 * x])
    else:
        with pytest.raises(NkiError, match=f"NKI-H021.*bytes of {name}. that core . .*with nothing to order"):
            launched([(x, how), (2 * x, how)])
