"""Views against numpy: a storage is ``arange``, a view is the positions it shows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from nki_isa.diagnostics import NkiError, NkiValidationError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.kinds import kind_of
from nki_isa.tensor.opaque import tolerating
from nki_isa.tensor.storage import MemoryRegion, NkiScalar, Storage, VirtualRegister, computing
from nki_isa.tensor.strides import is_row_major, reach, restride
from nki_isa.tensor.tensor import DynamicSlice, NkiTensor, box, ds, signature

SBUF, PSUM = MemoryRegion.sbuf, MemoryRegion.psum
HBM, SHARED = MemoryRegion.private_hbm, MemoryRegion.shared_hbm
F32, BF16, I32, U8 = (DTYPES[name] for name in ("float32", "bfloat16", "int32", "uint8"))
REG = VirtualRegister(3)


def make(shape, region=SBUF, dtype=F32, name="t"):
    return NkiTensor.whole(Storage(0, name, region, tuple(shape), dtype))


def positions(tensor):
    """The element positions a view shows, as an array of its shape."""
    storage = tensor.storage
    total = storage.partitions * storage.row_bytes // tensor.dtype.itemsize
    cells = np.arange(total)
    steps = [stride * cells.itemsize for stride in tensor.strides]
    return as_strided(cells[tensor.offset :], tensor.shape, steps)


def reference(tensor):
    """The positions of a whole tensor, to apply numpy's own indexing to."""
    return np.arange(tensor.size).reshape(tensor.shape)


def same(view, expected):
    assert view.shape == expected.shape
    assert np.array_equal(positions(view), expected)
    if view.storage.on_chip:
        assert view.strides[0] == view.storage.row_bytes // view.dtype.itemsize


def refused(code, function):
    with pytest.raises(NkiValidationError) as caught:
        function()
    assert [d.code for d in caught.value.diagnostics] == [code], str(caught.value)
    return caught.value.diagnostics[0]


def indices(shape=(1, 1), region=SBUF, dtype=I32):
    return make(shape, region, dtype, "idx")


# --- storage and whole tensors


@pytest.mark.parametrize(
    "region, partitions, row_bytes",
    [(SBUF, 128, 2048), (PSUM, 128, 2048), (HBM, 1, 262144), (SHARED, 1, 262144)],
)
def test_storage_sizes(region, partitions, row_bytes):
    storage = make((128, 4, 256), region, BF16).storage
    assert (storage.partitions, storage.row_bytes, storage.on_chip) == (partitions, row_bytes, region.on_chip)


def test_whole_tensor_attributes():
    t = make((128, 64))
    assert (t.shape, t.strides, t.offset, t.ndim, t.size) == ((128, 64), (64, 1), 0, 2, 128 * 64)
    assert (t.dtype, t.buffer, t.name) == (F32, SBUF, "t")
    assert t.get_pattern() == [[64, 128], [1, 64]]
    assert t.is_contiguous() and not t.is_indirect()
    assert repr(t) == "t[128, 64] float32 sbuf"


# --- indexing

KEYS = [
    (slice(None), 0),
    (slice(None), 0, 10),
    (0, 0, 10),
    (-1, ..., -1),
    ...,
    (..., slice(0, 6)),
    (slice(1, 3), ...),
    (..., slice(None, None, 2)),
    (slice(-3, -1), slice(None), slice(1, None, 5)),
    (slice(None), 2, slice(-4, None)),
    (0, ..., slice(None)),
    (..., 1, slice(3, 4)),
    (slice(None), ..., slice(None), 2),
    2,
    (),
    (ds(1, 2), slice(None), ds(4, 8)),
    (slice(np.int64(1), np.int32(3)), np.int64(2)),
]


@pytest.mark.parametrize("region", list(MemoryRegion))
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_getitem_is_that_of_numpy(region, key):
    t = make((4, 5, 12), region)
    same(t[key], reference(t)[numpy_key(key, t)])


def numpy_key(key, tensor):
    """The key with which numpy keeps the dimensions that a tensor keeps."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = key[:at] + (slice(None),) * (tensor.ndim - len(key) + 1) + key[at + 1 :]
    key = list(key) + [slice(None)] * (tensor.ndim - len(key))
    key = [slice(k.start, k.start + k.size) if isinstance(k, DynamicSlice) else k for k in key]
    for keep in ([0] if tensor.storage.on_chip else []) + [tensor.ndim - 1]:
        ints = [not isinstance(k, slice) for k in key]
        if ints[keep] and (
            (keep == 0 and tensor.storage.on_chip) or tensor.ndim - sum(ints) < 1 + tensor.storage.on_chip
        ):
            k = int(key[keep]) % tensor.shape[keep]
            key[keep] = slice(k, k + 1)
    return tuple(key)


def test_documented_shapes():
    """The examples of "Tensor Indexing" in the Language Guide."""
    t = make((64, 64, 64))
    assert t[0, 0, 10].shape == (1, 1)
    assert t[:, 0].shape == (64, 64)
    assert t[:, 0, 10].shape == (64, 1)
    assert t[0:64, 0, 0:64].shape == (64, 64)
    assert t[:, :, ::2].shape == (64, 64, 32)
    assert t[0, ..., :].shape == (1, 64, 64)
    assert t[0, ...][:, 0:32, :].shape == (1, 32, 64)
    assert make((4, 128, 32), SHARED)[0, :, :].shape == (128, 32)
    u = make((128, 4, 16))[0:64, :, :].permute((0, 2, 1))[:, 0, :]
    assert u.shape == (64, 4)


BAD_KEYS = [
    ("V010", 4),
    ("V010", -5),
    ("V010", (slice(None), slice(0, 7))),
    ("V010", (slice(None), slice(-7, 2))),
    ("V010", (slice(None), ds(3, 4))),
    ("V010", (slice(None), ds(-1, 2))),
    ("V010", (slice(None), ds(REG, 7))),
    ("V011", (0, 0, 0)),
    ("V011", (..., ...)),
    ("V012", (slice(None), None)),
    ("V012", (slice(None), True)),
    ("V012", (slice(None), [0, 1])),
    ("V012", (slice(None), np.arange(2))),
    ("V012", (slice(None), 1.0)),
    ("V012", (slice(None), "a")),
    ("V012", (slice(None), REG)),
    ("V012", (slice(None), indices())),
    ("V012", (slice(None), slice(REG, 4))),
    ("V012", (slice(None), slice(0, 2.0))),
    ("V012", (slice(None), slice(0, 4, REG))),
    ("V013", (slice(None), slice(3, 3))),
    ("V013", (slice(None), slice(4, 2))),
    ("V013", (slice(None), slice(None, None, -1))),
    ("V013", (slice(None), slice(None, None, 0))),
]


@pytest.mark.parametrize("code, key", BAD_KEYS, ids=repr)
def test_bad_keys(code, key):
    assert refused(f"NKI-{code}", lambda: make((4, 6))[key]).message


def test_remedies_name_the_method():
    t = make((4, 6))
    assert "select" in refused("NKI-V012", lambda: t[:, indices()]).help
    assert "nl.ds" in refused("NKI-V012", lambda: t[:, REG]).help
    assert "expand_dim" in refused("NKI-V012", lambda: t[:, None]).help
    assert "min(end, 6)" in refused("NKI-V010", lambda: t[:, 0:7]).help
    added = refused("NKI-V011", lambda: t[:, None, :, None]).help
    assert added == "write t.expand_dim(1).expand_dim(3) to add dimensions of size 1"


@pytest.mark.parametrize(
    "compute, recorded",
    [
        (lambda s: s + 2, ("+", "s", 2)),
        (lambda s: 2 + s, ("+", 2, "s")),
        (lambda s: s - 2, ("-", "s", 2)),
        (lambda s: 2 - s, ("-", 2, "s")),
        (lambda s: s * 2, ("*", "s", 2)),
        (lambda s: 3 * s, ("*", 3, "s")),
        (lambda s: -s, ("-", 0, "s")),
        (lambda s: +s, ("+", "s", 0)),
        (lambda s: s < 2, ("<", "s", 2)),
        (lambda s: s >= 2, (">=", "s", 2)),
        (lambda s: s == 2, ("==", "s", 2)),
        (lambda s: s != 2, ("!=", "s", 2)),
    ],
)
def test_operators_of_scalars_are_recorded(compute, recorded):
    scalar, found = NkiScalar(VirtualRegister(0)), []
    with computing(lambda *asked: found.append(asked)):
        compute(scalar)
    assert [tuple("s" if each is scalar else each for each in asked) for asked in found] == [recorded]


def test_partitions_are_consecutive():
    refused("NKI-V015", lambda: make((4, 6))[::2])
    refused("NKI-V015", lambda: make((4, 6)).slice(0, 0, 4, 3))
    same(make((4, 6))[1:2:2], np.arange(6, 12).reshape(1, 6))
    same(make((4, 6), HBM)[::2], np.arange(24).reshape(4, 6)[::2])


def test_ds():
    assert repr(ds(2, 8)) == "ds(2, 8)"
    refused("NKI-V012", lambda: ds(1.5, 8))
    refused("NKI-V012", lambda: ds(0, REG))
    refused("NKI-V013", lambda: ds(0, -1))
    refused("NKI-V013", lambda: make((4, 6))[:, ds(6, 0)].check_inside())


@pytest.mark.parametrize("start", [REG, indices()])
def test_ds_at_run_time(start):
    t = make((4, 6, 8))
    view = t[1:3, ds(start, 2), 4]
    assert (view.shape, view.strides, view.offset) == ((2, 2), (48, 8), 52)
    assert view.dynamic == DynamicOffset("scalar", start, 8, -1, 5)
    refused("NKI-V024", lambda: t[:, ds(start, 2), ds(REG, 2)])
    refused("NKI-V024", lambda: view[:, ds(start, 1)])
    refused("NKI-V027", lambda: t[ds(start, 2)])
    refused("NKI-V026", lambda: t[:, ds(indices((2, 1)), 2)])
    assert make((4, 6), HBM)[ds(start, 2)].dynamic.limit == 3
    assert view[:, 1:2].dynamic is view.dynamic


# --- slice and select


def test_slice():
    t = make((4, 8, 6))
    same(t.slice(1, 2, 7, 2), reference(t)[:, 2:7:2])
    same(t.slice(2, 0, 6), reference(t))
    refused("NKI-V010", lambda: t.slice(1, 0, 9))
    refused("NKI-V010", lambda: t.slice(1, -2, 8))
    refused("NKI-V013", lambda: t.slice(1, 3, 3))
    refused("NKI-V013", lambda: t.slice(1, 0, 8, 0))
    refused("NKI-V014", lambda: t.slice(3, 0, 1))
    refused("NKI-V014", lambda: t.slice(-1, 0, 1))


def test_select():
    t, h = make((4, 8, 6)), make((4, 8, 6), HBM)
    same(t.select(1, 3), reference(t)[:, 3])
    same(t.select(0, 3), reference(t)[3:4])
    same(h.select(0, 3), reference(h)[3])
    refused("NKI-V010", lambda: t.select(1, 8))
    refused("NKI-V010", lambda: t.select(1, -1))
    refused("NKI-V014", lambda: t.select(3, 0))
    refused("NKI-V012", lambda: t.select(1, 1.0))


@pytest.mark.parametrize(
    "index", [REG, indices(), indices((1, 1), dtype=DTYPES["uint32"]), indices((4, 4))[1:2, 2:3]]
)
def test_select_at_run_time(index):
    h = make((4, 128, 8), SHARED)
    view = h.select(0, index)
    assert (view.shape, view.strides, view.offset) == ((128, 8), (8, 1), 0)
    assert view.dynamic == DynamicOffset("scalar", index, 1024, -1, 4)
    assert view.is_indirect() and not h.is_indirect()
    assert view[3:5, 2].offset == 26 and view[3:5].dynamic is view.dynamic
    sliced = h[:, :, ::2].select(2, index)
    assert (sliced.shape, sliced.dynamic.stride, sliced.dynamic.limit) == ((4, 128), 2, 4)
    assert make((4, 6)).select(1, index).shape == (4, 1)
    refused("NKI-V024", lambda: view.select(0, index))
    refused("NKI-V024", lambda: view.vector_select(0, indices((4, 1))))
    refused("NKI-V027", lambda: make((4, 6)).select(0, index))


@pytest.mark.parametrize(
    "index",
    [
        indices((2, 1)),
        indices(region=HBM),
        indices(region=PSUM),
        indices(dtype=F32),
        indices((2, 2), HBM).select(0, REG),
        make((2, 2), SBUF, I32)[0:1].select(1, REG),
    ],
    ids=repr,
)
def test_bad_runtime_indices(index):
    refused("NKI-V026", lambda: make((4, 8), HBM).select(0, index))
    refused("NKI-V026", lambda: make((4, 8), HBM).ap([[1, 1]], scalar_offset=index))


def test_vector_select():
    h, rows = make((64, 16, 8), HBM), indices((128, 1))
    view = h.vector_select(0, rows)
    assert (view.shape, view.strides, view.offset) == ((128, 16, 8), (0, 8, 1), 0)
    assert view.dynamic == DynamicOffset("vector", rows, 128, 0, 64)
    assert h[2:, :, 1].vector_select(0, rows).offset == 257
    refused("NKI-V014", lambda: h.vector_select(3, rows))
    refused("NKI-V027", lambda: h.vector_select(1, rows))
    refused("NKI-V027", lambda: h.permute((1, 0, 2)).vector_select(0, rows))
    refused("NKI-V027", lambda: make((64, 16)).vector_select(0, rows))
    refused("NKI-V024", lambda: view.vector_select(0, rows))
    refused("NKI-V026", lambda: h.vector_select(0, indices((16, 2))))
    refused("NKI-V026", lambda: h.vector_select(0, REG))


def test_what_a_vector_selection_locks():
    view = make((64, 16, 8), HBM).vector_select(0, indices((4, 1)))
    assert view.permute((0, 2, 1)).shape == (4, 8, 16)
    assert view.expand_dim(1).shape == (4, 1, 16, 8)
    assert view.reshape((4, 128)).shape == (4, 128)
    assert view.flatten_dims(1, 2).shape == (4, 128)
    assert view[:, 3, 2:4].shape == (4, 2) and view[...].shape == view.shape
    one = make((1, 8), HBM).vector_select(0, indices((1, 1)))
    for change in (
        lambda: view[0],
        lambda: view[0:2],
        lambda: view.slice(0, 0, 2),
        lambda: view.select(0, 1),
        lambda: view.permute((1, 0, 2)),
        lambda: view.expand_dim(0),
        lambda: view.reshape_dim(0, (2, 2)),
        lambda: view.flatten_dims(0, 1),
        lambda: view.reshape((64, 8)),
        lambda: view.reshape((2, 2, 128)),
        lambda: one.squeeze_dim(0),
        lambda: one.broadcast(0, 4),
    ):
        refused("NKI-V025", change)


def test_tensor_indirection():
    t, index = make((16, 4, 8)), indices((16, 3))
    view = t.indirect(index)
    assert (view.shape, view.strides) == ((16, 48), (32, 0))
    assert view.dynamic == DynamicOffset("indirect", index, 1, 1, 32)
    assert t.indirect(index, 5).shape == (16, 5)
    assert t[:, :, ::2].indirect(index, 5).dynamic == DynamicOffset("indirect", index, 2, 1, 16)
    refused("NKI-V019", lambda: t[:, :, 0:4].indirect(index))
    refused("NKI-V026", lambda: t.indirect(index, 49))
    refused("NKI-V026", lambda: t.indirect(index, 0))
    refused("NKI-V026", lambda: t.indirect(indices((8, 3))))
    refused("NKI-V027", lambda: make((16, 8), HBM).indirect(index))
    refused("NKI-V024", lambda: view.indirect(index))
    for change in (lambda: view[:, 0:3], lambda: view[0:4], lambda: view.reshape((16, 4, 12))):
        refused("NKI-V025", change)


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


# --- bytes


@settings(max_examples=200)
@given(data=st.data())
def test_view_is_that_of_numpy(data):
    region = data.draw(st.sampled_from([SBUF, HBM]))
    old, new = (
        DTYPES[data.draw(st.sampled_from(["uint8", "bfloat16", "int32", "float8_e4m3fn_x4"]))]
        for _ in range(2)
    )
    t = make((3, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))), region, old)
    octets = np.arange(t.size * old.itemsize, dtype=np.uint8).view(f"u{old.itemsize}").reshape(t.shape)
    start = data.draw(st.integers(0, t.shape[2] - 1))
    view, expected = t[1:, :, start:], octets[1:, :, start:]
    try:
        cast = view.view(new)
    except NkiError as refusal:
        assert refusal.diagnostics[0].code == "NKI-V020"
        units = [view.offset, *view.strides[:-1], view.shape[-1]]
        assert any(unit * old.itemsize % new.itemsize for unit in units)
        return
    assert cast.dtype is new
    stored = octets.reshape(-1).view(f"u{new.itemsize}")
    assert np.array_equal(stored[positions(cast)], expected.copy().view(f"u{new.itemsize}"))


def test_view():
    t = make((4, 64))
    assert (t.view(U8).shape, t.view("int32").shape) == ((4, 256), (4, 64))
    assert make((4, 256), dtype=U8).reinterpret_cast(F32).shape == (4, 64)
    assert t[:, ::2].view(I32).strides == (64, 2)  # same width: the layout does not matter
    assert t[:, 5].view(BF16).get_pattern() == [[128, 4], [1, 2]]
    assert t[:, ::64].view(BF16).get_pattern() == [[128, 4], [1, 2]]  # of one element, whatever its step
    assert "of stride 2, as bfloat16" in refused("NKI-V019", lambda: t[:, ::2].view(BF16)).message
    refused("NKI-V019", lambda: t[0:1, ::2].view(BF16))
    refused("NKI-V020", lambda: make((4, 6), dtype=U8).view(F32))
    refused("NKI-V020", lambda: make((4, 8), dtype=U8)[:, 2:6].view(F32))
    refused("NKI-V020", lambda: make((4, 3, 6), dtype=U8)[:, :, 0:4].view(F32))
    refused("NKI-V024", lambda: make((4, 64), HBM).select(0, REG).view(U8))
    refused("NKI-V032", lambda: t.view("float64"))


# --- access patterns


def test_ap_addresses_the_storage():
    t = make((4, 16))
    assert t.ap([[16, 4], [1, 8]], 8) == t.slice(1, 8, 16)
    same(
        t.ap(pattern=[(16, 2), (4, 3), (0, 2), (1, 4)], offset=18),
        as_strided(np.arange(64)[18:], (2, 3, 2, 4), [128, 32, 0, 8]),
    )
    view = t[1:3, 4:8]
    assert view.ap([[16, 2], [1, 4]]) == view  # no offset: the view's own
    assert view.ap([[16, 2], [1, 4]], offset=0) == t[0:2, 0:4]  # an offset counts from the storage
    inner = t.ap([[16, 4], [2, 8]])
    assert inner.ap([[16, 4], [1, 5]]) == t[:, 0:5]
    assert t.select(1, REG).ap([[16, 4], [1, 5]]) == t[:, 0:5]
    same(make((4, 6), HBM).ap([[5, 3], [7, 2]], 1), np.array([[1, 8], [6, 13], [11, 18]]))
    pattern = t.get_pattern()
    pattern[0][1] = 2
    assert t.ap(pattern) == t[0:2]
    assert t.ap([[1, 1], [1, 3]], 20).strides == (16, 1)  # of one partition the stride does not matter


def test_ap_reinterprets():
    t = make((4, 16), dtype=I32)
    assert t.ap([[32, 4], [1, 32]], 0, dtype=BF16) == t.view(BF16)
    assert t[:, 4:].ap([[32, 4], [1, 2]], dtype=BF16).offset == 8
    assert make((4, 16), dtype=U8).ap([[8, 4], [1, 8]], dtype="bfloat16").shape == (4, 8)
    refused("NKI-V020", lambda: make((4, 6), dtype=U8).ap([[1, 4], [1, 1]], dtype=F32))
    refused("NKI-V020", lambda: make((4, 8), dtype=U8)[:, 3:].ap([[2, 4], [1, 1]], dtype=F32))
    refused("NKI-V032", lambda: t.ap([[16, 4], [1, 16]], dtype="float64"))


@pytest.mark.parametrize("offset, partition, element", [(None, 0, 0), (3, 0, 3), (8, 1, 0), (21, 2, 5)])
def test_a_pattern_that_takes_a_part_of_each_partition_for_a_whole(offset, partition, element):
    """A helper that was handed columns 8 to 15 steps by 8: it is followed, and counts from that part on."""
    half = make((4, 16))[:, 8:]
    rows = 4 - partition
    told = []
    with tolerating(lambda refused: told.append(refused.diagnostics[0].code) or True):
        view = half.ap([[8, rows], [1, 8 - element]], offset)
        halves = half.ap([[16, 4], [1, 16]], dtype=BF16)  # twice as many
    assert told == ["NKI-V022", "NKI-V022"]
    assert positions(view).tolist() == positions(half)[partition:, element:].tolist()
    assert positions(halves).tolist() == positions(make((4, 16)).view(BF16)[:, 16:]).tolist()
    with tolerating(lambda refused: True):
        refused("NKI-V022", lambda: half.ap([[4, 4], [1, 4]]))
        refused("NKI-V022", lambda: make((4, 16))[:, ::2].ap([[8, 4], [1, 8]]))


@pytest.mark.parametrize(
    "code, pattern, offset",
    [
        ("V021", [], None),
        ("V021", [16, 4], None),
        ("V021", [[16, 4, 1]], None),
        ("V021", 7, None),
        ("V021", [[16, 4], [1, 2.0]], None),
        ("V021", [[16, REG], [1, 2]], None),
        ("V023", [[16, 4], [-1, 4]], 2),
        ("V023", [[16, 3], [-1, 4]], 18),
        ("V023", [[16, 4], [-2, 4], [1, 3]], 14),
        ("V021", [[16, 4], [1, 0]], None),
        ("V022", [[32, 2], [1, 16]], None),
        ("V022", [[0, 4], [1, 16]], None),
        ("V023", [[16, 5], [1, 16]], None),
        ("V023", [[16, 4], [1, 17]], None),
        ("V023", [[16, 3], [1, 16]], 1),
        ("V023", [[16, 4], [1, 1]], 16),
        ("V023", [[16, 1], [1, 1]], -1),
        ("V012", [[16, 4], [1, 1]], REG),
        ("V033", [[16, 4]], None),
    ],
)
def test_bad_patterns_on_chip(code, pattern, offset):
    refused(f"NKI-{code}", lambda: make((4, 16)).ap(pattern, offset).check_inside())


def test_bad_patterns_in_hbm():
    h = make((4, 16), HBM)
    assert h.ap([[1, 64]]).shape == (64,)
    assert h.ap([[32, 2], [0, 4], [1, 32]]).shape == (2, 4, 32)
    refused("NKI-V023", lambda: h.ap([[1, 65]]).check_inside())
    refused("NKI-V023", lambda: h.ap([[1, 64]], 1).check_inside())
    refused("NKI-V023", lambda: h.ap([[-1, 4]], 2).check_inside())


def test_patterns_that_step_back():
    t = make((4, 16))
    same(t.ap([[16, 4], [-1, 16]], 15), reference(t)[:, ::-1])
    same(t.ap([[16, 3], [-2, 4], [1, 2]], 22), reference(t)[1:, :8].reshape(3, 4, 2)[:, ::-1])
    h = make((4, 16), HBM)
    same(h.ap([[-16, 4], [1, 16]], 48), reference(h)[::-1])
    h.ap([[-1, 4]], 3).check_inside()


def test_ap_at_run_time():
    h, one, rows = make((512, 512), HBM), indices(), indices((64, 1))
    view = h.ap([[512, 128], [1, 256]], 0, scalar_offset=one)
    assert view.dynamic == DynamicOffset("scalar", one, 512, -1, 512)
    assert h.ap([[512, 128], [1, 256]], scalar_offset=REG, indirect_dim=1).dynamic.stride == 1
    shaped = h.reshape((4, 128, 512)).ap([[512, 128], [1, 512]], scalar_offset=REG)
    assert (shaped.dynamic.stride, shaped.dynamic.limit) == (65536, 4)
    vector = h.ap([[7, 64], [1, 512]], 0, vector_offset=rows, indirect_dim=0)
    assert vector.strides == (0, 1) and vector.dynamic == DynamicOffset("vector", rows, 512, 0, 512)
    late = h.ap([[512, 64], [1, 8]], 512 * 500, vector_offset=rows)  # the first stride is not used
    assert late.shape == (64, 8)
    assert (
        h.reshape((1, 512, 512)).ap([[512, 64], [1, 8]], vector_offset=rows, indirect_dim=1).dynamic.limit
        == 512
    )
    bf16 = h.ap([[1024, 4], [1, 8]], dtype=BF16, scalar_offset=REG, indirect_dim=1)
    assert bf16.dynamic.stride == 2
    t = make((4, 6, 8))
    assert t.ap([[48, 4], [1, 8]], scalar_offset=REG, indirect_dim=1).dynamic == DynamicOffset(
        "scalar", REG, 8, -1, 6
    )

    refused("NKI-V014", lambda: h.ap([[1, 1]], scalar_offset=REG, indirect_dim=2))
    refused("NKI-V023", lambda: h.ap([[512, 64], [1, 513]], 512 * 511, vector_offset=rows).check_inside())
    refused("NKI-V024", lambda: view.ap([[1, 1]], scalar_offset=REG))
    refused("NKI-V026", lambda: h.ap([[512, 65], [1, 8]], vector_offset=rows))
    refused("NKI-V026", lambda: h.ap([[512, 64], [1, 8]], scalar_offset=3))
    refused("NKI-V027", lambda: h.ap([[512, 64], [1, 8]], scalar_offset=one, vector_offset=rows))
    refused("NKI-V027", lambda: h.ap([[512, 64], [1, 8]], vector_offset=rows, indirect_dim=1))
    refused("NKI-V027", lambda: t.ap([[48, 4], [1, 8]], scalar_offset=REG))
    refused("NKI-V027", lambda: make((64, 8)).ap([[8, 64], [1, 8]], vector_offset=rows))


def test_an_index_of_a_dimension_of_one_counts_in_the_one_of_the_same_stride():
    """A library's kernel splits heads as (ranks, 1) and names the second of the two."""
    split = make((8, 4, 16), HBM).reshape((8, 4, 1, 16))
    for dim in (1, 2):
        part = split.ap([[64, 8], [1, 16]], scalar_offset=REG, indirect_dim=dim)
        assert (part.dynamic.stride, part.dynamic.limit) == (16, 4)
    alone = make((8, 1, 16), HBM)
    assert alone.ap([[16, 8], [1, 4]], scalar_offset=REG, indirect_dim=1).dynamic.limit == 8


# --- boxes


def check_box(view):
    size, row = view.dtype.itemsize, view.storage.row_bytes
    octets = positions(view).ravel()[:, None] * size + np.arange(size)
    partitions, offsets = np.divmod(octets, row)
    start, count, low, high = box(view)
    assert (start, start + count) == (partitions.min(), partitions.max() + 1)
    assert (low, high) == (offsets.min(), offsets.max() + 1)


@pytest.mark.parametrize("region", [SBUF, PSUM, HBM])
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_box_is_the_rectangle_touched(region, key):
    check_box(make((4, 5, 12), region, BF16)[key])


def test_box_of_runtime_views_holds_every_index():
    t, h = make((4, 6, 8)), make((64, 16), HBM)
    assert box(t[1:3].select(1, REG)) == (1, 2, 0, 192)
    assert box(t[:, 2:4, 1][:, ds(REG, 1)]) == (0, 4, 68, 104)
    assert box(h[:, 3].select(0, REG)) == (0, 1, 12, 4 * (63 * 16 + 3) + 4)
    assert box(h.vector_select(0, indices((8, 1)))) == (0, 1, 0, 4096)
    assert box(h.ap([[16, 32], [1, 16]], 64, scalar_offset=REG)) == (0, 1, 256, 4096)
    assert box(t.indirect(indices((4, 2)))) == (0, 4, 0, 192)


# --- identity, and what a tensor is not


def test_identity():
    t, other = make((4, 6)), make((4, 6))
    assert t[0:2, :] == t[0:2] and hash(t[0:2, :]) == hash(t[0:2])
    assert t != other and t != t[0:2] and t != t.view(I32)
    assert t.select(1, REG) == t.select(1, REG) and t.select(1, REG) != t.select(1, VirtualRegister(3))
    assert (t == None) is False and (t != None) is True and t is not None  # noqa: E711
    assert {t: 1}[t[...]] == 1 and t in [other, t] and (t == 5) is False
    assert (t == np.zeros((4, 6))) is False
    assert signature(t) == signature(t[...])


OPERATIONS = [
    lambda t: t + 1, lambda t: 1 + t, lambda t: t + t, lambda t: t - 1, lambda t: 2 * t, lambda t: t / 2,
    lambda t: t // 2, lambda t: t % 2, lambda t: t**2, lambda t: t @ t, lambda t: t & 1, lambda t: t | 1,
    lambda t: t ^ 1, lambda t: t << 1, lambda t: t >> 1, lambda t: t < 1, lambda t: t <= 1, lambda t: t > 1,
    lambda t: t >= 1, lambda t: -t, lambda t: +t, lambda t: ~t, lambda t: abs(t), lambda t: np.ones(6) * t,
    lambda t: np.float32(2) + t,
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operators_are_refused(operation):
    found = refused("NKI-V030", lambda: operation(make((4, 6))))
    assert "t[4, 6]" in found.message and ("nisa." in found.help or "itself" in found.help)


@pytest.mark.parametrize(
    "operation",
    [bool, int, float, len, iter, list, range, lambda t: 3 in t, lambda t: [0][t], lambda t: t and 1],
)
def test_contents_are_unknown(operation):
    assert refused("NKI-V031", lambda: operation(make((4, 6)))).help


def test_assignment_names_the_instruction():
    t = make((4, 6))
    with pytest.raises(NkiValidationError) as caught:
        t[:, 0] = 1
    (found,) = caught.value.diagnostics
    assert found.code == "NKI-V029" and "nisa.tensor_copy" in found.help and "nisa.dma_copy" in found.help
