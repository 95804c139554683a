"""Every complete kernel that the vendor's documentation prints, unmodified, from a checkout of its SDK.

    NKI_SDK=/path/to/aws-neuron-sdk make test-upstream

Only the checkout is read; references and data are ours. RUN says what a kernel is called with and what comes
out, REFUSED which of them a version of the pages prints with a mistake, INCOMPLETE what is only a part of a
kernel. A kernel in none of them fails the test of completeness.
"""

import importlib.util
import math
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

import nki.language as nl
from nki.compiler.checker.check import check_file
from nki_isa.diagnostics import NkiError
from tests.upstream.documented import Leveled, documented

SDK = os.environ.get("NKI_SDK")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not SDK, reason="set NKI_SDK to a checkout of aws-neuron-sdk"),
]
BLOCKS = [*documented(Path(SDK))] if SDK else []
bfloat16 = ml_dtypes.bfloat16


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(*shape, dtype=np.float32):
    return (np.abs(normal(*shape)) + 0.5).astype(dtype)


def product(lhs_t, rhs):
    return (lhs_t.astype(np.float32).T @ rhs.astype(np.float32),)


def each(function):
    return lambda *inputs: tuple(function(x.astype(np.float32)) for x in inputs)


def total(a, b):
    return (a + b,)


def same(x):
    return (x,)


def nothing(*_):
    return ()


def scaled_gelu(x):
    z = 2 * x.astype(np.float64) + 0.5
    return (0.5 * z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))),)


def relu(x, _):
    return (np.maximum(x, 0),)


def halved(x, _):
    return (x / 2,)


def reciprocal_plus(x):
    return (1 / x + x + 1,)


def columns(x):
    return x[:, 0::2], x[:, 1::2]


def largest(x, n):
    c, h, w = x.shape
    return (x.reshape(c, h // n, n, w // n, n).max(axis=(2, 4)),)


ADD = (lambda: (normal(128, 512), normal(128, 512, seed=1)), total)
EXP = (lambda: (normal(128, 512),), each(np.exp))
THREE = (lambda: (normal(128, 64), normal(128, 64, seed=1), normal(128, 64, seed=2)), each(np.exp))
BLOCKED = (lambda: (normal(8, 128, 512),), same)
LARGE = (lambda: (normal(1024, 2048), normal(1024, 1024, seed=1)), product)
MEDIUM = (lambda: (normal(256, 256), normal(256, 1024, seed=1)), product)
ROWS = np.random.default_rng(3).permutation(128).astype(np.uint32)[:, None]
MANY_ROWS = np.random.default_rng(4).permutation(256).astype(np.uint32).reshape(128, 2)

ALLOCATOR = "library/kernel-utils/allocator.rst"
PRINTING = ("kernel_without_sbm", "kernel_with_sbm")

#: (page, kernel) -> arguments, and what comes out of them.
RUN = {
    ("api/nki/__init__.py", "nki_tensor_add_kernel"): ADD,
    ("api/nki/isa/__init__.py", "indirect_gather_kernel"): (
        lambda: (normal(200, 64), ROWS),
        lambda data, rows: (data[rows[:, 0]],),
    ),
    ("api/nki/isa/__init__.py", "indirect_scatter_kernel"): (
        lambda: (normal(128, 64), ROWS, normal(128, 64, seed=1)),
        lambda data, rows, _: (data[np.argsort(rows[:, 0])],),
    ),
    ("api/nki/isa/__init__.py", "gather_transpose_kernel"): (
        lambda: (normal(128, 128, dtype=bfloat16), ROWS),
        lambda data, rows: (data[rows[:, 0]].T,),
    ),
    ("api/nki/isa/__init__.py", "gather_transpose_2d_kernel"): (
        lambda: (normal(256, 128, dtype=bfloat16), MANY_ROWS),
        lambda data, rows: (data[rows.T.ravel()].T,),
    ),
    ("api/nki/isa/__init__.py", "gather_transpose_4d_kernel"): (
        lambda: (normal(256, 4, 1, 64, dtype=bfloat16), MANY_ROWS),
        lambda data, rows: (data[rows.T.ravel()].transpose(3, 1, 2, 0),),
    ),
    ("api/nki/isa/__init__.py", "nc_matmul_accumulate_kernel"): (
        lambda: (normal(512, 128), normal(512, 512, seed=1)),
        product,
    ),
    ("api/nki/isa/__init__.py", "activate2_scale_bias_kernel"): (lambda: (normal(128, 64),), scaled_gelu),
    ("examples/getting_started_baremetal.py", "nki_tensor_add_kernel"): ADD,
    ("examples/getting_started_jax.py", "nki_tensor_add_kernel"): ADD,
    ("examples/getting_started_torch.py", "nki_tensor_add_kernel"): ADD,
    ("examples/index-case-1.py", "tensor_split_kernel_"): (lambda: (normal(4, 5),), columns),
    ("examples/index-case-3.py", "tensor_maxpool_kernel_"): (lambda: (normal(2, 6, 6), 2), largest),
    ("examples/layout-pass.py", "tensor_exp_kernel_"): EXP,
    ("examples/simulate/nki_simulate_example.py", "add_kernel"): ADD,
    ("get-started/about/nki-dma-overview.rst", "tensor_exp_kernel_isa"): (
        lambda: (normal(4, 4096, dtype=bfloat16),),
        each(np.exp),
    ),
    ("get-started/about/nki-dma-overview.rst", "tensor_exp_kernel_isa#2"): (
        lambda: (normal(128, 128, dtype=bfloat16),),
        each(np.exp),
    ),
    ("get-started/about/tiling-overview.rst", "tensor_exp_kernel_"): (
        lambda: (positive(256, 512),),
        each(np.reciprocal),
    ),
    ("get-started/nki-language-guide.rst", "nki_tensor_add_kernel"): ADD,
    ("get-started/nki-language-guide.rst", "relu_kernel"): (
        lambda: (normal(256, 512), normal(256, 512)),
        relu,
    ),
    ("get-started/nki-language-guide.rst", "scale_kernel"): (
        lambda: (normal(256, 512), normal(256, 512)),
        halved,
    ),
    ("get-started/quickstart-implement-run-kernel.rst", "nki_tensor_add_kernel#2"): ADD,
    ("guides/how-to-scheduling-apis.rst", "kernel"): (lambda: (positive(128, 64),), reciprocal_plus),
    ("guides/how-to-scheduling-apis.rst", "kernel#2"): THREE,
    ("guides/how-to-scheduling-apis.rst", "loop"): THREE,
    ("guides/how-to-scheduling-apis.rst", "loop#2"): THREE,
    ("guides/tutorials/kernel-optimization.rst", "matrix_multiply_kernel"): (
        lambda: (normal(128, 64), normal(128, 512, seed=1)),
        product,
    ),
    ("guides/tutorials/kernel-optimization.rst", "matrix_multiply_kernel#2"): MEDIUM,
    ("guides/tutorials/kernel-optimization.rst", "matrix_multiply_kernel#3"): MEDIUM,
    ("guides/tutorials/kernel-optimization.rst", "matrix_multiply_kernel#4"): MEDIUM,
    ("guides/tutorials/kernel-optimization.rst", "matrix_multiply_kernel#5"): LARGE,
    ("guides/use-neuron-profile.rst", "nki_matmul"): LARGE,
}
for _page in (
    "deep-dives/nki-migration-guide.rst",
    "deep-dives/nki_block_dimension_migration_guide.rst",
    "migration/index.rst",
):
    for _name in ("sb_blocks_migrated", "sb_blocks_migrated#2", "sb_blocks_migrated_incorrect"):
        RUN[_page, _name] = BLOCKED

#: Pages whose kernels test_tutorials runs.
ELSEWHERE = (
    "examples/average_pool2d/average_pool2d_nki_kernels.py",
    "examples/fused_mamba/mamba_nki_kernels.py",
    "examples/matrix_multiplication/matrix_multiplication_nki_kernels.py",
    "examples/tensor_addition/tensor_addition_nki_kernels.py",
    "examples/transpose2d/transpose2d_nki_kernels.py",
)

RUN[ALLOCATOR, "kernel_multibuffer"] = (lambda: (normal(4, 4), normal(4, 4), 4), nothing)
RUN["get-started/about/lnc.rst", "lnc_test"] = (lambda: (normal(4, 4),), nothing)
RUN["get-started/nki-language-guide.rst", "example_kernel"] = (
    lambda: (normal(512, 512, dtype=np.float16),),
    nothing,
)
RUN["get-started/about/tiling-overview.rst", "tensor_exp_kernel_#2"] = (
    lambda: (positive(256, 512),),
    each(np.reciprocal),
)

PRIVATE_RESULT = {"NKI-L025"}, "it returns a tensor in nl.hbm, which no level with nl.no_reorder takes"
BETA1_CALL = {"NKI-L010", "NKI-L015"}, "`sbuf` is not imported, and a call is of Beta 1"
#: Kernels of RUN that a version of the pages prints with a mistake: what refuses them then, and the mistake.
REFUSED = {
    ("guides/how-to-scheduling-apis.rst", "loop"): PRIVATE_RESULT,
    ("guides/how-to-scheduling-apis.rst", "loop#2"): PRIVATE_RESULT,
    ("get-started/about/nki-dma-overview.rst", "tensor_exp_kernel_isa"): BETA1_CALL,
    ("get-started/about/nki-dma-overview.rst", "tensor_exp_kernel_isa#2"): BETA1_CALL,
    ("get-started/quickstart-implement-run-kernel.rst", "nki_tensor_add_kernel#2"): (
        {"NKI-L010"},
        "`sbuf` is not imported",
    ),
    ("get-started/about/tiling-overview.rst", "tensor_exp_kernel_"): (
        {"NKI-L020"},
        "it asserts half its shape",
    ),
}

_SBUF = "takes tensors in SBUF, which no call passes"
_OUTLINE = "has no body"
#: (page, kernel) -> why it cannot be called as it is printed.
INCOMPLETE = {
    ("api/nki/__init__.py", "my_kernel"): _OUTLINE,
    ("deep-dives/nki-compiler.rst", "kernel"): _OUTLINE,
    ("deep-dives/nki-migration-guide.rst", "kernel"): _OUTLINE,
    ("migration/index.rst", "kernel"): _OUTLINE,
    **{("migration/index.rst", f"my_kernel{n}"): _OUTLINE for n in ("", "#2", "#3", "#4", "#5", "#6")},
    ("get-started/about/index.rst", "my_kernel"): _OUTLINE,
    ("get-started/about/index.rst", "my_function"): "`tensor` and `output` are not defined",
    ("get-started/about/tiling-overview.rst", "tensor_kernel"): "is indented wrong",
    ("get-started/nki-language-guide.rst", "my_function"): "`tensor` and `sbuf` are not defined",
    ("get-started/nki-language-guide.rst", "kernel"): _OUTLINE,
    ("get-started/nki-language-guide.rst", "kernel#2"): "`my_relu` is not defined",
    ("get-started/quickstart-implement-run-kernel.rst", "nki_tensor_add_kernel"): _OUTLINE,
    ("guides/nki_simulator.rst", "my_kernel"): "returns what nl.store returns, nothing",
    ("guides/nki_simulator.rst", "my_kernel#2"): _OUTLINE,
    ("guides/nki_simulator.rst", "bad_kernel"): "is wrong on purpose",
    ("examples/layout-violation.py", "tensor_exp_kernel_"): "is wrong on purpose",
    ("examples/layout-dynamic-loop.py", "tensor_exp_kernel_"): "lacks a closing bracket",
    ("library/kernel-utils/tensor-view.rst", "kernel_reshape_permute"): _SBUF,
    ("library/kernel-utils/tensor-view.rst", "kernel_strided_slice"): _SBUF,
    ("library/kernel-utils/tensor-view.rst", "kernel_broadcast"): _SBUF,
    ("library/kernel-utils/tensor-view.rst", "kernel_rearrange"): _SBUF,
    ("library/kernel-utils/tensor-view.rst", "attention_reshape"): _SBUF,
    **{
        (page, name): "shows block dimensions, which Beta 2 removed"
        for page, name in (
            ("deep-dives/nki-migration-guide.rst", "sb_blocks"),
            ("deep-dives/nki-migration-guide.rst", "sb_blocks#2"),
            ("deep-dives/nki_block_dimension_migration_guide.rst", "exp_func"),
            ("deep-dives/nki_block_dimension_migration_guide.rst", "sb_blocks"),
            ("deep-dives/nki_block_dimension_migration_guide.rst", "sb_blocks#2"),
            ("migration/index.rst", "exp_func"),
            ("migration/index.rst", "sb_blocks"),
            ("migration/index.rst", "sb_blocks#2"),
        )
    },
}

NEWER = {"activate2_scale_bias_kernel"}
"""Kernels that need trn3."""

MX = "deep-dives/src/mxfp-matmul/mx_kernels.py"
NAMED = [(block, name) for block in BLOCKS for name in block.names if not block.is_beta1]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a block as a module; the frameworks that it imports at its top are empty meanwhile."""
    frameworks = ("torch", "torch.nn", "torch.nn.functional", "torch_neuronx")
    settings = ("NEURON_LOGICAL_NC_CONFIG", "NEURON_FRAMEWORK_DEBUG", "XLA_IR_DEBUG", "XLA_HLO_DEBUG")

    def load(block, target="trn2"):
        file = tmp_path / "documented.py"
        file.write_text(block.source)
        spec = importlib.util.spec_from_file_location("documented", file)
        module = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as meanwhile:
            for name in frameworks if re.search(r"^import torch", block.text, re.MULTILINE) else ():
                stand_in = ModuleType(name)
                stand_in.Module = object
                stand_in.nn = stand_in.functional = stand_in
                meanwhile.setitem(sys.modules, name, stand_in)
            for variable in settings:
                meanwhile.setenv(variable, "")  # pages set them; restored after
            spec.loader.exec_module(module)
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
        return module

    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    return load


def results(returned, given):
    """What a kernel computed: what it returns, or the last array it was given if it writes there."""
    if returned is None:
        return given[-1:]
    return returned if isinstance(returned, tuple) else (returned,)


@pytest.mark.parametrize(
    "block, name", [pytest.param(b, n, id=f"{b.page}-{n}") for b, n in NAMED if (b.page, n) in RUN]
)
def test_kernel(load, block, name):
    make, expected = RUN[block.page, name]
    given = make()
    kernels = Leveled(lambda: load(block, "trn3" if name in NEWER else "trn2"))
    try:
        returned = getattr(kernels, name.partition("#")[0])(*given)
    except NkiError as refused:
        codes, _ = REFUSED[block.page, name]
        assert {d.code for d in refused.diagnostics} == codes
        return
    wanted = expected(*make())
    for found, want in zip(results(returned, given), wanted, strict=bool(wanted)):
        low = found.dtype == bfloat16
        np.testing.assert_allclose(found.astype(np.float32), want, rtol=1e-2 if low else 2e-6, atol=5e-4)


def exact_in_fp8(*shape, seed=0):
    """Values that float8_e5m2 holds under any shared exponent near theirs."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.5, -1.0, 1.0, 1.5], shape).astype(np.float32)


def packed(values):
    """Four float8_e5m2 values to a word, as the page's host code hands them over."""
    return np.ascontiguousarray(values.astype(ml_dtypes.float8_e5m2)).view(np.uint32)[..., 0]


@pytest.fixture
def mx(load, monkeypatch):
    """The kernels of the page on MX formats, and a function that calls one."""
    monkeypatch.syspath_prepend(str((Path(SDK) / "nki" / MX).parent))
    (block,) = (b for b in BLOCKS if b.page == MX)
    yield Leveled(lambda: load(block, "trn3"))
    sys.modules.pop("mx_kernel_utils", None)


@pytest.mark.parametrize("on_device", [False, True], ids=["offline", "on_device"])
def test_mx_product(mx, on_device):
    """Operands are [K, M, 4] and [K, N, 4] with a scale of 2**(s - 127) for each 8 partitions of a column."""
    lhs, rhs = exact_in_fp8(128, 128, 4), exact_in_fp8(128, 512, 4, seed=1)
    scales = np.random.default_rng(2).integers(125, 130, (16, 640)).astype(np.uint8)
    lhs_scale, rhs_scale = np.ascontiguousarray(scales[:, :128]), np.ascontiguousarray(scales[:, 128:])
    factor = [
        np.repeat(2.0 ** (s.astype(np.float64) - 127), 8, axis=0)[..., None] for s in (lhs_scale, rhs_scale)
    ]
    if on_device:
        factor[1] = 1.0
        found = mx.kernel_on_device_quantize_matmul_mx(
            packed(lhs),
            lhs_scale,
            rhs.reshape(128, 2048).astype(bfloat16),
            nl.float8_e5m2_x4,
            nl.float8_e5m2_x4,
        )
    else:
        found = mx.kernel_offline_quantized_mx_matmul(
            packed(lhs), lhs_scale, packed(rhs), rhs_scale, nl.float8_e5m2_x4
        )
    wanted = np.einsum("kmj,knj->mn", lhs * factor[0], rhs * factor[1])
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("with_copies", [True, False], ids=["tensor_copy", "dma"])
@pytest.mark.parametrize("name", ["", "_packed_scale"], ids=["scales", "packed_scales"])
def test_mx_product_of_what_is_quantized_on_the_core(mx, name, with_copies):
    kernel = getattr(mx, f"kernel_copy_strided_quantize_matmul_mx{name}")
    lhs, rhs = exact_in_fp8(512, 128), exact_in_fp8(512, 512, seed=1)
    found = kernel(lhs.astype(bfloat16), rhs.astype(bfloat16), nl.float8_e5m2_x4, with_copies)
    np.testing.assert_allclose(found.astype(np.float32), lhs.T @ rhs, rtol=2**-8)


@pytest.mark.parametrize("name", PRINTING)
def test_the_addresses_that_the_allocator_page_prints(load, name, capsys):
    """Those of the stack; the page counts the heap down from a larger SBUF than a kernel has on trn2."""
    (block,) = (b for b in BLOCKS if b.page == ALLOCATOR and name in b.names)
    getattr(load(block), name)(normal(4, 4), normal(4, 4))
    heap, *stack = re.findall(r"address = (\(.*\))", capsys.readouterr().out)
    assert heap == f"(0, {nl.tile_size.total_available_sbuf_size - 512})"
    assert stack == re.findall(r"# (\(\d+, \d+\))", block.text)[1:]


@pytest.mark.parametrize(
    "block, name", [pytest.param(b, n, id=f"{b.page}-{n}") for b in BLOCKS if b.is_beta1 for n in b.names]
)
def test_kernels_of_beta_1_are_refused(tmp_path, block, name):
    file = tmp_path / "documented.py"
    file.write_text(block.source)
    assert {d.code for d in check_file(str(file))} & {"NKI-L010", "NKI-L015"}


def test_every_kernel_is_run_or_said_not_to_be():
    elsewhere = {(b.page, n) for b, n in NAMED if b.page in ELSEWHERE or b.page == MX}
    known = {*RUN, *INCOMPLETE, *elsewhere, *((ALLOCATOR, name) for name in PRINTING)}
    assert {(b.page, n) for b, n in NAMED} <= known
    assert not set(RUN) & set(INCOMPLETE)
