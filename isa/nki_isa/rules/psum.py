"""PSUM: accumulation groups, banks, and what is read of them."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_MATMUL = "nki/api/nki/isa (nc_matmul, accumulate)"

PSUM_ALIGNMENT = Rule(
    "psum-alignment",
    "NKI-C011",
    Standing.seen,
    "PSUM is written in words of 4 bytes; a row of 2-byte results that starts within one is not taken.",
    Evidence(seen=2, said="bf16 PSUM slot must start 4-byte aligned", targets=("trn2",), compilers=("2.27",)),
    wrong="""\
rows = nl.ndarray((35, 128), dtype=nl.bfloat16, buffer=nl.sbuf)
turned = nl.ndarray((128, 2, 35), dtype=nl.bfloat16, buffer=nl.psum)
nisa.tensor_copy(dst=rows, src=tile[0:35, 0:128])
nisa.nc_transpose(dst=turned[:, 0, :], data=rows)
nisa.nc_transpose(dst=turned[:, 1, :], data=rows)
nisa.tensor_copy(dst=tile[:, 0:70], src=turned)
""",
    right="""\
rows = nl.ndarray((35, 128), dtype=nl.bfloat16, buffer=nl.sbuf)
turned = nl.ndarray((128, 2, 36), dtype=nl.bfloat16, buffer=nl.psum)
nisa.tensor_copy(dst=rows, src=tile[0:35, 0:128])
nisa.nc_transpose(dst=turned[:, 0, 0:35], data=rows)
nisa.nc_transpose(dst=turned[:, 1, 0:35], data=rows)
nisa.tensor_copy(dst=tile[:, 0:70], src=turned[:, :, 0:35])
""",
    whole_code=True,
)

TURNS_IN_A_BANK = Rule(
    "turns-in-a-bank",
    "NKI-H008",
    Standing.warning,
    "A bank holds one accumulation. Where groups of columns of one tile take turns, sums were seen that held "
    "only a part, all but the last.",
    Evidence(
        seen=3,
        said="NCC_ISCH714, NCC_ISCH715; values off by 1/sqrt(K)",
        targets=("trn2",),
        compilers=("2.27",),
        against="nki-library, attention_bwd, takes such turns",
    ),
    wrong="""\
product = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.psum)
for k in range(3):
    for c in range(2):
        nisa.nc_matmul(
            dst=product[:, c * 32 : c * 32 + 32],
            stationary=tile[:, k * 128 : k * 128 + 128],
            moving=tile[:, c * 32 : c * 32 + 32],
            accumulate=(k > 0),
        )
nisa.tensor_copy(dst=tile[:, 0:64], src=product)
""",
    right="""\
for c in range(2):
    product = nl.ndarray((128, 32), dtype=nl.float32, buffer=nl.psum)
    for k in range(3):
        nisa.nc_matmul(
            dst=product,
            stationary=tile[:, k * 128 : k * 128 + 128],
            moving=tile[:, c * 32 : c * 32 + 32],
            accumulate=(k > 0),
        )
    nisa.tensor_copy(dst=tile[:, c * 32 : c * 32 + 32], src=product)
""",
    whole_code=True,
)

SUM_GOES_ON = Rule(
    "sum-goes-on-after-a-read",
    "NKI-H007",
    Standing.error,
    "What is read before the last matmul of a sum is a part of it, and what a later sum adds comes on top. With "
    "accumulate left out only the first matmul onto a tensor overwrites.",
    Evidence(_MATMUL, 3, "NCC_ISCH714; values of 1e38", ("trn1", "trn2")),
    wrong="""\
product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
for part in range(2):
    for k in range(2):
        nisa.nc_matmul(dst=product, stationary=tile[:, k * 128 : k * 128 + 128], moving=tile)
    nisa.tensor_copy(dst=tile, src=product)
""",
    right="""\
for part in range(2):
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    for k in range(2):
        nisa.nc_matmul(dst=product, stationary=tile[:, k * 128 : k * 128 + 128], moving=tile)
    nisa.tensor_copy(dst=tile, src=product)
""",
    whole_code=True,
)

SUM_ONTO_NOTHING = Rule(
    "sum-onto-nothing",
    "NKI-H006",
    Standing.error,
    "The array adds to what a matmul left in PSUM; what else is there counts as undefined before NeuronCore-v4.",
    Evidence(_MATMUL),
    wrong="""\
product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile, accumulate=False)
nisa.memset(dst=product, value=0.0)
nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile, accumulate=True)
nisa.tensor_copy(dst=tile, src=product)
""",
    right="""\
product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile, accumulate=False)
nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile, accumulate=True)
nisa.tensor_copy(dst=tile, src=product)
""",
    whole_code=True,
)

UNWRITTEN = Rule(
    "read-of-unwritten-bytes",
    "NKI-H002",
    Standing.error,
    "Memory starts with whatever was there; the vendor's own simulator of compiled code stops at such a read.",
    Evidence("nki/get-started (memory is not initialised)", 2, "NCC_ISIM074", ("trn2",)),
    wrong="""\
product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.tensor_copy(dst=tile, src=product)
""",
    right="""\
product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile)
nisa.tensor_copy(dst=tile, src=product)
""",
    whole_code=True,
)
