"""Arrays of every kind go in and come back as they were."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError

DTYPES = [
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    np.int8,
    np.uint8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.bool_,
]


@nki.jit
def copied(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


@nki.jit
def doubled_in_place(x, y):
    """Writes x, reads y, returns nothing of either."""
    tile = nl.load(x)
    total = nl.add(tile, nl.load(y))
    nl.store(x, total)
    out = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.shared_hbm)
    nl.store(out, nl.full((1, 1), 7, nl.int32))
    return out


def sample(dtype, shape=(4, 6)):
    return (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_dtypes_are_kept(dtype):
    x = sample(dtype)
    result = copied(x)
    assert type(result) is np.ndarray and result.dtype == x.dtype
    np.testing.assert_array_equal(result, x)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, ">f4", "U3", object])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(NkiError, match="NKI-L024.*'x'"):
        copied(np.zeros((2, 2), dtype))


def test_the_advice_for_another_byte_order_holds():
    x = sample(">f4")
    with pytest.raises(NkiError, match=r">f4.*x\.astype\(np\.float32\)"):
        copied(x)
    np.testing.assert_array_equal(copied(x.astype(np.float32)), x)


def test_masks_are_not_dropped_silently():
    x = np.ma.masked_less(sample(np.float32), 1)
    with pytest.raises(NkiError, match=r"NKI-L024.*masked.*x\.filled"):
        copied(x)
    np.testing.assert_array_equal(copied(x.filled(0.0)), x.filled(0.0))


def test_layouts():
    base = np.arange(96, dtype=np.float32).reshape(8, 12)
    for x in (
        base.T,
        base[::2, ::3],
        base[::-1],
        np.broadcast_to(base[:1], (4, 12)),
        np.asfortranarray(base),
    ):
        np.testing.assert_array_equal(copied(x), x)
    frozen = base.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(copied(frozen), base)


def test_an_array_without_dimensions_has_one_element():
    result = copied(np.array(2.5, np.float32))
    assert result.shape == (1,) and result[0] == 2.5


def test_empty_arrays_are_refused():
    with pytest.raises(NkiError, match="NKI-L024.*empty"):
        copied(np.zeros((0, 4), np.float32))


def test_a_kernel_may_refuse_an_empty_array_in_its_own_words():
    @nki.jit
    def kernel(x):
        assert x.shape[0] > 0, "x has rows"
        return x

    with pytest.raises(NkiError, match="NKI-L020.*x has rows"):
        kernel(np.zeros((0, 4), np.float32))


@pytest.mark.parametrize("turns", [1, 3])
def test_inputs_change_only_where_the_kernel_writes(turns):
    x, y = np.ones((4, 6), np.float32), np.full((4, 6), 2, np.float32)
    for turn in range(turns):
        doubled_in_place(x, y)
        np.testing.assert_array_equal(x, 1 + 2 * (turn + 1))
        np.testing.assert_array_equal(y, 2)


def test_views_are_written_in_place():
    base = np.zeros((8, 12), np.float32)
    doubled_in_place(base[::2, 1:7], np.ones((4, 6), np.float32))
    assert base.sum() == 24 and base[::2, 1:7].all()


def test_what_the_second_core_alone_writes_changes():
    @nki.jit
    def second_half_is_zero(x):
        if nl.program_id(0) == 1:
            zeros = nl.ndarray((2, 6), dtype=x.dtype, buffer=nl.sbuf)
            nisa.memset(dst=zeros, value=0)
            nisa.dma_copy(dst=x[2:4], src=zeros)
        return x

    x = np.ones((4, 6), np.float32)
    second_half_is_zero[2](x)
    np.testing.assert_array_equal(x, np.repeat([[1.0], [0.0]], 2, axis=0) * np.ones(6))


def test_a_read_only_array_cannot_be_written():
    x = np.ones((4, 6), np.float32)
    x.flags.writeable = False
    with pytest.raises(NkiError, match="NKI-L055.*'x'.*read-only"):
        doubled_in_place(x, np.ones((4, 6), np.float32))


def test_a_kernel_that_stops_changes_nothing():
    @nki.jit
    def stopped(x, i):
        nl.store(x, nl.full(x.shape, 9.0, nl.float32))
        register = nisa.register_alloc(nl.load(i))
        tile = nl.ndarray((1, 6), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.ap([[6, 1], [1, 6]], scalar_offset=register, indirect_dim=0))

    x = np.ones((4, 6), np.float32)
    with pytest.raises(NkiError, match="NKI-H001"):
        stopped(x, np.array([[99]], np.int32))
    assert (x == 1).all()


def test_elements_that_share_memory_cannot_be_written():
    shared = np.lib.stride_tricks.as_strided(np.zeros(6, np.float32), (4, 6), (0, 4))
    np.testing.assert_array_equal(copied(shared), shared)
    with pytest.raises(NkiError, match="NKI-L055.*'x'.*share one place"):
        doubled_in_place(shared, np.ones((4, 6), np.float32))


def test_results_are_arrays_of_their_own():
    x = sample(np.float32)
    first, second = copied(x), copied(x)
    first += 1
    np.testing.assert_array_equal(second, x)
    assert not np.shares_memory(first, x)


class Wrapped:
    """Something of another package that becomes a numpy array."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self._array.copy()


def test_what_becomes_an_array_can_be_read_and_not_written():
    x = np.ones((4, 6), np.float32)
    np.testing.assert_array_equal(copied(Wrapped(x)), x)
    with pytest.raises(NkiError, match="NKI-L055.*Wrapped"):
        doubled_in_place(Wrapped(x), x)


def test_torch_and_jax_are_not_imported():
    code = (
        "import sys, numpy as np, nki; sys.path.insert(0, 'tests/frontend/launch');"
        "import test_arrays; test_arrays.copied(np.ones((2, 2), np.float32));"
        "assert not {'torch', 'jax'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install nki-sim[torch]")


TORCH = [
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "int16",
    "int32",
    "bool",
]


@pytest.mark.parametrize("name", TORCH)
def test_torch_tensors_come_back_as_torch_tensors(torch, name):
    x = torch.from_numpy(sample(np.float32)).to(getattr(torch, name))
    result = copied(x)
    assert isinstance(result, torch.Tensor) and result.dtype == x.dtype and result.shape == x.shape
    assert torch.equal(result.to(torch.float32), x.to(torch.float32))


def test_torch_views_and_gradients(torch):
    base = torch.arange(96, dtype=torch.float32).reshape(8, 12)
    for x in (base.T, base[::2, ::3], base.clone().requires_grad_(), base.expand(8, 12)):
        assert torch.equal(copied(x), x.detach())
    with pytest.raises(NkiError, match=r"NKI-L024.*\.to\(torch\.float32\)"):
        copied(base.double())


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_torch_tensors_are_written_in_place(torch, name):
    kind = getattr(torch, name)
    base = torch.zeros((8, 12), dtype=kind)
    doubled_in_place(base[::2, 1:7], torch.ones((4, 6), dtype=kind))
    assert base.sum() == 24
    with pytest.raises(NkiError, match="NKI-L055.*gradient"):
        doubled_in_place(torch.ones((4, 6), requires_grad=True), torch.ones((4, 6)))
    with pytest.raises(NkiError, match="NKI-L055.*share one place"):
        doubled_in_place(torch.ones((1, 6)).expand(4, 6), torch.ones((4, 6)))


def test_torch_tensors_that_are_only_read_never_change(torch):
    x, y = torch.ones((4, 6)), torch.full((4, 6), 2.0)
    doubled_in_place(x, y)
    assert (x == 3).all() and (y == 2).all()
    result = copied(y)
    result += 1
    assert (y == 2).all()


def test_sparse_torch_tensors_are_refused(torch):
    x = torch.eye(4).to_sparse()
    with pytest.raises(NkiError, match=r"NKI-L024.*torch\.sparse_coo.*x\.to_dense"):
        copied(x)
    assert torch.equal(copied(x.to_dense()), torch.eye(4))


def test_mixed_torch_and_numpy_give_torch(torch):
    result = doubled_in_place(np.ones((4, 6), np.float32), torch.ones((4, 6)))
    assert isinstance(result, torch.Tensor) and result.dtype == torch.int32


def test_a_dtype_torch_lacks(torch):
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=nl.float8_e4m3, buffer=nl.shared_hbm)
        nl.store(out, nl.load(x, dtype=nl.float8_e4m3))
        return out

    with pytest.raises(NkiError, match="NKI-L025.*float8_e4m3.*torch"):
        kernel(torch.ones((2, 2)))


@nki.jit
def cast_to(x, dtype):
    assert dtype == nl.bfloat16
    out = nl.ndarray(x.shape, dtype=dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x, dtype=dtype))
    return out


def test_dtypes_of_torch_are_those_of_nki(torch):
    x = torch.ones((2, 2))
    with runtime.session() as session:
        assert cast_to(x, torch.bfloat16).dtype == torch.bfloat16
        cast_to(x, torch.bfloat16)
    assert session.launches[0].program is session.launches[1].program
    with pytest.raises(NkiError, match="NKI-L024.*'dtype'.*torch.float64"):
        cast_to(x, torch.float64)


# --- JAX


@pytest.fixture
def jnp():
    return pytest.importorskip("jax.numpy", reason="jax is not installed: pip install nki-sim[jax]")


JAX = [
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "bool",
]


@pytest.mark.parametrize("name", JAX)
def test_jax_arrays_come_back_as_jax_arrays(jnp, name):
    import jax

    x = jnp.asarray(sample(np.float32)).astype(getattr(jnp, name))
    result = copied(x)
    assert isinstance(result, jax.Array) and result.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(result), np.asarray(x))


def test_dtypes_of_jax_are_those_of_nki(jnp):
    assert cast_to(jnp.ones((2, 2)), jnp.bfloat16).dtype == jnp.bfloat16
    assert cast_to(np.ones((2, 2), np.float32), jnp.bfloat16).dtype == ml_dtypes.bfloat16
    with pytest.raises(NkiError, match="NKI-L024.*'dtype'.*int4"):
        cast_to(jnp.ones((2, 2)), jnp.int4)


def test_jax_arrays_cannot_be_written(jnp):
    x = jnp.ones((4, 6))
    with pytest.raises(NkiError, match="NKI-L055.*'x'.*JAX.*never changes"):
        doubled_in_place(x, x)


def test_torch_beside_jax_is_refused(torch, jnp):
    with pytest.raises(NkiError, match="NKI-L024.*torch.*JAX"):
        doubled_in_place(torch.ones((4, 6)), jnp.ones((4, 6)))
