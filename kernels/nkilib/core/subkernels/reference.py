"""What the sub-kernels compute, in numpy."""

import numpy as np


def hidden_on_partitions(rows: np.ndarray, chunks: int = 1, hidden_dim_tp: bool = False) -> np.ndarray:
    """[rows, H] as [128, rows, H / 128]: each of `chunks` parts of H seen as (128, H / 128 / chunks).

    With `hidden_dim_tp` H is seen as (H / 128, 128).
    """
    count, hidden = rows.shape
    if hidden_dim_tp:
        return rows.reshape(count, hidden // 128, 128).transpose(2, 0, 1)
    parts = rows.reshape(count, chunks, 128, hidden // 128 // chunks)
    return parts.transpose(2, 0, 1, 3).reshape(128, count, hidden // 128)


def rmsnorm_tkg_reference(
    input: np.ndarray,
    gamma: np.ndarray,
    output: np.ndarray,
    eps: float = 1e-6,
    hidden_actual: int | None = None,
    hidden_dim_tp: bool = False,
    single_core_forced: bool = False,
    lnc: int = 1,
) -> np.ndarray:
    """RMSNorm of [B, S, H] in fp32, in the layout and dtype of `output`."""
    x = input.reshape(-1, input.shape[-1]).astype(np.float32)
    mean = np.sum(x * x, axis=1, keepdims=True) / np.float32(hidden_actual or x.shape[1])
    rows = x / np.sqrt(mean + np.float32(eps)) * gamma.astype(np.float32)
    chunks = 1 if single_core_forced else lnc
    return hidden_on_partitions(rows, chunks, hidden_dim_tp).astype(output.dtype)


def layernorm_tkg_reference(
    input: np.ndarray,
    gamma: np.ndarray,
    output: np.ndarray,
    beta: np.ndarray | None = None,
    eps: float = 1e-6,
    lnc: int = 1,
) -> np.ndarray:
    """LayerNorm of [B, S, H] in fp32, in the layout and dtype of `output`."""
    x = input.reshape(-1, input.shape[-1]).astype(np.float32)
    x = x - x.mean(axis=1, keepdims=True)
    rows = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(eps)) * gamma.astype(np.float32)
    if beta is not None:
        rows = rows + beta.astype(np.float32)
    return hidden_on_partitions(rows, lnc).astype(output.dtype)
