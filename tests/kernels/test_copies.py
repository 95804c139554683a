"""Copies between partitions and engines, inside kernels at the first and the newest API level."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nkilib.core.utils.cross_partition_copy import cross_partition_copy
from nkilib.core.utils.interleave_copy import interleave_copy
from nkilib.core.utils.stream_shuffle_broadcast import stream_shuffle_broadcast
from nkilib.core.utils.tensor_view import TensorView
from nkilib.core.utils.tp_broadcast import tp_broadcast


@pytest.fixture(params=["0.2", "0.6"])
def level(request):
    before = levels.use(request.param)
    yield
    levels.use(before)


def load(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    return tile


def store(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def clean(kernel, *args):
    """The result of a kernel in which strict language and all checks find nothing."""
    assert check(kernel, "strict") == []
    with session(warnings_as_errors=True) as record:
        result = kernel(*args)
    assert record.launches[-1].diagnostics == ()
    return result


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@nki.jit
def broadcast_partition(x, partitions):
    tile = nl.ndarray((partitions, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    stream_shuffle_broadcast(load(x), tile)
    return store(tile)


@pytest.mark.parametrize("partitions", [1, 31, 32, 70, 128])
def test_stream_shuffle_broadcast(partitions, level):
    x = normal(3, 20)
    result = clean(broadcast_partition, x, partitions)
    np.testing.assert_array_equal(result, np.repeat(x[:1], partitions, axis=0))


@nki.jit
def broadcast_column(x, partitions, column):
    tile = nl.ndarray((partitions, x.shape[0]), dtype=x.dtype, buffer=nl.sbuf)
    tp_broadcast(load(x), tile, column)
    return store(tile)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape, partitions, column", [((128, 4), 128, 3), ((60, 1), 5, 0)])
def test_tp_broadcast(shape, partitions, column, dtype, level):
    x = normal(*shape, dtype=dtype)
    result = clean(broadcast_column, x, partitions, column)
    np.testing.assert_array_equal(result, np.repeat(x[:, column][None], partitions, axis=0))


@nki.jit
def move_partitions(x, y, source, target, count, columns):
    tile = load(y)
    cross_partition_copy(load(x), tile, source, target, count, columns)
    return store(tile)


@pytest.mark.parametrize(
    "source, target, count, columns",
    [(0, 0, 128, 8), (64, 32, 64, 8), (0, 64, 64, 3), (5, 70, 50, 8), (31, 32, 97 - 32, 2), (99, 1, 20, 8)],
)
def test_cross_partition_copy(source, target, count, columns, level):
    x, y = normal(120 if source + count <= 120 else 128, 8), -normal(128, 8)
    expected = y.copy()
    expected[target : target + count, :columns] = x[source : source + count, :columns]
    result = clean(move_partitions, x, y, source, target, count, columns)
    np.testing.assert_array_equal(result, expected)


@nki.jit
def interleaved(x, scale, bias, dtype, index, viewed):
    tile = load(x)
    done = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    scale_sb = None if scale is None else load(scale)
    bias_sb = None if bias is None else load(bias)
    if viewed:
        scale_sb = TensorView(scale_sb).flatten_dims(1, 1)
    interleave_copy(done, tile, scale_sb, bias_sb, index)
    return store(done)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("scale", [None, (64, 1), (64, 12)], ids=str)
@pytest.mark.parametrize("bias", [None, (64, 1), (64, 12)], ids=str)
def test_interleave_copy(index, scale, bias, level):
    x = normal(64, 12)
    s, b = (None if shape is None else np.abs(normal(*shape)) for shape in (scale, bias))
    expected = x * (1 if s is None else s) + (0 if b is None else b)
    result = clean(interleaved, x, s, b, nl.float32, index, s is not None)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    with session(data=False) as record:
        interleaved(x, s, b, nl.float32, index, False)
    by_scalar = {
        i.opcode == "activation" or getattr(i, "engine", None) is nisa.scalar_engine
        for i in record.launches[-1].program.walk()
        if i.opcode != "dma_copy"
    }
    assert by_scalar == {index == 0 and (64, 12) not in (scale, bias)}


@pytest.mark.parametrize("index", [0, 1])
def test_scale_of_another_dtype(index, level):
    """Only float32 can be an operand per partition; bf16 is broadcast."""
    x, scale = normal(64, 12), normal(64, 1, dtype=ml_dtypes.bfloat16)
    result = clean(interleaved, x, scale, scale, nl.bfloat16, index, False)
    s = scale.astype(np.float32)
    np.testing.assert_array_equal(result, (x * s + s).astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    "kernel, args, message",
    [
        (broadcast_column, (normal(8, 4), 5, 4), "src_offset is a column of src, below 4; got 4"),
        (
            move_partitions,
            (normal(8, 4), normal(8, 4), 1, 0, 8, 4),
            "src has 8 partitions, got 8 of them from 1",
        ),
        (
            move_partitions,
            (normal(8, 4), normal(8, 4), 0, 4, 5, 4),
            "dst has 8 partitions, got 5 of them from 4",
        ),
        (move_partitions, (normal(8, 4), normal(8, 4), 0, 0, 5, 5), "free_dim_size = 5"),
        (
            interleaved,
            (normal(8, 4), normal(7, 1), None, nl.float32, 0, False),
            "scale has 7 partitions and dst 8",
        ),
    ],
)
def test_refusals(kernel, args, message):
    with pytest.raises(NkiError, match=message) as caught:
        kernel(*args)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]
