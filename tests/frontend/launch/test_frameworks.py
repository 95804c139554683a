"""Kernels inside compiled functions of torch and JAX."""

import numpy as np
import pytest

import nki
import nki.language as nl
from nki_isa.diagnostics import NkiError


@nki.jit
def scaled(x, y, factor=2.0):
    """(x * factor + y, its sum over the free dimension)."""
    total = nl.add(nl.multiply(nl.load(x), factor), nl.load(y))
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    sums = nl.ndarray((x.shape[0], 1), dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, total)
    nl.store(sums, nl.sum(total, axis=1, dtype=nl.float32, keepdims=True))
    return out, sums


@nki.jit
def accumulated(acc, x):
    """acc += x."""
    nl.store(acc, nl.add(nl.load(acc), nl.load(x)))


@nki.jit
def too_many_partitions(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x))
    return out


# --- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install nki-sim[torch]")


def function(x, y):
    out, sums = scaled(x + 1, y, factor=3.0)
    return out.relu() - sums


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_torch_compile_takes_a_kernel_as_one_operator(torch, backend, name):
    torch._dynamo.reset()
    x, y = (torch.randn(8, 16).to(getattr(torch, name)) for _ in range(2))
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for turn in range(2):
        torch.testing.assert_close(compiled(x + turn, y), function(x + turn, y))


def test_shapes_are_known_without_data(torch):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        out, sums = scaled(torch.empty(8, 16, dtype=torch.float16), torch.empty(8, 16, dtype=torch.float16))
    assert (out.shape, out.dtype, sums.shape, sums.dtype) == ((8, 16), torch.float16, (8, 1), torch.float32)
    meta, _ = scaled(torch.empty(8, 16, device="meta"), torch.empty(8, 16, device="meta"))
    assert meta.device.type == "meta" and meta.shape == (8, 16)


def test_the_graph_holds_the_operator(torch):
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(function, tracing_mode="fake")(torch.randn(8, 16), torch.randn(8, 16))
    assert "nki_sim.launch" in graph.code
    x, y = torch.randn(8, 16), torch.randn(8, 16)
    torch.testing.assert_close(graph(x, y), function(x, y))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_writes_in_compiled_functions(torch, backend):
    torch._dynamo.reset()

    def twice(acc, x):
        accumulated(acc, x)
        before = acc.clone()
        accumulated(acc, x)
        return before, acc * 1

    acc, x = torch.zeros(4, 8), torch.ones(4, 8)
    before, after = torch.compile(twice, fullgraph=True, backend=backend)(acc, x)
    assert (before == 1).all() and (after == 2).all() and (acc == 2).all()


def test_another_shape_is_compiled_anew(torch):
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for shape in ((8, 16), (4, 10), (2, 3)):
        x, y = torch.randn(shape), torch.randn(shape)
        torch.testing.assert_close(compiled(x, y), function(x, y))


def test_a_kernel_that_is_refused_says_so_inside_torch_compile(torch):
    torch._dynamo.reset()
    with pytest.raises(Exception, match="NKI-V102"):
        torch.compile(too_many_partitions, fullgraph=True, backend="aot_eager")(torch.ones(256, 4))


@pytest.mark.slow
def test_inductor(torch):
    torch._dynamo.reset()
    x, y = torch.randn(8, 16), torch.randn(8, 16)
    torch.testing.assert_close(torch.compile(function, fullgraph=True)(x, y), function(x, y))


# --- JAX


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="jax is not installed: pip install nki-sim[jax]")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_jax_jit_calls_back(jax, name):
    x, y = (jax.random.normal(jax.random.key(i), (8, 16)).astype(name) for i in range(2))

    def inside(x, y):
        out, sums = scaled(x + 1, y, factor=3.0)
        return out * 2, sums

    out, sums = jax.jit(inside)(x, y)
    expected, expected_sums = inside(x, y)
    assert isinstance(out, jax.Array) and out.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(out), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(sums), np.asarray(expected_sums))


def test_jax_vmap_and_shapes(jax):
    x = jax.numpy.arange(96, dtype="float32").reshape(3, 4, 8)
    out, _ = jax.vmap(lambda a: scaled(a, a))(x)
    np.testing.assert_allclose(np.asarray(out), 3 * np.asarray(x))
    shape, _ = jax.eval_shape(scaled, x[0], x[0])
    assert (shape.shape, shape.dtype) == ((4, 8), np.float32)


def test_jax_arrays_are_not_written_inside_jit_either(jax):
    x = jax.numpy.ones((4, 8))
    with pytest.raises(NkiError, match="NKI-L055.*'acc'.*JAX"):
        jax.jit(lambda a: accumulated(a, a))(x)
