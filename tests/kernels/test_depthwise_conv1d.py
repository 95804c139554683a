"""nkilib.experimental.conv.depthwise_conv1d: shapes, padding, steps, dtypes, refusals."""

import ml_dtypes
import numpy as np
import pytest

from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target
from nkilib.experimental.conv.depthwise_conv1d import depthwise_conv1d_implicit_gemm
from nkilib.experimental.conv.reference import depthwise_conv1d_reference

FP32 = np.float32


def problem(batch, channels, width, taps, dtype=FP32):
    rng = np.random.default_rng(channels + width + taps)
    x = rng.standard_normal((batch, channels, 1, width)).astype(dtype)
    return x, rng.standard_normal((channels, 1, 1, taps)).astype(dtype)


def check(x, filters, padding=(0, 0), step=1, lnc=1, rtol=1e-5, atol=1e-4):
    options = {"padding": ((0, 0), padding), "stride": (1, step)}
    before = x.copy()
    out = depthwise_conv1d_implicit_gemm[lnc](x, filters, **options, feature_group_count=x.shape[1])
    wanted = depthwise_conv1d_reference(x, filters, **options)
    assert (out.shape, out.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(out.astype(FP32), wanted.astype(FP32), rtol=rtol, atol=atol)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize(
    "batch, channels, width, taps",
    [
        (1, 2, 40, 1),  # as many results as columns
        (1, 2, 100, 64),  # copies of x for 16 taps
        (2, 12, 90, 7),  # a prime number of taps
        (3, 6, 700, 50),  # two banks for each image, a group for two images
        (1, 260, 60, 3),  # tiles of channels and a tail
        (1, 4, 2200, 5),  # groups of results and a tail
        (1, 4, 64, 64),  # one result
        (2, 4, 90, 70),  # few results
    ],
)
def test_shapes(batch, channels, width, taps, lnc):
    check(*problem(batch, channels, width, taps), lnc=lnc)


@pytest.mark.parametrize("padding", [(0, 3), (3, 0), (10, 10)])
@pytest.mark.parametrize("width, taps", [(60, 6), (30, 20), (5, 10)])
def test_padding(width, taps, padding):
    if taps <= width + sum(padding):
        check(*problem(2, 4, width, taps), padding)


@pytest.mark.parametrize("step", [2, 3, 16])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1)])
def test_steps(step, padding):
    check(*problem(1, 4, 1200, 10), padding, step)


@pytest.mark.parametrize("dtype, rtol", [(ml_dtypes.bfloat16, 2**-7), (np.float16, 2**-10)])
@pytest.mark.parametrize("taps", [8, 110])
def test_16_bits(dtype, rtol, taps):
    check(*problem(1, 6, 120, taps, dtype), (1, 1), rtol=rtol, atol=2e-3)


def test_a_channel_does_not_see_its_neighbours():
    x, filters = problem(1, 4, 80, 6)
    x[0, 2] = 1e30
    out = depthwise_conv1d_implicit_gemm(x, filters, ((0, 0), (2, 2)), feature_group_count=4)
    others = [0, 1, 3]
    wanted = depthwise_conv1d_reference(x[:, others], filters[others], ((0, 0), (2, 2)))
    np.testing.assert_allclose(out[:, others], wanted, rtol=1e-5, atol=1e-5)


def test_trn3():
    with session(target=as_target("trn3")):
        check(*problem(1, 8, 100, 9), lnc=2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"feature_group_count": 1}, "feature_group_count is C = 4, got 1"),
        ({"batch_group_count": 2}, "batch_group_count is 1, got 2"),
        ({"rhs_dilation": (1, 2)}, r"rhs_dilation is \(1, 1\)"),
        ({"lhs_dilation": (2, 1)}, r"lhs_dilation is \(1, 1\)"),
        ({"stride": (2, 1)}, r"stride is \(1, 1 or more\)"),
        ({"padding": ((1, 0), (0, 0))}, r"padding\[0\], along the height"),
        ({"padding": ((0, 0), (-1, 0))}, r"padding\[1\] is not negative"),
        ({"filter_ref": np.zeros((4, 1, 1, 31), FP32)}, "S is at most W and its padding, 30, got 31"),
        ({"filter_ref": np.zeros((3, 1, 1, 5), FP32)}, r"filter_ref is \[C, 1, 1, S\] with C = 4"),
        ({"filter_ref": np.zeros((4, 1, 1, 5), np.float16)}, "img_ref and filter_ref have one dtype"),
        ({"img_ref": np.zeros((1, 4, 2, 30), FP32)}, r"img_ref is \[N, C, 1, W\]"),
        (
            {"img_ref": np.zeros((1, 4, 1, 30), np.int32)},
            "img_ref is bfloat16, float16 or float32, got int32",
        ),
    ],
)
def test_refusals(changes, message):
    x, filters = problem(1, 4, 30, 5)
    given = {"img_ref": x, "filter_ref": filters, "feature_group_count": 4, **changes}
    refused(lambda: depthwise_conv1d_implicit_gemm(**given), message)


def test_channels_are_shared_evenly():
    x, filters = problem(1, 3, 30, 5)
    refused(
        lambda: depthwise_conv1d_implicit_gemm[2](x, filters, feature_group_count=3),
        "C = 3 does not divide over 2 programs",
    )


def refused(call, message):
    with pytest.raises(NkiError, match=message) as caught:
        call()
    assert "[NCC_INKI016] Kernel validation exception" in str(caught.value)
