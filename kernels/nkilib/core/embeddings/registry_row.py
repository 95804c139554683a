"""RoPE in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.embeddings.reference import rope_reference
from nkilib.core.embeddings.rope import RoPE
from nkilib.registry import Example, Row, Tolerance


def _operands(
    rng: np.random.Generator, shape: tuple[int, int, int, int], dtype: Any
) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of shape [d_head, B, n_heads, S] and the angles of positions in random order."""
    d_head, batch, _, sequence = shape
    frequencies = 10000.0 ** (-np.arange(d_head // 2) / (d_head // 2))
    positions = rng.integers(0, 4096, (batch, sequence))
    angles = frequencies[:, None, None] * positions
    return {
        "x_in": rng.standard_normal(shape).astype(dtype),
        "cos": np.cos(angles).astype(dtype),
        "sin": np.sin(angles).astype(dtype),
    }


def _example(name: str, shape: tuple[int, int, int, int], dtype: Any, **more: Any) -> Example:
    return Example(name=name, inputs=functools.partial(_operands, shape=shape, dtype=dtype), **more)


_PAIRS = {"contiguous_layout": False}
_RELAYOUT = {"contiguous_layout": False, "relayout_in_sbuf": True}

ROWS = (
    Row(
        name="rope",
        entry=RoPE,
        reference=rope_reference,
        summary="Rotary position embedding",
        maths=(
            "`out_even = x_even * cos - x_odd * sin`, `out_odd = x_odd * cos + x_even * sin`, in fp32, "
            "rounded once. In the contiguous layout the first half of the head dimension is even."
        ),
        options={
            "x_in": "`[d_head, B, n_heads, S]` in HBM",
            "cos": "`[d_head // 2, B, S]` in HBM",
            "sin": "`[d_head // 2, B, S]` in HBM",
            "lnc_shard": "share the work over the programs of the launch",
            "contiguous_layout": "True: even half, then odd half; False: even and odd elements alternate",
            "relayout_in_sbuf": "accepted; alternating elements always meet on the tensor engine",
        },
        limits=(
            "d_head is 64 or 128; B, n_heads and S are any.",
            "With `lnc_shard`, S divides by the programs.",
        ),
        examples=(
            _example("bf16", (128, 1, 8, 512), ml_dtypes.bfloat16, about="8 heads of 128, 512 positions"),
            _example("sharded", (128, 2, 4, 96), ml_dtypes.bfloat16, options={"lnc_shard": True}, lnc=(1, 2)),
            _example("pairs", (64, 3, 2, 60), np.float32, options=_PAIRS, targets=("trn1", "trn2", "trn3")),
            _example("relayout", (64, 2, 2, 100), np.float32, options=_RELAYOUT),
            _example("decode", (128, 4, 8, 1), ml_dtypes.bfloat16, about="one new token in each of 4 rows"),
        ),
        tolerance=Tolerance(reason="the products and the sum are fp32 and rounded once, as in the reference"),
        page="nki/library/api/rope",
    ),
)
