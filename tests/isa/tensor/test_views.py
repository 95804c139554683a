"""What views do with their dimensions, one by one and in chains, against numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_views import F32, HBM, PSUM, SBUF, check_box, make, numpy_key, positions, reference, refused, same
from numpy.lib.stride_tricks import as_strided

from nki_isa.diagnostics import NkiError
from nki_isa.tensor.kinds import kind_of
from nki_isa.tensor.strides import is_row_major, reach, restride
from nki_isa.tensor.tensor import ds

# --- reordering and reshaping


def test_permute():
    t, h = make((4, 5, 6)), make((4, 5, 6), HBM)
    same(t.permute((0, 2, 1)), reference(t).transpose(0, 2, 1))
    same(h.permute([2, 0, 1]), reference(h).transpose(2, 0, 1))
    assert not t.permute((0, 2, 1)).is_contiguous()
    refused("NKI-V015", lambda: t.permute((1, 0, 2)))
    for dims in [(0, 1), (0, 1, 1), (0, 1, 3), (0, 1, -1)]:
        refused("NKI-V017", lambda dims=dims: t.permute(dims))


def test_broadcast():
    t = make((4, 1, 6))
    same(t.broadcast(1, 3), np.broadcast_to(reference(t), (4, 3, 6)))
    same(make((1, 6), HBM).broadcast(0, 3), np.broadcast_to(np.arange(6), (3, 6)))
    refused("NKI-V013", lambda: t.broadcast(1, 0))
    refused("NKI-V014", lambda: t.broadcast(3, 2))
    refused("NKI-V015", lambda: make((1, 6)).broadcast(0, 4))
    refused("NKI-V016", lambda: t.broadcast(2, 2))


def test_expand_and_squeeze():
    t = make((4, 6))
    assert (t.expand_dim(1).shape, t.expand_dim(1).strides) == ((4, 1, 6), (6, 6, 1))
    same(t.expand_dim(2), reference(t)[:, :, None])
    same(t.expand_dim(1).squeeze_dim(1), reference(t))
    same(make((1, 6), HBM).squeeze_dim(0), np.arange(6))
    same(make((6,), HBM).expand_dim(0), np.arange(6)[None])
    refused("NKI-V014", lambda: t.expand_dim(3))
    refused("NKI-V014", lambda: t.squeeze_dim(2))
    refused("NKI-V015", lambda: t.expand_dim(0))
    refused("NKI-V015", lambda: make((1, 1, 6)).squeeze_dim(0))
    refused("NKI-V016", lambda: t.squeeze_dim(1))
    refused("NKI-V033", lambda: make((4, 1)).squeeze_dim(1))
    refused("NKI-V033", lambda: make((1,), HBM).squeeze_dim(0))


def test_reshape_dim():
    t = make((4, 24))
    same(t.reshape_dim(1, (4, 6)), reference(t).reshape(4, 4, 6))
    same(t.reshape_dim(1, (4, -1)), reference(t).reshape(4, 4, 6))
    same(t[:, ::2].reshape_dim(1, (3, -1)), reference(t)[:, ::2].reshape(4, 3, 4))
    same(t.reshape_dim(0, (4,)), reference(t))
    same(make((4, 6), HBM).reshape_dim(0, (2, 2)), np.arange(24).reshape(2, 2, 6))
    refused("NKI-V014", lambda: t.reshape_dim(2, (1,)))
    refused("NKI-V015", lambda: t.reshape_dim(0, (2, 2)))
    for sizes in [(4, 5), (-1, -1), (5, -1), (0, -1), (-24, -1)]:
        refused("NKI-V018", lambda sizes=sizes: t.reshape_dim(1, sizes))


def test_flatten_dims():
    t = make((4, 2, 3, 5))
    same(t.flatten_dims(1, 2), reference(t).reshape(4, 6, 5))
    same(t.flatten_dims(2, 2), reference(t))
    same(t[:, :, :, ::4].flatten_dims(1, 2), reference(t)[:, :, :, ::4].reshape(4, 6, 2))
    same(make((4, 6), HBM).flatten_dims(0, 1), np.arange(24))
    refused("NKI-V014", lambda: t.flatten_dims(2, 4))
    refused("NKI-V014", lambda: t.flatten_dims(3, 2))
    refused("NKI-V015", lambda: t.flatten_dims(0, 1))
    refused("NKI-V019", lambda: t.permute((0, 2, 1, 3)).flatten_dims(1, 2))
    refused("NKI-V019", lambda: t[:, :, 0:2].flatten_dims(1, 2))


def test_reshape():
    t = make((4, 4, 6))
    same(t.reshape((4, 24)), reference(t).reshape(4, 24))
    same(t.reshape([4, 2, 12]), reference(t).reshape(4, 2, 12))
    same(t[1:3, 1:2].reshape((2, 3, 2)), reference(t)[1:3, 1:2].reshape(2, 3, 2))
    same(make((4, 6), HBM).reshape((24,)), np.arange(24))
    same(make((4, 1), PSUM).reshape((4, 1, 1)), np.arange(4).reshape(4, 1, 1))
    refused("NKI-V015", lambda: t.reshape((8, 12)))
    refused("NKI-V018", lambda: t.reshape((4, 25)))
    refused("NKI-V018", lambda: t.reshape((4, -1)))
    refused("NKI-V018", lambda: t.reshape((4, -4, -6)))
    refused("NKI-V019", lambda: t.permute((0, 2, 1)).reshape((4, 24)))
    refused("NKI-V019", lambda: t[:, :, 0:3].reshape((4, 12)))
    refused("NKI-V033", lambda: make((4, 1)).reshape((4,)))
    refused("NKI-V012", lambda: t.reshape((4, 24.0)))


def test_rearrange():
    t, h = make((4, 24)), make((4, 6, 5), HBM)
    same(
        t.rearrange(("b", ("h", "w")), ("b", "w", "h"), {"h": 4}),
        reference(t).reshape(4, 4, 6).transpose(0, 2, 1),
    )
    same(h.rearrange(("a", "b", "c"), (("a", "b"), "c")), reference(h).reshape(24, 5))
    same(
        h.rearrange(("a", ("x", "y", "z"), "c"), ("c", ("a", "x"), "y", "z"), {"x": 2, "y": 3}),
        reference(h).reshape(4, 2, 3, 1, 5).transpose(4, 0, 1, 2, 3).reshape(5, 8, 3, 1),
    )
    same(h.rearrange(("a", "b", "c"), ("b", "a", "c"), {"a": 4}), reference(h).transpose(1, 0, 2))
    refused("NKI-V015", lambda: t.rearrange(("b", "f"), ("f", "b")))
    refused("NKI-V018", lambda: t.rearrange(("b", ("h", "w")), ("b", "w", "h"), {"h": 5}))
    refused("NKI-V018", lambda: t.rearrange(("b", ("h", "w")), ("b", "w", "h")))
    refused("NKI-V018", lambda: t.rearrange(("b", "f"), ("b", "f"), {"f": 12}))
    refused("NKI-V019", lambda: h.rearrange(("a", "b", "c"), (("a", "c"), "b")))
    for source, target, sizes in [
        (("b",), ("b",), {}),
        (("b", "b"), ("b", "b"), {}),
        (("b", "f"), ("b", "g"), {}),
        (("b", "f"), ("b",), {}),
        (("b", "f"), ("b", "f"), {"g": 1}),
        (("b", ()), ("b",), {}),
        (("b", 3), ("b", 3), {}),
    ]:
        refused("NKI-V028", lambda s=source, d=target, n=sizes: t.rearrange(s, d, n))


@pytest.mark.parametrize(
    "call, signature",
    [
        (lambda t: t.permute(), "permute(dims)"),
        (lambda t: t.reshape(8, 32), "reshape(shape)"),
        (lambda t: t.view(dtype=F32, order="C"), "view(dtype)"),
        (lambda t: t.broadcast(0), "broadcast(dim, size)"),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_the_signature(call, signature):
    with pytest.raises(NkiError) as caught:
        call(make((4, 64)))
    (found,) = caught.value.diagnostics
    assert found.code == "NKI-L012" and found.help == f"its signature is {signature}"


def test_a_dimension_of_one_element_may_step_anyhow():
    assert is_row_major((4, 1, 8), (8, 999, 1)) and is_row_major((1, 8), (3, 1))
    assert not is_row_major((4, 2), (3, 1)) and not is_row_major((2, 8), (8, -1))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-9, 9)), min_size=1, max_size=4))
def test_how_far_a_view_reaches(dims):
    shape, strides = zip(*dims, strict=True)
    places = [sum(i * s for i, s in zip(at, strides, strict=True)) for at in np.ndindex(*shape)]
    assert reach(shape, strides) == (min(places), max(places))


@pytest.mark.parametrize(
    "value, text",
    [
        (1 << 128, f"int {1 << 128}"),
        ((1 << 128) + 1, "int 2**128"),
        (10**400, "int 2**1329"),
        (-(10**400), "int -2**1329"),
        (None, "None"),
        (np.zeros((2, 3), np.int8), "a numpy array int8[2, 3]"),
    ],
)
def test_values_in_messages_are_short(value, text):
    assert kind_of(value) == text


def test_contiguity():
    t = make((4, 6, 5))
    assert t[1:3].is_contiguous() and t[:, 2:3].is_contiguous() and t[:, 1].is_contiguous()
    assert not t[:, :, 0:3].is_contiguous()
    assert not t[:, :, ::2].is_contiguous()
    assert t[:, 0:2].is_contiguous()  # partitions do not count
    assert not make((4, 6, 5), HBM)[:, 0:2].is_contiguous()
    assert make((4, 6, 5), HBM)[1:3].is_contiguous()


def test_a_dimension_of_one_element_steps_by_what_is_inside_of_it():
    assert restride((4,), (1,), (1, 4, 1)) == (4, 1, 1)
    assert restride((4,), (2,), (1, 2, 1, 2)) == (8, 4, 4, 2)
    assert restride((1,), (7,), (1, 1)) == (1, 1)


@given(st.data())
def test_restride_is_numpy_reshape_without_a_copy(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    view = np.arange(math.prod(sizes)).reshape(sizes).transpose(data.draw(st.permutations(range(len(sizes)))))
    view = view[tuple(slice(None, None, data.draw(st.integers(1, 2))) for _ in sizes)]
    new = data.draw(factorizations(view.size))
    strides = restride(view.shape, [s // 8 for s in view.strides], new)
    try:
        expected = np.reshape(view, new, copy=False)
    except ValueError:
        assert strides is None
    else:
        assert strides is not None
        assert np.array_equal(as_strided(view, new, [8 * s for s in strides]), expected)


@st.composite
def factorizations(draw, total):
    """Sizes, some of them 1, whose product is `total`."""
    sizes = []
    while total > 1:
        sizes.append(draw(st.sampled_from([n for n in range(2, total + 1) if total % n == 0])))
        total //= sizes[-1]
    for _ in range(draw(st.integers(0 if sizes else 1, 2))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return tuple(sizes)


# --- chains of views against numpy


def indexed(data, view, cells):
    key = [data.draw(index_of(size)) for size in view.shape[: data.draw(st.integers(0, view.ndim))]]
    if view.storage.on_chip and key and isinstance(key[0], slice):
        key[0] = slice(key[0].start, key[0].stop)
    if data.draw(st.booleans()):
        key.append(Ellipsis)
    return view[tuple(key)], cells[numpy_key(tuple(key), view)]


@st.composite
def index_of(draw, size):
    start = draw(st.integers(0, size - 1))
    stop = draw(st.integers(start + 1, size))
    return draw(
        st.sampled_from(
            [
                start,
                start - size,
                slice(None),
                slice(start, stop, draw(st.integers(1, 3))),
                ds(start, stop - start),
            ]
        )
    )


def permuted(data, view, cells):
    fixed = int(view.storage.on_chip)
    dims = [*range(fixed), *data.draw(st.permutations(range(fixed, view.ndim)))]
    return view.permute(dims), cells.transpose(dims)


def expanded(data, view, cells):
    dim = data.draw(st.integers(int(view.storage.on_chip), view.ndim))
    size = data.draw(st.integers(1, 3))
    return view.expand_dim(dim).broadcast(dim, size), np.repeat(np.expand_dims(cells, dim), size, dim)


def squeezed(data, view, cells):
    dims = [d for d in range(view.storage.on_chip, view.ndim) if view.shape[d] == 1]
    if not dims or view.ndim == 1 + view.storage.on_chip:
        return view, cells
    dim = data.draw(st.sampled_from(dims))
    return view.squeeze_dim(dim), cells.squeeze(dim)


def split(data, view, cells):
    dim = data.draw(st.integers(int(view.storage.on_chip), view.ndim - 1))
    sizes = data.draw(factorizations(view.shape[dim]))
    return view.reshape_dim(dim, sizes), cells.reshape(*cells.shape[:dim], *sizes, *cells.shape[dim + 1 :])


def reshaped(data, view, cells):
    fixed = view.shape[: view.storage.on_chip]
    sizes = fixed + data.draw(factorizations(view.size // math.prod(fixed)))
    try:
        return view.reshape(sizes), cells.reshape(sizes)
    except NkiError as refusal:  # numpy agrees that it cannot be a view
        assert refusal.diagnostics[0].code == "NKI-V019"
        with pytest.raises(ValueError):
            np.reshape(positions(view), sizes, copy=False)
        return view, cells


def reaccessed(data, view, cells):
    return view.ap(view.get_pattern()), cells


def turned(data, view, cells):
    first = 1 if view.buffer.on_chip else 0
    dim = data.draw(st.integers(first, view.ndim - 1)) if view.ndim > first else None
    if dim is None:
        return view, cells
    pattern = [list(pair) for pair in view.get_pattern()]
    last = view.offset + pattern[dim][0] * (pattern[dim][1] - 1)
    pattern[dim][0] *= -1
    return view.ap(pattern, last), np.flip(cells, dim)


STEPS = [turned, indexed, permuted, expanded, squeezed, split, reshaped, reaccessed]


@settings(max_examples=400)
@given(data=st.data())
def test_chains_of_views_are_those_of_numpy(data):
    region = data.draw(st.sampled_from([SBUF, HBM]))
    t = make(data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)), region)
    view, cells = t, reference(t)
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
        if view.ndim < 7:
            view, cells = step(data, view, cells)
            same(view, cells)
    check_box(view)
