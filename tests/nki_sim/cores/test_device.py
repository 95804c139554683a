"""Two cores of a logical core: what they share, where they meet, and what goes wrong between them."""

from pathlib import Path

import numpy as np
import pytest

import nki
import nki.collectives as collectives
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_sim.cores.device import RunningCore

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


def halves(dtype=np.float32, columns=64):
    return np.random.default_rng(0).standard_normal((2, 128, columns)).astype(dtype)


@nki.jit
def by_program(x):
    """Each core negates its half."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    count = nl.num_programs(0)
    for part in range(nl.program_id(0), 2, count):
        tile = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[part])
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=-1.0)
        nisa.dma_copy(dst=out[part], src=tile)
    return out


@nki.jit
def swap(x, engine):
    """Each core sends its half to the other and stores what it got."""
    me = nl.program_id(0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    mine = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.sbuf)
    other = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=mine, src=x[me])
    nisa.sendrecv(
        src=mine, dst=other, send_to_rank=1 - me, recv_from_rank=1 - me, pipe_id=3, dma_engine=engine
    )
    nisa.dma_copy(dst=out[me], src=other)
    return out


@nki.jit
def through_hbm(x, barrier, turns=1):
    """Each core writes its columns of a shared tensor and reads all of it, `turns` times."""
    me = nl.program_id(0)
    shared = nl.ndarray((128, 2 * x.shape[2]), dtype=x.dtype, buffer=nl.shared_hbm)
    out = nl.ndarray((2, 128, 2 * x.shape[2]), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.sbuf)
    both = nl.ndarray((128, 2 * x.shape[2]), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[me])
    for _ in nl.dynamic_range(turns):
        nisa.dma_copy(dst=shared[:, nl.ds(me * x.shape[2], x.shape[2])], src=tile)
        if barrier:
            nisa.core_barrier(shared, (0, 1))
        nisa.dma_copy(dst=both, src=shared)
        if barrier:
            nisa.core_barrier(shared, (0, 1))
    nisa.dma_copy(dst=out[me], src=both)
    return out


@pytest.mark.parametrize("cores", [1, 2])
def test_program_id_splits_the_work(cores):
    x = halves()
    np.testing.assert_array_equal(by_program[cores](x), -x)


@pytest.mark.parametrize("engine", [nisa.dma_engine.dma, nisa.dma_engine.gpsimd_dma])
def test_sendrecv_swaps(engine):
    x = halves()
    np.testing.assert_array_equal(swap[2](x, engine), x[::-1])


@pytest.mark.parametrize("turns", [1, 3])
def test_a_barrier_makes_the_other_core_s_writes_visible(turns):
    x = halves()
    expected = np.concatenate([x[0], x[1]], axis=1)
    np.testing.assert_array_equal(through_hbm[2](x, True, turns), np.stack([expected, expected]))


def test_without_a_barrier_it_is_a_race_with_both_lines():
    x = halves()
    before = x.copy()
    with pytest.raises(NkiError) as caught:
        through_hbm[2](x, False)
    # core 0 also reads what core 1 has not written yet, which the check of unwritten bytes says
    assert {d.code for d in caught.value.diagnostics} == {"NKI-H021", "NKI-H002"}
    found = next(d for d in caught.value.diagnostics if d.code == "NKI-H021")
    lines = sorted([found.span.line, found.labels[0].span.line])
    source = Path(__file__).read_text().splitlines()
    assert "dst=shared" in source[lines[0] - 1] and "src=shared" in source[lines[1] - 1]
    np.testing.assert_array_equal(x, before)


def test_neighbouring_columns_are_no_race():
    """Interleaved rows: bounding ranges overlap, bytes do not."""

    @nki.jit
    def columns(x):
        me = nl.program_id(0)
        out = nl.ndarray((128, 128), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[me])
        nisa.dma_copy(dst=out[:, me::2], src=tile)
        return out

    x = halves()
    np.testing.assert_array_equal(columns[2](x)[:, 1::2], x[1])


@pytest.mark.parametrize("row, races", [(127, True), (128, False), (-1, False)])
def test_a_row_that_is_skipped_does_not_race(row, races):
    """Core 0 scatters into a table of 128 rows, the last of them to `row`; core 1 writes row 127."""

    @nki.jit
    def kernel(x, places):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[nl.program_id(0)])
        if nl.program_id(0) == 0:
            index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
            nisa.dma_copy(dst=index, src=places)
            rows = out.ap([[64, 128], [1, 64]], vector_offset=index)
            nisa.dma_copy(dst=rows, src=tile, oob_mode=nisa.oob_mode.skip)
        else:
            nisa.dma_copy(dst=out[127:128], src=tile[127:128])
        return out

    x, places = halves(), np.array([*range(127), row], np.int32).reshape(128, 1)
    if races:
        with pytest.raises(NkiError) as caught:
            kernel[2](x, places)
        assert {d.code for d in caught.value.diagnostics} == {"NKI-H021"}
    else:
        np.testing.assert_array_equal(kernel[2](x, places), [*x[0, :127], x[1, 127]])


@pytest.mark.parametrize("first, races", [(0, True), (2, False)])
def test_accesses_of_other_widths_race_by_the_byte(first, races):
    """Core 0 writes bytes 0 and 1 of each float32 as one 16-bit value, core 1 one of its bytes."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
        octets = nl.ndarray((128, 64), dtype=nl.uint8, buffer=nl.sbuf)
        pairs = nl.ndarray((128, 64), dtype=nl.uint16, buffer=nl.sbuf)
        nisa.memset(octets, 7)
        nisa.memset(pairs, 9)
        if nl.program_id(0) == 0:
            nisa.dma_copy(dst=out.view(nl.uint16)[:, 0::2], src=pairs)
        else:
            nisa.dma_copy(dst=out.view(nl.uint8)[:, first::4], src=octets)
        return out

    with pytest.raises(NkiError) as caught:  # half of each element is written by nobody
        kernel[2](halves())
    assert ("NKI-H021" in {d.code for d in caught.value.diagnostics}) == races


def test_reading_the_same_bytes_is_no_race():
    @nki.jit
    def read(x):
        out = nl.ndarray((2, 128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[0])
        nisa.dma_copy(dst=out[nl.program_id(0)], src=tile)
        return out

    x = halves()
    np.testing.assert_array_equal(read[2](x)[1], x[0])


def meeting(core0, core1):
    """A kernel whose cores run the two given functions."""

    @nki.jit
    def kernel(x):
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.memset(dst=tile, value=0.0)
        if nl.program_id(0) == 0:
            core0(x, tile)
        else:
            core1(x, tile)
        return x

    return kernel


def barrier(x, tile):
    nisa.core_barrier(x, (0, 1))


def nothing(x, tile):
    pass


def send_pipe_0(x, tile):
    other = 1 - nl.program_id(0)
    nisa.sendrecv(src=tile, dst=tile, send_to_rank=other, recv_from_rank=other, pipe_id=0)


def send_pipe_1(x, tile):
    other = 1 - nl.program_id(0)
    nisa.sendrecv(src=tile, dst=tile, send_to_rank=other, recv_from_rank=other, pipe_id=1)


def send_half(x, tile):
    other = 1 - nl.program_id(0)
    half = tile[:, 0:32]
    nisa.sendrecv(src=half, dst=half, send_to_rank=other, recv_from_rank=other, pipe_id=0)


@pytest.mark.parametrize(
    "core0, core1, words",
    [
        (barrier, nothing, ["core 0 is in core_barrier", "core 1 has ended"]),
        (nothing, barrier, ["core 0 has ended", "core 1 is in core_barrier"]),
        (barrier, send_pipe_0, ["core 0 is in core_barrier", "core 1 is in sendrecv"]),
        (send_pipe_0, send_pipe_1, ["pipe_id=0", "pipe_id=1"]),
        (send_pipe_0, send_half, ["float32[128, 64]", "float32[128, 32]"]),
    ],
)
def test_a_meeting_that_cannot_happen_names_both_cores(core0, core1, words):
    with pytest.raises(NkiError) as caught:
        meeting(core0, core1)[2](halves())
    (found,) = caught.value.diagnostics
    assert found.code == "NKI-H020"
    assert all(word in found.message for word in words), found.message
    waiting = [f for f in (core0, core1) if f is not nothing]
    places = [found.span, *(label.span for label in found.labels)]
    assert [p.line for p in places] == [f.__code__.co_firstlineno + _depth(f) for f in waiting]


def test_ranks_that_do_not_meet_are_named_by_what_they_do():
    """Of three ranks that wait at one place, one label tells."""

    @nki.jit
    def kernel(x, first):
        a = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="a")
        b = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="b")
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=a, src=x)
        group = collectives.ReplicaGroup([[0, 1, 2, 3]])
        if first:
            collectives.all_reduce([a], [b], group, nl.add)
        else:
            collectives.all_to_all([a], [b], group, 0)
        nisa.dma_copy(dst=out, src=b)
        return out

    x = np.ones((4, 2), np.float32)
    with runtime.session(check="none"), pytest.raises(NkiError) as caught:
        nki.simulate(kernel, ranks=4)([(x, rank == 0) for rank in range(4)])
    (found,) = caught.value.diagnostics
    assert found.code == "NKI-H020" and found.message.startswith("the ranks wait for each other")
    assert "rank 1, rank 2, rank 3 each is in all_to_all" in found.message
    assert "let every rank of a group" in found.help
    (label,) = found.labels
    assert label.message == "rank 3 waits here" and label.span.line == found.span.line + 2


def _depth(function):
    """Lines from the def of one of the functions above to its meeting."""
    return {barrier: 1, send_pipe_0: 2, send_pipe_1: 2, send_half: 3}[function]


def test_different_shared_tensors_are_refused():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 64 + nl.program_id(0)), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(out.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.memset(dst=tile, value=0.0)
        nisa.dma_copy(dst=out, src=tile)
        return out

    with pytest.raises(
        NkiError, match=r"float32\[128, 64\] on core 0 and float32\[128, 65\] on core 1"
    ) as caught:
        kernel[2](halves())
    assert caught.value.diagnostics[0].code == "NKI-H022"


def test_a_failing_core_carries_its_own_message():
    @nki.jit
    def kernel(x):
        assert nl.program_id(0) == 0, "only core 0 can do this"
        return x

    with pytest.raises(NkiError, match="only core 0 can do this"):
        kernel[2](halves())


@pytest.mark.parametrize("target, limit", [("trn1", 1), ("trn2", 2), ("trn3", 2)])
def test_a_launch_takes_the_cores_of_a_logical_core(target, limit, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    x = halves()
    by_program[limit](x)
    with pytest.raises(NkiError, match=f"a logical core of {target} has {limit}") as caught:
        by_program[limit + 1](x)
    assert caught.value.diagnostics[0].code == "NKI-U001"


def test_one_core_alone_passes_its_own_barrier():
    @nki.jit
    def kernel(x):
        nisa.core_barrier(x, 0)
        return x

    x = halves()
    np.testing.assert_array_equal(kernel(x), x)


def test_runs_are_deterministic():
    x = halves()
    with runtime.session(timing=True) as session:
        first, second = through_hbm[2](x, True), through_hbm[2](x, True)
    np.testing.assert_array_equal(first, second)
    one, two = session.launches
    for a, b in zip(one.cores, two.cores, strict=True):
        assert a.timeline.format() == b.timeline.format()


@pytest.mark.parametrize(
    "cores, code", [((0, 2), "NKI-V111"), ((), "NKI-V111"), ((0, 1), None), ([0, 1], None)]
)
def test_rules_of_core_barrier(cores, code):
    @nki.jit
    def kernel(x):
        nisa.core_barrier(x, cores)
        return x

    check(kernel[2], code)


@nki.jit
def met_on_a_tile(x, ordered):
    """The cores meet on a tile of SBUF, and on the shared tensor as well if `ordered`."""
    me = nl.program_id(0)
    shared = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape[1:], dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[me])
    nisa.dma_copy(dst=shared[me], src=tile)
    nisa.core_barrier(tile, (0, 1))
    if ordered:
        nisa.core_barrier(shared, (0, 1))
    nisa.dma_copy(dst=tile, src=shared[1 - me])
    nisa.dma_copy(dst=out[me], src=tile)
    return out


def test_a_barrier_on_sbuf_is_a_meeting_with_a_warning():
    x = halves()
    with runtime.session() as session:
        np.testing.assert_array_equal(met_on_a_tile[2](x, True), x[::-1])
    told = [d for d in session.launches[0].diagnostics if d.code == "NKI-V101"]
    assert [d.severity.value for d in told] == ["warning"]
    assert "nothing they do in shared HBM is ordered" in told[0].message


def test_a_barrier_on_sbuf_orders_nothing():
    check(met_on_a_tile[2], "NKI-H021", False)


def test_a_barrier_on_sbuf_is_refused_by_the_strict_profile():
    with runtime.session(profile="strict"):
        check(met_on_a_tile[2], "NKI-V101", True)


def check(kernel, code, *arguments):
    if code is None:
        kernel(halves(), *arguments)
        return
    with pytest.raises(NkiError) as caught:
        kernel(halves(), *arguments)
    assert {d.code for d in caught.value.diagnostics} == {code}


def sendrecv_of(
    columns,
    dtype=nl.float32,
    dst_columns=None,
    dst_dtype=None,
    rank=None,
    engine=nisa.dma_engine.dma,
    buffer=nl.sbuf,
):
    @nki.jit
    def kernel(x):
        src = nl.ndarray((128, columns), dtype=dtype, buffer=buffer)
        dst = nl.ndarray((128, dst_columns or columns), dtype=dst_dtype or dtype, buffer=nl.sbuf)
        nisa.memset(dst=src, value=0.0)
        other = 1 - nl.program_id(0) if rank is None else rank
        nisa.sendrecv(
            src=src, dst=dst, send_to_rank=other, recv_from_rank=other, pipe_id=0, dma_engine=engine
        )
        return x

    return kernel[2]


GPSIMD = nisa.dma_engine.gpsimd_dma


@pytest.mark.parametrize(
    "kernel, code",
    [
        (sendrecv_of(64), None),
        (sendrecv_of(64, buffer=nl.psum), "NKI-V101"),
        (sendrecv_of(64, dst_columns=32), "NKI-V103"),
        (sendrecv_of(64, dst_dtype=nl.int32), "NKI-V105"),
        (sendrecv_of(64, rank=2), "NKI-V111"),
        (sendrecv_of(256, engine=GPSIMD), None),
        (sendrecv_of(257, engine=GPSIMD), "NKI-V111"),
        (sendrecv_of(256, nl.bfloat16, engine=GPSIMD), None),
        (sendrecv_of(257, nl.bfloat16, engine=GPSIMD), "NKI-V111"),
        (sendrecv_of(257, nl.uint8, engine=GPSIMD), "NKI-V111"),
    ],
)
def test_rules_of_sendrecv(kernel, code):
    check(kernel, code)


def test_neither_exists_on_trn1(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")

    @nki.jit
    def kernel(x):
        nisa.core_barrier(x, 0)
        return x

    check(kernel, "NKI-V108")


def redundant(value_of):
    """A kernel that writes a shared tensor whole on every core, then reads it back without a barrier."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        scratch = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[value_of(nl.program_id(0))])
        nisa.dma_copy(dst=scratch, src=tile)
        nisa.dma_copy(dst=tile, src=scratch)
        nisa.dma_copy(dst=out, src=tile)
        return out

    return kernel


def same_value(core):
    return 0


def own_value(core):
    return core


def test_cores_that_write_the_same_bytes_do_not_race():
    """A kernel that ignores nl.program_id runs whole on both cores."""
    x = halves()
    np.testing.assert_array_equal(redundant(same_value)[2](x), x[0])


def repeated(kernel, **options):
    """The notes about work that two cores do, and whether there is anything else."""
    with runtime.session(**options) as session:
        kernel[2](halves())
    found = session.launches[0].diagnostics
    assert {(d.code, d.severity.value) for d in found} <= {("NKI-H023", "note")}
    return [d.message for d in found]


@nki.jit
def edge_in_common(x):
    """Each core stores its 64 partitions, and both store partition 0 of the other tensor."""
    out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
    edge = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((64, 64), dtype=x.dtype, buffer=nl.sbuf)
    first = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    rows = nl.ds(64 * nl.program_id(0), 64)
    nisa.dma_copy(dst=tile, src=x[0, rows])
    nisa.dma_copy(dst=out[rows], src=tile)
    nisa.dma_copy(dst=first, src=x[0, 0:1])
    nisa.dma_copy(dst=edge, src=first)
    return out, edge


@pytest.mark.parametrize("strict", [False, True])
def test_work_that_two_cores_do_is_noted(strict):
    """With lines and bytes; once for a kernel that is the same on both; never as an error."""
    assert repeated(edge_in_common, warnings_as_errors=strict) == [
        "core 1 writes 256 bytes of edge that core 0 writes too, with the same values"
    ]
    for kernel in (redundant(same_value), cleared_then_written(False)):
        (message,) = repeated(kernel, warnings_as_errors=strict)
        assert message.startswith("both cores do the same work")
    assert repeated(by_program, warnings_as_errors=strict) == []


def test_cores_that_write_different_bytes_race():
    with pytest.raises(NkiError) as caught:
        redundant(own_value)[2](halves())
    found = [d for d in caught.value.diagnostics if d.code == "NKI-H021"]
    assert any("writes" in d.message and "writes it here" in d.labels[0].message for d in found)


def test_agreed_bytes_that_one_core_then_changes_race():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[0])
        nisa.dma_copy(dst=out, src=tile)
        if nl.program_id(0) == 1:
            nisa.dma_copy(dst=tile, src=x[1])
            nisa.dma_copy(dst=out, src=tile)
        return out

    with pytest.raises(NkiError) as caught:
        kernel[2](halves())
    assert {d.code for d in caught.value.diagnostics} == {"NKI-H021"}


def cleared_then_written(reads):
    """A kernel whose cores both clear a shared tensor and then write it, and perhaps read it back."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        zeros = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.memset(zeros, 0.0)
        nisa.dma_copy(dst=tile, src=x[0])
        nisa.dma_copy(dst=out, src=zeros)
        nisa.dma_copy(dst=out, src=tile)
        if reads:
            nisa.dma_copy(dst=tile, src=out)
        return out

    return kernel


def test_cores_that_write_the_same_bytes_in_the_end_do_not_race():
    """Whoever comes last, each core's own last write comes after its own clearing."""
    x = halves()
    np.testing.assert_array_equal(cleared_then_written(False)[2](x), x[0])


def test_reading_bytes_that_the_other_core_may_be_clearing_races():
    with pytest.raises(NkiError) as caught:
        cleared_then_written(True)[2](halves())
    assert "NKI-H021" in {d.code for d in caught.value.diagnostics}


def test_cores_are_named_as_users_call_them():
    """By the core where there is one rank; by the rank, and its core where it has several."""
    named = [
        RunningCore(1, None, iter(()), rank, world, cores).name
        for rank, world, cores in ((0, 1, 2), (1, 2, 1), (1, 2, 2))
    ]
    assert named == ["core 1", "rank 1", "rank 1 core 1"]
