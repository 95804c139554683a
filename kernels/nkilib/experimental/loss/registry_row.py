"""cross_entropy_backward in the table of kernels."""

from typing import Any

import numpy as np

import nki.language as nl
from nkilib.core.loss.reference import cross_entropy_forward_reference
from nkilib.core.loss.registry_row import BF16, logits_and_targets
from nkilib.experimental.loss.cross_entropy import cross_entropy_backward
from nkilib.experimental.loss.reference import cross_entropy_backward_reference
from nkilib.registry import Example, Inputs, Row, Tolerance


def _example(
    name: str,
    positions: int,
    vocabulary: int,
    chunk_size: int,
    dtype: Any = BF16,
    batch: int = 128,
    lnc: tuple[int, ...] = (1,),
    targets: tuple[str, ...] = ("trn2",),
    slow: bool = False,
    about: str = "",
    **options: Any,
) -> Example:
    def inputs(rng: np.random.Generator) -> Inputs:
        arrays = logits_and_targets(rng, positions, vocabulary, dtype)
        return {**arrays, "lse_state_hbm": cross_entropy_forward_reference(**arrays, dtype=dtype)[1]}

    fixed = {
        "positions_per_batch": batch,
        "chunk_size": chunk_size,
        "dtype": nl.float32 if dtype is np.float32 else nl.bfloat16,
    }
    return Example(
        name=name,
        inputs=inputs,
        options={**fixed, **options},
        lnc=lnc,
        targets=targets,
        slow=slow,
        about=about,
    )


ROWS = (
    Row(
        name="cross_entropy_backward",
        entry=cross_entropy_backward,
        reference=cross_entropy_backward_reference,
        summary="Gradient of the cross entropy with respect to the logits",
        maths="`grad = (exp(x - lse) - onehot(target)) * scale`; scale is 1 / N for the mean, 1 for the sum.",
        options={
            "logits_hbm": "`[N, V]` in HBM, bf16 or fp32; with `inplace` the gradient is written over it",
            "targets_hbm": "`[N]` int32",
            "lse_state_hbm": "`[N]`, the log-sum-exp of the forward pass, bf16 or fp32",
            "reduction": '"mean" or "sum"',
            "positions_per_batch": "1 to 128; a batch fills the partitions whatever it is",
            "chunk_size": "the most logits of a position that a step handles, at most V and 65535",
            "dtype": "bf16 or fp32; it counts for the limits",
            "inplace": "write over `logits_hbm`; False makes a new tensor",
        },
        limits=("positions_per_batch * chunk_size * bytes of `dtype` is at most 24 MiB.",),
        examples=(
            _example("tails", 300, 1500, 1000, lnc=(1, 2), about="tails of positions and of logits"),
            _example("fp32-sum", 70, 700, 700, np.float32, reduction="sum", targets=("trn2", "trn3")),
            _example("new-tensor", 40, 256, 100, batch=32, lnc=(2,), inplace=False),
            _example("deepseek-v3", 128, 129280, 16384, lnc=(2,), slow=True),
            _example("qwen3", 256, 151936, 16384, lnc=(2,), slow=True),
            _example("llama4-fp32", 128, 202408, 8192, np.float32, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(
            rtol=2**-7,
            atol=1e-7,
            reason="one rounding to the dtype of the logits, which for the target follows a difference",
        ),
        page="nki/library/api/cross-entropy",
    ),
)
