"""rmsnorm_tkg and layernorm_tkg: tiles in SBUF, views, stack and heap, and their refusals."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nkilib.core.subkernels.layernorm_tkg import layernorm_tkg
from nkilib.core.subkernels.reference import (
    hidden_on_partitions,
    layernorm_tkg_reference,
    rmsnorm_tkg_reference,
)
from nkilib.core.subkernels.rmsnorm_tkg import rmsnorm_tkg
from nkilib.core.utils.allocator import SbufManager
from nkilib.core.utils.tensor_view import TensorView


@nki.jit
def in_sbuf(input, gamma, beta, layer, tp, alone, where, from_sbuf):
    """A norm of tiles in SBUF; each program stores its own result."""
    rows, hidden = input.shape[0] * input.shape[1], input.shape[2]
    shape = (128, rows, hidden // 128)
    sbm = None
    if where == "auto":
        out = nl.ndarray(shape, dtype=input.dtype, buffer=nl.sbuf)
    else:
        sbm = SbufManager(0, 100000)
        sbm.open_scope()
        out = sbm.alloc_stack(shape, input.dtype)
    source = input
    if from_sbuf:
        source = nl.ndarray(shape, dtype=input.dtype, buffer=nl.sbuf)
        columns = TensorView(input).flatten_dims(0, 1).reshape_dim(1, (128, -1)).permute((1, 0, 2))
        nisa.dma_copy(dst=source, src=columns.get_view())
    if layer:
        layernorm_tkg(source, gamma, out, beta, use_heap_memory=where == "heap", sbm=sbm)
    else:
        rmsnorm_tkg(
            TensorView(source),
            TensorView(gamma),
            TensorView(out),
            hidden_dim_tp=tp,
            single_core_forced=alone,
            use_heap_memory=where == "heap",
            sbm=sbm,
        )
    result = nl.ndarray((nl.num_programs(0),) + shape, dtype=input.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result[nl.program_id(0)], src=out)
    if sbm is not None:
        sbm.close_scope()
    return result


def operands(batch, sequence, hidden, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((batch, sequence, hidden)) + 0.5).astype(dtype)
    gamma, beta = rng.standard_normal((2, 1, hidden)).astype(dtype)
    return x, gamma, beta


def close(result, expected):
    """Within one rounding of the dtype of sums of terms as large as 4; fp32 sums are in another order."""
    unit = max(float(ml_dtypes.finfo(expected.dtype).eps), 2**-20)
    error = np.abs(result.astype(np.float64) - expected.astype(np.float64))
    assert (error <= unit * (4 + np.abs(expected.astype(np.float64)))).all(), error.max()


@pytest.mark.parametrize("where", ["auto", "stack", "heap"])
@pytest.mark.parametrize("layer", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize(
    "shape, lnc",
    [((1, 3, 256), 1), ((1, 5, 512), 2), ((5, 4, 512), 2), ((36, 1, 256), 2), ((130, 1, 256), 1)],
    ids=str,
)
def test_output_in_sbuf(shape, lnc, layer, where):
    """Every core has all rows, whether it made them or received them."""
    x, gamma, beta = operands(*shape)
    with session(warnings_as_errors=True):
        results = in_sbuf[lnc](x, gamma, beta, layer, False, False, where, False)
    out = np.zeros((128, shape[0] * shape[1], shape[2] // 128), np.float32)
    if layer:
        expected = layernorm_tkg_reference(x, gamma, out, beta, lnc=lnc)
    else:
        expected = rmsnorm_tkg_reference(x, gamma, out, lnc=lnc)
    for result in results:
        close(result, expected)


@pytest.mark.parametrize("layer", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize("rows, hidden", [(3, 256), (40, 256), (70, 8192)])
def test_input_in_sbuf(rows, hidden, layer):
    x, gamma, beta = operands(rows, 1, hidden, ml_dtypes.bfloat16)
    with session(warnings_as_errors=True):
        (result,) = in_sbuf(x, gamma, beta, layer, False, False, "auto", True)
    out = np.zeros((128, rows, hidden // 128), x.dtype)
    make = layernorm_tkg_reference if layer else rmsnorm_tkg_reference
    close(result, make(x, gamma, out, **({"beta": beta} if layer else {})))


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("tp", [False, True], ids=["chunks", "transposed"])
def test_alone(rows, tp):
    """Two cores that do not share the work, and the layout of one."""
    x, gamma, beta = operands(rows, 1, 256)
    results = in_sbuf[2](x, gamma, beta, False, tp, True, "auto", False)
    out = np.zeros((128, rows, 2), np.float32)
    for result in results:
        close(result, rmsnorm_tkg_reference(x, gamma, out, hidden_dim_tp=tp))


@pytest.mark.parametrize("level", ["0.2", "0.6"])
def test_levels(level):
    x, gamma, beta = operands(20, 1, 256)
    before = levels.use(level)
    try:
        (result,) = in_sbuf(x, gamma, beta, True, False, False, "heap", False)
    finally:
        levels.use(before)
    close(result, layernorm_tkg_reference(x, gamma, np.zeros((128, 20, 2), np.float32), beta))


def test_the_layout():
    numbers = np.arange(512.0)[None]
    assert hidden_on_partitions(numbers)[3, 0].tolist() == [12, 13, 14, 15]
    assert hidden_on_partitions(numbers, 2)[3, 0].tolist() == [6, 7, 262, 263]
    assert hidden_on_partitions(numbers, hidden_dim_tp=True)[3, 0].tolist() == [3, 131, 259, 387]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"output": (128, 4, 3)}, r"input has shape \(4, 256\), expected \(4, 384\)"),
        ({"output": (64, 4, 2)}, r"output is \[128, BxS, H // 128\], got \(64, 4, 2\)"),
        ({"gamma": (1, 255)}, r"gamma has shape \(1, 255\), expected \(1, 256\)"),
        ({"beta": (256, 1)}, r"beta has shape \(256, 1\), expected \(1, 256\)"),
        ({"hidden_actual": 257}, r"hidden_actual is in \(0, H = 256\], got 257"),
        ({"hidden_actual": 0}, r"hidden_actual is in \(0, H = 256\], got 0"),
    ],
)
def test_refusals(change, message):
    shapes = {"input": (4, 1, 256), "gamma": (1, 256), "output": (128, 4, 2), "beta": (1, 256), **change}
    given = {k: np.zeros(v, np.float32) if isinstance(v, tuple) else v for k, v in shapes.items()}
    kernel = rmsnorm_tkg if "hidden_actual" in change else layernorm_tkg
    if kernel is rmsnorm_tkg:
        del given["beta"]
    with pytest.raises(NkiError, match=message) as caught:
        nki.jit(kernel)(**given)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]


def test_chunks_must_be_whole():
    given = {"input": np.zeros((1, 1, 128)), "gamma": np.zeros((1, 128)), "output": np.zeros((128, 1, 1))}
    given = {name: array.astype(np.float32) for name, array in given.items()}
    with pytest.raises(NkiError, match="H // 128 = 1 does not divide over 2 chunks"):
        nki.jit(rmsnorm_tkg)[2](**given)
