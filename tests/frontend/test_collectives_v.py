"""Collectives whose sizes the data say, against numpy statements; their two halves; what is refused."""

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target

pytestmark = pytest.mark.filterwarnings("ignore::nki.uncaught.NkiWarning")

FEW = settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
COUNTS = [2, 4, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (32, 64))]


@nki.jit
def exchange(x, held, table, groups, kind, known, displaced, halves):
    """`x` through all_to_all_v or all_gather_v into what holds `held`; both results."""
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray(held.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray(table.shape, dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
    out = nl.ndarray(held.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    told = nl.ndarray(table.shape, dtype=nl.uint32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=counts, src=table)
    given = ([sent], [received], groups, counts, known, displaced)
    if halves:
        prepared = ncc.all_gather_v_prepare(*given) if kind == "gather" else ncc.all_to_all_v_prepare(*given)
        if known and nl.num_programs(0) == 1:
            nisa.dma_copy(dst=counts, src=nl.zeros(table.shape, dtype=nl.uint32, buffer=nl.sbuf))
    nisa.dma_copy(dst=sent, src=x)
    nisa.dma_copy(dst=received, src=held)
    if halves:
        if kind == "gather":
            ncc.all_gather_v_trigger(prepared)
        else:
            ncc.all_to_all_v_trigger(prepared, name="moved")
    elif kind == "gather":
        ncc.all_gather_v(*given)
    else:
        ncc.all_to_all_v(*given)
    nisa.dma_copy(dst=out, src=received)
    nisa.dma_copy(dst=told, src=counts)
    return out, told


def run(
    parts,
    held,
    tables,
    groups,
    kind="all",
    known=False,
    displaced=False,
    halves=False,
    target="trn2",
    **options,
):
    cores = 2 if kind == "gather" or target == "trn3" else 1
    with runtime.session(target=as_target(target), **options) as session:
        results = nki.simulate(exchange, ranks=len(parts))[cores](
            lambda rank: {
                "x": parts[rank],
                "held": held[rank],
                "table": tables[rank],
                "groups": ncc.ReplicaGroup(groups),
                "kind": kind,
                "known": known,
                "displaced": displaced,
                "halves": halves,
            }
        )
    return (results, session) if options else results


def drawn(data, count, *, rows=3):
    """Arrays of every rank, what destinations hold, and tables of counts that fit."""
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    dtype = data.draw(st.sampled_from([np.float32, np.int32, np.float16, ml_dtypes.bfloat16]))
    elements = data.draw(st.sampled_from([12, 40]))
    parts = rng.integers(1, 100, (count, 4, elements // 4)).astype(dtype)
    held = rng.integers(-100, 0, (count, count * elements)).astype(dtype)
    tables = np.zeros((count, rows, count), np.uint32)
    tables[:, 0] = rng.integers(0, elements // 2, (count, count)) * rng.integers(0, 2, (count, count))
    tables[:, 1] = rng.integers(0, elements // 2, (count, count))
    tables[:, 2] = 77
    return parts, held, tables


@pytest.mark.parametrize("halves", [False, True], ids=["at-once", "halves"])
@pytest.mark.parametrize("count", COUNTS)
@given(data=st.data())
@FEW
def test_all_to_all_v(count, halves, data):
    parts, held, tables = drawn(data, count)
    known = data.draw(st.booleans())
    expected, came = held.copy(), np.zeros((count, count), np.uint32)
    slot = held.shape[1] // count
    for source in range(count):
        for target in range(count):
            n, start = tables[source, 0, target], tables[source, 1, target]
            expected[target, source * slot : source * slot + n] = parts[source].ravel()[start : start + n]
            came[target, source] = n
    results = run(parts, held, tables, [range(count)], known=known, halves=halves)
    for rank, (out, told) in enumerate(results):
        np.testing.assert_array_equal(out, expected[rank])
        if not known:
            np.testing.assert_array_equal(told[2], came[rank])
            np.testing.assert_array_equal(told[:2], tables[rank, :2])
        elif not halves:
            np.testing.assert_array_equal(told, tables[rank])


@pytest.mark.parametrize("halves", [False, True], ids=["at-once", "halves"])
@given(data=st.data())
@FEW
def test_all_gather_v(halves, data):
    groups = data.draw(st.permutations([[0, 1, 2, 3], [7, 5, 6, 4]]))[: data.draw(st.integers(1, 2))]
    count = 8 if len(groups) == 2 or 7 in groups[0] else 4
    if len(groups) == 1 and count == 8:
        groups = [[0, 1, 2, 3], groups[0]]
    parts, held, tables = drawn(data, count)
    held, tables = held[:, : held.shape[1] // count * 4], tables[:, :, :4]
    slot = held.shape[1] // 4
    results = run(parts, held, tables, groups, "gather", halves=halves)
    for group in groups:
        for rank in group:
            expected = held[rank].copy()
            for place, source in enumerate(group):
                n, start = tables[source, 0, 0], tables[source, 1, 0]
                expected[place * slot : place * slot + n] = parts[source].ravel()[start : start + n]
            out, told = results[rank]
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(told[2], [tables[source, 0, 0] for source in group])


@given(data=st.data())
@FEW
def test_displacements_of_what_is_received(data):
    """On machines with switches each rank says where the chunks of the others go."""
    count = 8
    parts, held, tables = drawn(data, count, rows=4)
    order = np.random.default_rng(data.draw(st.integers(0, 9))).permutation(count)
    slot = held.shape[1] // count
    tables[:, 3] = order * slot
    expected = held.copy()
    for source in range(count):
        for target in range(count):
            n, start = tables[source, 0, target], tables[source, 1, target]
            place = order[source] * slot
            expected[target, place : place + n] = parts[source].ravel()[start : start + n]
    results = run(parts, held, tables, [range(count)], displaced=True, target="trn3")
    for rank, (out, told) in enumerate(results):
        np.testing.assert_array_equal(out, expected[rank])
        np.testing.assert_array_equal(told[2], tables[:, 0, rank])


@nki.jit
def on_chip_table(x, table):
    """The metadata in SBUF, on one partition; two cores, of which one fills what is sent."""
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray((2 * x.shape[0],), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray((1, 3, 2), dtype=nl.uint32, buffer=nl.sbuf)
    told = nl.ndarray((1, 3, 2), dtype=nl.uint32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=counts, src=table)
    nisa.dma_copy(dst=sent, src=x)
    ncc.all_to_all_v([sent], [received], ncc.ReplicaGroup([[0, 1]]), counts)
    first = nl.ndarray((2,), dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=first, src=received[0:2])
    nisa.dma_copy(dst=told, src=counts)
    return first, told


def test_metadata_on_chip():
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    tables = np.zeros((2, 1, 3, 2), np.uint32)
    tables[0, 0, :2] = [[2, 2], [0, 2]]
    tables[1, 0, :2] = [[3, 0], [1, 0]]
    results = nki.simulate(on_chip_table, ranks=2)(lambda rank: (x[rank], tables[rank]))
    np.testing.assert_array_equal(results[0][0], [0, 1])
    np.testing.assert_array_equal(results[0][1][0, 2], [2, 3])
    np.testing.assert_array_equal(results[1][0], [2, 3])
    np.testing.assert_array_equal(results[1][1][0, 2], [2, 0])


# --- what a run finds


@nki.jit
def partly(x, table, filled, taken):
    """Sends `filled` elements of what it has, and returns the first `taken` of what came."""
    sent = nl.ndarray((16,), dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray((32,), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray((3, 2), dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
    out = nl.ndarray((taken,), dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=counts[0:2], src=table)
    nisa.dma_copy(dst=sent[0:filled], src=x[0:filled])
    ncc.all_to_all_v([sent], [received], ncc.ReplicaGroup([[0, 1]]), counts)
    nisa.dma_copy(dst=out, src=received[0:taken])
    return out


@pytest.mark.parametrize("filled, taken, code", [
    (4, 4, None),
    (3, 4, "NKI-H002.*all_to_all_v reads"),
    (4, 5, "NKI-H002.*dma_copy reads src.*4 of 20 bytes"),
])  # fmt: skip
def test_only_what_is_sent_is_read_and_only_what_came_is_written(filled, taken, code):
    """Neither gaps in what is sent nor row 2 of the metadata count as reads of unwritten bytes."""
    x, table = np.arange(16, dtype=np.float32), np.array([[4, 4], [0, 0]], np.uint32)
    launched = nki.simulate(partly, ranks=2)
    if code is None:
        for result in launched([(x, table, filled, taken)] * 2):
            np.testing.assert_array_equal(result, x[:4])
    else:
        with pytest.raises(NkiError, match=code):
            launched([(x, table, filled, taken)] * 2)


@pytest.mark.parametrize("row, value, told", [
    (1, 10, r"rank 0 sends elements 10 to 17 to rank 1, srcs has 16"),
    (0, 17, r"rank 0 sends elements 0 to 16 to rank 1, srcs has 16"),
])  # fmt: skip
def test_counts_beyond_a_tensor(row, value, told):
    x, table = np.arange(16, dtype=np.float32), np.array([[8, 8], [0, 0]], np.uint32)
    wrong = table.copy()
    wrong[row, 1] = value
    with pytest.raises(NkiError, match=f"NKI-H001.*{told}") as found:
        nki.simulate(partly, ranks=2)([(x, wrong, 16, 4), (x, table, 16, 4)])
    assert found.value.diagnostics[0].span.file == __file__


def test_a_chunk_beyond_its_slot():
    parts, held = np.ones((2, 12), np.float32), np.zeros((2, 8), np.float32)
    tables = np.array([[[4, 5], [0, 0], [0, 0]]] * 2, np.uint32)
    told = "NKI-H001.*rank 1 receives 5 elements of rank 0, its slot of dsts has 4"
    with pytest.raises(NkiError, match=told):
        run(parts, held, tables, [range(2)])


# --- rules


def emitted(kind, target="trn2", ranks=4, **changes):
    """The error of a kernel that only calls a collective."""

    @nki.jit
    def kernel(x):
        region = changes.pop("region", nl.shared_hbm)
        sent = nl.ndarray((16,), dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray((16 * ranks,), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        shape = changes.pop("shape", (3, ranks))
        counts = nl.ndarray(shape, dtype=changes.pop("dtype", nl.uint32), buffer=region, name="counts")
        given = {"srcs": [sent], "dsts": [received], "metadata_tensor": counts, **changes}
        given.setdefault("replica_group", ncc.ReplicaGroup([range(ranks)]))
        getattr(ncc, kind)(**given)

    with runtime.session(target=as_target(target), data=False), pytest.raises(NkiError) as found:
        nki.simulate(kernel, ranks=ranks)[2]([np.ones((2, 2), np.float32)] * ranks)
    return str(found.value)


@pytest.mark.parametrize("kind, changes, told", [
    ("all_to_all_v", {"shape": (4, 4)}, r"NKI-V103.*metadata_tensor is of shape \[4, 4\].*\[3, 4\]"),
    ("all_to_all_v", {"shape": (3, 4), "region": nl.sbuf}, r"NKI-V103.*in SBUF.*\[1, 3, 4\]"),
    ("all_to_all_v", {"shape": (3, 4), "region": nl.psum}, r"NKI-V101.*metadata_tensor is in PSUM"),
    ("all_to_all_v", {"dtype": nl.int32}, r"NKI-V105.*int32.*uint32"),
    ("all_to_all_v", {"has_rdispls": True, "shape": (4, 4)}, r"NKI-V111.*not of one rank of each server"),
    ("all_gather_v", {"has_rdispls": True, "shape": (4, 4)}, r"NKI-V111.*has_rdispls is True"),
    ("all_gather_v", {"ranks": 8}, r"NKI-V142.*not the 4 ranks of a chip.*write.*all_gather"),
    ("all_to_all_v", {"target": "trn3"}, r"NKI-V142.*\[0, 1, 2, 3\].*two chips or more"),
    ("all_to_all_v_prepare", {"target": "trn3", "ranks": 8}, r"NKI-V108.*Trn3 server.*switches"),
    ("all_to_all_v_prepare", {}, r"NKI-V155.*nothing triggers it"),
])  # fmt: skip
def test_refused(kind, changes, told):
    text = emitted(kind, **dict(changes))
    assert re.search(told, text, re.S), text


def test_views_with_gaps_are_not_flat():
    @nki.jit
    def kernel(x):
        sent = nl.ndarray((4, 8), dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray((32,), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        counts = nl.ndarray((3, 2), dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
        ncc.all_to_all_v([sent[:, 0:4]], [received], ncc.ReplicaGroup([[0, 1]]), counts)

    with runtime.session(data=False), pytest.raises(NkiError, match="NKI-V019.*view with gaps.*dma_copy"):
        nki.simulate(kernel, ranks=2)([np.ones((2, 2), np.float32)] * 2)


def halves(body):
    """Run a kernel whose `body` is handed what prepares and what triggers."""

    @nki.jit
    def kernel(x, table):
        sent = nl.ndarray((16,), dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
        received = nl.ndarray((32,), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
        counts = nl.ndarray((3, 2), dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
        nisa.dma_copy(dst=counts, src=table)
        nisa.dma_copy(dst=sent, src=x)

        def prepare():
            return ncc.all_to_all_v_prepare([sent], [received], ncc.ReplicaGroup([[0, 1]]), counts)

        body(prepare, ncc.all_to_all_v_trigger)

    x, table = np.arange(16, dtype=np.float32), np.array([[8, 8], [0, 0], [0, 0]], np.uint32)
    with runtime.session(check="none"):
        nki.simulate(kernel, ranks=2)([(x, table)] * 2)


def test_one_trigger_for_each_preparation():
    def twice(prepare, trigger):
        trigger(prepare())
        trigger(prepare())

    halves(twice)

    def again(prepare, trigger):
        prepared = prepare()
        trigger(prepared)
        trigger(prepared)

    with pytest.raises(NkiError, match="NKI-V155.*triggered before.*prepare again"):
        halves(again)

    def between(prepare, trigger):
        first, second = prepare(), prepare()
        trigger(first)
        trigger(second)

    with pytest.raises(NkiError, match="NKI-V155.*waits for its trigger"):
        halves(between)

    def in_a_loop(prepare, trigger):
        prepared = prepare()
        nl.fori_loop(0, 2, lambda turn: trigger(prepared) and None)

    with pytest.raises(NkiError, match="NKI-V155.*same device loop"):
        halves(in_a_loop)

    def nothing(prepare, trigger):
        trigger(None)

    with pytest.raises(NkiError, match="NKI-V100.*prepare_instr.*NoneType"):
        halves(nothing)


def test_what_is_triggered_takes_no_start():
    """Prepared early, it hides the start of a collective behind other work."""
    x, table = np.arange(16, dtype=np.float32), np.array([[8, 8], [0, 0], [0, 0]], np.uint32)
    held = np.zeros(32, np.float32)

    def timed(halves):
        given = [x, x], [held, held], [table, table], [[0, 1]]
        _, session = run(*given, halves=halves, timing=True, check="none")
        return session.launches[0].timeline

    once, late = timed(False), timed(True)
    assert late.duration < once.duration
    names = [i.opcode for i in late.instructions]
    prepared, moved = names.index("all_to_all_v_prepare"), names.index("all_to_all_v_trigger")
    assert late.start[moved] >= late.end[prepared]
