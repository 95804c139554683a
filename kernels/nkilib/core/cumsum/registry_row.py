"""cumsum in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.cumsum.cumsum import cumsum
from nkilib.core.cumsum.reference import cumsum_reference
from nkilib.registry import Example, Row, Tolerance


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": rng.standard_normal(shape).astype(dtype)}


def _example(name: str, shape: tuple[int, ...], dtype: Any, **more: Any) -> Example:
    return Example(name=name, inputs=functools.partial(_normal, shape=shape, dtype=dtype), **more)


ROWS = (
    Row(
        name="cumsum",
        entry=cumsum,
        reference=cumsum_reference,
        summary="Cumulative sum along the last dimension",
        maths="`y[..., i] = x[..., 0] + ... + x[..., i]`, added in this order in fp32 and rounded once.",
        options={
            "x": "`[B, H]` or `[B, S, H]` in HBM; fp32, bf16 or fp16",
            "axis": "-1, or the index of the last dimension",
        },
        limits=("B is at most 2048, S at most 10, H at most 8192.",),
        examples=(
            _example("bf16", (256, 2048), ml_dtypes.bfloat16, about="two tiles of rows, one of columns"),
            _example("tails", (20, 8, 2100), np.float32, about="rows and columns that fill no tile"),
            _example("one-row", (1, 33), np.float32, targets=("trn1", "trn2", "trn3")),
            _example("wide", (128, 8192), ml_dtypes.bfloat16, slow=True),
            _example("tall", (2048, 1024), np.float32, slow=True),
        ),
        tolerance=Tolerance(reason="the scan adds in the order of the reference, in fp32"),
        page="nki/library/api/cumsum",
    ),
)
