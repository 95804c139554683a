"""The checks on small Programs: what is exact about them, loops, cores, options, cost of nothing."""

from pathlib import Path

import numpy as np
import pytest
from checked_runs import X, codes, found

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError, Severity
from nki_sim.sanitize import CHECKS, DEFAULT, check_classes
from nki_sim.sanitize.shadow import regions

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


# --- options


def test_classes_by_name():
    """all is every class; names add up; none is none."""
    assert check_classes("all") == DEFAULT == frozenset(CHECKS)
    assert check_classes("nan, all") == frozenset(CHECKS)
    assert check_classes("overlap,psum") == {"overlap", "psum"}
    assert check_classes("none") == check_classes("") == frozenset()


def test_unknown_class_is_refused():
    """NKI-L032, with the names there are."""
    with pytest.raises(NkiError) as refused:
        check_classes("overlap,typo")
    assert refused.value.diagnostics[0].code == "NKI-L032"
    assert "overlap" in refused.value.diagnostics[0].help


@nki.jit
def half_loaded(x):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[0:64, :], src=x[0:64, :])
    nisa.dma_copy(dst=result, src=tile)
    return result


def test_environment_chooses(monkeypatch):
    """NKI_SIM_CHECK holds where no option says otherwise; without it all is checked."""
    with pytest.raises(NkiError):
        half_loaded(X)
    monkeypatch.setenv("NKI_SIM_CHECK", "none")
    np.testing.assert_array_equal(half_loaded(X)[0:64], X[0:64])
    assert codes(found(half_loaded, X, check="uninitialized")) == [("NKI-H002", "error")]


@pytest.mark.parametrize("check", ["overlap", "psum", "outputs", "unused,inputs", "none"])
def test_other_classes_say_nothing(check):
    """Only the class asked for speaks."""
    assert found(half_loaded, X, check=check) == []


def test_sentinels():
    """Unwritten floats are NaN, integers 4, where that is asked for; memory starts as zeros otherwise."""

    with runtime.session(check="none", fill="sentinels"):
        floats, integers = half_loaded(X), half_loaded(X.astype(np.int32))
    assert np.isnan(floats[64:]).all() and (integers[64:] == 4).all()
    np.testing.assert_array_equal(floats[:64], X[:64])
    with runtime.session(check="none"):
        assert (half_loaded(X)[64:] == 0).all()


# --- exactness


@nki.jit
def one_element_missing(x, row: int, column: int):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    if row > 0:
        nisa.dma_copy(dst=tile[0:row, :], src=x[0:row, :])
    if row < 127:
        nisa.dma_copy(dst=tile[row + 1 : 128, :], src=x[row + 1 : 128, :])
    if column > 0:
        nisa.dma_copy(dst=tile[row : row + 1, 0:column], src=x[row : row + 1, 0:column])
    if column < 511:
        nisa.dma_copy(dst=tile[row : row + 1, column + 1 : 512], src=x[row : row + 1, column + 1 : 512])
    nisa.dma_copy(dst=result, src=tile)
    return result


@pytest.mark.parametrize("row, column", [(0, 0), (63, 200), (127, 511)])
def test_a_single_element(row, column):
    """One element of 65536 is missing, and named."""
    (diagnostic,) = found(one_element_missing, X, row, column)
    assert diagnostic.code == "NKI-H002" and "4 of 262144 bytes" in diagnostic.message
    assert diagnostic.notes == (f"elements of that view: [{row}:{row + 1}, {column}:{column + 1}]",)


@pytest.mark.parametrize(
    "missing, text",
    [
        (np.ones((4, 8), bool), "[0:4, 0:8]"),
        (np.arange(32).reshape(4, 8) % 8 >= 6, "[0:4, 6:8]"),
        (np.eye(2, dtype=bool), "[0:1, 0:1], [1:2, 1:2]"),
        (np.arange(8) % 2 == 1, "[0:1, 1:2], [0:1, 3:4], [0:1, 5:6] and 1 more ranges"),
    ],
)
def test_regions(missing, text):
    """Ranges join neighbouring rows that miss the same columns."""
    assert regions(np.atleast_2d(missing)) == text


@nki.jit
def masked_by_data(x, mask):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    chosen = nl.ndarray((128, 512), dtype=nl.uint8, buffer=nl.sbuf)
    clean = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[0:64, :], src=x[0:64, :])
    nisa.dma_copy(dst=chosen, src=mask)
    nisa.memset(dst=clean, value=0.0)
    nisa.tensor_copy_predicated(dst=clean, src=tile, predicate=chosen)
    nisa.dma_copy(dst=result, src=clean)
    return result


def test_whether_data_let_it_through():
    """The same read is a note where the mask leaves the lanes out, and an error where it takes one in."""
    mask = np.zeros((128, 512), np.uint8)
    mask[:64] = 1
    assert codes(found(masked_by_data, X, mask)) == [("NKI-H002", "note")]
    mask[100, 3] = 1
    assert codes(found(masked_by_data, X, mask)) == [("NKI-H002", "error")]


@nki.jit
def two_readers(x):
    result = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[0:32, :], src=x[0:32, :])
    first = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=first, src=tile)  # its lanes from 32 on are dropped
    second = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=second, src=tile[0:64, :])  # stored: half of it nobody wrote
    nisa.tensor_copy(dst=second[0:32, :], src=first[0:32, :])
    nisa.dma_copy(dst=result, src=second)
    return result


def test_each_reader_is_judged_by_itself():
    """Of two reads of unwritten bytes only the one whose values are stored is an error."""
    told = found(two_readers, X)
    assert codes(told) == [("NKI-H002", "error"), ("NKI-H002", "note")]
    assert told[0].span.line == told[1].span.line + 2


# --- loops, reuse, cores


@nki.jit
def filled_in_a_loop(x, turns: int):
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    kept = nl.ndarray((4, 128, 512), dtype=x.dtype, buffer=nl.private_hbm)
    tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)

    def body(i):
        nisa.dma_copy(dst=kept.select(0, i), src=tile)

    nl.fori_loop(0, turns, body)
    nisa.dma_copy(dst=result, src=kept[3])
    return result


def test_run_time_addresses_are_followed():
    """A device loop writes a part of the tensor each turn; all of them are needed."""
    assert found(filled_in_a_loop, X, 4) == []
    assert codes(found(filled_in_a_loop, X, 3)) == [("NKI-H002", "error")]


def test_one_finding_for_a_line():
    """What happens a hundred times on a line is told once, with the count."""

    @nki.jit
    def kernel(x):
        result = nl.ndarray((100, 128, 8), dtype=x.dtype, buffer=nl.shared_hbm)
        for i in range(100):
            tile = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=result[i], src=tile)
        return result

    (diagnostic,) = found(kernel, X)
    assert "the same happened 99 more times here" in diagnostic.notes


@nki.jit
def halves_of_two_cores(x, parts: int):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    core = nl.program_id(0)
    if core < parts:
        rows = nl.ds(core * 64, 64)
        tile = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[rows, :])
        nisa.dma_copy(dst=result[rows, :], src=tile)
    return result


def test_cores_write_an_output_together():
    """What one core leaves out of shared HBM the other may write."""
    assert found(halves_of_two_cores, X, 2, cores=2) == []
    assert codes(found(halves_of_two_cores, X, 1, cores=2)) == [("NKI-H009", "warning")]
    assert codes(found(halves_of_two_cores, X, 0, cores=2)) == [("NKI-H009", "error")]


@nki.jit
def exchanged(x):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    core = nl.program_id(0)
    rows = nl.ds(core * 64, 64)
    mine = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf)
    theirs = nl.ndarray((64, 512), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=mine, src=x[rows, :])
    nisa.sendrecv(src=mine, dst=theirs, send_to_rank=1 - core, recv_from_rank=1 - core, pipe_id=0)
    nisa.dma_copy(dst=result[rows, :], src=theirs)
    nisa.core_barrier(result, (0, 1))
    return result


def test_what_another_core_sends_is_written():
    """sendrecv writes its destination; a barrier reads nothing."""
    assert found(exchanged, X, cores=2) == []


# --- overlap


def test_a_single_byte_that_was_overwritten_has_its_overwriter():
    @nki.jit
    def kernel(x):
        result = nl.ndarray((128, 512), dtype=nl.uint8, buffer=nl.shared_hbm)
        a = nl.ndarray((128, 512), dtype=nl.uint8, buffer=nl.sbuf, address=(0, 0))
        b = nl.ndarray((1, 1), dtype=nl.uint8, buffer=nl.sbuf, address=(32, 77))
        nisa.memset(dst=a, value=1)
        nisa.memset(dst=b, value=2)  # the one
        nisa.dma_copy(dst=result, src=a)
        return result

    (lost,) = found(kernel, X, check="overlap")
    assert lost.code == "NKI-H003"
    lines = Path(__file__).read_text().splitlines()
    assert any("# the one" in lines[label.span.line - 1] for label in lost.labels)


# --- order


@pytest.mark.parametrize("other, expected", [("vector", []), ("gpsimd", [("NKI-H004", "warning")])])
def test_an_engine_is_in_order_with_itself_however_long_it_runs(other, expected):
    """Two tensors at one address take turns 100 times."""
    engine = getattr(nisa.engine, other)

    @nki.jit
    def turns(x):
        result = nl.ndarray((2, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
        a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
        for _ in range(100):
            nisa.memset(dst=a, value=1.0, engine=nisa.engine.vector)
            nisa.tensor_copy(dst=out, src=a, engine=nisa.engine.vector)
            nisa.memset(dst=b, value=2.0, engine=engine)
            nisa.tensor_copy(dst=out, src=b, engine=engine)
        nisa.dma_copy(dst=result[0], src=out)
        nisa.memset(dst=a, value=3.0, engine=nisa.engine.vector)
        nisa.tensor_copy(dst=out, src=a, engine=nisa.engine.vector)
        nisa.dma_copy(dst=result[1], src=out)
        return result

    assert codes(found(turns, X, check="order")) == expected


def test_engines_that_wait_for_each_other_s_results_are_in_order_however_long():
    """Each of 100 times, gpsimd writes `b` from what the vector engine read of `a`, and back."""

    @nki.jit
    def turns(x):
        result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
        a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        there = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
        back = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 8192))
        nisa.dma_copy(dst=back, src=x)
        for _ in range(100):
            nisa.tensor_copy(dst=a, src=back, engine=nisa.engine.vector)
            nisa.tensor_copy(dst=there, src=a, engine=nisa.engine.vector)
            nisa.tensor_copy(dst=b, src=there, engine=nisa.engine.gpsimd)
            nisa.tensor_copy(dst=back, src=b, engine=nisa.engine.gpsimd)
        nisa.tensor_copy(dst=a, src=back, engine=nisa.engine.vector)
        nisa.dma_copy(dst=result, src=a)
        return result

    assert codes(found(turns, X, check="order")) == []


@pytest.mark.parametrize("waits, expected", [(True, []), (False, [("NKI-H004", "warning")])])
def test_what_runs_after_another_is_ordered(waits, expected):
    @nki.jit
    def kernel(x):
        result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
        a = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        b = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 0))
        out = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf, address=(0, 4096))
        nisa.memset(dst=a, value=1.0, engine=nisa.engine.vector)
        first = nisa.tensor_copy(dst=out, src=a, engine=nisa.engine.vector)
        second = nisa.memset(dst=b, value=2.0, engine=nisa.engine.gpsimd)
        if waits:
            second.depends_on(first)
        third = nisa.memset(dst=a, value=3.0, engine=nisa.engine.vector)
        third.depends_on(second)
        nisa.tensor_tensor(dst=out, data1=out, data2=a, op=nl.add, engine=nisa.engine.vector)
        nisa.dma_copy(dst=result, src=out)
        return result

    assert codes(found(kernel, X, check="order")) == expected


# --- what comes of it


def test_arguments_stay_as_they_were():
    """An argument is written before the error is found; the caller's array is not."""

    @nki.jit
    def kernel(x):
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:256], src=x[:, 0:256])
        nisa.dma_copy(dst=x, src=tile)
        return x

    mine = X.copy()
    assert codes(found(kernel, mine)) == [("NKI-H002", "error")]
    np.testing.assert_array_equal(mine, X)


def test_strict_raises_warnings():
    """A result nobody uses is a warning, and an error with strict."""

    @nki.jit
    def kernel(x):
        result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        spare = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_copy(dst=spare, src=tile)
        nisa.dma_copy(dst=result, src=tile)
        return result

    assert codes(found(kernel, X)) == [("NKI-H010", "warning")]
    assert codes(found(kernel, X, warnings_as_errors=True)) == [("NKI-H010", "error")]


def test_out_of_bounds_comes_with_the_rest():
    """What was found before an index stopped the run is told as well."""

    @nki.jit
    def kernel(x):
        result = nl.ndarray((4, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=result[0], src=tile)
        for i in nl.dynamic_range(5):
            nisa.dma_copy(dst=result.select(0, i), src=x)
        return result

    assert sorted(d.code for d in found(kernel, X)) == ["NKI-H001", "NKI-H002"]
    assert all(d.severity is Severity.error for d in found(kernel, X))


def test_padding_of_a_scale_tile_need_not_be_written(monkeypatch):
    """quantize_mx writes four scales per quadrant; the other partitions are padding of the layout."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")

    @nki.jit
    def scales_of(x):
        source = nl.ndarray((32, 64), dtype=nl.bfloat16, buffer=nl.sbuf)
        data = nl.ndarray((32, 16), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
        scales = nl.ndarray((32, 16), dtype=nl.uint8, buffer=nl.sbuf)
        out = nl.ndarray((4, 16), dtype=nl.uint8, buffer=nl.shared_hbm)
        packed = nl.ndarray((32, 16), dtype=nl.float8_e4m3fn_x4, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=source, src=x)
        nisa.quantize_mx(dst=data, src=source, dst_scale=scales)
        nisa.dma_copy(dst=out, src=scales[0:4, :])
        nisa.dma_copy(dst=packed, src=data)
        return out, packed

    with runtime.session() as ran:
        scales_of(np.ones((32, 64), np.float32).astype("bfloat16"))
    assert not [d for d in ran.launches[0].diagnostics if d.code == "NKI-H002"]
