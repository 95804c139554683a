"""High precision: the same Program without the rounding of bfloat16 and float8."""

import ml_dtypes
import numpy as np
import pytest
from programs import PSUM, SBUF, Builder, view

from nki_isa.diagnostics import NkiError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TRN2
from nki_isa.ops.dma import dma_copy
from nki_isa.ops.elementwise import tensor_copy
from nki_isa.ops.tensor_scalar import tensor_scalar
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import execute_all
from nki_sim.execution.precision import high_precision, widened

X = np.random.default_rng(0).standard_normal((128, 8)).astype(np.float32)


def run(b):
    wide = widened([b.program], [b.placement], b.arrays, TRN2)
    return execute_all(wide.programs, wide.placements, wide.inputs, target=wide.target).outputs


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize(
    "region, size", [(SBUF, TRN2.sbuf_partition_bytes), (PSUM, TRN2.psum_partition_bytes)]
)
def test_values_pass_a_narrow_tile_as_they_are(dtype, region, size):
    """A tile at the very end of its memory, four times as wide, is inside of it still."""
    b = Builder()
    x, out, wide = b.input(X), b.output(128, 8, dtype=dtype), b.tensor(128, 8)
    row = 8 * DTYPES[dtype].itemsize
    tiles = [b.tensor(128, 8, dtype=dtype, region=region, at=(0, size - k * row)) for k in (1, 2)]
    b.emit(dma_copy(wide, x), tensor_copy(tiles[0], wide), tensor_copy(tiles[1], tiles[0]))
    b.emit(tensor_copy(wide, tiles[1]), dma_copy(out, wide))
    (result,) = run(b)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, X)


def test_other_dtypes_round_as_ever():
    b = Builder()
    x, out, tile = b.input(X), b.output(128, 8, dtype="float16"), b.tensor(128, 8, dtype="float16")
    wide = b.tensor(128, 8)
    b.emit(dma_copy(wide, x), tensor_copy(tile, wide), dma_copy(out, tile))
    np.testing.assert_array_equal(run(b)[0], X.astype(np.float16))


def test_narrow_arguments_and_constants_are_widened_once():
    narrow = X.astype(ml_dtypes.bfloat16)
    b = Builder()
    x, out = b.input(narrow), b.output(128, 8)
    storage = Storage(
        len(b.program.storages), "c", MemoryRegion.private_hbm, (128, 8), DTYPES["bfloat16"], kind="constant"
    )
    storage.data = narrow.tobytes()
    b.program.storages.append(storage)
    tile, constant = b.tensor(128, 8, dtype="bfloat16"), b.tensor(128, 8, dtype="bfloat16")
    b.emit(dma_copy(tile, x), dma_copy(constant, NkiTensor.whole(storage)))
    b.emit(tensor_scalar(tile, tile, "multiply", 1 / 3), dma_copy(out, tile))
    wide = narrow.astype(np.float32)
    np.testing.assert_array_equal(run(b)[0], wide * np.float32(1 / 3))
    other = b.output(128, 8)
    b.emit(dma_copy(other, constant))
    np.testing.assert_array_equal(run(b)[1], wide)


def test_loops_and_views_are_kept():
    b = Builder()
    x, out, tile = b.input(X), b.output(128, 8), b.tensor(128, 8, dtype="bfloat16")
    b.emit(dma_copy(tile, x))
    right = view(tile, (128, 4), (8, 1), 4)
    b.loop(3, body=lambda turn: b.emit(tensor_scalar(right, right, "multiply", 1.1)))
    b.emit(dma_copy(out, tile))
    expected = X.copy()
    for _ in range(3):
        expected[:, 4:] *= np.float32(1.1)
    np.testing.assert_array_equal(run(b)[0], expected)


def test_bytes_of_a_widened_tile_have_no_other_dtype():
    b = Builder()
    x, out, tile = b.input(X), b.output(128, 8, dtype="uint16"), b.tensor(128, 8, dtype="bfloat16")
    b.emit(dma_copy(tile, x), dma_copy(out, view(tile, (128, 8), (8, 1), dtype="uint16")))
    with pytest.raises(NkiError, match="NKI-U013"):
        run(b)


@pytest.mark.parametrize(
    "value, high", [("0", True), (" 0 ", True), ("1", False), ("", False), (None, False)]
)
def test_the_environment_asks_for_it(monkeypatch, value, high):
    monkeypatch.delenv("NKI_PRECISE_FP", raising=False)
    if value is not None:
        monkeypatch.setenv("NKI_PRECISE_FP", value)
    assert high_precision() is high
