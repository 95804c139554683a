"""The integer helpers and tiled ranges of nkilib."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check
from nki_isa.diagnostics import NkiError
from nki_isa.machine.dtypes import as_dtype
from nkilib.core.utils.common_types import ActFnType, NormType
from nkilib.core.utils.kernel_assert import assert_shape, kernel_assert
from nkilib.core.utils.kernel_helpers import (
    div_ceil,
    get_ceil_aligned_size,
    get_ceil_quotient,
    get_floor_aligned_size,
    get_floor_quotient,
    get_max_positive_value_for_dtype,
    get_nl_act_fn_from_type,
    get_verified_program_sharding_info,
    is_hbm_buffer,
    is_launched_as_spmd,
    is_rms_normalization,
    normalization_uses_weights,
    reduce,
)
from nkilib.core.utils.tiled_range import TiledRange

positive = st.integers(1, 10_000)


@given(positive, positive)
def test_quotients(n, d):
    assert div_ceil(n, d) == get_ceil_quotient(n, d) == -(-n // d)
    assert get_floor_quotient(n, d) == n // d
    assert get_ceil_aligned_size(n, d) - n in range(d)
    assert n - get_floor_aligned_size(n, d) in range(d)


@given(positive, positive)
def test_tiles_cover_the_range_once(size, tile):
    tiles = TiledRange(size, tile)
    covered = [i for t in tiles for i in range(t.start_offset, t.end_offset)]
    assert covered == list(range(size))
    assert [t.index for t in tiles] == list(range(len(tiles)))
    assert all(t.size == t.end_offset - t.start_offset <= tile for t in tiles)


@given(positive, positive, positive)
def test_a_tile_can_be_tiled(size, outer, inner):
    covered = [
        i
        for t in TiledRange(size, outer)
        for u in TiledRange(t, inner)
        for i in range(u.start_offset, u.end_offset)
    ]
    assert covered == list(range(size))


def test_assertions_carry_their_text():
    kernel_assert(True, "never shown")
    with pytest.raises(AssertionError, match="too wide"):
        kernel_assert(False, "too wide")
    with pytest.raises(AssertionError, match=r"x has shape \(2, 3\), expected \(2, 4\)"):
        assert_shape(type("T", (), {"shape": (2, 3)})(), (2, 4), "x")


def test_shapes_of_norms_and_largest_values():
    assert [is_rms_normalization(norm) for norm in NormType] == [False, True, False, True]
    assert [normalization_uses_weights(norm) for norm in NormType] == [False, True, True, False]
    for dtype in (ml_dtypes.bfloat16, np.float16, np.float32, ml_dtypes.float8_e5m2):
        assert get_max_positive_value_for_dtype(as_dtype(dtype)) == float(ml_dtypes.finfo(dtype).max)
    assert get_max_positive_value_for_dtype(nl.float8_e4m3) == 240
    with pytest.raises(AssertionError, match="int8"):
        get_max_positive_value_for_dtype(nl.int8)


def test_activation_functions():
    engine = [get_nl_act_fn_from_type(act) for act in ActFnType]
    assert engine == [nl.silu, nl.gelu, nl.gelu_apprx_tanh, nl.gelu_apprx_sigmoid]


def test_reduce():
    assert reduce("mul", [2, 3, 4]) == 24
    assert reduce("mul", [2, 3, 4], 10) == 240
    assert (reduce("add", (1, 2)), reduce("min", [3, 1]), reduce("max", [3, 1], 7)) == (3, 1, 7)
    assert reduce("mul", [], 1) == 1
    with pytest.raises(AssertionError, match="initial_value"):
        reduce("mul", [])
    with pytest.raises(AssertionError, match="got div"):
        reduce("div", [1])


@nki.jit
def helped(x, act_fn, norm_type, cores):
    """Calls what the helpers do not show on the host."""
    _, count, program = get_verified_program_sharding_info("helped", (0, 1), cores)
    kernel_assert(is_hbm_buffer(x) and is_launched_as_spmd() == (count > 1), "where it runs")
    size = reduce("mul", x.shape)
    largest = get_max_positive_value_for_dtype(x.dtype)
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    for tile in TiledRange(x.shape[0], get_ceil_quotient(x.shape[0], count)):
        if tile.index == program:
            rows = nl.ds(tile.start_offset, tile.size)
            sbuf = nl.ndarray((tile.size, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=sbuf, src=x[rows])
            done = nl.ndarray((tile.size, x.shape[1]), dtype=nl.float32, buffer=nl.sbuf)
            nisa.activation(dst=done, data=sbuf, op=get_nl_act_fn_from_type(act_fn), scale=size / largest)
            if normalization_uses_weights(norm_type) and is_rms_normalization(norm_type):
                nisa.tensor_scalar(dst=done, data=done, op0=nl.add, operand0=1.0)
            nisa.dma_copy(dst=out[rows], src=done)
    return out


@pytest.mark.parametrize("level", ["0.2", "0.6"])
def test_helpers_inside_a_kernel(level):
    assert check(helped, "strict") == []
    x = np.ones((5, 8), np.float16)
    before = levels.use(level)
    try:
        scaled = 40 / 65504
        for cores in (1, 2):
            result = helped[cores](x, ActFnType.SiLU, NormType.RMS_NORM, 2)
            np.testing.assert_allclose(result, 1 + scaled / (1 + np.exp(-scaled)), rtol=1e-5)
        with pytest.raises(NkiError, match="helped runs on at most 1 programs, got 2"):
            helped[2](x, ActFnType.SiLU, NormType.RMS_NORM, 1)
    finally:
        levels.use(before)
