"""Mistakes, and what their help says to write: each pair is a wrong text and the right one.

A text is the body of a kernel (``x`` is float32[128, 512] in HBM, ``tile`` a copy of it in SBUF), definitions
with a call, or a whole file, as on the pages of the codes.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from nki_cli.docs.code_pages import ExampleKind, Snippet
from nki_cli.main import app

#: The kernel that texts about a call are about.
_COPY = """\
@nki.jit
def copy(x, how=None):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out

"""
#: A kernel that calls another.
_SCHEDULED = """\
@nki.jit
def inner(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(tile, 1.0, name="first")
    nisa.memset(tile, 2.0, name="second")
    nisa.dma_copy(x, tile)
    return x

scheduled = inner.with_schedule([("second", "first")])

@nki.jit
def kernel(x):
"""
_REGISTER = """\
counts = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
nisa.memset(dst=counts, value=4)
count = nisa.register_alloc(0)
nisa.register_load(count, counts)
"""


def _call(wrong: str, right: str) -> tuple[str, str]:
    return _COPY + wrong + "\n", _COPY + right + "\n"


def _loop(wrong: str, right: str) -> tuple[str, str]:
    return _REGISTER + wrong, _REGISTER + right


def _whole(wrong: str, right: str, call: str = "kernel(np.ones((4, 8), np.float32))") -> tuple[str, str]:
    """A kernel with its call."""
    return f"@nki.jit\n{wrong}\n\n{call}\n", f"@nki.jit\n{right}\n\n{call}\n"


BY_CHECK = [
    # --- kinds of arguments
    ("nisa.iota(tile, pattern=[[1, 2, 3]])\n", "nisa.iota(tile, pattern=[[1, 512]])\n"),
    ("view = tile[:, nl.ds(0, 512 / 2)]\n", "view = tile[:, nl.ds(0, 512 // 2)]\n"),
    (
        "nisa.iota(tile, pattern=[[1, 512]], offset=3 / 2)\n",
        "nisa.iota(tile, pattern=[[1, 512]], offset=3 // 2)\n",
    ),
    (
        "extra = nl.ndarray('wide', dtype=nl.float32, buffer=nl.sbuf)\n",
        "extra = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(extra, 0.0)\n",
    ),
    ("view = tile.permute((0, 1.5))\n", "view = tile.permute((0, 1))\n"),
    (
        "view = tile.rearrange(('p', ('h', 'w')), ('p', 'w', 'h'), 4)\n",
        "view = tile.rearrange(('p', ('h', 'w')), ('p', 'w', 'h'), {'h': 4})\n",
    ),
    ("view = tile.rearrange((1, 'f'), ('p', 'f'))\n", "view = tile.rearrange(('p', 'f'), ('p', 'f'))\n"),
    (
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, 4, body(0))\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, 4, body)\n",
    ),
    _loop("nisa.register_load(4, counts)\n", "nisa.register_load(nisa.register_alloc(), counts)\n"),
    ("nisa.memset(tile)\n", "nisa.memset(tile, value=0.0)\n"),
    ("view = tile.permute()\n", "view = tile.permute((0, 1))\n"),
    ("view = tile[:, nl.ds(0, -4)]\n", "view = tile[:, nl.ds(0, 4)]\n"),
    # --- views
    ("view = tile.ap(pattern=[512, 128])\n", "view = tile.ap(pattern=[[512, 128], [1, 512]])\n"),
    (
        "view = tile[:, ::-1]\nother = nl.copy(view)\n",
        "view = tile.ap(pattern=[[512, 128], [-1, 512]], offset=511)\nother = nl.copy(view)\n",
    ),
    ("nisa.tensor_copy(tile, tile.permute((1, 0)))\n", "nisa.dma_copy(dst=tile, src=x)\n"),
    ("nisa.memset(tile[:, nl.ds(4, 0)], value=0.0)\n", "nisa.memset(tile[:, nl.ds(4, 1)], value=0.0)\n"),
    ("nisa.memset(tile[:, 4:4], value=0.0)\n", "nisa.memset(tile[:, 4:5], value=0.0)\n"),
    (
        _REGISTER + "nisa.dma_copy(tile[0:1], x.select(0, count).view(nl.int32))\n",
        _REGISTER
        + "nisa.dma_copy(tile[0:1], x.view(nl.int32).ap([[512, 1], [1, 512]], scalar_offset=count))\n",
    ),
    (
        _REGISTER
        + "index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile, x.ap([[512, 128], [1, 512]], scalar_offset=count, vector_offset=index))\n",
        "index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile, x.ap([[512, 128], [1, 512]], vector_offset=index))\n",
    ),
    (
        "index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile, x.ap([[512, 128], [1, 512]], vector_offset=index, indirect_dim=1))\n",
        "index = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile, x.ap([[512, 128], [1, 512]], vector_offset=index, indirect_dim=0))\n",
    ),
    (
        "index = nl.ndarray((64, 2), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile[0:64], x.vector_select(0, index))\n",
        "index = nl.ndarray((64, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile[0:64], x.vector_select(0, index))\n",
    ),
    (
        "index = nl.ndarray((64, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile[0:64], x.vector_select(1, index))\n",
        "index = nl.ndarray((64, 1), dtype=nl.int32, buffer=nl.sbuf)\nnisa.memset(index, value=0)\n"
        "nisa.dma_copy(tile[0:64], x.vector_select(0, index))\n",
    ),
    (
        "nisa.dma_compute(tile, srcs=tile, reduce_op=nl.add)\n",
        "nisa.dma_compute(tile, srcs=[tile], reduce_op=nl.add)\n",
    ),
    # --- creation
    (
        "extra = nl.ndarray((128,), dtype=nl.float32, buffer=nl.sbuf)\n",
        "extra = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(extra, 0.0)\n",
    ),
    (
        "extra = nl.ndarray((), dtype=nl.float32, buffer=nl.hbm)\n",
        "extra = nl.ndarray((1,), dtype=nl.float32, buffer=nl.hbm)\n",
    ),
    ("eye = nl.shared_identity_matrix(256)\n", "eye = nl.shared_identity_matrix(128)\n"),
    ("register = nisa.register_alloc('one')\n", "register = nisa.register_alloc(1)\n"),
    # --- functions of nki.language
    ("y = nl.add(tile, tile[0:1])\n", "y = nl.add(tile, nl.broadcast_to(tile[0:1], tile.shape))\n"),
    (
        "y = nl.add(tile, tile[:, 0:1])\nnisa.tensor_copy(tile, y)\n",
        "y = nl.add(tile, nl.broadcast_to(tile[:, 0:1], tile.shape))\nnisa.tensor_copy(tile, y)\n",
    ),
    ("y = nl.add(1.0, 2.0)\n", "y = 1.0 + 2.0\n"),
    (
        "y = nl.rsqrt(nl.transpose(tile[:, 0:128]))\n",
        "y = nl.rsqrt(nl.copy(nl.transpose(tile[:, 0:128])))\n",
    ),
    ("y = nl.copy(x)\n", "y = nl.load(x)\n"),
    ("y = nl.rms_norm(tile, tile, axis=1, n=0)\n", "y = nl.rms_norm(tile, tile, axis=1, n=512)\n"),
    ("y = nl.load(tile)\n", "y = nl.copy(tile)\n"),
    (
        "out = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.hbm)\n"
        "nl.store(out, nl.transpose(tile[:, 0:128]))\n",
        "out = nl.ndarray((128, 128), dtype=nl.float32, buffer=nl.hbm)\n"
        "nl.store(out, nl.copy(nl.transpose(tile[:, 0:128])))\n",
    ),
    (
        "y = nl.transpose(tile[:, 0:128].reshape((128, 16, 8)))\n",
        "y = nl.transpose(tile[:, 0:128].reshape((128, 16, 8)).reshape((128, 128)))\n",
    ),
    ("y = nl.broadcast_to(tile, (128, 1024))\n", "y = nl.broadcast_to(tile[:, 0:1], (128, 1024))\n"),
    (
        "index = nl.full((128, 512), 0, dtype=nl.uint32)\ny = nl.gather_flattened(tile, index, axis=1)\n",
        "index = nl.full((128, 512), 0, dtype=nl.uint32)\ny = nl.gather_flattened(tile, index)\n",
    ),
    ("nl.random_seed(7)\n", "nl.random_seed(nl.full((1, 1), 7, dtype=nl.int32))\n"),
    # --- loops
    _loop(
        "for i in range(count):\n    nisa.memset(tile, 0.0)\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, count, body)\n",
    ),
    ("for i in nl.affine_range(512 / 2):\n    pass\n", "for i in range(512 // 2):\n    pass\n"),
    ("for i in nl.static_range(0, 4, 0):\n    pass\n", "for i in range(0, 4, 1):\n    pass\n"),
    (
        "def body(i):\n    return i\n\nnl.fori_loop(0, 4, body)\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, 4, body)\n",
    ),
    (
        "def body():\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, 4, body)\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, 4, body)\n",
    ),
    _loop(
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, counts, body)\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, count, body)\n",
    ),
    _loop(
        "def body(condition):\n    nisa.register_load(condition, counts)\n    return condition\n\n"
        "nl.while_loop(1, body)\n",
        "def body(condition):\n    nisa.register_load(condition, counts)\n    return condition\n\n"
        "nl.while_loop(nisa.register_alloc(1), body)\n",
    ),
    _loop(
        "def body(condition):\n    nisa.register_load(condition, counts)\n\nnl.while_loop(count, body)\n",
        "def body(condition):\n    nisa.register_load(condition, counts)\n    return condition\n\n"
        "nl.while_loop(count, body)\n",
    ),
    _loop(
        "for i in nl.affine_range(count):\n    pass\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, count, body)\n",
    ),
    _loop(
        "for i in nl.dynamic_range(0, count):\n    break\n",
        "def body(i):\n    nisa.memset(tile, 0.0)\n\nnl.fori_loop(0, count, body)\n",
    ),
    _loop(
        "while count:\n    count = 3\n",
        "def body(going):\n    nisa.register_load(going, counts)\n    return going\n\n"
        "nl.while_loop(count, body)\n",
    ),
    # --- order
    (
        "first = nisa.memset(tile, 0.0)\nsecond = nisa.memset(tile, 1.0)\nsecond.depends_on('first')\n",
        "first = nisa.memset(tile, 0.0)\nsecond = nisa.memset(tile, 1.0)\nsecond.depends_on(first)\n",
    ),
    # --- cores
    _whole(
        "def kernel(x):\n    t = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)\n    nisa.dma_copy(t, x)\n"
        "    nisa.core_barrier(t, (0, 1))\n    return x",
        "def kernel(x):\n    t = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)\n"
        "    nisa.dma_copy(t, x)\n"
        "    nisa.core_barrier(t, (0, 1))\n    return x",
        "kernel[2](np.ones((4, 8), np.float32))",
    ),
    # --- calls
    _call(
        "copy(np.ma.masked_array(np.ones((4, 8), np.float32)))",
        "copy(np.ma.masked_array(np.ones((4, 8), np.float32)).filled(0.0))",
    ),
    _call("copy()", "copy(np.ones((4, 8), np.float32))"),
    _call("copy(np.ones((4, 8), np.float32), how=object())", "copy(np.ones((4, 8), np.float32), how=None)"),
    _call("copy(np.ones((4, 8), np.float32), how=[1, 2])", "copy(np.ones((4, 8), np.float32), how=(1, 2))"),
    _call("copy[0](np.ones((4, 8), np.float32))", "copy[2](np.ones((4, 8), np.float32))"),
    (
        "@nki.jit(platform_target='trn2')\ndef kernel(x):\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
        "@nki.jit\ndef kernel(x):\n    return x\n\nkernel(np.ones((4, 8), np.float32))\n",
    ),
    _whole(
        "def kernel(x):\n    return nisa.register_alloc(0)",
        "def kernel(x):\n    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)\n"
        "    nisa.dma_copy(out, x)\n    return out",
    ),
    _whole(
        "def kernel(x):\n    out = nl.ndarray(x.shape, x.dtype, buffer=nl.hbm)\n"
        "    nisa.dma_copy(out, x)\n    return out",
        "def kernel(x):\n    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)\n"
        "    nisa.dma_copy(out, x)\n    return out",
    ),
    (
        "def again(n):\n    return again(n + 1)\n\n@nki.jit\ndef kernel(x):\n    again(0)\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
        "def again(n):\n    if n == 4:\n        return n\n    return again(n + 1)\n\n@nki.jit\n"
        "def kernel(x):\n"
        "    again(0)\n    return x\n\nkernel(np.ones((4, 8), np.float32))\n",
    ),
    (
        _SCHEDULED + "    return scheduled(x)\n\nkernel(np.ones((4, 8), np.float32))\n",
        _SCHEDULED + "    return inner(x)\n\nkernel(np.ones((4, 8), np.float32))\n",
    ),
    (
        "import numpy as np\nimport nki\n\nkernel = nki.jit(lambda x: x)\n"
        "kernel(np.ones((4, 8), np.float32))\n",
        "import numpy as np\nimport nki\n\n@nki.jit\ndef kernel(x):\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
    ),
    (
        "from nkilib.core import no_such_kernel\n",
        "from nkilib.core.utils import kernel_assert\n",
    ),
    ("value = (1 +\nother = 2\n", "value = (1 + 2)\nother = 2\n"),
    (
        "row = nl.load(x[0:1, :])\nnisa.tensor_scalar(tile, tile, nl.add, row)\n",
        "row = nl.load(x[0:1, :])\n"
        "nisa.tensor_tensor(tile, tile, nl.broadcast_to(row, tile.shape), nl.add)\n",
    ),
    ("nisa.tensor_scalar(tile, tile, nl.add, tile)\n", "nisa.tensor_tensor(tile, tile, tile, nl.add)\n"),
    # --- what Python says
    ("size = x.shape[2]\n", "size = x.shape[-1]\n"),
    ("batch, rows, columns = x.shape\n", "rows, columns = x.shape\n"),
    ("size = x.shape(0)\n", "size = x.shape[0]\n"),
    ("for i in x.shape[0]:\n    size = i\n", "for i in range(x.shape[0]):\n    size = i\n"),
    ("for i in x.shape[0] / 2:\n    size = i\n", "for i in range(x.shape[0] // 2):\n    size = i\n"),
    ("sizes = [1] * (x.shape[0] / 2)\n", "sizes = [1] * (x.shape[0] // 2)\n"),
    (
        "sizes = {'float16': 2}\nsize = sizes[x.dtype]\n",
        "sizes = {nl.float16: 2, nl.float32: 4}\nsize = sizes[x.dtype]\n",
    ),
    (
        "def half(n):\n    n // 2\n\n@nki.jit\ndef kernel(x):\n    size = half(4)[0]\n    return x\n\n"
        "kernel(np.ones((4, 8), np.float32))\n",
        "def half(n):\n    return [n // 2]\n\n@nki.jit\ndef kernel(x):\n    size = half(4)[0]\n"
        "    return x\n\nkernel(np.ones((4, 8), np.float32))\n",
    ),
    ("size = nl.sizeinbytes(x.dtype)\n", "size = x.dtype.itemsize\n"),
    # --- what older releases had
    (
        "eye = nki.tensor.identity(128, nl.float32)\n",
        "eye = nl.shared_identity_matrix(128, nl.float32)\n",
    ),
    ("size = nl.par_dim(128)\n", "size = 128\n"),
    (
        "nisa.scalar_tensor_tensor(tile, tile, nl.multiply, 2.0, nl.add, tile, dtype=nl.bfloat16)\n",
        "nisa.scalar_tensor_tensor(tile, tile, nl.multiply, 2.0, nl.add, tile)\n",
    ),
]
"""Pairs that ``nki-sim check`` tells apart, in the profile ``library``."""

BY_RUN = [
    (
        "index = nl.full((128, 512), 600, dtype=nl.uint32)\ny = nl.copy(tile)\n"
        "nisa.nc_n_gather(tile, y, index)\n",
        "index = nl.full((128, 512), 511, dtype=nl.uint32)\ny = nl.copy(tile)\n"
        "nisa.nc_n_gather(tile, y, index)\n",
    ),
    (
        _COPY + "copy[2](np.ones((4, 8), np.float32))\n",
        _COPY + "copy[1](np.ones((4, 8), np.float32))\n",
    ),
    (
        "wide = nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(wide, 0.0)\n"
        "nisa.tensor_copy(wide.ap([[8, 128], [2, 3], [1, 3]]), tile[:, 0:9].reshape((128, 3, 3)))\n"
        "nisa.tensor_copy(tile[:, 0:8], wide)\n",
        "wide = nl.ndarray((128, 9), dtype=nl.float32, buffer=nl.sbuf)\n"
        "nisa.tensor_copy(wide.ap([[9, 128], [3, 3], [1, 3]]), tile[:, 0:9].reshape((128, 3, 3)))\n"
        "nisa.tensor_copy(tile[:, 0:9], wide)\n",
    ),
    (
        "nisa.memset(tile, -1.0)\nnisa.activation(tile, op=nl.sqrt, data=tile)\n",
        "nisa.memset(tile, -1.0)\nnisa.tensor_scalar(tile, tile, nl.maximum, 1e-30)\n"
        "nisa.activation(tile, op=nl.sqrt, data=tile)\n",
    ),
]
"""Pairs that the checks of ``nki-sim run`` tell apart."""


@functools.cache
def found(text: str, command: str, *options: str) -> list[tuple[str, str, str]]:
    """What a command says of a text: code, severity and help."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):  # texts set variables too
        file = Path(folder) / "kernel.py"
        file.write_text(text)
        words = [command, *options, str(file), "--format", "json"]
        shown = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(shown.stdout)["diagnostics"]
    return [(d["code"], d["severity"], d.get("help") or "") for d in told]


def of_text(text: str, command: str, language: str = "library") -> list[tuple[str, str, str]]:
    """What is said of a text of the corpus."""
    source = Snippet(ExampleKind.right, "python", text, {}).source()
    return found(source, command, "--language", language)
