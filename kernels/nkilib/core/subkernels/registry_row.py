"""The sub-kernels in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki.kernel import Kernel
from nkilib.core.subkernels.indexed_flatten import indexed_flatten
from nkilib.core.subkernels.layernorm_tkg import layernorm_tkg
from nkilib.core.subkernels.reference import (
    indexed_flatten_reference,
    layernorm_tkg_reference,
    mx_values,
    rmsnorm_mx_quantize_tkg_reference,
    rmsnorm_tkg_reference,
)
from nkilib.core.subkernels.rmsnorm_mx_quantize_tkg import rmsnorm_mx_quantize_tkg
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


def _mx_launched(entry: Any) -> Kernel:
    """A kernel that calls rmsnorm_mx_quantize_tkg and stores what it leaves in SBUF, half by each core."""

    @nki.jit
    def rmsnorm_mx(input, gamma, residual=None, hidden_actual=None):  # type: ignore[no-untyped-def]
        batch, sequence, hidden = input.shape
        rows, columns = batch * sequence, hidden // 128
        output = nl.ndarray((128, rows, columns), dtype=input.dtype, buffer=nl.sbuf)
        quant = nl.ndarray((128, columns // 4, rows), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
        scale = nl.ndarray((128, columns // 4, rows), dtype=nl.uint8, buffer=nl.sbuf)
        nisa.memset(dst=scale, value=0)
        total = None
        if residual is not None:
            total = nl.ndarray((rows, hidden), dtype=input.dtype, buffer=nl.shared_hbm)
        entry(input, gamma, output, quant, scale, residual, total, hidden_actual=hidden_actual)
        half = nl.ds(nl.program_id(0) * 64, 64)
        stored = nl.ndarray(output.shape, dtype=output.dtype, buffer=nl.shared_hbm)
        stored_quant = nl.ndarray(quant.shape, dtype=quant.dtype, buffer=nl.shared_hbm)
        stored_scale = nl.ndarray(scale.shape, dtype=scale.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=stored[half], src=output[half])
        nisa.dma_copy(dst=stored_quant[half], src=quant[half])
        nisa.dma_copy(dst=stored_scale[half], src=scale[half])
        if residual is None:
            return stored, stored_quant, stored_scale
        return stored, stored_quant, stored_scale, total

    return rmsnorm_mx


def _mx_values(results: Any, arguments: dict[str, Any]) -> Any:
    output, quant, scale, *total = results
    return output, mx_values(quant, scale), *total


def _mx_operands(
    rng: np.random.Generator, shape: tuple[int, int, int], padded: int, residual: bool
) -> dict[str, np.ndarray[Any, Any]]:
    made = _operands(rng, shape, np.float16, False, padded)
    del made["output"]
    if residual:
        made["residual"] = _operands(rng, shape, np.float16, False, padded)["input"]
    return made


def _mx_example(
    name: str, shape: tuple[int, int, int], *, padded: int = 0, residual: bool = False, **more: Any
) -> Example:
    inputs = functools.partial(_mx_operands, shape=shape, padded=padded, residual=residual)
    return Example(name=name, inputs=inputs, lnc=(2,), targets=("trn3",), **more)


def _rows_of_experts(
    rng: np.random.Generator, experts: int, tokens: int, f_len: int, extra: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Token numbers of each expert, padded with -1, and the blocks where they go, without the padding."""
    x = np.full((experts, tokens), -1, np.int32)
    counts = rng.integers(0, tokens + 1, experts)
    for row, count in zip(x, counts):
        row[:count] = np.sort(rng.choice(tokens, count, replace=False))
    blocks = -(-counts // f_len)
    offsets = np.concatenate([rng.integers(0, 5, extra), np.cumsum(blocks) - blocks])
    made = {"input_tensor": x, "row_offsets": offsets.astype(np.int32)}
    if extra:
        made["row_offsets_start"] = np.array([extra], np.int32)
    return made


def _flatten_example(
    name: str, experts: int, tokens: int, f_len: int, output_len: int, extra: int = 0, **more: Any
) -> Example:
    inputs = functools.partial(_rows_of_experts, experts=experts, tokens=tokens, f_len=f_len, extra=extra)
    return Example(name=name, inputs=inputs, options={"f_len": f_len, "output_len": output_len}, **more)


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
    Row(
        name="rmsnorm_mx_quantize_tkg",
        entry=rmsnorm_mx_quantize_tkg,
        reference=rmsnorm_mx_quantize_tkg_reference,
        summary="RMSNorm of few rows, quantized to MXFP8",
        maths=(
            "`x = input + residual`, `output = x / sqrt(mean(x^2) + eps) * gamma` with H seen as "
            "(H / 128, 128) on the partitions; 8 partitions by 4 values share a power of two."
        ),
        options={
            "input": "`[B, S, H]` in HBM, fp16 or bf16",
            "gamma": _OPTIONS["gamma"],
            "output": "`[128, B * S, H / 128]` in SBUF; written",
            "output_quant": "`[128, H / 512, B * S]` of float8_e4m3fn_x4 in SBUF; written",
            "output_scale": "`[128, H / 512, B * S]` uint8 in SBUF; written, 4 partitions a quadrant",
            "residual": "`[B, S, H]` in HBM, added first; or None",
            "output_residual": "`[B * S, H]` in HBM for the sum",
            "eps": _OPTIONS["eps"],
            "hidden_actual": _OPTIONS["hidden_actual"],
            "hidden_dim_tp": "True, the only layout",
        },
        limits=("trn3, two programs.", "B * S is a multiple of 4, H of 512."),
        examples=(
            _mx_example("batch-32", (32, 1, 1024), about="32 sequences"),
            _mx_example("residual", (4, 5, 1024), residual=True),
            _mx_example(
                "gpt-oss",
                (16, 3, 3072),
                padded=192,
                options={"hidden_actual": 2880},
                about="speculative decoding",
            ),
        ),
        tolerance=Tolerance(
            rtol=2**-3 + 2**-8,
            atol=2**-10,
            reason="MXFP8 keeps 4 bits; levels before 0.6 round to the OCP standard, which saturates",
        ),
        page="nki-library",
        launched_by=_mx_launched,
        values=_mx_values,
    ),
    Row(
        name="indexed_flatten",
        entry=indexed_flatten,
        reference=indexed_flatten_reference,
        summary="Rows written into one array, each from a block of it on",
        maths=(
            "`output[(row_offsets[e] + k) * f_len + i] = input[e, k * f_len + i]`, later rows over "
            "earlier ones; `padding_val` where no row writes, and nothing outside of the output."
        ),
        options={
            "input_tensor": "`[E, T]` in HBM, int32 or fp32",
            "f_len": "elements of a block",
            "output_len": "elements of the output",
            "row_offsets": "`[N]` int32 in HBM: the block that each row starts at",
            "row_offsets_start": "`[1]` int32 in HBM: the first offset that is used; None for 0",
            "padding_val": "value of elements that no row covers",
        },
        limits=(
            "f_len divides T and output_len; T / f_len is a multiple of 16 and output_len of 128.",
            "N is E, or at least E with row_offsets_start.",
        ),
        examples=(
            _flatten_example("experts", 16, 2048, 128, 32768, lnc=(1, 2), about="tokens of 16 experts"),
            _flatten_example("local", 3, 512, 8, 2048, extra=5, lnc=(1, 2), targets=("trn2", "trn3")),
            _flatten_example("cut", 4, 256, 16, 384, lnc=(1, 2), about="rows past the end of the output"),
            _flatten_example("many", 128, 4096, 128, 262144, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(reason="elements are copied"),
        page="nki-library",
    ),
)
