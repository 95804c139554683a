"""What the sub-kernels compute, in numpy."""

import numpy as np


def find_nonzero_indices_reference(
    input_tensor: np.ndarray, row_start_id: np.ndarray | None = None, n_rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The row numbers of the nonzero elements of each column, padded with -1, and how many there are."""
    columns = input_tensor.T
    if row_start_id is not None:
        columns = columns[int(row_start_id[0]) :][:n_rows]
    counts = np.count_nonzero(columns, axis=1).astype(np.int32)
    order = np.argsort(columns == 0, axis=1, kind="stable").astype(np.int32)
    indices = np.where(np.arange(columns.shape[1]) < counts[:, None], order, np.int32(-1))
    return indices, counts
