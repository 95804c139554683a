"""TensorView against numpy's own views, and through the parser inside kernels."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check
from nki_isa.diagnostics import NkiError
from nkilib.core.utils.tensor_view import TensorView


def base(shape, buffer=nl.hbm, offset=0):
    """What a TensorView reads of a tensor."""
    strides = TensorView.get_trivial_strides(shape)
    return SimpleNamespace(shape=shape, strides=strides, offset=offset, dtype=nl.float32, buffer=buffer)


def elements(view, size):
    """The elements of a storage of `size` that the view shows, by their numbers."""
    flat = np.arange(size)[view.offset :]
    return np.lib.stride_tricks.as_strided(flat, view.shape, [8 * stride for stride in view.strides])


@st.composite
def steps(draw, shape):
    """A view method with arguments that fit `shape`, and the same done by numpy."""
    rank = len(shape)
    dim = draw(st.integers(0, rank - 1))
    kind = draw(st.sampled_from(["slice", "permute", "broadcast", "reshape", "expand", "squeeze", "select"]))
    if kind == "slice":
        start = draw(st.integers(0, shape[dim] - 1))
        end, step = draw(st.integers(start + 1, shape[dim] + 3)), draw(st.integers(1, 3))
        key = (slice(None),) * dim + (slice(start, end, step),)
        return ("slice", (dim, start, end, step)), lambda a: a[key]
    if kind == "permute":
        order = tuple(draw(st.permutations(range(rank))))
        return ("permute", (order,)), lambda a: a.transpose(order)
    if kind == "expand":
        return ("expand_dim", (dim,)), lambda a: np.expand_dims(a, dim)
    if kind == "select" and rank > 1:
        index = draw(st.integers(0, shape[dim] - 1))
        return ("select", (dim, index)), lambda a: a.take(index, axis=dim)
    if kind in ("broadcast", "squeeze") and shape[dim] == 1:
        if kind == "squeeze" and rank > 1:
            return ("squeeze_dim", (dim,)), lambda a: a.squeeze(dim)
        return ("broadcast", (dim, 3)), lambda a: np.repeat(a, 3, axis=dim)
    factor = draw(st.sampled_from([f for f in range(1, shape[dim] + 1) if shape[dim] % f == 0]))
    parts = (factor, shape[dim] // factor)
    asked = draw(st.sampled_from([parts, (-1, parts[1]), (parts[0], -1)]))
    return ("reshape_dim", (dim, asked)), lambda a: a.reshape(a.shape[:dim] + parts + a.shape[dim + 1 :])


@given(st.data(), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_methods_are_those_of_numpy(data, shape):
    view, expected = TensorView(base(tuple(shape))), np.arange(np.prod(shape)).reshape(shape)
    for _ in range(4):
        (name, args), by_numpy = data.draw(steps(view.shape))
        view, expected = getattr(view, name)(*args), by_numpy(expected)
        assert view.shape == expected.shape and view.get_dim() == expected.ndim
        np.testing.assert_array_equal(elements(view, int(np.prod(shape))), expected)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_split_dimensions_flatten_again(shape, data):
    start = data.draw(st.integers(0, len(shape) - 1))
    end = data.draw(st.integers(start, len(shape) - 1))
    view = TensorView(base(tuple(shape)))
    flat = view.flatten_dims(start, end)
    assert flat.reshape_dim(start, tuple(shape[start : end + 1])).shape == view.shape
    np.testing.assert_array_equal(elements(flat, int(np.prod(shape))).ravel(), np.arange(np.prod(shape)))


def test_rearrange():
    numbers = np.arange(128 * 24 * 2).reshape(128, 24, 2)
    view = TensorView(base(numbers.shape)).rearrange(
        src_pattern=("p", ("h", "w"), "c"), dst_pattern=("p", "c", "h", "w"), fixed_sizes={"h": 4}
    )
    expected = numbers.reshape(128, 4, 6, 2).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(elements(view, numbers.size), expected)
    merged = TensorView(base(numbers.shape)).rearrange(("p", "w", "c"), (("p", "w"), "c"))
    assert merged.shape == (128 * 24, 2)


def test_a_view_starts_where_its_tensor_does():
    part = SimpleNamespace(shape=(4, 2), strides=(8, 2), offset=5, dtype=nl.float32, buffer=nl.hbm)
    view = TensorView(TensorView(part)).slice(0, 1, 3)
    assert (view.shape, view.strides, view.offset, view.dtype) == ((2, 2), (8, 2), 13, nl.float32)


REFUSED = [
    (nl.sbuf, "permute", ((1, 0),), "keeps the partitions"),
    (nl.hbm, "permute", ((0, 0),), "each dimension from 0 to 1 once"),
    (nl.hbm, "permute", ((0,),), "takes 2 numbers"),
    (nl.sbuf, "broadcast", (0, 4), "is the partitions"),
    (nl.hbm, "broadcast", (1, 4), "size 1; dimension 1 has 6"),
    (nl.sbuf, "reshape_dim", (0, (2, 2)), "is the partitions"),
    (nl.psum, "reshape_dim", (0, (2, 2)), "is the partitions"),
    (nl.hbm, "reshape_dim", (1, (4, 2)), "does not make up the 6 elements"),
    (nl.hbm, "reshape_dim", (1, (-1, -1)), "at most one -1"),
    (nl.hbm, "reshape_dim", (1, (4, -1)), "does not make up the 6 elements"),
    (nl.sbuf, "flatten_dims", (0, 1), "is the partitions"),
    (nl.hbm, "flatten_dims", (1, 0), "start_dim <= end_dim"),
    (nl.sbuf, "expand_dim", (0,), "is the partitions"),
    (nl.hbm, "expand_dim", (3,), "position from 0 to 2, got 3"),
    (nl.hbm, "squeeze_dim", (1,), "size 1; dimension 1 has 6"),
    (nl.hbm, "select", (1, 6), "takes an index below it, got 6"),
    (nl.hbm, "slice", (1, 6, 8), "got start 6, end 8"),
    (nl.hbm, "slice", (1, 2, 2), "got start 2, end 2"),
    (nl.hbm, "slice", (2, 0, 1), "dimension from 0 to 1, got 2"),
    (nl.hbm, "slice", (1, 0, 4, 0), "step of at least 1"),
    (nl.hbm, "rearrange", (("a",), ("a",)), "names 1 dimensions of 2"),
    (nl.hbm, "rearrange", (("a", "b"), ("a", "c")), "c is not in"),
    (nl.hbm, "reshape", ((24,),), "write reshape_dim"),
]


@pytest.mark.parametrize("buffer, method, args, message", REFUSED)
def test_refusals(buffer, method, args, message):
    view = TensorView(base((4, 6), buffer))
    with pytest.raises(AssertionError, match=message):
        getattr(view, method)(*args)


def test_gaps_do_not_flatten():
    with pytest.raises(AssertionError, match="dimension 0 has stride 6, not 3"):
        TensorView(base((4, 6))).slice(1, 0, 3).flatten_dims(0, 1)


def test_partitions_of_a_chip_tensor_can_be_sliced():
    view = TensorView(base((128, 6), nl.sbuf)).slice(0, 32, 64).reshape_dim(0, (32,))
    assert (view.shape, view.offset, view.is_sbuf()) == ((32, 6), 192, True)


@nki.jit
def transposed(x, index, step):
    """x[::step][index] of [n, a, b], as [b, a]; the index is known at run time."""
    at = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=at, src=index)
    view = TensorView(x).slice(0, 0, x.shape[0], step).select(0, at)
    kernel_view = view.permute((1, 0))
    tile = nl.ndarray((x.shape[2], x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=kernel_view.get_view())
    out = nl.ndarray(tile.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    copied = nl.ndarray((x.shape[2], x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    halves = TensorView(tile).rearrange(("p", ("h", "w")), ("p", "w", "h"), {"h": 2})
    turned = TensorView(copied).reshape_dim(1, (2, -1)).permute((0, 2, 1))
    nisa.tensor_copy(dst=turned.get_view(), src=halves.get_view())
    nisa.dma_copy(dst=out, src=copied)
    return out


@pytest.mark.parametrize("level", ["0.2", "0.6"])
@pytest.mark.parametrize("step", [1, 2])
def test_inside_a_kernel(level, step):
    """With step 2 the stride of the selected dimension is of no dimension of the tensor."""
    assert check(transposed, "strict") == []
    x = np.random.default_rng(0).standard_normal((8, 4, 6)).astype(np.float32)
    before = levels.use(level)
    try:
        for index in (0, 3):
            result = transposed(x, np.array([[index]], np.int32), step)
            np.testing.assert_array_equal(result, x[::step][index].T)
    finally:
        levels.use(before)


@nki.jit
def selects_twice(x, index):
    at = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=at, src=index)
    TensorView(x).select(0, at).select(0, at)


def test_one_runtime_index():
    with pytest.raises(NkiError, match="one run-time index") as caught:
        selects_twice(np.zeros((4, 4), np.float32), np.zeros((1, 1), np.int32))
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]
