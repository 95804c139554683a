"""Tensors whose elements are their own positions, and what a view of one shows."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from nki_isa.diagnostics import NkiValidationError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import DynamicSlice, NkiTensor, box

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


def check_box(view):
    size, row = view.dtype.itemsize, view.storage.row_bytes
    octets = positions(view).ravel()[:, None] * size + np.arange(size)
    partitions, offsets = np.divmod(octets, row)
    start, count, low, high = box(view)
    assert (start, start + count) == (partitions.min(), partitions.max() + 1)
    assert (low, high) == (offsets.min(), offsets.max() + 1)
