"""What kernel writers and the vendor's guides write beyond the plainest form, with the right values."""

import functools
import math

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.experimental
import nki.isa as nisa
import nki.language as nl
from nki import levels, runtime
from nki.compiler.specializer.specialize import specialize_call
from nki.uncaught import NkiWarning
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import as_target

X = np.arange(64 * 8, dtype=np.float32).reshape(64, 8)


@nki.jit
def assigned(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((32, 8), dtype=x.dtype, buffer=nl.sbuf)
    twice = nl.ndarray((32, 8), dtype=nl.bfloat16, buffer=nl.sbuf)
    for i in range(2):
        tile[...] = nl.load(x[i * 32 : i * 32 + 32])
        twice[:, 0:4] = tile[:, 4:8]
        twice[:, 4:8] = tile[:, 0:4]
        tile[0:32, 0:8] = twice
        out[i * 32 : i * 32 + 32] = tile
    return out


def test_tiles_are_assigned_to_views():
    rounded = np.asarray(nl.bfloat16.numpy.type(0)).dtype
    np.testing.assert_array_equal(assigned(X), np.roll(X, 4, 1).astype(rounded).astype(np.float32))


@nki.jit
def number_assigned(x):
    tile = nl.load(x)
    tile[...] = 0.0
    return x


def test_a_number_is_not_assigned():
    with pytest.raises(NkiError, match="NKI-V029.*memset"):
        number_assigned(X)


@nki.jit
def compares(x, y):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    assert x.buffer == y.buffer == nl.hbm
    assert x.buffer == nl.shared_hbm and x.buffer in (nl.hbm,) and nl.shared_hbm == x.buffer
    assert x.buffer != nl.sbuf and out.buffer != nl.hbm and out.buffer == nl.shared_hbm
    assert x.dtype == np.float32 and x.dtype != np.int32 and x.dtype in (np.int32, np.float32)
    assert x.dtype == "float32" and x.dtype == nl.float32 and np.float32 == x.dtype
    nisa.dma_copy(dst=out, src=x)
    return out


def test_inputs_and_dtypes_compare_as_published_kernels_have_it():
    np.testing.assert_array_equal(compares(X, X), X)
    assert hash(nl.float32) == hash("float32")


def counted(function):
    @functools.wraps(function)
    def call(*args):
        call.calls += 1
        return function(*args)

    call.calls = 0
    return call


@counted
@nki.jit
def decorated(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_a_decorator_above_jit_runs_on_the_host():
    np.testing.assert_array_equal(decorated(X), X)
    assert decorated.calls == 1


def plain(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_the_function_of_a_kernel_and_the_names_jit_has_for_it():
    assert nki.jit(plain).func is plain
    np.testing.assert_array_equal(nki.jit(fn=plain)(X), X)
    np.testing.assert_array_equal(nki.jit(func=plain)(X), X)


@nki.jit
def prints(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=3.0)
    print("step", tile, "done")
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_print_shows_values_under_simulate(capsys):
    nki.simulate(prints)(np.full((4, 8), 4.25, np.float32))
    assert "step tile float32[4, 8]\n[[12.75 12.75" in (text := capsys.readouterr().out) and "done" in text
    prints(np.full((4, 8), 4.25, np.float32))
    assert "12.75" not in capsys.readouterr().out


@nki.jit
def private_result(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def test_a_result_in_private_hbm():
    for profile in ("library", "strict"):
        with runtime.session(profile=profile), pytest.raises(NkiError, match="NKI-L025.*shared_hbm"):
            private_result(X)
    before = levels.use("0.2")
    try:
        np.testing.assert_array_equal(private_result(X), X)
    finally:
        levels.use(before)


@nki.jit
def counts_down(x, start):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    rest = nl.load(start)
    one = nl.full((1, 1), 1, dtype=nl.int32)
    register = nisa.register_alloc(rest)

    def body(r):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
        nisa.tensor_tensor(dst=rest, data1=rest, data2=one, op=nl.subtract)
        nisa.register_load(r, rest)
        return r

    nki.experimental.while_loop(register, body)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_the_while_loop_of_the_experimental_module():
    np.testing.assert_array_equal(counts_down(X, np.array([[5]], np.int32)), X + 5)


@nki.jit
def turned(x):
    out = nl.ndarray((x.shape[1], x.shape[0]), dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.copy(nl.transpose(nl.load(x))))
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ml_dtypes.float8_e4m3, ml_dtypes.float8_e5m2])
def test_bytes_are_transposed(dtype):
    x = (np.arange(32 * 48) % 120).astype(np.uint8).view(dtype).reshape(32, 48)  # no infinity, no NaN
    np.testing.assert_array_equal(turned(x).view(np.uint8), x.T.view(np.uint8))


@nki.jit
def backwards(x, weights):
    """Columns and rows in reverse, by every way in and out of a tile."""
    last = x.shape[1] - 1
    columns = [[x.shape[1], x.shape[0]], [-1, x.shape[1]]]
    results = []
    for way in range(5):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        turned = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        tile = x if way in (2, 4) else nl.load(x)
        if way == 0:
            nisa.tensor_copy(turned, tile.ap(columns, offset=last))
        elif way == 1:
            nisa.tensor_copy(turned.ap(columns, offset=last), tile)
        elif way == 2:
            nisa.dma_copy(turned, x.ap(columns, offset=last))
        elif way == 3:
            product = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(product, stationary=nl.load(weights), moving=tile.ap(columns, offset=last))
            nisa.tensor_copy(turned, product)
        else:
            nisa.dma_copy(
                turned, x.ap([[-x.shape[1], x.shape[0]], [1, x.shape[1]]], offset=x.size - x.shape[1])
            )
        nisa.dma_copy(dst=out, src=turned)
        results.append(out)
    return results


def test_patterns_step_back():
    x = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    *columns, rows = backwards(x, np.eye(32, dtype=np.float32))
    for found in columns:
        np.testing.assert_array_equal(found, x[:, ::-1])
    np.testing.assert_array_equal(rows, x[::-1])


@nki.jit
def waves(x):
    results = []
    for function in (nl.sin, nl.cos, nl.tan):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, function(nl.load(x)))
        results.append(out)
    return results


def test_periodic_functions_over_all_of_float32():
    """Against the C library's double precision, which reduces its arguments exactly."""
    sizes = np.ldexp(np.float32(1.3), np.arange(-126, 127)).astype(np.float32)
    x = np.concatenate([sizes, -sizes, np.linspace(-1000, 1000, 6, dtype=np.float32)]).reshape(8, -1)
    sin, cos, tan = waves(x)
    wide = [[float(v) for v in row] for row in x]
    for got, function in ((sin, math.sin), (cos, math.cos)):
        np.testing.assert_allclose(got, [[function(v) for v in row] for row in wide], rtol=0, atol=2e-7)
    np.testing.assert_allclose(tan, [[math.tan(v) for v in row] for row in wide], rtol=1e-5)


@nki.jit
def window(x, start):
    out = nl.ndarray((2, 4), dtype=x.dtype, buffer=nl.shared_hbm)
    row = nisa.register_alloc(nl.load(start))
    nisa.dma_copy(dst=out, src=x[1:9:2, 2:8].ap([[20, 2], [1, 4]], scalar_offset=row, indirect_dim=0))
    return out


@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_runtime_offset_steps_along_the_dimension_of_the_view(row):
    x = np.arange(400, dtype=np.float32).reshape(20, 20)
    first = 1 * 20 + 2 + row * 2 * 20  # the view's offset, and its stride in dimension 0
    want = x.reshape(-1)[first + np.arange(2)[:, None] * 20 + np.arange(4)]
    np.testing.assert_array_equal(window(x, np.array([[row]], np.int32)), want)


@nki.jit
def activation_only(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.activation_reduce(dst=tile, op=nl.square, data=tile, reduce_op=nl.add, reduce_res=None)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_a_sum_that_stays_in_the_accumulator():
    np.testing.assert_array_equal(activation_only(X), X * X)


@nki.jit
def body_with_result(x):
    def body(i):
        return i

    nl.fori_loop(0, 3, body)
    return x


@nki.jit
def body_without_variable(x):
    def body():
        pass

    nl.fori_loop(0, 3, body)
    return x


@pytest.mark.parametrize(
    "kernel, code", [(body_with_result, "NKI-V124"), (body_without_variable, "NKI-L012")]
)
def test_bodies_of_loops_that_do_not_fit(kernel, code):
    with pytest.raises(NkiError, match=code):
        kernel(X)


@nki.jit
def vast(x):
    out = nl.ndarray((1 << 20, 1 << 20), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[0:64, 0:8], src=x)
    return out


def test_more_than_hbm_holds():
    with pytest.raises(NkiError, match="NKI-M003.*4,096.0 GiB"):
        vast(X)


def windows(stride, count):
    @nki.jit
    def kernel(x):
        out = nl.ndarray((4, 16), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.zeros((4, 16), x.dtype)
        source = nl.load(x)
        nisa.tensor_copy(dst=tile.ap([[16, 4], [stride, count], [1, 4]]), src=source[:, 0 : count * 4])
        nisa.dma_copy(dst=out, src=tile)
        return out

    return kernel


def test_a_destination_of_sliding_windows_is_found():
    x = np.ones((4, 16), np.float32)
    windows(4, 4)(x)
    windows(0, 2)(x)
    with pytest.raises(NkiError, match=r"NKI-H005.*\[2, 3\].*more than once"):
        windows(2, 3)(x)


def add_to_second_half(x):
    """Half of a tile is handed on, and its pattern made from the half's shape."""
    tile = nl.load(x)
    half = tile[:, 4:8]
    rows, columns = half.shape
    left = half.ap([[columns, rows], [1, 2]], offset=0)
    nisa.tensor_scalar(dst=left, data=left, op0=nl.add, operand0=10.0)
    one = half.ap([[columns, rows // 2], [1, 1]], offset=rows // 2 * columns + 3)
    nisa.tensor_scalar(dst=one, data=one, op0=nl.add, operand0=100.0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def add_to_row(x):
    """The same of one partition, where the stride does not count but says what the offset counts in."""
    tile = nl.load(x)
    half = tile[:, 4:8]
    left = half.ap([[4, 1], [1, 2]], offset=0)
    nisa.tensor_scalar(dst=left, data=left, op0=nl.add, operand0=10.0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


@pytest.mark.parametrize("kernel", [add_to_second_half, add_to_row])
def test_a_pattern_made_from_the_shape_of_half_a_tensor(kernel):
    x = X[:1] if kernel is add_to_row else X
    expected = x.copy()
    expected[:, 4:6] += 10
    expected[32:, 7] += 100
    with pytest.warns(NkiWarning, match="NKI-V022"):
        np.testing.assert_array_equal(nki.jit(kernel)(x), expected)
    with runtime.session(profile="strict"), pytest.raises(NkiError, match="NKI-V022"):
        nki.jit(kernel)(x)


@nki.jit
def takes_two(x, axes):
    assert axes[1] == 2
    return x


@pytest.mark.parametrize(("level", "count"), [("0.2", 0), ("0.3", 1), ("0.6", 1)])
def test_a_list_as_an_argument_is_an_error_from_0_3_on(level, count):
    def told(axes):
        try:
            specialize_call(takes_two, (X, axes), {}, target=as_target("trn2"))
        except NkiError as refused:
            return [(d.code, d.severity, d.help) for d in refused.diagnostics]
        return []

    before = levels.use(level)
    try:
        refused = [("NKI-L024", Severity.error, "pass a tuple: axes=(...)")]
        assert (told([1, 2]), told((1, 2))) == (refused * count, [])
    finally:
        levels.use(before)


@nki.jit
def absolute_plus(x):
    tile = nl.load(x)
    nisa.scalar_tensor_tensor(dst=tile, data=tile, op0=nl.abs, operand0=None, op1=nl.add, operand1=tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def test_a_unary_operator_takes_no_operand():
    np.testing.assert_array_equal(absolute_plus(X - 100), np.abs(X - 100) + (X - 100))
