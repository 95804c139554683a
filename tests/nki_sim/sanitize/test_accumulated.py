"""What is added to in PSUM: accumulations without a first write, and an accumulate that is left out."""

import numpy as np
import pytest
from checked_runs import X, codes, found

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


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
