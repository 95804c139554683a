"""nkilib.core.rmsnorm.rmsnorm_quant: values and scales apart, options, refusals."""

import ml_dtypes
import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nkilib.core.rmsnorm.reference import fp8_and_scales, rmsnorm_quant_kernel_reference
from nkilib.core.rmsnorm.rmsnorm_quant import RmsNormQuantKernelArgs, rmsnorm_quant_kernel
from nkilib.core.utils.common_types import NormType, QuantizationType

RMS, NO_NORM = NormType.RMS_NORM, NormType.NO_NORM
ROW, STATIC = QuantizationType.ROW, QuantizationType.STATIC
BF16 = ml_dtypes.bfloat16
SCALE = np.full((128, 1), 0.02, np.float32)


def rows(shape, dtype=BF16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(dtype), rng.uniform(-1.5, 1.5, shape[-1]).astype(dtype)


def same_to_a_step(result, expected, kargs, unequal):
    """fp8 values are equal, except for a share `unequal` next to each other; scales to the bits of bf16."""
    (values, scales), (wanted, wanted_scales) = fp8_and_scales(result, kargs), fp8_and_scales(expected, kargs)
    assert values.shape == wanted.shape and values.dtype == ml_dtypes.float8_e4m3
    steps = np.abs(ordered(values) - ordered(wanted))
    assert steps.max() <= 1 and (steps != 0).mean() <= unequal
    if wanted_scales is not None:
        np.testing.assert_allclose(scales, wanted_scales, rtol=2**-8)


def ordered(values):
    """Integers in the order of fp8 values, 1 apart for neighbours."""
    bits = np.ascontiguousarray(values).view(np.int8).astype(int)
    return np.where(bits < 0, -(bits & 127), bits)


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32], ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("norm", [RMS, NO_NORM], ids=["rms", "none"])
@pytest.mark.parametrize("quantization, bound", [(ROW, 0.0), (ROW, 0.8), (STATIC, 0.0)], ids=str)
def test_values_and_scales(norm, quantization, bound, dtype, lnc):
    """135 rows: a tile and a tail; 2100 values: a chunk and a tail."""
    x, gamma = rows((135, 2100), dtype)
    kargs = RmsNormQuantKernelArgs(bound, norm, quantization)
    scale = SCALE if quantization == STATIC else None
    before = x.copy()
    result = rmsnorm_quant_kernel[lnc](x, gamma, kargs, scale)
    same_to_a_step(result, rmsnorm_quant_kernel_reference(x, gamma, kargs, scale), kargs, unequal=0.03)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 7, 5), (3, 5, 2, 6), (600, 33)], ids=str)
def test_any_number_of_dimensions(shape):
    x, gamma = rows(shape, np.float32)
    kargs = RmsNormQuantKernelArgs(0.0)
    result = rmsnorm_quant_kernel(x, gamma, kargs)
    assert result.shape == (*shape[:-1], shape[-1] + 4)
    same_to_a_step(result, rmsnorm_quant_kernel_reference(x, gamma, kargs), kargs, unequal=0.01)


def test_quantization_of_fp32_without_a_norm_is_exact():
    x, _ = rows((130, 300), np.float32)
    kargs = RmsNormQuantKernelArgs(0.0, NO_NORM)
    values, scales = fp8_and_scales(rmsnorm_quant_kernel(x, None, kargs), kargs)
    np.testing.assert_allclose(scales[:, 0], np.abs(x).max(axis=1) / 240, rtol=1e-6)
    assert np.abs(values.astype(np.float32)).max(axis=1).tolist() == [240.0] * 130


def test_rows_of_zeros_have_the_smallest_scale():
    kargs = RmsNormQuantKernelArgs(0.0)
    result = rmsnorm_quant_kernel(np.zeros((3, 8), np.float32), np.ones(8, np.float32), kargs)
    values, scales = fp8_and_scales(result, kargs)
    assert not values.astype(np.float32).any()
    np.testing.assert_array_equal(scales, np.full((3, 1), 1e-6, np.float32))


def test_a_lower_bound_limits_values_and_scale():
    x = np.array([[0.1, -4.0, 2.0, 0.5]], np.float32)
    kargs = RmsNormQuantKernelArgs(0.5, NO_NORM)
    values, scales = fp8_and_scales(rmsnorm_quant_kernel(x, None, kargs), kargs)
    np.testing.assert_allclose(values.astype(np.float32) * scales, [[0.1, -0.5, 0.5, 0.5]], rtol=0.05)


def test_static_quantization_saturates():
    x = np.array([[1e4, -1e4, 1.0, 0.0]], np.float32)
    kargs = RmsNormQuantKernelArgs(0.0, NO_NORM, STATIC)
    result = rmsnorm_quant_kernel(x, None, kargs, SCALE)
    np.testing.assert_array_equal(result.astype(np.float32), [[240.0, -240.0, 48.0, 0.0]])


def test_trn3():
    from nki.runtime import session
    from nki_isa.machine.targets import as_target

    x, gamma = rows((20, 96))
    kargs = RmsNormQuantKernelArgs(0.0)
    with session(target=as_target("trn3")):
        result = rmsnorm_quant_kernel[2](x, gamma, kargs)
    same_to_a_step(result, rmsnorm_quant_kernel_reference(x, gamma, kargs), kargs, unequal=0.03)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"norm_type": NormType.LAYER_NORM}, "norm_type is RMS_NORM or NO_NORM, got NormType.LAYER_NORM"),
        ({"quantization_type": QuantizationType.MX}, "quantization_type is ROW or STATIC"),
        ({"lower_bound": -0.1}, "lower_bound is not negative, got -0.1"),
        ({"eps": -1e-6}, "eps is not negative"),
    ],
)
def test_constants_that_cannot_be(options, message):
    with pytest.raises(AssertionError, match=message):
        RmsNormQuantKernelArgs(**{"lower_bound": 0.0, **options})


def test_what_the_constants_say():
    kargs = RmsNormQuantKernelArgs(0.0)
    assert kargs.needs_rms_normalization() and kargs.is_row_quant()
    assert not kargs.has_lower_bound() and not kargs.is_static_quant()
    assert RmsNormQuantKernelArgs(0.1).has_lower_bound()


@pytest.mark.parametrize(
    "shape, gamma, options, lnc, message",
    [
        ((8,), (8,), {}, 1, "at least 2 dimensions"),
        ((3, 4, 8), (8,), {}, 1, "B of hidden is at most 2, got 3"),
        ((1, 32769, 2), (2,), {}, 1, "S of hidden is at most 32768, got 32769"),
        ((65537, 1), (1,), {}, 1, "at most 65536 rows, got 65537"),
        ((2, 16385), (16385,), {}, 1, "at most 16384, got 16385"),
        ((2, 8), (9,), {}, 1, "ln_w is .* H = 8, got"),
        ((2, 8), None, {}, 1, "RMS_NORM needs ln_w"),
        ((2, 8), (8,), {"quantization_type": STATIC}, 1, "STATIC quantization needs input_dequant_scale"),
        ((1, 8), (8,), {}, 2, "1 rows, fewer than the 2 programs"),
    ],
)
def test_refusals(shape, gamma, options, lnc, message):
    weights = None if gamma is None else np.ones(gamma, np.float32)
    with pytest.raises(NkiError, match=message) as caught:
        rmsnorm_quant_kernel[lnc](
            np.zeros(shape, np.float32), weights, RmsNormQuantKernelArgs(lower_bound=0.0, **options)
        )
    assert "[NCC_INKI016] Kernel validation exception" in str(caught.value)
    assert caught.value.diagnostics[0].code == "NKI-L020"
