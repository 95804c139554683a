"""Accumulation in PSUM from kernel to result: overlapping destinations, device loops, IR text."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.ir.program import programs_equal
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program

TAPS, WIDTH = 3, 32


@nki.jit
def transposed_convolution(x, w):
    """Every tap adds to a window one column further on than the one before."""
    channels, filters = x.shape[0], w.shape[2]
    result = nl.ndarray((filters, WIDTH + TAPS - 1), dtype=nl.float32, buffer=nl.shared_hbm)
    image = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    weights = nl.ndarray((channels, TAPS, filters), dtype=w.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=image, src=x)
    for tap in range(TAPS):
        nisa.dma_copy(dst=weights[:, tap, :], src=w[tap])
    total = nl.ndarray((filters, WIDTH + TAPS - 1), dtype=nl.float32, buffer=nl.psum)
    for tap in range(TAPS):
        nisa.nc_matmul(dst=total[:, tap : tap + WIDTH], stationary=weights[:, tap, :], moving=image)
    out = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((16, WIDTH), np.float32), rng.standard_normal((TAPS, 16, 8), np.float32)


def test_overlapping_windows_accumulate():
    x, w = arrays()
    expected = np.zeros((8, WIDTH + TAPS - 1))
    for tap in range(TAPS):
        expected[:, tap : tap + WIDTH] += w[tap].T.astype(np.float64) @ x
    for fill in ("all", "none"):
        with runtime.session(check=fill) as session:
            got = transposed_convolution(x, w)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
        assert session.launches[0].diagnostics == ()


def test_what_is_accumulated_onto_is_part_of_the_ir():
    with runtime.session() as session:
        transposed_convolution(*arrays())
    program = session.launches[0].program
    matmuls = [i for i in program.walk() if i.opcode == "nc_matmul"]
    assert [i.accumulate for i in matmuls] == [
        False,
        (((0, 8), (0, WIDTH - 1)),),
        (((0, 8), (0, WIDTH - 1)),),
    ]
    assert programs_equal(parse_program(format_program(program)), program)


@nki.jit
def onto_a_full_sum(x, w):
    """A later tap covers a part of what the first one wrote; then the first view goes on."""
    result = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.shared_hbm)
    image = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    weights = nl.ndarray((x.shape[0], 8), dtype=w.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=image, src=x)
    nisa.dma_copy(dst=weights, src=w[0])
    total = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=weights, moving=image)
    nisa.nc_matmul(dst=total[:, 4:20], stationary=weights, moving=image[:, 4:20])
    nisa.nc_matmul(dst=total, stationary=weights, moving=image)
    out = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    nisa.dma_copy(dst=result, src=out)
    return result


def test_views_of_one_accumulation_do_not_take_turns():
    x, w = arrays()
    with runtime.session(warnings_as_errors=True):
        got = onto_a_full_sum(x, w)
    expected = 2 * (w[0].T @ x)
    expected[:, 4:20] *= 1.5
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def in_a_device_loop(accumulate, inside):
    @nki.jit
    def kernel(x, w):
        result = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.shared_hbm)
        image = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        weights = nl.ndarray((x.shape[0], 8), dtype=w.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=image, src=x)
        nisa.dma_copy(dst=weights, src=w[0])
        out = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.psum)
        for _ in nl.dynamic_range(3):
            if inside:
                total = nl.ndarray((8, WIDTH), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=total, stationary=weights, moving=image, accumulate=accumulate)
            nisa.tensor_copy(dst=out, src=total)
        nisa.dma_copy(dst=result, src=out)
        return result

    with runtime.session(check="none") as session:
        got = kernel(*arrays())
    told = [
        d for d in session.launches[0].diagnostics if d.code != "NKI-L056"
    ]  # the loop itself is deprecated
    return got, [(d.code, d.severity.value, bool(d.help)) for d in told]


@pytest.mark.api("0.6")
def test_a_product_without_accumulate_in_a_device_loop_is_warned_of():
    x, w = arrays()
    once = w[0].T @ x
    for accumulate, inside, told in (
        (None, False, [("NKI-V132", "warning", True)]),
        (None, True, []),
        (False, False, []),
    ):
        got, found = in_a_device_loop(accumulate, inside)
        np.testing.assert_allclose(got, once, rtol=1e-5, atol=1e-5)
        assert found == told
