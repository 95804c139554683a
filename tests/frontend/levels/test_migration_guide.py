"""What the vendor's migration guides say no longer compiles, and what they write instead.

Each row is a statement of a guide: `nki-sim check`, which holds a kernel to the strict profile, says of the
wrong text what it is, and takes the right one. Where a guide says that a compilation fails and this is only a
warning, published kernels of the level compile.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
from helps import of_text

pytestmark = pytest.mark.api("0.6")  # the guide to 0.6

HBM = "h = nl.ndarray((128, 512), dtype={}, buffer=nl.{})\n"
FILLED = HBM.format("nl.int32", "hbm") + "nisa.dma_copy(h, x.view(nl.int32))\n"
SUM = "total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)\n"
INTEGERS = "t = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)\n"
PRODUCT = (
    "p = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)\n"
    "nisa.nc_matmul(dst=p, stationary=tile[:, 0:128], moving=tile)\n"
)
COUNT = (
    "counts = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(dst=counts, value=4)\n"
    "count = nisa.register_alloc(0)\nnisa.register_load(count, counts)\n"
)
KERNEL = (
    "@nki.jit{options}\ndef kernel({parameters}):\n{body}"
    "    out = nl.ndarray(x.shape, x.dtype, buffer=nl.{region})\n    nisa.dma_copy(out, x)\n"
    "    return out\n\n"
    "kernel(np.ones((4, 8), np.float32){given})\n"
)
ADD = "    nisa.tensor_scalar(tile, tile, nl.add, 1.0)\n"


def kernel(options="", parameters="x", body="", region="shared_hbm", given=""):
    return KERNEL.format(options=options, parameters=parameters, body=body, region=region, given=given)


ROWS = {
    # --- 0.5 to 0.6
    "dynamic_range": (
        COUNT + "for i in nl.dynamic_range(count):\n" + ADD,
        "warning",
        COUNT + "def body(i):\n" + ADD + "\nnl.fori_loop(0, count, body)\n",
    ),
    "while register": (
        COUNT + "while count:\n" + ADD + "    nisa.register_load(count, counts)\n",
        "warning",
        COUNT
        + "def body(going):\n"
        + ADD
        + "    nisa.register_load(going, counts)\n    return going\n\nnl.while_loop(count, body)\n",
    ),
    "affine_range": ("for i in nl.affine_range(4):\n" + ADD, "warning", "for i in range(4):\n" + ADD),
    "a body of fori_loop that returns a value": (
        "def body(i):\n" + ADD + "    return tile\n\nnl.fori_loop(0, 4, body)\n",
        "error",
        "def body(i):\n" + ADD + "\nnl.fori_loop(0, 4, body)\n",
    ),
    "a body of while_loop that returns a tensor": (
        COUNT + "def body(going):\n" + ADD + "    return tile\n\nnl.while_loop(count, body)\n",
        "error",
        COUNT
        + "def body(going):\n    nisa.register_load(going, counts)\n    return going\n\n"
        + "nl.while_loop(count, body)\n",
    ),
    "a step that counts down": (
        "def body(i):\n" + ADD + "\nnl.fori_loop(4, 0, body, -1)\n",
        "error",
        "def body(i):\n" + ADD + "\nnl.fori_loop(0, 4, body, 1)\n",
    ),
    "Python arithmetic on the loop's variable": (
        "def body(i):\n    nisa.tensor_scalar(tile, tile, nl.add, i + 1)\n\nnl.fori_loop(0, 4, body)\n",
        "error",
        "def body(i):\n"
        "    nisa.dma_copy(tile[0:1], x.ap([[512, 1], [1, 512]], scalar_offset=i, indirect_dim=0))\n\n"
        "nl.fori_loop(0, 4, body)\n",
    ),
    "a loop inside of no_reorder": (
        "def body(i):\n" + ADD + "\nwith nl.no_reorder():\n    nl.fori_loop(0, 4, body)\n",
        "error",
        "def body(i):\n" + ADD + "\nnl.fori_loop(0, 4, body)\n",
    ),
    # --- 0.4 to 0.5
    "rsqrt of PSUM": (PRODUCT + "y = nl.rsqrt(p)\n", "error", PRODUCT + "y = nl.rsqrt(nl.copy(p))\n"),
    "reshape to another number of elements": (
        "v = tile.reshape((128, 8, 32))\n",
        "error",
        "v = tile.reshape((128, 8, 64))\n",
    ),
    # --- 0.3 to 0.4
    "dma_transpose with another rank": (
        "h = nl.ndarray((16, 1, 128), dtype=nl.bfloat16, buffer=nl.hbm)\n"
        "t = nl.ndarray((128, 16), dtype=nl.bfloat16, buffer=nl.sbuf)\n"
        "nisa.dma_transpose(t, h, axes=(2, 1, 0))\n",
        "error",
        "h = nl.ndarray((16, 1, 128), dtype=nl.bfloat16, buffer=nl.hbm)\n"
        "t = nl.ndarray((128, 1, 16), dtype=nl.bfloat16, buffer=nl.sbuf)\n"
        "nisa.dma_transpose(t, h, axes=(2, 1, 0))\n",
    ),
    "neuronxcc.nki": (
        "import numpy as np\nimport neuronxcc.nki as nki\n\n@nki.jit\ndef kernel(x):\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
        "error",
        "import numpy as np\nimport nki\n\n@nki.jit\ndef kernel(x):\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
    ),
    "tensor_copy_dynamic_src": (
        COUNT + "nisa.tensor_copy_dynamic_src(tile[:, 0:1], tile, count)\n",
        "error",
        COUNT
        + "at = tile.ap([[512, 128], [1, 1]], scalar_offset=count, indirect_dim=1)\n"
        + "nisa.tensor_copy(tile[:, 0:1], at)\n",
    ),
    "total_available_sbuf_size": (
        "n = nl.tile_size.total_available_sbuf_size\n",
        "note",
        "n = nl.tile_size.sbuf_fmax_bytes\n",
    ),
    # --- 0.2 to 0.3
    "platform_target": (kernel(options="(platform_target='trn2')"), "error", kernel()),
    "dma_copy out of PSUM": (
        PRODUCT + HBM.format("nl.float32", "hbm") + "nisa.dma_copy(h, p)\n",
        "error",
        PRODUCT + HBM.format("nl.float32", "hbm") + "nisa.tensor_copy(tile, p)\nnisa.dma_copy(h, tile)\n",
    ),
    "hwdge between data types": (
        FILLED + "nisa.dma_copy(tile, h, dge_mode=nisa.dge_mode.hwdge)\n",
        "error",
        FILLED + "nisa.dma_copy(tile, h.view(nl.float32), dge_mode=nisa.dge_mode.hwdge)\n",
    ),
    "dst_rmw_op": (
        "nisa.dma_copy(tile, x, dst_rmw_op=nl.add)\n",
        "error",
        "nisa.dma_compute(tile, [x, tile], reduce_op=nl.add)\n",
    ),
    "a float that an integer tile is filled with": (
        INTEGERS + "nisa.memset(t, 2.0)\n",
        "error",
        INTEGERS + "nisa.memset(t, 2)\n",
    ),
    "axis 1 of three dimensions": (
        SUM + "nisa.tensor_reduce(total, nl.add, tile.reshape((128, 8, 64)), axis=1)\n",
        "error",
        SUM + "nisa.tensor_reduce(total, nl.add, tile.reshape((128, 8, 64)), axis=(1, 2))\n",
    ),
    "scales before reduce_op": (
        "nisa.dma_compute(tile, [x, tile], [1.0, 1.0], nl.add)\n",
        "error",
        "nisa.dma_compute(tile, [x, tile], nl.add, scales=[1.0, 1.0])\n",
    ),
    "use_gpsimd_dma": (
        "nisa.sendrecv(tile, tile, 1, 1, 0, use_gpsimd_dma=True)\n",
        "error",
        "nisa.memset(tile, 0.0)\n",
    ),
    "offset third in affine_select": (
        "nisa.affine_select(tile, [[1, 512]], 0, 1, tile, 0.0)\n",
        "error",
        "y = nl.copy(tile)\nnisa.affine_select(tile, [[1, 512]], 1, y, 0.0, offset=0)\n",
    ),
    "imm of register_move": (
        COUNT + "nisa.register_move(count, imm=42)\n",
        "error",
        COUNT + "nisa.register_move(count, nisa.register_alloc(42))\n",
    ),
    "a result in nl.hbm": (kernel(region="hbm"), "error", kernel(region="shared_hbm")),
    "an integer for an enum": (
        "nisa.dma_copy(tile, x, dge_mode=2)\n",
        "error",
        "nisa.dma_copy(tile, x, dge_mode=nisa.dge_mode.hwdge)\n",
    ),
    "a text for a buffer": (
        "t = nl.ndarray((128, 512), nl.float32, buffer='sbuf')\n",
        "error",
        "t = nl.ndarray((128, 512), nl.float32, buffer=nl.sbuf)\n",
    ),
    "keyword-only parameters": (
        kernel(parameters="x, *, flag=True"),
        "error",
        kernel(parameters="x, flag=True"),
    ),
    "is and is not": (
        kernel(parameters="x, flag=True", body="    if flag is True:\n        pass\n"),
        "error",
        kernel(parameters="x, flag=True", body="    if flag == True:\n        pass\n"),
    ),
    "a list for an argument": (
        kernel(parameters="x, axes=None", given=", [0, 1]"),
        "error",
        kernel(parameters="x, axes=None", given=", (0, 1)"),
    ),
    "packed data filled with other than 0": (
        "t = nl.ndarray((128, 128), nl.float8_e4m3fn_x4, buffer=nl.sbuf)\nnisa.memset(t, 1)\n",
        "error",
        "t = nl.ndarray((128, 128), nl.float8_e4m3fn_x4, buffer=nl.sbuf)\nnisa.memset(t, 0)\n",
    ),
    # --- 0.1 to 0.2
    "block dimensions": (
        "blocks = nl.ndarray((4, nl.par_dim(128), 512), dtype=nl.float32, buffer=nl.sbuf)\n",
        "error",
        "blocks = []\nfor i in range(4):\n"
        "    blocks.append(nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf))\n",
    ),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")


@pytest.mark.parametrize("name", ROWS)
def test_what_the_guide_says_fails_is_said_and_what_it_writes_is_taken(name):
    wrong, severity, right = ROWS[name]
    told = of_text(wrong, "check", "strict")
    assert severity in {found for _, found, _ in told}
    assert severity == "error" or "error" not in {found for _, found, _ in told}
    assert all(advice for _, found, advice in told if found == severity)
    after = of_text(right, "check", "strict")
    assert not {code for code, found, _ in told if found == severity} & {code for code, _, _ in after}
    assert "error" not in {found for _, found, _ in after}
