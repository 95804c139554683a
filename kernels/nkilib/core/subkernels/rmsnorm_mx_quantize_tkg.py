"""RMSNorm of few rows, with an optional residual, quantized to MXFP8 (trn3).

    x = input + residual
    output = x / sqrt(mean(x^2) + eps) * gamma            [128, BxS, H / 128], h = j * 128 + p
    output_quant, output_scale = MX of output              groups of 8 partitions and 4 values

The norm is that of :mod:`.norm_tkg`: each core makes half of the rows and they exchange them. The four values
of element [p, t, r] of `output_quant` are output[p, r, w * H / 512 + t] for w = 0 to 3, as the matmul after
it contracts them. The vector engine quantizes a core's own rows while the others arrive, then those.

Kept in SBUF besides the results: what :mod:`.norm_tkg` keeps by rows, 2 * H bytes more with a residual.
"""

import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import get_verified_program_sharding_info
from ..utils.tensor_view import TensorView
from .norm_tkg import Norm, run_norm

_PACKED = 4  # values in an element of output_quant


def rmsnorm_mx_quantize_tkg(
    input,
    gamma,
    output,
    output_quant,
    output_scale,
    residual=None,
    output_residual=None,
    eps: float = 1e-6,
    hidden_actual: int | None = None,
    hidden_dim_tp: bool = True,
):
    """RMSNorm and MX quantization; for two programs on trn3.

    Args:
        input: [B, S, H] in HBM, fp16 or bf16; B * S is a multiple of 4, H of 512.
        gamma: [1, H] in HBM.
        output: [128, BxS, H // 128] fp16 or bf16 in SBUF; written.
        output_quant: [128, H // 512, BxS] of ``float8_e4m3fn_x4`` in SBUF; written.
        output_scale: [128, H // 512, BxS] uint8 in SBUF; four partitions of each quadrant are written.
        residual: [B, S, H] in HBM, added first; or None.
        output_residual: [BxS, H] in HBM for the sum; each core writes its half of the rows.
        eps: added to the mean.
        hidden_actual: the elements the mean is over, if the others are padding with zeros; None for H.
        hidden_dim_tp: True, the only layout.

    Returns:
        `output`, `output_quant`, `output_scale`, and `output_residual` if there is a residual.
    """
    name = "rmsnorm_mx_quantize_tkg"
    _, cores, core = get_verified_program_sharding_info(name, (0, 1), 2)
    kernel_assert(cores == 2, f"{name} runs on 2 programs, got {cores}")
    kernel_assert(hidden_dim_tp, f"{name} takes hidden_dim_tp=True, got {hidden_dim_tp}")
    norm = Norm(name, input, gamma, output, None, eps, None, False)
    _, rows, h1 = norm.output.shape
    kernel_assert(rows % 4 == 0, f"{name} takes B * S as a multiple of 4, got {rows}")
    kernel_assert(h1 % _PACKED == 0, f"{name} takes H as a multiple of 512, got {h1 * 128}")
    assert_shape(output_quant, (128, h1 // _PACKED, rows), "output_quant", f"{name}: [128, H // 512, BxS]")
    assert_shape(output_scale, (128, h1 // _PACKED, rows), "output_scale", f"{name}: [128, H // 512, BxS]")
    kernel_assert(
        (residual is None) == (output_residual is None),
        f"{name} takes residual and output_residual together or neither",
    )
    norm.transposed = True
    norm.set_hidden_actual(name, hidden_actual)
    if residual is not None:
        norm.residual = TensorView(residual).flatten_dims(0, 1)
        norm.output_residual = TensorView(output_residual)
        assert_shape(norm.residual, (rows, h1 * 128), "residual", f"{name}: [B, S, H]")
        assert_shape(norm.output_residual, (rows, h1 * 128), "output_residual", f"{name}: [BxS, H]")
    run_norm(norm, name, 0, False)
    for half in (core, 1 - core):
        _quantize(norm.output, output_quant, output_scale, half * rows // 2, rows // 2)
    if residual is None:
        return output, output_quant, output_scale
    return output, output_quant, output_scale, output_residual


def _quantize(output, output_quant, output_scale, start: int, rows: int) -> None:
    """Quantize some rows, all of H."""
    columns = output.slice(1, start, start + rows).reshape_dim(2, (_PACKED, -1)).permute((0, 3, 1, 2))
    nisa.quantize_mx(
        dst=output_quant[:, :, nl.ds(start, rows)],
        src=columns.get_view(),
        dst_scale=output_scale[:, :, nl.ds(start, rows)],
    )
