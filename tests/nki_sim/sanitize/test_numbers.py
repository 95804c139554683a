"""NaN and infinity in results, and where they came from."""

import numpy as np
import pytest
from checked_runs import codes

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


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
