"""The tensor engine: data types, tile sizes, performance modes."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_MATMUL = "nki/api/nki/isa (nc_matmul)"

_PRODUCT = """\
a = nl.ndarray((128, 64), dtype={stationary}, buffer=nl.sbuf)
b = nl.ndarray((128, 512), dtype={moving}, buffer=nl.sbuf)
product = nl.ndarray((64, 512), dtype=nl.float32, buffer=nl.psum)
nisa.memset(dst=a, value=1.0)
nisa.tensor_copy(dst=b, src=tile)
nisa.nc_matmul(dst=product, stationary=a, moving=b)
nisa.tensor_copy(dst=tile[0:64, :], src=product)
"""


def _product(stationary: str, moving: str) -> str:
    return _PRODUCT.format(stationary=f"nl.{stationary}", moving=f"nl.{moving}")


TRANSPOSE_DTYPE = Rule(
    "transpose-dtype",
    "NKI-V105",
    Standing.error,
    "A transpose moves bits through the array; nothing converts them on the way to PSUM.",
    Evidence(
        "nki/api/nki/isa (nc_transpose); nki/guides/architecture/trainium2_arch (built-in transpose)",
        2,
        "NCC_IBIR031: transpose same dtype on CoreV3+",
        ("trn2",),
        ("2.27",),
    ),
    rule="A transpose has the data type of its data.",
    wrong="""\
half = nl.ndarray((128, 128), dtype=nl.bfloat16, buffer=nl.sbuf)
turned = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.psum)
nisa.tensor_copy(dst=half, src=tile[:, 0:128])
nisa.nc_transpose(dst=turned, data=half)
nisa.tensor_copy(dst=tile[:, 0:128], src=turned)
""",
    right="""\
half = nl.ndarray((128, 128), dtype=nl.bfloat16, buffer=nl.sbuf)
turned = nl.ndarray((128, 128), dtype=nl.bfloat16, buffer=nl.psum)
nisa.tensor_copy(dst=half, src=tile[:, 0:128])
nisa.nc_transpose(dst=turned, data=half)
nisa.tensor_copy(dst=tile[:, 0:128], src=turned)
""",
)

MIXED_OPERANDS = Rule(
    "mixed-operands",
    "NKI-V105",
    Standing.error,
    "Wide operands go through the array in several passes; both take the same number.",
    Evidence(_MATMUL, 1, "if one input is tfloat32/float32, both must be", ("trn2",), ("2.23",)),
    rule="Either both operands of a matmul are float32 or tfloat32, or neither.",
    wrong=_product("float32", "bfloat16"),
    right=_product("bfloat16", "bfloat16"),
)

FP8_OPERANDS = Rule(
    "fp8-operands",
    "NKI-V105",
    Standing.error,
    "The arrays of trn1 and trn2 read the fp8 format with infinities; the finite one came with NeuronCore-v4.",
    Evidence(
        _MATMUL, 5, "BIR verification: float8_e4m3fn stationary; NCC_EVRF051", ("trn1", "trn2"), ("2.27",)
    ),
    rule="The operands of the tensor engine are floats that it reads; float8_e4m3fn is since NeuronCore-v4.",
    wrong=_product("float8_e4m3fn", "bfloat16"),
    right=_product("float8_e4m3", "bfloat16"),
    targets=("trn1", "trn2"),
)

TFLOAT32_OPERANDS = Rule(
    "tfloat32-operands",
    "NKI-C004",
    Standing.seen,
    "The compiler of NKI 0.6 counts float32r, which tfloat32 becomes, among no float types.",
    Evidence(
        seen=1,
        said="'stationary' must be a float type, got '!nisa.float32r'",
        targets=("trn2",),
        compilers=("2.27",),
        against=f"{_MATMUL} lists tfloat32",
    ),
    wrong=_product("tfloat32", "tfloat32"),
    right=_product("float32", "float32"),
    level="0.6",
    whole_code=True,
)

SMALL_TILE = Rule(
    "small-array-tile",
    "NKI-C002",
    Standing.note,
    "One author saw a matmul of 32 rows and 32 stationary columns refused on trn1; which of the two sizes did it "
    "is not known.",
    Evidence(
        seen=1,
        said="NCC_IBIR058: Matmult instruction does not support PE tile size 32x32 on CoreV2",
        targets=("trn1",),
        compilers=("2.27",),
    ),
    wrong="""\
product = nl.ndarray((32, 512), dtype=nl.float32, buffer=nl.psum)
nisa.nc_matmul(dst=product, stationary=tile[0:32, 0:32], moving=tile[0:32, :])
nisa.tensor_copy(dst=tile[0:32, :], src=product)
""",
    right="""\
product = nl.ndarray((64, 512), dtype=nl.float32, buffer=nl.psum)
nisa.nc_matmul(dst=product, stationary=tile[0:64, 0:64], moving=tile[0:64, :])
nisa.tensor_copy(dst=tile[0:64, :], src=product)
""",
    targets=("trn1",),
    whole_code=True,
)

_PAIRS = """\
a = nl.ndarray((128, 2, 128), dtype=nl.float8_e4m3, buffer=nl.sbuf)
b = nl.ndarray((128, {pair}, {columns}), dtype=nl.float8_e4m3, buffer=nl.sbuf)
product = nl.ndarray((128, {size}), dtype=nl.float32, buffer=nl.psum)
nisa.memset(dst=a, value=1.0)
nisa.memset(dst=b, value=1.0)
nisa.nc_matmul(dst=product, stationary=a, moving=b, perf_mode=nisa.matmul_perf_mode.double_row)
nisa.tensor_copy(dst=tile[:, 0:{size}], src=product)
"""

DOUBLE_ROW_PAIRS = Rule(
    "double-row-pairs",
    "NKI-V103",
    Standing.error,
    "A double row feeds two rows of the contraction at once, so both operands come in pairs.",
    Evidence(_MATMUL, 1, "second dim of input AP must have Num=2", ("trn2",)),
    rule="With double row, dimension 1 of both operands is 2.",
    wrong=_PAIRS.format(pair=1, columns=128, size=64),
    right=_PAIRS.format(pair=2, columns=64, size=64),
    targets=("trn2", "trn3"),
)

DOUBLE_ROW_STRIDE = Rule(
    "double-row-stride",
    "NKI-C013",
    Standing.note,
    "A verifier asked for a pair stride of a multiple of 16 bytes, for one moving column.",
    Evidence(
        seen=1,
        said="second dim of input AP must have Num=2, Size%16==0",
        targets=("trn2",),
        against=f"an example of {_MATMUL} has rows of 1 and 3",
    ),
    wrong=_PAIRS.format(pair=2, columns=8, size=8),
    right=_PAIRS.format(pair=2, columns=32, size=32),
    targets=("trn2", "trn3"),
    whole_code=True,
)
