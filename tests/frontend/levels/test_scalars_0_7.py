"""Scalars that NKI 0.7 computes on the device, and the loops that they bound."""

from __future__ import annotations

import numpy as np
import pytest
from both_front_ends import front_end
from level_0_7 import NkiScalar, X, inside, int64, refused, scalar_load, scalar_store

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize
from nki.compiler.language.frontends import FrontEnd
from nki.compiler.specializer.specialize import specialize_call
from nki_isa.diagnostics import NkiError
from nki_isa.ir.program import Loop
from nki_isa.machine.targets import as_target
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program

pytestmark = pytest.mark.usefixtures("at_0_7")

before = levels.use("0.7")  # kernels are defined at it while the tests are read


# --- scalars


def scalars(body, count=1, wide=False):
    """What `body` stores as one scalar, given `count` of 7, 3, ..."""
    dtype = np.int64 if wide else np.int32
    start = np.array([[7], [3]], dtype)[:count].reshape(count, 1)

    @nki.jit
    def kernel(given):
        out = nl.ndarray((1, 1), dtype=int64 if wide else nl.int32, buffer=nl.shared_hbm)
        loaded = [scalar_load(given[k : k + 1, :]) for k in range(count)]
        scalar_store(out, body(*loaded))
        return out

    with front_end(FrontEnd.tracer):
        return kernel(start).item()


@pytest.mark.parametrize(
    "body, expected",
    [
        (lambda s: s + 1, 8),
        (lambda s: 1 + s, 8),
        (lambda s: s - 10, -3),
        (lambda s: 10 - s, 3),
        (lambda s: -s, -7),
        (lambda s: +s, 7),
        (lambda s: s * s * s, 343),
        (lambda s: s * 2 + s * -3, -7),
        (lambda s: s - 7 + (2**31 - 1), 2**31 - 1),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_arithmetic(body, expected, wide):
    assert scalars(body, wide=wide) == expected


def test_int32_wraps_and_int64_does_not_so_soon():
    assert scalars(lambda s: (s * 0 + 100000) * 100000) == 1410065408
    assert scalars(lambda s: s - 7 + (2**31 - 1) + 1) == -(2**31)
    assert scalars(lambda s: (s * 0 + 100000) * 100000, wide=True) == 10**10
    assert scalars(lambda s: s * 0 + 2**40 - 1, wide=True) == 2**40 - 1
    assert scalars(lambda s: s * 0 + (2**63 - 1) + 1, wide=True) == -(2**63)


@pytest.mark.parametrize("operand", [1.5, "1", None, 2**31, np.float32(1)])
def test_other_operands_are_refused(operand):
    with pytest.raises(NkiError, match="NKI-V153"):
        scalars(lambda s: s + operand)


def test_scalars_of_two_widths_do_not_mix():
    def body(a, b):
        return scalar_load(a) + scalar_load(b)

    refused("NKI-V153", body, np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int64))


@pytest.mark.parametrize(
    "how",
    [lambda s: s // 2, lambda s: s % 2, lambda s: s << 1, lambda s: s / 2, bool, int, range, lambda s: s & 1],
)
def test_operators_refused(how):
    with pytest.raises(NkiError, match="NKI-L022"):
        scalars(how)


def test_comparisons_are_recorded_and_not_used():
    one = np.zeros((1, 1), np.int32)
    made = inside(lambda a: scalar_load(a) < 3, one)
    assert made.is_comparison and isinstance(made, NkiScalar)
    refused("NKI-L022", lambda a: bool(scalar_load(a) == 3), one)
    refused("NKI-V153", lambda a: (scalar_load(a) < 3) + 1, one)
    refused("NKI-V153", lambda a: scalar_load(a) < 3, one.astype(np.int64))


def test_what_is_loaded():
    assert scalars(lambda s: s) == 7
    refused("NKI-V105", scalar_load, np.zeros((1, 1), np.uint32))
    refused("NKI-V103", scalar_load, np.zeros((2, 1), np.int32))
    refused("NKI-V101", lambda: scalar_load(nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.psum)))


def test_what_is_stored():
    def wide(a):
        scalar_store(nl.ndarray((1, 1), dtype=int64, buffer=nl.sbuf), scalar_load(a))

    refused("NKI-V153", wide, np.zeros((1, 1), np.int32))
    (told,) = refused("NKI-V153", lambda a: scalar_store(a, 3), np.zeros((1, 1), np.int32))
    assert "memset" in told.help


@nki.jit
def selects(x, at):
    out = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    row = scalar_load(at) * 2 + 1
    nisa.dma_copy(dst=tile, src=x.ap(pattern=[[64, 1], [1, 64]], scalar_offset=row))
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_scalar_addresses_hbm(dtype):
    assert np.array_equal(selects(X, np.array([[2]], dtype))[0], X[5])


def test_an_int64_scalar_does_not_address_sbuf():
    def body(at):
        return nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf).select(1, scalar_load(at))

    assert inside(body, np.zeros((1, 1), np.int32)).is_indirect()
    refused("NKI-V026", body, np.zeros((1, 1), np.int64))


def test_scalar_as_operand():
    @nki.jit
    def kernel(x, n):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.register_move(nisa.register_alloc(0), scalar_load(n))
        nisa.dma_copy(dst=out, src=tile)
        return out

    assert np.array_equal(kernel(X, np.array([[3]], np.int32)), X)
    with pytest.raises(NkiError, match="NKI-V100"):
        kernel(X, np.array([[3]], np.int64))


# --- loops


@nki.jit
def loops(x, n, how):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    tile = nl.ndarray((1, 64), dtype=x.dtype, buffer=nl.sbuf)
    bound = how(n)

    def body(i):
        nisa.dma_copy(dst=tile, src=x.select(0, i))
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.dma_copy(dst=out.select(0, i), src=tile)

    nl.fori_loop(0, bound, body)
    return out


@pytest.mark.parametrize(
    "how",
    [lambda n: 5, scalar_load, lambda n: scalar_load(n) * 2 - 5, nisa.register_alloc],
)
def test_bounds_of_a_loop(how):
    doubled = X.copy()
    doubled[:5] *= 2
    with front_end(FrontEnd.tracer):
        if how is nisa.register_alloc:
            how = _loaded
        assert np.array_equal(loops(X, np.array([[5]], np.int32), how), doubled)


def _loaded(n):
    register = nisa.register_alloc()
    nisa.register_load(register, n)
    return register


def test_the_variable_of_a_loop():
    def kinds(n):
        found = []
        for bound in (4, scalar_load(n), _loaded(n)):
            nl.fori_loop(0, bound, lambda i: found.append(type(i).__name__))
        return found

    one = np.array([[5]], np.int32)
    assert inside(kinds, one) == ["NkiScalar", "NkiScalar", "VirtualRegister"]
    levels.use("0.6")
    seen = []
    inside(lambda: nl.fori_loop(0, 4, lambda i: seen.append(type(i).__name__)))
    assert seen == ["VirtualRegister"]


def test_bounds_that_are_refused():
    wide = np.array([[5]], np.int64)
    refused("NKI-V124", lambda n: nl.fori_loop(0, scalar_load(n), lambda i: None), wide)
    refused("NKI-V124", lambda: nl.fori_loop(0, 4, lambda i: None, step=0))
    refused("NKI-V124", lambda: nl.fori_loop(0, 4, lambda i: 1))


def test_while_takes_no_scalar():
    one = np.array([[5]], np.int32)
    refused("NKI-V124", lambda n: nl.while_loop(scalar_load(n), lambda r: r), one)
    inside(lambda n: nl.while_loop(_loaded(n), lambda r: r), one)


def test_a_loop_program_reads_back():
    @nki.jit
    def kernel(x):
        def body(i):
            nisa.dma_copy(dst=x.select(0, i * 2), src=x.select(0, i * 2 + 1))

        nl.fori_loop(0, 4, body)

    with front_end(FrontEnd.tracer):
        program = specialize(kernel, X)
    assert isinstance(program.body[0], Loop) and len(program.body[0].body) == 4
    assert format_program(parse_program(format_program(program))) == format_program(program)


@nki.jit
def dynamic(x):
    for _ in nl.dynamic_range(4):
        nisa.dma_copy(dst=x[0:1, :], src=x[1:2, :])


@pytest.mark.parametrize("name", ["dynamic", "while_register"])
def test_loops_that_were_removed(name):
    """The tracer refuses them, the parser warns; both say what to write."""
    kernel = globals()[name]
    with front_end(FrontEnd.tracer), pytest.raises(NkiError) as caught:
        specialize(kernel, X)
    with front_end(FrontEnd.parser):
        warnings = specialize_call(kernel, (X,), {}, target=as_target("trn2")).diagnostics
    assert [(d.code, d.severity.value) for d in warnings] == [("NKI-L056", "warning")]
    for told in (caught.value.diagnostics[0], warnings[0]):
        assert "fori_loop" in told.help or "while_loop" in told.help
    levels.use("0.6")
    with front_end(FrontEnd.tracer):
        if name == "dynamic":
            specialize(kernel, X)


@nki.jit
def while_register(x):
    register = nisa.register_alloc(1)
    while register:
        nisa.register_move(register, 0)


levels.use(before)
