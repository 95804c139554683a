"""Collectives against their numpy statements, and launches over ranks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import as_dtype, cast, to_float32
from nki_isa.machine.targets import TRN2, as_target
from nki_isa.ops.samples import sample
from nki_isa.tensor.tensor import NkiTensor

pytestmark = pytest.mark.filterwarnings("ignore::nki.uncaught.NkiWarning")

OPS = {"add": np.add, "minimum": np.minimum, "maximum": np.maximum}
FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
COUNTS = [2, 4, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (32, 64))]


@nki.jit
def exchange(x, kind, shape, groups, options):
    """`x` through the collective `kind` of nki.collectives, in HBM."""
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    out = nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=sent, src=x)
    if kind == "all_reduce":
        ncc.all_reduce(srcs=[sent], dsts=[received], replica_group=groups, op=options)
    elif kind == "all_gather":
        ncc.all_gather(srcs=[sent], dsts=[received], replica_group=groups, collective_dim=0)
    elif kind == "reduce_scatter":
        ncc.reduce_scatter(srcs=[sent], dsts=[received], replica_group=groups, collective_dim=0, op=options)
    elif kind == "all_to_all":
        ncc.all_to_all(srcs=[sent], dsts=[received], replica_group=groups, collective_dim=0)
    elif kind == "collective_permute":
        ncc.collective_permute(srcs=[sent], dsts=[received], source_target_pairs=options)
    else:
        ncc.collective_permute_implicit(
            srcs_by_channel=[[sent]], dsts_by_channel=[[received]], replica_group=groups
        )
    nisa.dma_copy(dst=out, src=received)
    return out


def run(kind, parts, shape, groups, options=None, cores=1):
    launched = nki.simulate(exchange, ranks=len(parts))[cores]
    return launched(
        lambda rank: {
            "x": parts[rank],
            "kind": kind,
            "shape": shape,
            "groups": ncc.ReplicaGroup(groups),
            "options": options,
        }
    )


def arrays(count, rows, dtype, seed):
    rng = np.random.default_rng(seed)
    kind = as_dtype(dtype)
    values = rng.integers(-50, 50, (count, rows, 3)).astype(np.float32)
    if kind.kind == "float":
        values += rng.random(values.shape, np.float32)
    return [cast(part, kind) for part in values]


def reduced(parts, dtype, function):
    """The statement of a reduction: in float32 from the first rank on, rounded once."""
    kind = as_dtype(dtype)
    total = to_float32(parts[0], kind)
    for part in parts[1:]:
        total = function(total, to_float32(part, kind))
    return cast(total, kind)


@st.composite
def groupings(draw, count):
    """Ranks in groups of one size, in any order."""
    size = draw(st.sampled_from([n for n in range(1, count + 1) if count % n == 0]))
    ranks = draw(st.permutations(range(count)))
    return [list(ranks[k : k + size]) for k in range(0, count, size)]


DTYPES = st.sampled_from(["float32", "bfloat16", "float16", "int32", "float8_e4m3"])


def same(found, expected):
    """Equal bits."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))


@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_all_reduce(count, data):
    groups, dtype = data.draw(groupings(count)), data.draw(DTYPES)
    op, rows, seed = (
        data.draw(st.sampled_from(sorted(OPS))),
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(0, 9)),
    )
    parts = arrays(count, rows, dtype, seed)
    results = run("all_reduce", parts, (rows, 3), groups, getattr(nl, op))
    for group in groups:
        for rank in group:
            same(results[rank], reduced([parts[r] for r in group], dtype, OPS[op]))


@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_all_gather(count, data):
    groups, dtype, rows = data.draw(groupings(count)), data.draw(DTYPES), data.draw(st.integers(1, 5))
    parts = arrays(count, rows, dtype, data.draw(st.integers(0, 9)))
    results = run("all_gather", parts, (rows * len(groups[0]), 3), groups)
    for group in groups:
        for rank in group:
            same(results[rank], np.concatenate([parts[r] for r in group]))


@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_reduce_scatter(count, data):
    groups, dtype, rows = data.draw(groupings(count)), data.draw(DTYPES), data.draw(st.integers(1, 3))
    op, size = data.draw(st.sampled_from(sorted(OPS))), len(groups[0])
    parts = arrays(count, rows * size, dtype, data.draw(st.integers(0, 9)))
    results = run("reduce_scatter", parts, (rows, 3), groups, getattr(nl, op))
    for group in groups:
        whole = reduced([parts[r] for r in group], dtype, OPS[op])
        for place, rank in enumerate(group):
            same(results[rank], whole[place * rows : (place + 1) * rows])


@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_all_to_all(count, data):
    groups, dtype, rows = data.draw(groupings(count)), data.draw(DTYPES), data.draw(st.integers(1, 3))
    size = len(groups[0])
    parts = arrays(count, rows * size, dtype, data.draw(st.integers(0, 9)))
    results = run("all_to_all", parts, (rows * size, 3), groups)
    for group in groups:
        for place, rank in enumerate(group):
            same(results[rank], np.concatenate([parts[r][place * rows : (place + 1) * rows] for r in group]))


@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_permutations(count, data):
    groups = data.draw(groupings(count))
    parts = arrays(count, 2, "bfloat16", data.draw(st.integers(0, 9)))
    results = run("ring", parts, (2, 3), groups)
    for group in groups:
        for place, rank in enumerate(group):
            same(results[rank], parts[group[place - 1]])
    sources = data.draw(st.permutations(range(count)))
    targets = data.draw(st.permutations(range(count)))
    pairs = tuple(zip(sources, targets))[: data.draw(st.integers(1, count))]
    results = run("collective_permute", parts, (2, 3), groups, pairs)
    sender = {target: source for source, target in pairs}
    for rank in range(count):
        same(results[rank], parts[sender[rank]] if rank in sender else np.zeros_like(parts[0]))


# --- SBUF, several tensors, two cores, registers


@nki.jit
def on_chip(x, wide):
    size = x.shape[1]
    held = nl.load(x)
    gathered = nl.ndarray((128, 4 * size) if wide else (4 * x.shape[0], size), dtype=x.dtype, buffer=nl.sbuf)
    ncc.all_gather([held], [gathered], ncc.ReplicaGroup([[0, 1, 2, 3]]), 1 if wide else 0)
    out = nl.ndarray(gathered.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=gathered)
    return out


@pytest.mark.parametrize("wide", [True, False])
def test_all_gather_in_sbuf(wide):
    parts = np.random.default_rng(0).random((4, 128 if wide else 32, 8), np.float32)
    results = nki.simulate(on_chip, ranks=4)(lambda rank: (parts[rank], wide))
    for result in results:
        np.testing.assert_array_equal(result, np.concatenate(parts, 1 if wide else 0))


@nki.jit
def coalesced(x, y):
    both = (x, y)
    sent = []
    received = []
    for k in range(2):
        shape = both[k].shape
        sent.append(nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm, name=f"sent{k}"))
        received.append(nl.ndarray(shape, dtype=x.dtype, buffer=nl.shared_hbm, name=f"received{k}"))
        nisa.dma_copy(dst=sent[k], src=both[k])
    ncc.all_reduce(sent, received, ncc.ReplicaGroup([[0, 1]]), nl.maximum)
    made = []
    for k in range(2):
        out = nl.ndarray(both[k].shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=received[k])
        made.append(out)
    return made


def test_several_tensors_at_once():
    x, y = np.random.default_rng(1).random((2, 2, 4, 4), np.float32)
    for a, b in nki.simulate(coalesced, ranks=2)[2](lambda rank: (x[rank], y[rank])):
        np.testing.assert_array_equal(a, x.max(0))
        np.testing.assert_array_equal(b, y.max(0))


@nki.jit
def halves(x):
    """Each core writes its half of what is sent, and stores its half of what comes."""
    core = nl.program_id(0)
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    rows = x.shape[0] // 2
    nisa.dma_copy(dst=sent[core * rows : (core + 1) * rows], src=x[core * rows : (core + 1) * rows])
    ncc.all_reduce([sent], [received], ncc.ReplicaGroup([[0, 1]]), nl.add)
    other = 1 - core
    nisa.dma_copy(dst=out[other * rows : (other + 1) * rows], src=received[other * rows : (other + 1) * rows])
    return out


def test_both_cores_of_a_rank_meet_in_a_collective():
    parts = np.random.default_rng(2).random((2, 8, 4), np.float32)
    for result in nki.simulate(halves, ranks=2)[2](lambda rank: parts[rank]):
        np.testing.assert_array_equal(result, parts[0] + parts[1])


@nki.jit
def own_row(table, turns, ring):
    out = nl.ndarray((1, table.shape[1]), dtype=table.dtype, buffer=nl.shared_hbm)
    if ring:
        rank = ncc.collective_permute_implicit_current_processing_rank_id(
            turns, ncc.ReplicaGroup([[0, 2], [3, 1]])
        )
    else:
        rank = ncc.rank_id()
    nisa.dma_copy(
        dst=out, src=table.ap([[table.shape[1], 1], [1, table.shape[1]]], scalar_offset=rank, indirect_dim=0)
    )
    return out


def test_a_rank_knows_itself_and_whose_data_it_has():
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    results = nki.simulate(own_row, ranks=4)(lambda rank: (table, 0, False))
    assert [r[0, 0] / 2 for r in results] == [0, 1, 2, 3]
    for turns, expected in ((0, [0, 1, 2, 3]), (1, [2, 3, 0, 1]), (2, [0, 1, 2, 3])):
        results = nki.simulate(own_row, ranks=4)(lambda rank, turns=turns: (table, turns, True))
        assert [r[0, 0] / 2 for r in results] == expected
    assert own_row(table, 0, False)[0, 0] == 0  # a launch of one


@nki.jit
def ring_sum(x, turns):
    """An all-reduce made of a ring: each turn adds its own part to what comes."""
    own = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="own")
    zero = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="zero")
    nisa.dma_copy(dst=own, src=x)
    nisa.dma_copy(dst=zero, src=nl.zeros(x.shape, dtype=x.dtype, buffer=nl.sbuf))
    before = zero
    for turn in range(turns):
        after = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=f"after{turn}")
        ncc.collective_permute_implicit_reduce(
            [[own]], [[before]], [[after]], ncc.ReplicaGroup([[0, 1, 2]]), nl.add
        )
        before = after
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=before)
    return out


def test_a_ring_with_reduction():
    parts = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    for result in nki.simulate(ring_sum, ranks=3)(lambda rank: (parts[rank], 3)):
        np.testing.assert_array_equal(result, parts.sum(0))


@nki.jit
def channels_on_chip(x):
    """Halves of a tile go round by a channel each, from SBUF to SBUF."""
    held = nl.load(x)
    came = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    halves = [nl.ds(0, 4), nl.ds(4, 4)]
    ncc.collective_permute_implicit(
        [[held[:, half]] for half in halves],
        [[came[:, half]] for half in halves],
        ncc.ReplicaGroup([[0, 1, 2, 3]]),
        channel_ids=[0, 1],
    )
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=came)
    return out


def test_channels_in_sbuf():
    parts = np.random.default_rng(5).random((4, 16, 8), np.float32)
    for rank, result in enumerate(nki.simulate(channels_on_chip, ranks=4)(lambda rank: parts[rank])):
        np.testing.assert_array_equal(result, parts[rank - 1])


# --- launches


@nki.jit
def in_order(x, first):
    a = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="a")
    b = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="b")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    group = ncc.ReplicaGroup([[0, 1]])
    nisa.dma_copy(dst=a, src=x)
    if first == "sum":
        ncc.all_reduce([a], [b], group, nl.add)
    elif first == "swap":
        ncc.all_to_all([a], [b], group, 0)
    nisa.dma_copy(dst=out, src=b)
    return out


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize(
    "second, told", [("swap", r"rank 1 is in all_to_all"), ("nothing", r"rank 1 has ended")]
)
def test_ranks_that_do_not_meet(data, second, told):
    x = np.ones((2, 2), np.float32)
    with runtime.session(data=data, check="none"), pytest.raises(NkiError, match="NKI-H020") as found:
        nki.simulate(in_order, ranks=2)([(x, "sum"), (x, second)])
    (diagnostic,) = found.value.diagnostics
    assert "rank 0 is in all_reduce(add, (0, 1)) of float32[2, 2]" in diagnostic.message
    assert told.replace("\\", "") in diagnostic.message
    assert diagnostic.span is not None and diagnostic.span.file == __file__
    assert len(diagnostic.labels) == (second == "swap")


def test_shapes_that_differ_between_ranks():
    a, b = np.ones((2, 2), np.float32), np.ones((4, 2), np.float32)
    with pytest.raises(NkiError, match=r"NKI-H020.*\[2, 2\].*rank 1 .*\[4, 2\]"):
        nki.simulate(in_order, ranks=2)([(a, "sum"), (b, "sum")])


def test_groups_must_be_ranks_of_the_launch():
    x = np.ones((2, 2), np.float32)
    with pytest.raises(NkiError, match=r"NKI-U012.*one rank.*ranks=2"):
        in_order(x, "sum")
    with pytest.raises(NkiError, match=r"NKI-U012.*rank 2 is in none"):
        nki.simulate(in_order, ranks=3)([(x, "sum")] * 3)
    with runtime.session(data=False), pytest.raises(NkiError, match="NKI-U012"):
        in_order(x, "sum")


@pytest.mark.parametrize("ranks", [0, True, 1.5])
def test_a_number_of_ranks(ranks):
    with pytest.raises(NkiError, match="NKI-L024"):
        nki.simulate(in_order, ranks=ranks)


def test_arguments_for_every_rank():
    with pytest.raises(NkiError, match=r"NKI-L024.*2 ranks.*for 1"):
        nki.simulate(in_order, ranks=2)([np.ones((2, 2), np.float32)])


def test_not_in_high_precision(monkeypatch):
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    with pytest.raises(NkiError, match="NKI-U013.*leave NKI_PRECISE_FP unset"):
        nki.simulate(in_order, ranks=2)([(np.ones((2, 2), np.float32), "sum")] * 2)


def test_times():
    """Ranks start a collective together; with and without data alike; more ranks take longer."""

    def timed(count, data):
        parts = arrays(count, 1024, "float32", 0)
        with runtime.session(timing=True, data=data) as session:
            run("all_reduce", parts, (1024, 3), [list(range(count))], nl.add, cores=2)
        (launch,) = session.launches
        assert launch.ranks == count and len(launch.cores) == 2 * count
        assert launch.who(3) == "rank 1 core 1"
        return [core.timeline.duration for core in launch.cores]

    two, four = timed(2, True), timed(4, True)
    assert two == timed(2, False) and len(set(two)) == 1
    assert four[0] > two[0]


def test_a_collective_overlaps_with_compute():
    @nki.jit
    def kernel(x, beside):
        sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nisa.dma_copy(dst=sent, src=x)
        ncc.all_reduce([sent], [received], ncc.ReplicaGroup([[0, 1]]), nl.add)
        for _ in range(beside):
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
        total = nl.load(received)
        nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)
        nl.store(out, total)
        return out

    x = np.ones((128, 64), np.float32)
    times = []
    for beside in (0, 20):
        with runtime.session(timing=True) as session:
            results = nki.simulate(kernel, ranks=2)([(x, beside)] * 2)
        times.append(session.launches[0].timeline.duration)
        np.testing.assert_array_equal(results[1], x * (3 + beside))
    assert times[0] == times[1]


def test_checks_look_at_every_rank():
    """Of two ranks one divides by zero."""

    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        nisa.reciprocal(dst=tile, data=tile)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    with runtime.session() as session:
        nki.simulate(kernel, ranks=2)([np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)])
    assert "NKI-N002" in {d.code for d in session.launches[0].diagnostics}


# --- rules


def refused(change):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        nisa.dma_copy(dst=sent, src=x)
        change(x, out, sent, received)
        nisa.dma_copy(dst=out, src=received)
        return out

    with runtime.session(check="none") as session:
        kernel[2](np.ones((4, 4), np.float32))
    return session


ONE = ncc.ReplicaGroup([[0]])


def test_a_launch_of_one_rank_may_meet_itself():
    def alone(x, out, sent, received):
        ncc.all_reduce([sent], [received], ONE, nl.add)

    assert not refused(alone).launches[0].diagnostics


@pytest.mark.parametrize("which", ["argument", "result"])
def test_arguments_and_results_are_no_operands(which):
    def change(x, out, sent, received):
        if which == "argument":
            ncc.all_reduce([x], [received], ONE, nl.add)
        else:
            ncc.all_reduce([sent], [out], ONE, nl.add)

    with pytest.raises(NkiError, match=f"NKI-C023.*{which}"):
        refused(change)


@pytest.mark.parametrize("target, groups, runs", [
    ("trn1", [range(32)], True), ("trn1", [range(8)], True), ("trn1", [range(2), range(2, 4)], True),
    ("trn1", [range(12)], False), ("trn1", [range(16)], False), ("trn1", [[0, 8, 16, 24]], False),
    ("trn2", [range(64)], True), ("trn2", [range(4, 8)], True), ("trn2", [[0, 4, 8, 12]], False),
])  # fmt: skip
def test_groups_that_all_to_all_was_seen_to_run_on(target, groups, runs):
    """Public notes: 2, 4 or 8 ranks of four chips and all 32 on NeuronCore-v2; nowhere a group with gaps."""
    made = sample("all_to_all")
    rows = 64 * len(groups[0])
    tensor = NkiTensor.whole(replace(made.srcs[0].storage, shape=(rows, 2)))
    call = REGISTRY["all_to_all"]([tensor], [tensor], ncc.ReplicaGroup(groups), 0)
    found = [d for d in call.check(as_target(target)) if d.code == "NKI-C027"]
    assert len(found) == (not runs)
    if found:
        assert found[0].severity is Severity.warning and str(list(groups[0])) in found[0].message


@pytest.mark.parametrize("ranks, channels, taken", [(4, 4, True), (8, 2, True), (8, 3, False), (64, 4, True)])
def test_channels_by_the_chips_of_a_group(ranks, channels, taken):
    """Four channels where a group has ranks on all chips of its server, else two."""
    tensor = [sample("all_reduce").srcs[0]]
    made = REGISTRY["collective_permute_implicit"](
        [tensor] * channels, [tensor] * channels, ncc.ReplicaGroup([range(ranks)]), tuple(range(channels))
    )
    if taken:
        made.check(TRN2)
    else:
        with pytest.raises(NkiError, match=r"NKI-V111.*3 channels.*2 of the 16 chips of a trn2.48xlarge"):
            made.check(TRN2)


@pytest.mark.parametrize("overwritten", ["sent", "received", "nothing"])
def test_races_over_the_buffers_of_a_collective(overwritten):
    """After it one core writes what the other, unordered, reads."""

    @nki.jit
    def kernel(x):
        core = nl.program_id(0)
        sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        rows = x.shape[0] // 2
        mine = nl.ds(core * rows, rows)
        nisa.dma_copy(dst=sent[mine], src=x[mine])
        ncc.all_reduce([sent], [received], ncc.ReplicaGroup([[0, 1]]), nl.add)
        if core == 1 and overwritten == "received":
            nisa.dma_copy(dst=received, src=sent)
        if core == 1 and overwritten == "sent":
            nisa.dma_copy(dst=sent, src=received)
        nisa.dma_copy(dst=out[mine], src=sent[mine] if overwritten == "sent" else received[mine])
        return out

    parts = np.random.default_rng(3).random((2, 8, 4), np.float32)
    with runtime.session():
        if overwritten == "nothing":
            for result in nki.simulate(kernel, ranks=2)[2](lambda rank: parts[rank]):
                np.testing.assert_array_equal(result, parts[0] + parts[1])
        else:
            with pytest.raises(NkiError, match=f"NKI-H021.*core 1 writes bytes of {overwritten} that core 0"):
                nki.simulate(kernel, ranks=2)[2](lambda rank: parts[rank])
