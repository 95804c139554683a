"""Arguments outside a valid range are counted over a whole run and told once for each line."""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_sim.sanitize.check import Scene
from nki_sim.sanitize.domains import Domains


@nki.jit
def roots(x):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for k in range(2):
        tile = nl.ndarray((128, 4), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, nl.ds(4 * k, 4)])
        nisa.activation(dst=tile, op=nl.rsqrt, data=tile, scale=2.0)
        nisa.dma_copy(dst=result[:, nl.ds(4 * k, 4)], src=tile)
    return result


@nki.jit
def fast_roots(x):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.rsqrt, operand0=0.0)
    nisa.dma_copy(dst=result, src=tile)
    return result


def found(kernel, x, check="numeric"):
    with runtime.session(check=check) as session:
        kernel(x)
    return session.launches[0].diagnostics


def test_once_for_a_line_with_count_and_range():
    x = np.ones((128, 8), np.float32)
    x[0, 1], x[3, 6], x[4, 7] = 0.0, -3.0, np.nan
    (told,) = found(roots, x)
    assert (told.code, told.severity.value) == ("NKI-N003", "warning")
    assert told.message == (
        "activation applies rsqrt to 3 of 1024 values outside [6.46235e-27, 1.58456e+29], where it is valid; "
        "the values lie in [-6, 2] and NaN among them"
    )
    assert told.span.line == roots.function.__code__.co_firstlineno + 6


def test_nothing_inside_the_range_and_where_it_is_not_asked_for():
    assert not found(roots, np.ones((128, 8), np.float32))
    assert not found(roots, np.zeros((128, 8), np.float32), check="psum")


def test_ranges_are_those_of_activation_functions():
    assert not found(fast_roots, np.full((128, 8), 1e-30, np.float32))


@nki.jit
def plain_sums(x):
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(dst=tile, op=nl.exp, data=tile)
    nisa.dma_copy(dst=result, src=tile)
    return result


def test_only_programs_that_apply_a_function_with_a_range_are_looked_at():
    """On the first call and on later ones, which run on a machine that is kept."""
    x = -np.ones((128, 8), np.float32)
    for kernel, seen in ((roots, True), (fast_roots, True), (plain_sums, False)):
        with runtime.session(data=False) as session:
            kernel(x)
        program = session.launches[0].cores[0].program
        assert Domains.sees(Scene([program], [{}], [x], frozenset({"numeric"}))) is seen
    for _ in range(3):
        assert [told.code for told in found(roots, x)] == ["NKI-N003"]
        assert found(plain_sums, x) == ()
