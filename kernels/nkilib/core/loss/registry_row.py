"""cross_entropy_forward in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

import nki.language as nl
from nkilib.core.loss.cross_entropy import cross_entropy_forward
from nkilib.core.loss.reference import cross_entropy_forward_reference
from nkilib.registry import Example, Inputs, Row, Tolerance

BF16 = ml_dtypes.bfloat16


def logits_and_targets(rng: np.random.Generator, positions: int, vocabulary: int, dtype: Any) -> Inputs:
    """Logits of a normal distribution and targets anywhere."""
    return {
        "logits_hbm": (2 * rng.standard_normal((positions, vocabulary), np.float32)).astype(dtype),
        "targets_hbm": rng.integers(0, vocabulary, positions).astype(np.int32),
    }


def _example(
    name: str,
    positions: int,
    vocabulary: int,
    chunk_size: int,
    dtype: Any = BF16,
    batch: int = 32,
    **more: Any,
) -> Example:
    return Example(
        name=name,
        inputs=functools.partial(logits_and_targets, positions=positions, vocabulary=vocabulary, dtype=dtype),
        options={
            "positions_per_batch": batch,
            "chunk_size": chunk_size,
            "dtype": nl.float32 if dtype is np.float32 else nl.bfloat16,
        },
        **more,
    )


ROWS = (
    Row(
        name="cross_entropy_forward",
        entry=cross_entropy_forward,
        reference=cross_entropy_forward_reference,
        summary="Cross entropy of large vocabularies, and the log-sum-exp of each position",
        maths="`lse = log(sum(exp(x)))`, `loss = lse - x[target]`, for each of N positions over V logits.",
        options={
            "logits_hbm": "`[N, V]` in HBM, bf16 or fp32",
            "targets_hbm": "`[N]` int32",
            "positions_per_batch": "1 to 128; a batch fills the partitions whatever it is",
            "chunk_size": "the most logits of a position that a step handles, at most V and 65535",
            "dtype": "bf16 or fp32, of the two results `[N]`",
        },
        limits=("positions_per_batch * chunk_size * bytes of `dtype` is at most 24 MiB.",),
        examples=(
            _example("tails", 300, 1500, 1000, lnc=(1, 2), about="tails of positions and of logits"),
            _example("fp32", 70, 700, 700, np.float32, 128, targets=("trn2", "trn3")),
            _example("one", 1, 64, 64, batch=1, lnc=(2,), about="a core without work"),
            _example("deepseek-v3", 128, 129280, 65535, batch=64, lnc=(2,), slow=True),
            _example("qwen3", 256, 151936, 65535, batch=64, lnc=(2,), slow=True),
            _example("llama4-fp32", 128, 202408, 32768, np.float32, 64, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(
            rtol=2**-8,
            atol=2e-6,
            reason="one rounding to `dtype`; the loss is a difference of two numbers of the size of lse",
        ),
        page="nki/library/api/cross-entropy",
    ),
)
