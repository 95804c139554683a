"""What shapes alone decide is found without running; what data decide is left to a run."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError

X = np.ones((128, 64), np.float32)


def found(kernel, *args, **options):
    """Codes and severities of what is found without data."""
    try:
        with runtime.session(data=False, check="all", target=None, **options) as session:
            kernel(*args)
    except NkiError as refused:
        return {(d.code, d.severity.value) for d in refused.diagnostics}
    return {(d.code, d.severity.value) for d in session.launches[-1].diagnostics}


def codes(kernel, *args):
    return {code for code, _ in found(kernel, *args)}


@nki.jit
def sums(x, read_between, anew):
    out = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    r = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    p = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.dma_copy(dst=t, src=x)
    nisa.nc_matmul(dst=p, stationary=t, moving=t, accumulate=False)
    if read_between:
        nisa.tensor_copy(dst=r, src=p)
    nisa.nc_matmul(dst=p, stationary=t, moving=t, accumulate=not anew)
    nisa.tensor_copy(dst=r, src=p)
    nisa.dma_copy(dst=out, src=r)
    return out


@pytest.mark.parametrize(
    ("read_between", "anew", "told"),
    [(False, False, set()), (True, True, set()), (True, False, {("NKI-H007", "error")})],
)
def test_a_sum_that_goes_on_after_a_read(read_between, anew, told):
    assert found(sums, X, read_between, anew) == told


@nki.jit
def in_a_loop(x, turns, inside):
    """Reads a sum at the end of each turn; `inside` says whether the turn starts it anew."""
    out = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    r = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    p = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
    nisa.dma_copy(dst=t, src=x)
    nisa.nc_matmul(dst=p, stationary=t, moving=t, accumulate=False)

    def turn(i):
        nisa.nc_matmul(dst=p, stationary=t, moving=t, accumulate=not inside)
        nisa.tensor_copy(dst=r, src=p)

    nl.fori_loop(0, turns, turn)
    nisa.dma_copy(dst=out, src=r)
    return out


def test_what_a_second_turn_does_counts():
    assert codes(in_a_loop, X, 5, True) == set()
    assert codes(in_a_loop, X, 5, False) == {"NKI-H007"}
    assert codes(in_a_loop, X, 1, False) == set()


@nki.jit
def reads(x, written, stored):
    """Reads a tile of which `written` columns are written; returns `stored` columns of what comes of it."""
    out = nl.ndarray((128, stored), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    r = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    if written > 0:
        nisa.dma_copy(dst=t[:, 0:written], src=x[:, 0:written])
    nisa.tensor_scalar(dst=r, data=t, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=out, src=r[:, 0:stored])
    return out


def test_a_tile_that_nothing_writes():
    assert found(reads, X, 64, 64) == set()
    assert ("NKI-H002", "error") in found(reads, X, 0, 8)


def test_a_tile_that_is_written_in_part_is_left_to_a_run():
    assert found(reads, X, 32, 32) == found(reads, X, 32, 64) == set()
    assert found(reads, X, 32, 32, decide=True) == {("NKI-H002", "note")}
    assert ("NKI-H002", "error") in found(reads, X, 32, 64, decide=True)


@nki.jit
def unread(x):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    u = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    aside = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    nisa.tensor_copy(dst=aside, src=u)
    nisa.dma_copy(dst=out, src=t)
    return out


def test_what_reaches_no_result_is_no_error():
    assert found(unread, X) == {("NKI-H010", "warning")}


@nki.jit
def through_a_register(x):
    """Fills a tile at offsets known at run time only, then reads all of it."""
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    start = nisa.register_alloc(0)
    nisa.dma_copy(dst=t[:, nl.ds(start, 64)], src=x)
    nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=out, src=t)
    return out


def test_a_write_at_a_run_time_offset_may_write_all():
    assert found(through_a_register, X) == set()


@nki.jit
def meets(x, second):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    other = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    core = nl.program_id(0)
    if core == 0:
        nisa.dma_copy(dst=out, src=x)
    nisa.core_barrier(data=out, cores=(0, 1))
    if core == 0 or second:
        nisa.core_barrier(data=other, cores=(0, 1))
    return out


def test_cores_that_wait_for_each_other():
    assert codes(meets[2], X, True) == set()
    assert codes(meets[2], X, False) == {"NKI-H020"}


@nki.jit
def differing(x):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    if nl.program_id(0) == 1:
        nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_shared_tensors_that_differ():
    assert codes(differing[2], X) == {"NKI-H022"}


@nki.jit
def halves(x):
    """Core 1 reads what core 0 writes, after a barrier."""
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    middle = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    core = nl.program_id(0)
    if core == 1:
        nisa.dma_copy(dst=middle, src=x)
    nisa.core_barrier(data=middle, cores=(0, 1))
    rows = nl.ds(core * 64, 64)
    nisa.dma_copy(dst=out[rows, :], src=middle[rows, :])
    return out


def test_what_another_core_writes_is_written():
    assert codes(halves[2], X) == set()


@nki.jit
def overwrites(x):
    nisa.dma_copy(dst=x[0:64, :], src=x[64:128, :])
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_an_argument_that_is_overwritten():
    assert found(overwrites, X) == {("NKI-H011", "note")}


def test_without_checks_nothing_is_looked_at():
    with runtime.session(data=False, check="none") as session:
        reads(X, 0, 8)
    assert session.launches[0].diagnostics == ()
