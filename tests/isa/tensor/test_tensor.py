"""Views against numpy: a storage is ``arange``, a view is the positions it shows."""

import numpy as np
import pytest
from made_views import (
    BF16,
    F32,
    HBM,
    I32,
    PSUM,
    REG,
    SBUF,
    SHARED,
    check_box,
    indices,
    make,
    numpy_key,
    reference,
    refused,
    same,
)

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, NkiScalar, VirtualRegister, computing
from nki_isa.tensor.tensor import box, ds, signature

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


# --- boxes


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
