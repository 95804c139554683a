"""RMSNorm of the few rows of token generation, with the hidden dimension on the partitions."""

from ..utils.allocator import SbufManager
from .norm_tkg import Norm, run_norm

SHARDING_THRESHOLD = 18
"""Rows up to which each core makes all of them."""


def rmsnorm_tkg(
    input,
    gamma,
    output,
    eps: float = 1e-6,
    hidden_actual: int | None = None,
    hidden_dim_tp: bool = False,
    single_core_forced: bool = False,
    use_heap_memory: bool = False,
    sbm: SbufManager | None = None,
):
    """output = input / sqrt(mean(input^2) + eps) * gamma; see :mod:`.norm_tkg`.

    Args:
        input: [B, S, H] or [BxS, H] in HBM, or [128, BxS, H // 128] in SBUF in the layout of `output`;
            bf16, fp16 or fp32. A tensor or a :class:`.TensorView`, as are `gamma` and `output`.
        gamma: [1, H] in HBM.
        output: [128, BxS, H // 128] in SBUF or HBM; written.
        eps: added to the mean.
        hidden_actual: the elements the mean is over, if the others are padding with zeros; None for H.
        hidden_dim_tp: H is seen as (H // 128, 128), not as (chunks, 128, H // 128 // chunks).
        single_core_forced: each core works as if it was alone: one chunk, all rows.
        use_heap_memory: allocate on the heap of `sbm`.
        sbm: what allocates; None leaves it to the compiler.

    Returns:
        `output`.
    """
    norm = Norm("rmsnorm_tkg", input, gamma, output, None, eps, sbm, use_heap_memory)
    norm.transposed = hidden_dim_tp
    norm.set_hidden_actual("rmsnorm_tkg", hidden_actual)
    run_norm(norm, "rmsnorm_tkg", SHARDING_THRESHOLD, single_core_forced)
    return output
