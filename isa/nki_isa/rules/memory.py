"""Tensors: where they are allocated, what is handed in and out."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_NOTES = "nki/release-notes (0.3.0, breaking changes); migration guide"
_WHOLE = """\
import {more}nki
import nki.isa as nisa
import nki.language as nl
import numpy as np


@nki.jit
def kernel({parameters}):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.{buffer})
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    nisa.dma_copy(dst=out, src=t)
    return out


kernel({arguments})
"""


def _whole(
    parameters: str = "x",
    arguments: str = "np.ones((128, 64), np.float32)",
    buffer: str = "shared_hbm",
    more: str = "",
) -> str:
    return _WHOLE.format(parameters=parameters, arguments=arguments, buffer=buffer, more=more)


PRIVATE_OUTPUT = Rule(
    "private-output",
    "NKI-L025",
    Standing.error,
    "Results are buffers of the launch, which all its cores see; a private one belongs to a core.",
    Evidence(
        f"{_NOTES} (compilation failures)",
        2,
        "the front end requires shared_hbm for outputs",
        ("trn1", "trn2"),
    ),
    rule="Results are allocated in nl.shared_hbm, from NKI 0.3 on.",
    wrong=_whole(buffer="hbm"),
    right=_whole(),
    level="0.3",
)

LIST_ARGUMENT = Rule(
    "list-argument",
    "NKI-L024",
    Standing.error,
    "Arguments are part of what a compiled kernel is kept under, and a list can change.",
    Evidence(f"{_NOTES} (list kernel arguments are not supported)", 2, "", ("trn2",)),
    rule="A sequence handed to a kernel is a tuple, from NKI 0.3 on.",
    wrong=_whole("x, steps", "np.ones((128, 64), np.float32), [3, 5]"),
    right=_whole("x, steps", "np.ones((128, 64), np.float32), (3, 5)"),
    level="0.3",
)

ONE_DIMENSION = Rule(
    "one-dimension-on-chip",
    "NKI-V120",
    Standing.error,
    "On chip a tensor is a matrix of partitions by elements.",
    Evidence("nki/get-started (SBUF and PSUM are two-dimensional)", 1, "", ("trn2",)),
    whole_code=True,
    wrong="""\
line = nl.ndarray((512,), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_copy(dst=line, src=x[0, :])
""",
    right="""\
line = nl.ndarray((1, 512), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_copy(dst=line, src=x[0:1, :])
nisa.tensor_copy(dst=tile[0:1, :], src=line)
""",
)

PARTITION_CAPACITY = Rule(
    "partition-capacity",
    "NKI-M003",
    Standing.error,
    "A partition of SBUF is 192 KiB (256 KiB on trn3), of PSUM 16 KiB; the compiler splits no tile.",
    Evidence("nki/guides/architecture", 1, "", ("trn2",)),
    whole_code=True,
    wrong="""\
large = nl.ndarray((128, 81920), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=large, value=0.0)
nisa.tensor_copy(dst=tile, src=large[:, 0:512])
""",
    right="""\
large = nl.ndarray((128, 8192), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=large, value=0.0)
nisa.tensor_copy(dst=tile, src=large[:, 0:512])
""",
)

MIXED_ADDRESSES = Rule(
    "mixed-addresses",
    "NKI-C012",
    Standing.note,
    "The compiler's allocator places around what has an address, and does not spill in kernels; reports say that "
    "it gave up although memory was free.",
    Evidence(
        seen=4,
        said="NCC_EGCA111: Memory allocation failed ... Spilling is disabled",
        targets=("trn2",),
        compilers=("2.27",),
        against="nki-library, attention_bwd, gives some of its buffers addresses",
    ),
    wrong="""\
fixed = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, address=(0, 4096))
nisa.tensor_copy(dst=fixed, src=tile)
nisa.tensor_copy(dst=tile, src=fixed)
""",
    right="""\
free = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
nisa.tensor_copy(dst=free, src=tile)
nisa.tensor_copy(dst=tile, src=free)
""",
    whole_code=True,
)

INPUT_WRITTEN = Rule(
    "input-written",
    "NKI-H011",
    Standing.note,
    "Whether a kernel may update its arguments depends on how a framework hands them over.",
    Evidence(
        seen=1, said="input parameters are immutable", targets=("trn2",), against="later releases alias them"
    ),
    wrong="""\
nisa.dma_copy(dst=x[0:64, :], src=tile[64:128, :])
""",
    right="""\
nisa.tensor_copy(dst=tile[0:64, :], src=tile[64:128, :])
""",
    whole_code=True,
)

FP8_ARGUMENT = Rule(
    "fp8-argument",
    "NKI-C019",
    Standing.seen,
    "The data type of an argument is part of the signature of the compiled module, which the verifier of trn1 and "
    "trn2 reads before the kernel. Hand over the bytes as int8 and view them, or use the format with infinities.",
    Evidence(
        seen=6,
        said="NCC_EVRF051: Data type F8E4M3FN is not supported on TRN1/TRN2",
        targets=("trn1", "trn2"),
        compilers=("2.27",),
        against="a flag of the compiler casts it",
    ),
    wrong=_whole(arguments="np.ones((128, 64), ml_dtypes.float8_e4m3fn)", more="ml_dtypes\nimport "),
    right=_whole(arguments="np.ones((128, 64), ml_dtypes.float8_e4m3)", more="ml_dtypes\nimport "),
    targets=("trn1", "trn2"),
    whole_code=True,
)

MUTABLE_UNWRITTEN = Rule(
    "mutable-argument-unwritten",
    "NKI-C022",
    Standing.seen,
    "An argument declared mutable is an output of the compiled kernel, and an output needs a store.",
    Evidence(
        seen=5,
        said="NCC_IGCA090",
        targets=("trn2",),
    ),
    wrong=_whole(
        "x, cache: nt.mutable_tensor",
        "np.ones((128, 64), np.float32), np.ones((128, 64), np.float32)",
        more="nki.typing as nt\nimport ",
    ),
    right=_whole(
        "x, cache: nt.tensor",
        "np.ones((128, 64), np.float32), np.ones((128, 64), np.float32)",
        more="nki.typing as nt\nimport ",
    ),
    whole_code=True,
)
