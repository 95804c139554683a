"""nkilib.experimental.loss: cross entropy forward and backward, large numbers, refusals."""

import ml_dtypes
import numpy as np
import pytest

import nki.language as nl
import nkilib.core.loss
from nki_isa.diagnostics import NkiError
from nkilib.core.loss.reference import cross_entropy_forward_reference
from nkilib.experimental.loss import cross_entropy_backward, cross_entropy_forward
from nkilib.experimental.loss.reference import cross_entropy_backward_reference

FP32, BF16 = np.float32, ml_dtypes.bfloat16


def problem(positions, vocabulary, dtype=FP32):
    rng = np.random.default_rng(positions + vocabulary)
    x = (3 * rng.standard_normal((positions, vocabulary))).astype(dtype)
    return x, rng.integers(0, vocabulary, positions).astype(np.int32)


def limits(vocabulary, dtype=nl.float32):
    return {"positions_per_batch": 16, "chunk_size": vocabulary, "dtype": dtype}


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize(
    "positions, vocabulary, chunk", [(1, 1, 1), (3, 50, 7), (129, 40, 40), (400, 33, 20)]
)
def test_both_passes_in_fp32(positions, vocabulary, chunk, lnc):
    x, targets = problem(positions, vocabulary)
    options = {**limits(vocabulary), "chunk_size": chunk}
    loss, lse = cross_entropy_forward[lnc](x, targets, **options)
    wanted_loss, wanted_lse = cross_entropy_forward_reference(x, targets, FP32)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(lse, wanted_lse, rtol=1e-6, atol=1e-6)
    wanted = cross_entropy_backward_reference(x, targets, lse)
    grad = cross_entropy_backward[lnc](x, targets, lse, **options)
    np.testing.assert_allclose(grad, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(x, grad)  # in place


def test_gradients_add_up_to_nothing():
    x, targets = problem(50, 300)
    _, lse = cross_entropy_forward(x, targets, **limits(300))
    grad = cross_entropy_backward(x, targets, lse, reduction="sum", inplace=False, **limits(300))
    np.testing.assert_allclose(grad.sum(axis=1), np.zeros(50), atol=1e-5)
    assert (grad[np.arange(50), targets] < 0).all()


def test_a_new_tensor_leaves_the_logits():
    x, targets = problem(20, 30, BF16)
    before = x.copy()
    lse = np.full(20, 5, BF16)
    grad = cross_entropy_backward[2](x, targets, lse, inplace=False, **limits(30, nl.bfloat16))
    np.testing.assert_array_equal(x, before)
    wanted = cross_entropy_backward_reference(x, targets, lse)
    np.testing.assert_allclose(grad.astype(FP32), wanted.astype(FP32), rtol=2**-7, atol=1e-6)


def test_tiles_of_very_different_size():
    """Each tile has its own maximum: no exponential overflows, none that counts is lost."""
    x = np.full((2, 30), -1000, FP32)
    x[0, 25], x[1, 3] = 2000, 80
    targets = np.array([25, 4], np.int32)
    loss, lse = cross_entropy_forward(x, targets, **{**limits(30), "chunk_size": 10})
    np.testing.assert_allclose(lse, [2000, 80])
    np.testing.assert_allclose(loss, [0, 1080])


def test_bf16_results_are_rounded_once():
    x, targets = problem(64, 500, BF16)
    for result, wanted in zip(
        cross_entropy_forward(x, targets, **limits(500, nl.bfloat16)),
        cross_entropy_forward_reference(x, targets, BF16),
        strict=True,
    ):
        assert result.dtype == BF16
        np.testing.assert_allclose(result.astype(FP32), wanted.astype(FP32), rtol=2**-8)


def test_the_packages_share_the_forward_pass():
    assert nkilib.core.loss.cross_entropy_forward is cross_entropy_forward


GOOD = {"logits_hbm": np.zeros((4, 32), FP32), "targets_hbm": np.zeros(4, np.int32), **limits(32)}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logits_hbm": np.zeros((4, 2, 32), FP32)}, r"logits_hbm is \[N, V\]"),
        ({"logits_hbm": np.zeros((4, 32), np.float16)}, "logits_hbm is bfloat16 or float32, got float16"),
        ({"targets_hbm": np.zeros((4, 1), np.int32)}, r"targets_hbm is \[N\]"),
        ({"targets_hbm": np.zeros(5, np.int32)}, "targets_hbm has 4 positions .* got 5"),
        ({"targets_hbm": np.zeros(4, np.uint32)}, "targets_hbm is int32, got uint32"),
        ({"dtype": nl.float16}, "dtype is bfloat16 or float32, got float16"),
        ({"positions_per_batch": 0}, "positions_per_batch is 1 to 128, got 0"),
        ({"positions_per_batch": 129}, "positions_per_batch is 1 to 128, got 129"),
        ({"chunk_size": 0}, "chunk_size is 1 to 32, got 0"),
        ({"chunk_size": 33}, "chunk_size is 1 to 32, got 33"),
    ],
)
def test_refusals_of_both_passes(changes, message):
    given = {**GOOD, **changes}
    refused(lambda: cross_entropy_forward(**given), message)
    refused(lambda: cross_entropy_backward(**given, lse_state_hbm=np.zeros(4, FP32)), message)


def test_chunks_are_limited():
    wide = {
        "logits_hbm": np.zeros((1, 65536), FP32),
        "targets_hbm": np.zeros(1, np.int32),
        "dtype": nl.float32,
    }
    refused(
        lambda: cross_entropy_forward(**wide, positions_per_batch=1, chunk_size=65536),
        "chunk_size is 1 to 65535, got 65536",
    )
    refused(
        lambda: cross_entropy_forward(**wide, positions_per_batch=128, chunk_size=65535),
        "at most 25165824, got 33553920",
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reduction": "none"}, "reduction is 'mean' or 'sum', got 'none'"),
        ({"lse_state_hbm": np.zeros(3, FP32)}, r"lse_state_hbm is \[N\] with N = 4"),
        ({"lse_state_hbm": np.zeros(4, np.float16)}, "lse_state_hbm is bfloat16 or float32"),
    ],
)
def test_refusals_of_the_backward_pass(changes, message):
    refused(
        lambda: cross_entropy_backward(**{**GOOD, "lse_state_hbm": np.zeros(4, FP32), **changes}), message
    )


def refused(call, message):
    with pytest.raises(NkiError, match=message) as caught:
        call()
    assert "[NCC_INKI016] Kernel validation exception" in str(caught.value)
