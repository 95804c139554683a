"""The checks on small Programs: what is exact about them, loops, cores, options, cost of nothing."""

from pathlib import Path

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import as_target
from nki_sim.sanitize import CHECKS, DEFAULT, check_classes
from nki_sim.sanitize.shadow import regions

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

X = np.arange(128 * 512, dtype=np.float32).reshape(128, 512)


def found(kernel, *arguments, cores=1, **options):
    """The diagnostics of a run, raised or kept."""
    launched = kernel[cores] if cores > 1 else kernel
    with runtime.session(**{"check": "all", **options}) as session:
        try:
            launched(*arguments)
        except NkiError as refused:
            return list(refused.diagnostics)
    return list(session.launches[0].diagnostics)


def codes(diagnostics):
    """(code, severity) of each."""
    return [(d.code, d.severity.value) for d in diagnostics]


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


# --- accumulation


@nki.jit
def accumulates_onto_memset(x, w):
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    moving = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    stationary = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=moving, src=x)
    nisa.dma_copy(dst=stationary, src=w)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    nisa.memset(dst=total, value=1.0)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


@pytest.mark.parametrize("target, expected", [("trn1", True), ("trn2", True), ("trn3", False)])
def test_accumulating_onto_memset(monkeypatch, target, expected):
    """Undefined on NeuronCore-v2 and v3, defined from v4 on."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    told = found(accumulates_onto_memset, X, np.eye(128, dtype=np.float32))
    assert (("NKI-H006", "error") in codes(told)) is expected


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


# --- NaN and infinity in results


@nki.jit
def product(x, w):
    """x * w, rounded to float16 on the way."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    left = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    right = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=left, src=x)
    nisa.dma_copy(dst=right, src=w)
    half = nl.ndarray((128, 64), dtype=nl.float16, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=half, data1=left, data2=right, op=nl.multiply)
    nl.device_print("half", half[0:1, 0:1])
    nisa.dma_copy(dst=out, src=half)
    return out


def numbers_of(*values, check="all", **options):
    """The diagnostics of `product` on arrays of each pair of values but for one 1, launch by launch."""
    arrays = [[np.full((128, 64), value, np.float32) for value in pair] for pair in values]
    for pair in arrays:
        pair[0][0, 0] = pair[1][0, 0] = 1
    with runtime.session(check=check, **options) as session:
        for pair in arrays:
            product(*pair)
    return [list(one.diagnostics) for one in session.launches]


@pytest.mark.parametrize("strict", [False, True])
def test_an_overflow_is_noted_with_what_it_came_from(strict):
    """65504 is the largest float16: a note, also where warnings are errors, and in a replay again."""
    launches = numbers_of((300, 200), (300, 300), (2, 2), (300, 400), warnings_as_errors=strict)
    assert [codes(found) for found in launches] == [
        [],
        [("NKI-N002", "note")],
        [],
        [("NKI-N002", "note")],
    ]
    message = launches[1][0].message
    assert "first at partition 0, element [1] (8191 of 8192 elements)" in message
    assert message.count("300 there") == 2
    assert "65504" in launches[1][0].help


@pytest.mark.parametrize("values", [(np.inf, 2), (np.nan, 1), (-np.inf, -1)])
def test_what_arguments_hold_is_not_noted(values):
    """A NaN or infinity of the caller's."""
    assert numbers_of(values) == [[]]


def test_nan_of_an_argument_s_infinity_is_noted():
    """No argument holds NaN: infinity times zero."""
    (found,) = numbers_of((np.inf, 0))
    assert codes(found) == [("NKI-N002", "note")]
    assert "writes NaN" in found[0].message and "inf there and data2" in found[0].message


def test_looking_for_an_origin_prints_nothing_again(capsys):
    """The second run of a launch is silent."""
    numbers_of((300, 300))
    assert capsys.readouterr().out.count("half") == 1


def test_where_nobody_sees_notes_none_is_looked_for(monkeypatch):
    """A plain script pays nothing."""
    monkeypatch.setattr("nki_sim.sanitize.numbers.trace_numbers", lambda *_: pytest.fail("looked"))
    product(np.full((128, 64), 300, np.float32), np.full((128, 64), 300, np.float32))


def test_what_another_core_sends_comes_from_that_core():
    """Core 1 overflows; core 0, which stores what it receives, is not blamed."""

    @nki.jit
    def sent(x):
        out = nl.ndarray(x.shape, dtype=nl.float16, buffer=nl.shared_hbm)
        core = nl.program_id(0)
        tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        half = nl.ndarray((128, 64), dtype=nl.float16, buffer=nl.sbuf)
        got = nl.ndarray((128, 64), dtype=nl.float16, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=half, data=tile, op0=nl.multiply, operand0=1.0 + core * 1e6)
        nisa.sendrecv(dst=got, src=half, send_to_rank=1 - core, recv_from_rank=1 - core, pipe_id=0)
        if core == 0:
            nisa.dma_copy(dst=out, src=got)
        return out

    with runtime.session(check="nan") as session:
        sent[2](np.ones((128, 64), np.float32))
    (found,) = session.launches[0].diagnostics
    assert found.code == "NKI-N002" and "tensor_scalar writes infinity" in found.message


def test_an_operand_of_a_value_per_partition_is_told_where_it_counts():
    @nki.jit
    def scaled(x, factors):
        out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        factor = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf, name="factor")
        nisa.dma_copy(dst=tile, src=x)
        nisa.dma_copy(dst=factor, src=factors)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=factor)
        nisa.dma_copy(dst=out, src=tile)
        return out

    x, factors = np.ones((128, 64), np.float32), np.arange(128, dtype=np.float32).reshape(128, 1)
    x[5, 7], factors[5] = 3e38, 1e3
    with runtime.session(check="nan") as session:
        scaled(x, factors)
    (note,) = session.launches[0].diagnostics
    assert "first at partition 5, element [7]" in note.message
    assert "data=tile[128, 64], 3e+38 there" in note.message
    assert "operand0=factor[128, 1], 1000 there" in note.message


# --- an accumulate that is left out


@pytest.mark.parametrize(
    "target, accumulate, said, sums",
    [
        ("trn2", None, [("NKI-H006", "error")], None),
        ("trn3", None, [("NKI-H006", "warning")], [1, 6, 6]),
        ("trn3", True, [], [6, 6, 6]),
        ("trn3", False, [], [1, 1, 1]),
    ],
)
def test_memset_before_each_round_of_a_sum(target, accumulate, said, sums):
    """Only matmuls count: the first overwrites what memset put there, later ones add to it."""

    @nki.jit
    def rounds(x, w):
        out = nl.ndarray((3, 128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
        moving, stationary = nl.load(x), nl.load(w)
        total = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.psum)
        for i in range(3):
            nisa.memset(dst=total, value=5.0)
            nisa.nc_matmul(dst=total, stationary=stationary, moving=moving, accumulate=accumulate)
            nisa.dma_copy(dst=out[i], src=nl.copy(total))
        return out

    x, w = np.ones((128, 64), np.float32), np.eye(128, dtype=np.float32)
    with runtime.session(target=as_target(target), check="psum") as session:
        try:
            result = rounds(x, w)
        except NkiError as refused:
            found = refused.diagnostics
        else:
            found = session.launches[0].diagnostics
            np.testing.assert_array_equal(result[:, 0, 0], sums)
    assert codes(found) == said
    assert all(any("only matmuls count" in note for note in d.notes) for d in found)


@pytest.mark.parametrize("bank, apart, expected", [(0, 0, 1), (1, 0, 1), (7, 0, 1), (0, 1, 0), (6, 1, 0)])
def test_sums_that_take_turns_in_one_bank(bank, apart, expected):
    """In any bank, on bytes of their own; `apart` puts the second in the next bank."""

    @nki.jit
    def kernel(x):
        result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 256), dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.memset(dst=tile, value=1.0)
        first = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 2048 * bank))
        second = first
        if apart:
            second = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, address=(0, 2048 * bank + 2048))
        for turn in range(2):
            for total in (first[:, 0:256], second[:, 256:512]):
                nisa.nc_matmul(dst=total, stationary=tile[:, 0:128], moving=tile, accumulate=turn > 0)
        sums = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=sums[:, 0:256], src=first[:, 0:256])
        nisa.tensor_copy(dst=sums[:, 256:512], src=second[:, 256:512])
        nisa.dma_copy(dst=result, src=sums)
        return result

    assert codes(found(kernel, X, check="psum")) == [("NKI-H008", "warning")] * expected


@pytest.mark.parametrize("row, expected", [(5, []), (-1, [("NKI-H002", "error")])])
def test_a_skipped_row_stays_unwritten_where_a_register_says_where_to(row, expected):
    """The destination is shifted by a register, the source gathered: one row is named, or skipped."""

    @nki.jit
    def kernel(x, places):
        result = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.shared_hbm)
        index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(dst=index, src=places)
        start = nisa.register_alloc(1)
        tile = nl.ndarray((128, 16), dtype=x.dtype, buffer=nl.sbuf)
        part = tile.ap([[16, 128], [1, 8]], scalar_offset=start, indirect_dim=1)
        rows = x.ap([[8, 128], [1, 8]], vector_offset=index)
        nisa.dma_copy(dst=part, src=rows, oob_mode=nisa.oob_mode.skip)
        nisa.dma_copy(dst=result, src=tile[:, 1:9])
        return result

    places = np.arange(128, dtype=np.int32).reshape(128, 1)
    places[5] = row
    assert codes(found(kernel, np.ones((128, 8), np.float32), places, check="uninitialized")) == expected
