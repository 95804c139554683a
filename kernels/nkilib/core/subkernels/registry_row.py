"""The sub-kernels in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.subkernels.layernorm_tkg import layernorm_tkg
from nkilib.core.subkernels.reference import layernorm_tkg_reference, rmsnorm_tkg_reference
from nkilib.core.subkernels.rmsnorm_tkg import rmsnorm_tkg
from nkilib.registry import Example, Row, Tolerance


def _operands(
    rng: np.random.Generator, shape: tuple[int, int, int], dtype: Any, beta: bool, padded: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Rows [B, S, H] whose last `padded` columns are 0, weights around 1, and where the result goes."""
    batch, sequence, hidden = shape
    x = rng.standard_normal(shape) + 0.5
    x[..., hidden - padded :] = 0
    made = {
        "input": x.astype(dtype),
        "gamma": (1 + 0.1 * rng.standard_normal((1, hidden))).astype(dtype),
        "output": np.zeros((128, batch * sequence, hidden // 128), dtype),
    }
    if beta:
        made["beta"] = rng.standard_normal((1, hidden)).astype(dtype)
    return made


def _example(
    name: str, shape: tuple[int, int, int], dtype: Any, *, beta: bool = False, padded: int = 0, **more: Any
) -> Example:
    inputs = functools.partial(_operands, shape=shape, dtype=dtype, beta=beta, padded=padded)
    return Example(name=name, inputs=inputs, **more)


_LAYOUT = (
    "The hidden dimension lies on the partitions: H is cut into one chunk for each program of the launch, "
    "each chunk is seen as (128, H / 128 / chunks), and the chunks lie side by side."
)
_OPTIONS = {
    "input": "`[B, S, H]` in HBM, or `[128, B * S, H / 128]` in SBUF, laid out as `output`",
    "gamma": "`[1, H]` in HBM",
    "output": "`[128, B * S, H / 128]` in SBUF or HBM; written and returned",
    "beta": "`[1, H]` in HBM, or None",
    "eps": "added to the mean of the squares",
    "hidden_actual": "elements the mean is over where the others are padding; None for H",
    "hidden_dim_tp": "H is seen as (H / 128, 128) instead",
    "single_core_forced": "each core works as if it was alone: one chunk, all rows",
    "use_heap_memory": "allocate on the heap of `sbm`",
    "sbm": "the SbufManager that allocates; None leaves it to the compiler",
}
_LIMITS = ("H is a multiple of 128, and H / 128 of the number of programs.", "B * S rows of any number.")
_BF16 = ml_dtypes.bfloat16

ROWS = (
    Row(
        name="rmsnorm_tkg",
        entry=rmsnorm_tkg,
        reference=rmsnorm_tkg_reference,
        summary="RMSNorm of few rows, hidden dimension on the partitions",
        maths=f"`y = x / sqrt(mean(x^2) + eps) * gamma` over each row. {_LAYOUT}",
        options={name: text for name, text in _OPTIONS.items() if name != "beta"},
        limits=_LIMITS,
        examples=(
            _example("decode", (1, 1, 8192), _BF16, lnc=(1, 2), about="one token of Llama-3 70B"),
            _example("batch-32", (32, 1, 4096), _BF16, lnc=(1, 2), about="Llama-3 8B, 32 sequences"),
            _example("speculative", (4, 5, 1024), np.float16, lnc=(1, 2), targets=("trn2", "trn3")),
            _example(
                "padded",
                (2, 8, 3072),
                _BF16,
                padded=192,
                options={"hidden_actual": 2880},
                about="gpt-oss",
            ),
            _example("transposed", (4, 2, 1024), _BF16, options={"hidden_dim_tp": True}, lnc=(1, 2)),
            _example("fp32", (5, 7, 512), np.float32),
            _example("batch-640", (640, 1, 3072), _BF16, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(
            rtol=2**-7,
            atol=2**-16,
            reason="one rounding to the output's dtype; rstd has 16 bits where rows lie on the partitions",
        ),
        page="nki-library",
    ),
    Row(
        name="layernorm_tkg",
        entry=layernorm_tkg,
        reference=layernorm_tkg_reference,
        summary="LayerNorm of few rows, hidden dimension on the partitions",
        maths=f"`y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * gamma + beta` over each row. {_LAYOUT}",
        options={name: _OPTIONS[name] for name in ("input", "gamma", "output", "beta", "eps")}
        | {name: _OPTIONS[name] for name in ("use_heap_memory", "sbm")},
        limits=_LIMITS,
        examples=(
            _example("decode", (1, 1, 8192), _BF16, beta=True, lnc=(1, 2)),
            _example("batch-32", (32, 1, 4096), _BF16, beta=True, lnc=(1, 2)),
            _example("no-beta", (3, 4, 512), np.float16, lnc=(1, 2), targets=("trn2", "trn3")),
            _example("fp32", (5, 7, 512), np.float32, beta=True),
        ),
        tolerance=Tolerance(
            rtol=2**-7,
            atol=2**-5,
            reason="bf16 rounds the centred row and the output; beta may cancel what gamma scales",
        ),
        page="nki-library",
    ),
)
