"""Binding views to bytes: strides, casts and overlaps, gathers and scatters, bounds."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import HBM, PSUM, SBUF, Builder, at, columns, rows, view

from nki_isa.diagnostics import NkiError, NkiInternalError
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.execution.memory import NANS, host_bytes


def test_bytes_of_the_host_are_those_of_hbm_and_of_the_results():
    """Cores share what is shared; chips' memories are not counted, they are always there."""
    b = Builder()
    b.input(np.zeros((128, 4), np.float32))
    b.output(64, 3, dtype="bfloat16")
    b.tensor(128, 5, region=HBM)
    b.tensor(128, 100)
    shared, private, results = 128 * 4 * 4 + 64 * 3 * 2, 128 * 5 * 4, 64 * 3 * 2
    assert host_bytes([b.program]) == shared + private + results
    assert host_bytes([b.program, b.program]) == shared + 2 * private + results


@given(st.data(), st.integers(1, 128), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_a_view_on_chip_is_the_same_view_of_each_partition(data, partitions, sizes):
    b = Builder()
    start = data.draw(st.integers(0, 128 - partitions))
    whole = b.tensor(partitions, *sizes, at=(start, data.draw(st.integers(0, 999)) * 4))
    memory = b.memory()
    array = np.arange(whole.size, dtype=np.float32).reshape(whole.shape)
    memory.bind(whole)[...] = array
    # A window of the free dimensions, in another order.
    low = [data.draw(st.integers(0, n - 1)) for n in sizes]
    high = [data.draw(st.integers(l + 1, n)) for l, n in zip(low, sizes, strict=True)]
    order = data.draw(st.permutations(range(len(sizes))))
    first = data.draw(st.integers(0, partitions - 1))
    offset = first * whole.strides[0] + sum(l * s for l, s in zip(low, whole.strides[1:], strict=True))
    shape = [h - l for l, h in zip(low, high, strict=True)]
    window = view(
        whole,
        (partitions - first, *(shape[k] for k in order)),
        (whole.strides[0], *(whole.strides[1 + k] for k in order)),
        offset,
    )
    expected = array[(slice(first, None), *map(slice, low, high))].transpose(0, *(1 + k for k in order))
    assert np.array_equal(memory.bind(window), expected)


def test_views_share_bytes():
    b = Builder()
    words = b.tensor(4, 8, dtype="int32")
    memory = b.memory()
    memory.bind(words)[...] = 0x3F80_0000
    assert (memory.bind(view(words, (4, 8), (8, 1), dtype="float32")) == 1.0).all()
    halves = memory.bind(view(words, (4, 16), (16, 1), dtype="bfloat16"))
    assert halves.dtype == ml_dtypes.bfloat16 and halves[0, :2].tolist() == [0.0, 1.0]
    halves[1, 0] = 2.0
    assert memory.bind(words)[1, 0] == 0x3F80_4000


def test_storages_share_bytes_where_they_are_placed_alike():
    b = Builder()
    first, second = b.tensor(128, 4), b.tensor(64, 4, at=(64, 0))
    memory = b.memory()
    memory.bind(first)[...] = np.arange(128)[:, None]
    assert np.array_equal(memory.bind(second)[:, 0], np.arange(64, 128))
    assert not memory.psum.any()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float8_e4m3", "bfloat16", "float16", "float32"])
@pytest.mark.parametrize("region", [SBUF, PSUM, HBM])
def test_every_memory_holds_every_type(dtype, region):
    b = Builder()
    tensor = b.tensor(3, 5, dtype=dtype, region=region)
    bound = b.memory().bind(tensor)
    bound[...] = np.ones((3, 5), bound.dtype)
    assert bound.dtype == tensor.dtype.numpy and (bound.astype(np.float32) == 1).all()


def test_constants_and_fill():
    b = Builder()
    data = np.arange(12, dtype=np.int16).reshape(4, 3)
    constant = b.tensor(4, 3, dtype="int16", kind="constant", data=data.tobytes())
    other = b.tensor(4, 3, dtype="bfloat16")
    memory = b.memory(fill=NANS)
    assert np.array_equal(memory.bind(constant), data)
    assert np.isnan(memory.bind(other).astype(np.float32)).all()
    assert not b.memory().bind(other).any()


@pytest.mark.parametrize("place", [None, (100, 0), (0, 224 * 1024 - 15)])
def test_a_place_outside_is_our_mistake(place):
    b = Builder()
    tensor = b.tensor(64, 4, at=place)
    if place is None:
        b.placement.clear()
    with pytest.raises(NkiInternalError, match="NKI-I001"):
        b.memory().bind(tensor)


# --- run-time offsets


def test_a_register_shifts_a_view():
    b = Builder()
    table, register = b.tensor(10, 4, region=HBM), b.register()
    memory = b.memory()
    memory.bind(table)[...] = np.arange(40).reshape(10, 4)
    moved = at(table, register, size=3)
    for start in range(8):
        memory.registers[0] = start
        assert np.array_equal(memory.bind(moved), np.arange(40).reshape(10, 4)[start : start + 3])
    memory.bind(moved)[...] = -1  # the bytes themselves
    assert (memory.bind(table)[7:] == -1).all()


@pytest.mark.parametrize("start", [-1, 8, 2**31 - 1])
def test_a_shift_out_of_bounds_names_index_and_limit(start):
    b = Builder()
    table, register = b.tensor(10, 4, region=HBM), b.register()
    memory = b.memory()
    memory.registers[0] = start
    with pytest.raises(NkiError, match=rf"NKI-H001.*{start} \(register 0\).*has 8 elements.*\[3, 4\]"):
        memory.bind(at(table, register, size=3))


def test_a_shift_that_leaves_the_storage_is_refused_whatever_the_limit():
    b = Builder()
    table, register = b.tensor(10, 4, region=HBM), b.register()
    memory = b.memory()
    memory.registers[0] = 8
    with pytest.raises(NkiError, match="NKI-H001"):
        memory.bind(at(table, register, size=3, limit=10))


def test_a_shift_on_chip_stays_in_its_partition():
    b = Builder()
    tile, index = b.tensor(128, 6, 4), b.tensor(1, 1, dtype="int32")
    memory = b.memory()
    contents = np.arange(128 * 24).reshape(128, 6, 4)
    memory.bind(tile)[...] = contents
    memory.bind(index)[...] = 5
    moved = at(tile, index, dim=1, size=1)
    assert np.array_equal(memory.bind(moved), contents[:, 5:6])


@given(st.lists(st.integers(0, 19), min_size=1, max_size=128), st.sampled_from(["int32", "uint32", "int16"]))
def test_gather_and_scatter(indices, dtype):
    b = Builder()
    table, index = b.tensor(20, 3, region=HBM), b.tensor(len(indices), 1, dtype=dtype)
    memory = b.memory()
    contents = np.arange(60, dtype=np.float32).reshape(20, 3)
    memory.bind(table)[...] = contents
    memory.bind(index)[:, 0] = indices
    selected = rows(table, index)
    assert np.array_equal(memory.bind(selected), contents[indices])
    new = np.random.default_rng(0).standard_normal((len(indices), 3)).astype(np.float32)
    memory.store(selected, new)
    for position, row in enumerate(indices):
        contents[row] = new[position]  # the last of equal indices stays
    assert np.array_equal(memory.bind(table), contents)


def test_gather_takes_columns_of_indices_one_after_the_other():
    b = Builder()
    table, index = b.tensor(300, 2, region=HBM), b.tensor(128, 2, dtype="uint32")
    memory = b.memory()
    memory.bind(table)[...] = np.arange(600).reshape(300, 2)
    order = np.random.default_rng(1).permutation(256)
    memory.bind(index)[...] = order.reshape(2, 128).T
    assert np.array_equal(memory.bind(rows(table, index)), np.arange(600).reshape(300, 2)[order])


def test_gather_of_a_window_of_the_rows():
    b = Builder()
    table, index = b.tensor(8, 6, region=HBM), b.tensor(4, 1, dtype="int32")
    memory = b.memory()
    contents = np.arange(48).reshape(8, 6)
    memory.bind(table)[...] = contents
    memory.bind(index)[:, 0] = [7, 0, 3, 3]
    window = view(table, (8, 2), (6, 2), 1)
    assert np.array_equal(memory.bind(rows(window, index)), contents[[7, 0, 3, 3], 1:5:2])


@pytest.mark.parametrize("bad", [-1, 20, 10**6])
def test_an_index_out_of_bounds(bad):
    b = Builder()
    table, index = b.tensor(20, 3, region=HBM), b.tensor(4, 1, dtype="int32")
    memory = b.memory()
    memory.bind(table)[...] = 1
    memory.bind(index)[:, 0] = [3, bad, 5, bad]
    selected = rows(table, index)
    with pytest.raises(NkiError, match=rf"NKI-H001.*index {bad} \(t1, element 1\).*has 20 elements"):
        memory.bind(selected)
    gathered, inside = memory.gather(selected, skip=True)
    assert inside[:, 0].tolist() == [True, False, True, False]
    assert (gathered[inside] == 1).all()
    memory.scatter(selected, np.full((4, 3), 9, np.float32), skip=True)
    assert np.flatnonzero(memory.bind(table)[:, 0] == 9).tolist() == [3, 5]


def test_a_limit_too_large_does_not_reach_beyond_the_storage():
    b = Builder()
    table, index = b.tensor(4, 3, region=HBM), b.tensor(1, 1, dtype="int32")
    memory = b.memory()
    memory.bind(index)[...] = 4
    wide = NkiTensor((9, 3), (3, 1), 0, table.dtype, table.storage)
    with pytest.raises(NkiError, match="NKI-H001"):
        memory.bind(rows(wide, index))


# --- tensor indirection


@pytest.mark.parametrize("group", [16, 32])
def test_indirection_reads_offsets_in_a_snake(group):
    b = Builder("trn3")
    tile, index = b.tensor(64, 4, 10), b.tensor(64, 3, dtype="uint32")
    memory = b.memory()
    contents = np.arange(64 * 40).reshape(64, 40)
    memory.bind(tile)[...] = contents.reshape(64, 4, 10)
    offsets = np.random.default_rng(2).permutation(40)
    count = min(40, group * 3 - 1)
    padded = np.resize(offsets, group * 3)
    memory.bind(index)[...] = np.tile(padded.reshape(3, group).T, (64 // group, 1))
    selected = columns(tile, index, count)
    assert np.array_equal(memory.bind(selected, group), contents[:, offsets[:count]])
    memory.store(selected, np.zeros((64, count), np.float32), group=group)
    contents[:, offsets[:count]] = 0
    assert np.array_equal(memory.bind(tile).reshape(64, 40), contents)


def test_indirection_refuses_what_is_not_documented():
    b = Builder("trn3")
    tile, index = b.tensor(32, 40), b.tensor(32, 1, dtype="uint32")
    memory = b.memory()
    with pytest.raises(NkiError, match=r"NKI-U010.*17 offsets"):
        memory.bind(columns(tile, index, 17))
    memory.bind(index)[16] = 1
    with pytest.raises(NkiError, match=r"NKI-U010.*different offsets"):
        memory.bind(columns(tile, index, 16))
    memory.bind(index)[...] = 40
    with pytest.raises(NkiError, match=r"NKI-H001.*40"):
        memory.bind(columns(tile, index, 16))
