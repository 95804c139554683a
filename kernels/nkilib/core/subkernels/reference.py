"""What the sub-kernels compute, in numpy."""

import ml_dtypes
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


def rmsnorm_mx_quantize_tkg_reference(
    input: np.ndarray,
    gamma: np.ndarray,
    residual: np.ndarray | None = None,
    hidden_actual: int | None = None,
) -> tuple[np.ndarray, ...]:
    """The norm in the dtype of `input`, its MXFP8 elements [128, H / 512, rows] as uint32, scales, the sum.

    Element [p, t, r] holds the values [p, r, w * H / 512 + t] of the norm, w = 0 in its lowest byte. A group
    of 8 partitions has one scale; partition q * 32 + i holds that of partitions (4 * q + i) * 8 on.
    """
    x = (
        input
        if residual is None
        else (input.astype(np.float32) + residual.astype(np.float32)).astype(input.dtype)
    )
    output = rmsnorm_tkg_reference(x, gamma, x, hidden_actual=hidden_actual, hidden_dim_tp=True)
    _, rows, columns = output.shape
    values = output.astype(np.float32).reshape(16, 8, rows, 4, columns // 4).transpose(0, 4, 2, 1, 3)
    largest = np.abs(values).max(axis=(3, 4))
    exponent = np.floor(np.log2(np.maximum(largest, 2.0**-120))) - 7  # the largest lands in [128, 256)
    scaled = values / np.exp2(exponent)[..., None, None]
    bytes_of = scaled.astype(ml_dtypes.float8_e4m3fn).view(np.uint8).transpose(0, 3, 1, 2, 4)
    quant = np.ascontiguousarray(bytes_of).view(np.uint32).reshape(128, columns // 4, rows)
    scale = np.zeros((4, 32, columns // 4, rows), np.uint8)
    scale[:, :4] = (exponent + 127).astype(np.uint8).reshape(4, 4, columns // 4, rows)
    made = output, quant, scale.reshape(128, columns // 4, rows)
    return made if residual is None else (*made, x.reshape(rows, -1))


def mx_values(quant: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What packed MXFP8 elements [128, n, rows] and their scales stand for, as fp32 [128, n, rows, 4]."""
    values = np.ascontiguousarray(quant).view(np.uint8).view(ml_dtypes.float8_e4m3fn)
    values = values.reshape(*quant.shape, 4).astype(np.float32)
    powers = np.exp2(scale.reshape(4, 32, *scale.shape[1:])[:, :4].astype(np.float32) - 127)
    return values * np.repeat(powers.reshape(16, *scale.shape[1:]), 8, axis=0)[..., None]


def indexed_flatten_reference(
    input_tensor: np.ndarray,
    f_len: int,
    output_len: int,
    row_offsets: np.ndarray,
    row_offsets_start: np.ndarray | None = None,
    padding_val: int = -1,
) -> np.ndarray:
    """Each row from its block on, later rows over earlier ones, cut at both ends of the output."""
    output = np.full(output_len, padding_val, input_tensor.dtype)
    first = 0 if row_offsets_start is None else int(row_offsets_start[0])
    for row, offset in zip(input_tensor, row_offsets[first:]):
        start = int(offset) * f_len
        low, high = max(start, 0), min(start + row.size, output_len)
        if low < high:
            output[low:high] = row[low - start : high - start]
    return output
