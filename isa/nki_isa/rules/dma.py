"""DMA: who makes descriptors, transposes, copies that may skip."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_TRANSPOSE = "nki/api/nki/isa (dma_transpose)"
_SKIP_LOOP = """\
import nki
import nki.isa as nisa
import nki.language as nl
import numpy as np


@nki.jit
def gather(x):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    row = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=row, value=1)

    def turn(k):
        t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=t, value=0.0)
        nisa.dma_copy(dst=t, src=x.select(0, row), oob_mode=nisa.oob_mode.skip)
        nisa.dma_copy(dst=out, src=t)

    {loop}
    return out


gather(np.ones((4, 128, 64), np.float32))
"""

HARDWARE_DGE = Rule(
    "hardware-dge",
    "NKI-V108",
    Standing.error,
    "The block that makes descriptors in hardware came with NeuronCore-v3.",
    Evidence("nki/deep-dives/nki-dge"),
    rule="Hardware DGE exists since NeuronCore-v3.",
    wrong="""\
nisa.dma_copy(dst=tile, src=x, dge_mode=nisa.dge_mode.hwdge)
""",
    right="""\
nisa.dma_copy(dst=tile, src=x)
""",
    targets=("trn1",),
)

HARDWARE_CAST = Rule(
    "hardware-dge-cast",
    "NKI-V105",
    Standing.error,
    "Hardware DGE moves bytes; converting goes through software descriptors.",
    Evidence(
        "nki/release-notes (0.3.0, breaking changes)",
        2,
        "NCC_IBIR098: Unsupported DGE Type ... got HWDGE",
        ("trn2",),
        ("2.27",),
    ),
    rule="Hardware DGE converts no data types.",
    wrong="""\
half = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.sbuf)
nisa.dma_copy(dst=half, src=x, dge_mode=nisa.dge_mode.hwdge)
nisa.tensor_copy(dst=tile, src=half)
""",
    right="""\
half = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.sbuf)
nisa.dma_copy(dst=half, src=x)
nisa.tensor_copy(dst=tile, src=half)
""",
    targets=("trn2", "trn3"),
)

HARDWARE_TRANSPOSE = Rule(
    "hardware-transpose",
    "NKI-V103",
    Standing.error,
    "The transposing crossbar of the DMA engines takes blocks of 16 rows of 2-byte elements.",
    Evidence(_TRANSPOSE, 1, "", ("trn2",)),
    rule="A hardware DGE transpose has 16 rows, at most 128 columns and 2-byte elements.",
    wrong="""\
turned = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_transpose(dst=turned, src=x[0:64, 0:128], dge_mode=nisa.dge_mode.hwdge)
nisa.tensor_copy(dst=tile[:, 0:64], src=turned)
""",
    right="""\
turned = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_transpose(dst=turned, src=x[0:64, 0:128])
nisa.tensor_copy(dst=tile[:, 0:64], src=turned)
""",
    targets=("trn2", "trn3"),
)

_BLOCKS = """\
import ml_dtypes
import nki
import nki.isa as nisa
import nki.language as nl
import numpy as np


@nki.jit
def turn(x):
    out = nl.ndarray((64, 2, {rows}), dtype=nl.bfloat16, buffer=nl.shared_hbm)
    wide = nl.ndarray((64, 2, {pitch}), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.dma_transpose(dst=wide[:, :, 0:{rows}], src=x.ap(pattern=[[128, {rows}], [64, 2], [1, 64]], offset=0))
    nisa.dma_copy(dst=out, src=wide[:, :, 0:{rows}])
    return out


turn(np.ones(({rows}, 128), ml_dtypes.bfloat16))
"""

TRANSPOSE_ALIGNMENT = Rule(
    "dma-transpose-alignment",
    "NKI-C008",
    Standing.error,
    "The crossbar of the DMA engines writes units of 32 bytes; the rows of its blocks start at multiples of that.",
    Evidence(
        seen=5,
        said="NCC_IBIR155: xbar alignment",
        targets=("trn2",),
        compilers=("2.27",),
    ),
    rule="The rows that a DMA transpose of 16-row blocks writes start at multiples of 32 bytes.",
    wrong=_BLOCKS.format(rows=16, pitch=40),
    right=_BLOCKS.format(rows=16, pitch=48),
)

TRANSPOSE_ALIGNMENT_ODD = Rule(
    "dma-transpose-alignment-other",
    "NKI-C008",
    Standing.seen,
    "The same for transposes that are not made of the blocks hardware takes: seen in comments of kernels that pad "
    "their rows for it.",
    Evidence(seen=2, said="32-byte alignment", targets=("trn2",)),
    wrong=_BLOCKS.format(rows=12, pitch=12),
    right=_BLOCKS.format(rows=12, pitch=16),
)

SKIP_IN_LOOP = Rule(
    "skipping-dma-in-a-loop",
    "NKI-C010",
    Standing.seen,
    "What a skipped copy leaves must stay where it is over the turns of the loop, which the allocator of the "
    "compiler does not hold.",
    Evidence(
        seen=2,
        said="NCC_IGCA103: Cannot spill memorylocation defined by DMA skipping inside of loop",
        targets=("trn1",),
        compilers=("2.27",),
    ),
    wrong=_SKIP_LOOP.format(loop="nl.fori_loop(0, 2, turn)"),
    right=_SKIP_LOOP.format(loop="for k in range(2):\n        turn(k)"),
    targets=("trn1",),
    whole_code=True,
)

ON_CHIP_DMA = Rule(
    "on-chip-dma",
    "",
    Standing.never,
    "Refused in one report, recommended in another; the page allows it.",
    Evidence(
        seen=2,
        said="dma_copy source and destination cannot both be in SBUF",
        targets=("trn2",),
        compilers=("2.23",),
        against="nki/api/nki/isa (dma_copy); notes of kernels that copy between partitions so",
    ),
    rule="dma_copy moves data within SBUF.",
    wrong="""\
nisa.dma_copy(dst=tile[0:1, :], src=tile[9:10, :])
""",
    right="""\
nisa.tensor_copy(dst=tile[0:32, :], src=tile[32:64, :])
""",
)
