"""indexed_flatten, find_nonzero_indices and rmsnorm_mx_quantize_tkg: what the table's examples leave open."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target
from nkilib.core.subkernels.indexed_flatten import indexed_flatten
from nkilib.core.subkernels.reference import mx_values, rmsnorm_mx_quantize_tkg_reference
from nkilib.experimental.subkernels.find_nonzero_indices import find_nonzero_indices
from nkilib.registry import rows


@settings(max_examples=12)
@given(st.lists(st.integers(-40, 60), min_size=3, max_size=3), st.sampled_from([1, 2]))
def test_later_rows_overwrite_earlier_ones(offsets, lnc):
    """One element at a time, in the order of the rows."""
    x = np.arange(1, 3 * 64 + 1, dtype=np.int32).reshape(3, 64)
    expected = np.zeros(128, np.int32)
    for row, offset in zip(x, offsets):
        for i, value in enumerate(row):
            if 0 <= offset * 2 + i < 128:
                expected[offset * 2 + i] = value
    result = indexed_flatten[lnc](x, 2, 128, np.array(offsets, np.int32), padding_val=0)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"f_len": 3}, "output_len is a multiple of f_len = 3, got 256"),
        ({"output_len": 200}, "output_len is a multiple of 128, got 200"),
        ({"input_tensor": np.zeros((2, 60), np.int32)}, "T // f_len is a multiple of 16, got 60 // 4 = 15"),
        ({"input_tensor": np.zeros((2, 63), np.int32)}, "T is a multiple of f_len = 4, got 63"),
        ({"input_tensor": np.zeros(64, np.int32)}, r"input_tensor is \[E, T\]"),
        ({"row_offsets": np.zeros(3, np.int32)}, "one for each of 2 rows, got 3"),
        (
            {"row_offsets": np.zeros(1, np.int32), "row_offsets_start": np.zeros(1, np.int32)},
            "at least the 2 that are used, got 1",
        ),
    ],
)
def test_flatten_refusals(change, message):
    given = {"input_tensor": np.zeros((2, 64), np.int32), "f_len": 4, "output_len": 256}
    given |= {"row_offsets": np.zeros(2, np.int32), **change}
    with pytest.raises(NkiError, match=message) as caught:
        indexed_flatten(**given)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]


@pytest.mark.parametrize("columns", ["none", "all"])
def test_columns_without_and_full_of_nonzeros(columns):
    x = np.full((256, 4), columns == "all", np.float32)
    indices, counts = find_nonzero_indices[2](x, chunk_size=128)
    expected = np.arange(256) if columns == "all" else np.full(256, -1)
    np.testing.assert_array_equal(indices, np.tile(expected, (4, 1)))
    np.testing.assert_array_equal(counts, 256 if columns == "all" else 0)


def test_what_counts_as_nonzero_and_other_index_dtypes():
    x = np.zeros((128, 2), np.float32)
    x[[1, 5, 9, 11], 0] = [1e-30, -1.0, np.inf, np.nan]
    indices, counts = find_nonzero_indices(x, index_dtype=nl.uint32)
    assert indices.dtype == counts.dtype == np.uint32
    assert indices[0, :4].tolist() == [1, 5, 9, 11] and counts.tolist() == [4, 0]


@pytest.mark.parametrize(
    "shape, change, lnc, message",
    [
        ((100, 4), {}, 1, "T is a multiple of 128, got 100"),
        ((256, 4), {"chunk_size": 100}, 1, "chunk_size is a multiple of 128, got 100"),
        ((384, 4), {"chunk_size": 256}, 1, "chunk_size divides T = 384, got 256"),
        ((128, 3), {}, 2, "the 3 columns divide over 2 programs"),
        ((128, 4), {"row_start_id": np.zeros(1, np.int32)}, 1, "row_start_id comes with n_rows"),
        (
            (128, 4),
            {"row_start_id": np.zeros(1, np.int32), "n_rows": 5},
            1,
            r"n_rows is in \(0, E = 4\], got 5",
        ),
        ((128,), {}, 1, r"input_tensor is \[T, E\]"),
    ],
)
def test_nonzero_refusals(shape, change, lnc, message):
    with pytest.raises(NkiError, match=message) as caught:
        find_nonzero_indices[lnc](np.zeros(shape, np.float32), **change)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]


def mx(shape, lnc=2, **more):
    rng = np.random.default_rng(0)
    given = {"input": rng.standard_normal(shape).astype(ml_dtypes.bfloat16)}
    given["gamma"] = np.ones((1, shape[2]), ml_dtypes.bfloat16)
    given |= more
    with session(target=as_target("trn3")):
        return given, rows()["rmsnorm_mx_quantize_tkg"].kernel[lnc](**given)


def test_mx_keeps_the_norm_and_four_bits_of_it():
    given, (output, quant, scale) = mx((8, 1, 512))
    expected, _, _ = rmsnorm_mx_quantize_tkg_reference(**given)
    np.testing.assert_allclose(
        output.astype(np.float32), expected.astype(np.float32), rtol=2**-7, atol=2**-12
    )
    ordered = output.astype(np.float32).reshape(128, 8, 4, 1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(mx_values(quant, scale), ordered, rtol=2**-4, atol=2**-9)


@pytest.mark.parametrize(
    "shape, lnc, message",
    [
        ((6, 1, 512), 2, "B \\* S as a multiple of 4, got 6"),
        ((4, 1, 768), 2, "H as a multiple of 512, got 768"),
        ((4, 1, 512), 1, "runs on 2 programs, got 1"),
    ],
)
def test_mx_refusals(shape, lnc, message):
    with pytest.raises(NkiError, match=message):
        mx(shape, lnc)
