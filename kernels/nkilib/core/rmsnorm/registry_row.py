"""rmsnorm_quant in the table of kernels."""

from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.rmsnorm.reference import fp8_and_scales, rmsnorm_quant_kernel_reference
from nkilib.core.rmsnorm.rmsnorm_quant import RmsNormQuantKernelArgs, rmsnorm_quant_kernel
from nkilib.core.utils.common_types import NormType, QuantizationType
from nkilib.registry import Example, Inputs, Row, Tolerance


def _example(
    name: str,
    shape: tuple[int, ...],
    dtype: Any = ml_dtypes.bfloat16,
    lower_bound: float = 0.0,
    norm: NormType = NormType.RMS_NORM,
    quantization: QuantizationType = QuantizationType.ROW,
    **more: Any,
) -> Example:
    def inputs(rng: np.random.Generator) -> Inputs:
        arrays = {
            "hidden": rng.standard_normal(shape).astype(dtype),
            "ln_w": rng.uniform(0.5, 1.5, (1, shape[-1])).astype(dtype),
        }
        if quantization == QuantizationType.STATIC:
            arrays["input_dequant_scale"] = np.full((128, 1), 0.015, np.float32)
        return arrays

    kargs = RmsNormQuantKernelArgs(lower_bound, norm, quantization)
    return Example(name=name, inputs=inputs, options={"kargs": kargs}, **more)


def _values(result: Any, arguments: Inputs) -> list[Any]:
    values, scales = fp8_and_scales(np.asarray(result), arguments["kargs"])
    values = values.astype(np.float32)
    return [values] if scales is None else [values * scales, scales]


ROWS = (
    Row(
        name="rmsnorm_quant",
        entry=rmsnorm_quant_kernel,
        reference=rmsnorm_quant_kernel_reference,
        summary="RMSNorm, if asked for, and quantization of rows to fp8 with their scales",
        maths=(
            "`n = x / sqrt(mean(x^2) + eps) * gamma`, or `n = x`. Row quantization: `n` is clipped to "
            "±lower_bound (if not 0), `scale = max(max|n| / 240, 1e-6)`, `q = n / scale`, and the four bytes "
            "of the fp32 scale follow the fp8 values of the row. Static quantization: "
            "`q = clip(n / scale, -240, 240)` with the given scale."
        ),
        options={
            "hidden": "`[B, S, H]`, or two dimensions or more `[..., H]`; bf16, fp16 or fp32",
            "ln_w": "`[H]` or `[1, H]`, the weights gamma",
            "kargs": "`RmsNormQuantKernelArgs(lower_bound, norm_type, quantization_type, eps)`",
            "input_dequant_scale": "`[128, 1]` fp32, the scale of static quantization",
        },
        limits=(
            "H is at most 16384.",
            "Three dimensions: B is at most 2, S at most 32768; else there are at most 65536 rows.",
            "There are at least as many rows as programs.",
        ),
        examples=(
            _example("llama-8b", (1, 256, 4096), lnc=(2,), about="rows of Llama 3 8B"),
            _example(
                "lower-bound", (2, 45, 2100), np.float16, 0.5, lnc=(1, 2), about="rows of a tail, clipped"
            ),
            _example("short-rows", (700, 96), np.float32, targets=("trn1", "trn2", "trn3")),
            _example("no-norm", (1, 130, 640), norm=NormType.NO_NORM, lnc=(1, 2)),
            _example("static", (1, 100, 2880), quantization=QuantizationType.STATIC),
            _example(
                "static-no-norm", (100, 64), norm=NormType.NO_NORM, quantization=QuantizationType.STATIC
            ),
            _example("llama-70b", (1, 2048, 8192), lnc=(2,), slow=True, about="rows of Llama 3 70B"),
            _example("llama-405b", (1, 2048, 16384), lnc=(2,), slow=True, about="rows of Llama 3 405B"),
            _example("one-row", (1, 2, 16384), lnc=(2,), slow=True, about="a row for each core"),
        ),
        tolerance=Tolerance(
            rtol=0.13,
            atol=1e-4,
            reason="rows are rounded to 16 bits on the way, so that a few fp8 values are a step, 1/8, apart",
        ),
        page="nki/library/api/rmsnorm-quant",
        values=_values,
    ),
)
