"""Cross entropy of large vocabularies, backward; the forward pass is that of :mod:`nkilib.core.loss`.

    grad = (exp(x - lse) - onehot(target)) * scale,   scale = 1 / N for the mean, 1 for the sum

The scale goes into the exponent, exp(x - lse + log(scale)), so that one instruction makes a tile of
gradients. The one element per position that differs is computed from the logit of the target, gathered before
anything is overwritten, and scattered into the gradient after the last store:

    DMA      tiles in and out; gather and scatter of the targets
    scalar   exp(x + bias) in place
    gpsimd   where the targets are, in int32

The DMA decides the time. SBUF per partition: tiles of 16384 logits, 32 KiB in bf16 and 64 KiB in fp32, of
which two or three are in flight.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ...core.loss.cross_entropy import cross_entropy_forward
from ...core.loss.positions import check_arguments, my_blocks, of_targets, target_places, tiles_of
from ...core.utils.kernel_assert import kernel_assert

__all__ = ["cross_entropy_backward", "cross_entropy_forward"]


@nki.jit
def cross_entropy_backward(
    logits_hbm,
    targets_hbm,
    lse_state_hbm,
    reduction="mean",
    positions_per_batch=32,
    chunk_size=32768,
    dtype=nl.bfloat16,
    inplace=True,
):
    """Gradient of the cross entropy with respect to the logits.

    Args:
        logits_hbm: [N, V] in HBM, bf16 or fp32.
        targets_hbm: [N] int32, 0 to V - 1.
        lse_state_hbm: [N], what `cross_entropy_forward` returned, bf16 or fp32.
        reduction: "mean" for the gradient of the mean over N, "sum" for that of the sum.
        positions_per_batch: as for `cross_entropy_forward`.
        chunk_size: as for `cross_entropy_forward`.
        dtype: bf16 or fp32; it counts for the limits, arithmetic is fp32.
        inplace: write the gradient over `logits_hbm`; False makes a new tensor.

    Returns:
        [N, V] in HBM, of the dtype of `logits_hbm`: `logits_hbm` itself if `inplace`.
    """
    check_arguments(logits_hbm, targets_hbm, positions_per_batch, chunk_size, dtype)
    positions = logits_hbm.shape[0]
    kernel_assert(
        len(lse_state_hbm.shape) == 1 and lse_state_hbm.shape[0] == positions,
        f"lse_state_hbm is [N] with N = {positions}, got shape {lse_state_hbm.shape}",
    )
    kernel_assert(
        lse_state_hbm.dtype in (nl.bfloat16, nl.float32),
        f"lse_state_hbm is bfloat16 or float32, got {lse_state_hbm.dtype}",
    )
    kernel_assert(reduction in ("mean", "sum"), f"reduction is 'mean' or 'sum', got {reduction!r}")

    grad = logits_hbm
    if not inplace:
        grad = nl.ndarray(logits_hbm.shape, dtype=logits_hbm.dtype, buffer=nl.shared_hbm)
    divisor = positions if reduction == "mean" else 1
    for block in my_blocks(positions):
        _block_backward(logits_hbm, targets_hbm, lse_state_hbm, grad, block, divisor, chunk_size)
    return grad


def _block_backward(logits_hbm, targets_hbm, lse_state_hbm, grad, block, divisor, chunk_size):
    lanes, groups = block.lanes, block.groups
    vocabulary = logits_hbm.shape[1]
    bias = _bias(lse_state_hbm, block, divisor)
    places = target_places(block, targets_hbm, vocabulary)
    picked = nl.ndarray((lanes, groups), dtype=logits_hbm.dtype, buffer=nl.sbuf)
    for group in range(groups):
        nisa.dma_copy(dst=picked[:, group : group + 1], src=of_targets(block, logits_hbm, places, group))

    for group in range(groups):
        for tile in tiles_of(vocabulary, chunk_size):
            x = nl.ndarray((lanes, tile.size), dtype=logits_hbm.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=x, src=block.tile(logits_hbm, group, tile))
            nisa.activation(dst=x, op=nl.exp, data=x, bias=bias[:, group : group + 1])
            nisa.dma_copy(dst=block.tile(grad, group, tile), src=x)

    # exp(picked + bias) - scale
    sums = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=sums, data1=picked, data2=bias, op=nl.add)
    nisa.activation(dst=sums, op=nl.exp, data=sums)
    nisa.tensor_scalar(dst=picked, data=sums, op0=nl.subtract, operand0=1.0 / divisor)
    for group in range(groups):
        nisa.dma_copy(dst=of_targets(block, grad, places, group), src=picked[:, group : group + 1])


def _bias(lse_state_hbm, block, divisor):
    """-lse - log(divisor), fp32 [lanes, groups]."""
    shape = (block.lanes, block.groups)
    lse = nl.ndarray(shape, dtype=lse_state_hbm.dtype, buffer=nl.sbuf)
    bias = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=lse, src=block.column(lse_state_hbm))
    if divisor == 1:
        nisa.tensor_scalar(dst=bias, data=lse, op0=nl.multiply, operand0=-1.0)
        return bias
    logarithm = nl.ndarray((block.lanes, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=logarithm, value=float(divisor))
    nisa.activation(dst=logarithm, op=nl.log, data=logarithm)
    nisa.tensor_scalar(
        dst=bias, data=lse, op0=nl.multiply, operand0=-1.0, op1=nl.subtract, operand1=logarithm
    )
    return bias
