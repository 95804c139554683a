"""What published kernels write and the guide does not state: each as small as it can be."""

from dataclasses import dataclass

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError, Severity

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

A = np.arange(128 * 4, dtype=np.float32).reshape(128, 4)


def codes_of(refused):
    return {d.code for d in refused.value.diagnostics}


@dataclass
class Section(nl.NKIObject):
    """A dataclass with fields that have no annotation."""

    index = None
    offset = 3
    length: int = 4

    def end(self):
        return self.offset + self.length


@nki.jit
def with_section(x):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    section = Section(index=2, length=5)
    nisa.tensor_scalar(tile, tile, nl.add, float(section.end() + section.index))
    nisa.dma_copy(out, tile)
    return out


def test_fields_of_a_dataclass_need_no_annotation():
    np.testing.assert_array_equal(with_section(A), A + 10)


@nki.jit
def with_missing_name(x, other):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, nowhere(x) if other else x)  # noqa: F821
    return out


def test_a_missing_name_is_refused_where_it_is_reached():
    with runtime.session() as ran:
        np.testing.assert_array_equal(with_missing_name(A, False), A)
    found = [d for d in ran.launches[0].diagnostics if d.code == "NKI-L010"]
    assert [d.severity for d in found] == [Severity.warning]
    with pytest.raises(NkiError) as refused:
        with_missing_name(A, True)
    assert codes_of(refused) == {"NKI-L010"} and "nowhere" in str(refused.value)
    with pytest.raises(NkiError) as refused, runtime.session(profile="strict"):
        with_missing_name(A, False)
    assert "NKI-L010" in codes_of(refused)


@nki.jit
def with_optional(x, bias):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    if bias:
        column = nl.ndarray((x.shape[0], 1), x.dtype)
        nisa.dma_copy(column, bias)
        nisa.tensor_scalar(tile, tile, nl.add, column)
    nisa.dma_copy(out, tile)
    return out


def test_a_tensor_is_true_where_it_is_asked_whether_it_was_given():
    bias = A[:, :1].copy()
    np.testing.assert_array_equal(with_optional(A, None), A)
    with runtime.session() as ran:
        np.testing.assert_array_equal(with_optional(A, bias), A + bias)
    (found,) = [d for d in ran.launches[0].diagnostics if d.code == "NKI-V031"]
    assert found.severity is Severity.warning and "is not None" in found.help
    with pytest.raises(NkiError) as refused, runtime.session(profile="strict"):
        with_optional(A, bias)
    assert codes_of(refused) == {"NKI-V031"}


@nki.jit
def with_dtype(x, dtype):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    nisa.scalar_tensor_tensor(
        data=tile, op0=nl.multiply, operand0=2.0, op1=nl.add, operand1=tile, dst=tile, dtype=dtype
    )
    nisa.dma_copy(out, tile)
    return out


def test_the_dtype_of_older_releases_decides_nothing():
    """The tutorial of 2.28 on matrix multiplication passes another one than that of dst."""
    np.testing.assert_array_equal(with_dtype(A, nl.float32), 3 * A)
    with runtime.session() as ran:
        np.testing.assert_array_equal(with_dtype(A + 1 / 3, nl.bfloat16), 3 * (A + np.float32(1 / 3)))
    (found,) = [d for d in ran.launches[0].diagnostics if d.code == "NKI-V105"]
    assert found.severity is Severity.warning and "leave dtype= out" in found.help
    with pytest.raises(NkiError) as refused:
        with_dtype(A, 5)
    assert codes_of(refused) == {"NKI-V105"}
    with pytest.raises(NkiError) as refused, runtime.session(profile="strict"):
        with_dtype(A, nl.float32)
    assert codes_of(refused) == {"NKI-L015"}


@nki.jit
def with_last_turn(x, used):
    """The columns of every other turn; the view of the last turn lies outside."""
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    for turn in range(3):
        view = tile.ap([[4, 128], [1, 2]], offset=2 * turn)
        if turn < 2 or used:
            nisa.dma_copy(out[:, 2 * turn % 4 : 2 * turn % 4 + 2], view)
    return out


def test_a_view_outside_its_storage_is_refused_where_it_is_used():
    np.testing.assert_array_equal(with_last_turn(A, False), A)
    with pytest.raises(NkiError) as refused:
        with_last_turn(A, True)
    assert codes_of(refused) == {"NKI-V023"}


@nki.jit
def with_empty_share(x, used):
    """Core 0 has nothing to do."""
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    count = 0 if nl.program_id(0) == 0 and nl.num_programs(0) > 1 else x.shape[0]
    rows, target = x[nl.ds(0, count)], out[nl.ds(0, count)]
    if count or used:
        nisa.dma_copy(target, rows)
    return out


def test_a_share_of_nothing_is_refused_where_it_is_used():
    np.testing.assert_array_equal(with_empty_share[2](A, False), A)
    with pytest.raises(NkiError) as refused:
        with_empty_share[2](A, True)
    assert codes_of(refused) == {"NKI-V013"}


@nki.jit
def with_shuffle(x):
    """One row to all 32 partitions, in place."""
    out = nl.ndarray((32, 4), x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((32, 4), x.dtype)
    nisa.dma_copy(tile, x[0:32, :])
    nisa.nc_stream_shuffle(src=tile[0:1, :], dst=tile, shuffle_mask=[0] * 32)
    nisa.dma_copy(out, tile)
    return out


def test_a_shuffle_may_write_over_its_source():
    np.testing.assert_array_equal(with_shuffle(A), np.tile(A[0], (32, 1)))
