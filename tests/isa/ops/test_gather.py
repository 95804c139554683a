"""Shuffles and gathers against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import NUMERIC, dst_of, plain, run, same, tensor, tiles

from nki_isa.diagnostics import NkiError
from nki_isa.ir.fields import Role
from nki_isa.machine.targets import TRN1
from nki_isa.ops.gather import local_gather, nc_n_gather, nc_stream_shuffle

masks = st.lists(st.one_of(st.integers(0, 31), st.just(255)), min_size=32, max_size=32)


@given(st.data(), st.sampled_from([32, 64, 128]), st.integers(1, 5), masks, st.sampled_from(NUMERIC))
def test_nc_stream_shuffle(data, partitions, n, mask, dtype):
    src = data.draw(tiles((partitions, n), dtype))
    dst = data.draw(tiles((partitions, n), dtype).filter(lambda t: 0 not in t.strides))
    old = plain(dst)
    expected = [
        old[i] if mask[i % 32] == 255 else plain(src)[i // 32 * 32 + mask[i % 32]] for i in range(partitions)
    ]
    same(run(nc_stream_shuffle(dst, src, mask)), expected)


def test_shuffle_broadcasts_one_partition():
    src = tensor(1, 3, contents=np.array([1, 2, 3], np.float32))
    same(run(nc_stream_shuffle(dst_of((32, 3)), src, [0] * 32)), [[1, 2, 3]] * 32)


def test_shuffle_reads_its_destination_only_to_keep_some_of_it():
    def role(mask):
        return nc_stream_shuffle(dst_of((32, 3)), tensor(32, 3), mask).fields["dst"].role

    assert role([0] * 32) is Role.write
    assert role([255, *[0] * 31]) is Role.read_write
    assert nc_stream_shuffle.fields["dst"].role is Role.write


@given(
    st.data(), st.sampled_from([1, 7, 32]), st.integers(1, 9), st.integers(1, 12), st.sampled_from(NUMERIC)
)
def test_nc_n_gather(data, partitions, n, count, dtype):
    src = data.draw(tiles((partitions, 1, n), dtype))
    index = np.random.default_rng(n).integers(0, n, (partitions, count)).astype(np.uint32)
    got = run(
        nc_n_gather(
            dst_of((partitions, count), dtype), src, tensor(*index.shape, dtype="uint32", contents=index)
        )
    )
    flat = plain(src).reshape(partitions, n)
    same(got, [[flat[p, i] for i in index[p]] for p in range(partitions)])


@given(
    st.data(), st.sampled_from([16, 48]), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 48),
    st.sampled_from(NUMERIC),
)  # fmt: skip
def test_local_gather(data, partitions, run_length, columns, valid, dtype):
    valid = min(valid, 16 * columns)
    src = data.draw(tiles((partitions, 20), dtype))
    index = np.random.default_rng(valid).integers(0, 20 - run_length, (partitions, columns)).astype(np.uint16)
    got = run(
        local_gather(
            dst_of((partitions, valid * run_length), dtype), src,
            tensor(*index.shape, dtype="uint16", contents=index), run_length, valid,
        )
    )  # fmt: skip
    for p in range(partitions):
        core = index[p // 16 * 16 :][:16]
        starts = [core[k % 16, k // 16] for k in range(16 * columns)][:valid]
        same(got[p], [plain(src)[p, s + e] for s in starts for e in range(run_length)])


def test_all_indices_are_valid_if_no_count_is_given():
    index = tensor(16, 2, dtype="uint16")
    src = tensor(16, 4, contents=np.arange(64, dtype=np.float32))
    same(run(local_gather(dst_of((16, 32)), src, index))[:, 31], np.arange(0, 64, 4))


@pytest.mark.parametrize("dtype, operation", [("uint32", nc_n_gather), ("uint16", local_gather)])
def test_an_index_outside_stops_the_kernel(dtype, operation):
    index = np.zeros((16, 1), dtype)
    index[3] = 4
    count = 1 if operation is nc_n_gather else 16
    instruction = operation(dst_of((16, count)), tensor(16, 4), tensor(16, 1, dtype=dtype, contents=index))
    with pytest.raises(NkiError) as caught:
        run(instruction)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "NKI-H001" and "is 4" in diagnostic.message


def test_costs():
    wide, index = tensor(128, 1024), tensor(128, 1024, dtype="uint32")
    assert nc_n_gather(wide, wide, index).cost(TRN1).busy == pytest.approx((2 * 150 + 1024) / 1.4)
    local = local_gather(dst_of((128, 128)), wide, tensor(128, 4, dtype="uint16"), 2)
    assert local.cost(TRN1).busy == pytest.approx((150 + 64 * 2 / (36 / 8)) / 1.4)
    assert nc_stream_shuffle(wide, wide, [0] * 32).cost(TRN1).busy == pytest.approx((1024 + 64) / 1.12)
