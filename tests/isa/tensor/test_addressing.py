"""Views of the bytes as other types, by access patterns and at run time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_views import BF16, F32, HBM, I32, REG, SBUF, U8, indices, make, positions, reference, refused, same
from numpy.lib.stride_tricks import as_strided

from nki_isa.diagnostics import NkiError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.opaque import tolerating


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
