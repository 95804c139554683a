"""LayerNorm of the few rows of token generation, with the hidden dimension on the partitions."""

from ..utils.allocator import SbufManager
from .norm_tkg import Norm, run_norm

SHARDING_THRESHOLD = 10
"""Rows up to which each core makes all of them."""


def layernorm_tkg(
    input,
    gamma,
    output,
    beta=None,
    eps: float = 1e-6,
    use_heap_memory: bool = False,
    sbm: SbufManager | None = None,
):
    """output = (input - mean) / sqrt(variance + eps) * gamma + beta; see :mod:`.norm_tkg`.

    Args:
        input: [B, S, H] or [BxS, H] in HBM, or [128, BxS, H // 128] in SBUF in the layout of `output`;
            bf16, fp16 or fp32. A tensor or a :class:`.TensorView`, as are the others.
        gamma: [1, H] in HBM.
        output: [128, BxS, H // 128] in SBUF or HBM; written.
        beta: [1, H] in HBM, or None.
        eps: added to the variance, which is the mean of the squared differences.
        use_heap_memory: allocate on the heap of `sbm`.
        sbm: what allocates; None leaves it to the compiler.

    Returns:
        `output`.
    """
    norm = Norm("layernorm_tkg", input, gamma, output, beta, eps, sbm, use_heap_memory)
    norm.centred = True
    run_norm(norm, "layernorm_tkg", SHARDING_THRESHOLD, False)
    return output
