"""find_nonzero_indices in the table of kernels."""

import functools
from typing import Any

import numpy as np

from nkilib.experimental.subkernels.find_nonzero_indices import find_nonzero_indices
from nkilib.experimental.subkernels.reference import find_nonzero_indices_reference
from nkilib.registry import Example, Row, Tolerance


def _affinities(
    rng: np.random.Generator, shape: tuple[int, int], top_k: int, dtype: Any, start: int | None
) -> dict[str, np.ndarray[Any, Any]]:
    """Each token's affinities to `top_k` experts; all other elements are 0."""
    tokens = shape[0]
    x = np.zeros(shape, dtype)
    chosen = np.argsort(rng.random(shape), axis=1)[:, :top_k]
    np.put_along_axis(x, chosen, rng.integers(1, 9, (tokens, top_k)).astype(dtype), axis=1)
    made = {"input_tensor": x}
    if start is not None:
        made["row_start_id"] = np.array([start], np.int32)
    return made


def _example(
    name: str, shape: tuple[int, int], top_k: int, dtype: Any, *, start: int | None = None, **more: Any
) -> Example:
    inputs = functools.partial(_affinities, shape=shape, top_k=top_k, dtype=dtype, start=start)
    return Example(name=name, inputs=inputs, **more)


ROWS = (
    Row(
        name="find_nonzero_indices",
        entry=find_nonzero_indices,
        reference=find_nonzero_indices_reference,
        summary="Row numbers of the nonzero elements of each column",
        maths="`indices[e]` are the t with `input[t, e] != 0`, then -1; `counts[e]` is their number.",
        options={
            "input_tensor": "`[T, E]` in HBM, fp32 or int32",
            "row_start_id": "`[1]` int32 in HBM: the first column that counts; None for all columns",
            "n_rows": "the number of columns that count, with `row_start_id`",
            "chunk_size": "tokens handled at once, at most 8192; None for T",
            "index_dtype": "data type of both results",
        },
        limits=("trn2 and trn3.", "T is a multiple of 128 and of chunk_size, the columns of the programs."),
        examples=(
            _example("experts", (512, 32), 4, np.float32, lnc=(1, 2), about="tokens of 32 experts, top 4"),
            _example("chunks", (768, 12), 3, np.int32, options={"chunk_size": 256}, lnc=(1, 2)),
            _example("local", (256, 32), 2, np.float32, start=20, options={"n_rows": 6}, lnc=(1, 2)),
            _example("trn3", (128, 16), 1, np.int32, lnc=(2,), targets=("trn3",)),
            _example("qwen", (4096, 128), 8, np.float32, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(reason="indices are exact"),
        page="nki-library",
    ),
)
