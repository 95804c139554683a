"""Functions of nki.language that make and move tiles, against numpy."""

import numpy as np
import pytest
from running import call, random

import nki
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target


def test_transpose():
    x = random(32, 48)
    result, made = call(nl.transpose, x)
    np.testing.assert_array_equal(result, x.T)
    assert made[0] == "nc_transpose"


def test_matmul():
    x, y = random(64, 32), random(64, 100, seed=1)
    result, made = call(nl.matmul, x, y, transpose_x=True)
    np.testing.assert_allclose(result, x.T @ y, rtol=1e-4, atol=1e-4)
    assert made[0] == "nc_matmul"
    with pytest.raises(NkiError, match=r"NKI-V140.*transpose_x=True.*nl\.transpose"):
        call(nl.matmul, x, y)


@pytest.mark.parametrize(
    "shape, wanted", [((16, 1), (16, 8)), ((1, 8), (40, 8)), ((1, 1), (128, 3)), ((4, 8), (4, 8))]
)
def test_broadcast_to(shape, wanted):
    x = random(*shape)
    np.testing.assert_array_equal(call(nl.broadcast_to, x, shape=wanted)[0], np.broadcast_to(x, wanted))


def test_broadcast_to_refuses_other_shapes():
    with pytest.raises(NkiError, match="NKI-V103"):
        call(nl.broadcast_to, random(4, 2), shape=(4, 8))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_expand_dims(axis):
    x = random(4, 6)
    np.testing.assert_array_equal(call(nl.expand_dims, x, axis=axis)[0], np.expand_dims(x, axis))


def test_gather_flattened():
    data = random(16, 4, 10)
    indices = np.random.default_rng(0).integers(0, 40, (16, 7)).astype(np.uint32)
    result, made = call(nl.gather_flattened, data, indices)
    np.testing.assert_array_equal(result, np.take_along_axis(data.reshape(16, 40), indices.astype(int), 1))
    assert made == ["nc_n_gather"]
    with pytest.raises(NkiError, match="NKI-U011"):
        call(nl.gather_flattened, data, indices, axis=1)


def test_copy_of_large_integers_is_exact():
    x = np.array([[2**30 + 1, -(2**31), 7]], np.int32)
    np.testing.assert_array_equal(call(nl.copy, x)[0], x)


@nki.jit
def _load_transposed(x, dtype):
    tile = nl.load_transpose2d(x, dtype)
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def test_load_transpose2d():
    x = random(64, 32)
    np.testing.assert_array_equal(_load_transposed(x, None), x.T)
    np.testing.assert_array_equal(_load_transposed(x, nl.float16), x.T.astype(np.float16))


@nki.jit
def _load_as(x, dtype):
    tile = nl.load(x, dtype=dtype)
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(dst=out, value=tile)
    return out


def test_load_with_a_dtype():
    x = random(8, 8)
    np.testing.assert_array_equal(_load_as(x, nl.float16), x.astype(np.float16))


def _loaded_twice(x):
    return nl.load(x)


def _psum_stored(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.transpose(x))
    return x


def _hbm_copied(x):
    return nl.copy(nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm))


@pytest.mark.parametrize(
    "function, help", [(_loaded_twice, "nl.copy"), (_psum_stored, "nl.copy"), (_hbm_copied, "nl.load")]
)
def test_memories(function, help):
    with pytest.raises(NkiError, match=f"NKI-V101.*{help}"):
        call(function, random(8, 8))


# --- random numbers


@nki.jit
def _drawn(seed, dtype):
    words = nl.full((1, 1), seed, dtype=nl.int32)
    nl.random_seed(words)
    tile = nl.rand((128, 512), dtype)
    out = nl.ndarray((128, 512), dtype=dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


@pytest.mark.parametrize("target, opcode", [("trn2", "rng"), ("trn3", "rand2")])
def test_rand(target, opcode):
    with runtime.session(target=as_target(target)) as session:
        first, again, other = _drawn(7, nl.float32), _drawn(7, nl.float32), _drawn(8, nl.float32)
    assert opcode in [i.opcode for i in session.launches[0].program.walk()]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() >= 0 and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.01 and abs(first.var() - 1 / 12) < 0.01


def test_random_seed_takes_a_tensor():
    @nki.jit
    def kernel(x):
        nl.random_seed(42)

    with pytest.raises(NkiError, match=r"NKI-V100.*nl\.full\(\(1, 1\), 42"):
        kernel(random(2, 2))


def test_dropout():
    x = random(128, 256, low=1, high=2)
    result, made = call(nl.dropout, x, 0.25)
    assert made == ["dropout"]
    kept = result != 0
    np.testing.assert_array_equal(result[kept], x[kept])
    assert abs(kept.mean() - 0.75) < 0.02


# --- creation


@nki.jit
def _made(x):
    tile = nl.load(x)
    out = nl.ndarray((6, 4, 6), dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out[0], nl.zeros(x.shape, nl.float32))
    nl.store(out[1], nl.ones(x.shape, nl.float32))
    nl.store(out[2], nl.full(x.shape, 2.5, nl.float32))
    nl.store(out[3], nl.zeros_like(tile))
    like = nl.empty_like(tile)
    nl.store(out[4], nl.add(tile, tile))
    filled = nl.full(x.shape, 7.0, nl.float32, buffer=nl.private_hbm)
    nl.store(out[5], nl.load(filled))
    return out, like.shape == x.shape


def test_creation():
    x = random(4, 6)
    out, same = _made(x)
    assert same is True
    for row, expected in zip(out, [0, 1, 2.5, 0, 2 * x, 7]):
        np.testing.assert_array_equal(row, np.broadcast_to(np.float32(expected), x.shape))
