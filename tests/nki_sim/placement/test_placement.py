"""The placement benchmark, on its kernels that take no time: within 5 % of what is live at once."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import placement  # noqa: I001  (a folder of scripts, on the path from here on)
import timing_kernels
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.storage import MemoryRegion
from nki_sim.placement.place import place

# Those that show another framework have the kernels of the others; those around the kernel library launch its
# kernels, which have a test of their own.
EXAMPLES = [
    path
    for path in sorted(placement.EXAMPLES.glob("*.py"))
    if path.stem != "broken"
    and "import nki" in (text := path.read_text())
    and not any(word in text for word in ("ImportError", "nkilib", "decoder_attention"))
]


def near(program):
    live, fits = placement.smallest_sbuf(program)
    banks, used = placement.smallest_psum(program)
    if any(storage.region is MemoryRegion.psum and storage.address for storage in program.storages):
        banks = used  # the kernel says which
    return live <= fits <= placement.GOAL * live and used == banks


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_in_little_more_than_what_is_live(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(path)])
    programs = placement.launched(path)
    assert programs and all(map(near, programs))


def test_the_kernel_library_fits_in_little_more_than_what_is_live():
    assert all(near(program) for _, program in placement.library())


def test_tiles_of_published_matmuls_are_counted_once():
    """Bytes per partition by hand, fp32 [k, m].T x [k, n]: what a turn of the outer loops loads, a result.

    Two column blocks of 128 and two of 512 with all of k, and the tile on its way out; or, with k in blocks,
    the sums of a column block, the block of the moving and that of the stationary matrix.
    """
    k, m, n, item = 1024, 2048, 2048, 4
    free = place(timing_kernels.matmul("trn2", "float32", "blocked free", k, m, n), TRN2).sbuf
    assert free.peak == k // 128 * (2 * 128 + 2 * 512) * item + 512 * item
    blocked = place(timing_kernels.matmul("trn2", "float32", "blocked", k, m, n), TRN2).sbuf
    assert blocked.peak == (m // 128 * 1024 + 8 * 1024 + 8 * 2048) * item


def test_the_tutorials_blocked_fp32_matmul_needs_more_than_there_is():
    program = timing_kernels.matmul("trn2", "float32", "blocked")
    with pytest.raises(NkiMemoryError, match="224 KiB per partition are live at once, 208 KiB"):
        place(program, TRN2)


@pytest.mark.parametrize(("k", "row_tiles"), [(4096, 2), (8192, 1)])
def test_a_block_of_the_tutorial_that_does_not_fit_is_loaded_again(k, row_tiles):
    """Two column blocks of 128 and two of 512, fp32, are 160 KiB for 4096 rows, and 320 for 8192."""
    m, n = 256, 1024
    program = timing_kernels.matmul("trn2", "float32", "blocked free", k, m, n)
    loads = [one.src.size for one in program.walk() if one.opcode == "dma_copy" and one.src.buffer.is_hbm]
    assert sum(loads) == k * m + m // (128 * row_tiles) * k * n
    assert place(program, TRN2).sbuf.peak <= TRN2.sbuf_usable_bytes
