"""How close placement comes to the least bytes possible: the memory it fits in against what is live.

    python benchmarks/placement.py

For each kernel: the most bytes per partition live at once, which no placement can undercut, and the
smallest SBUF and PSUM (down to 0.5 %) in which placement succeeds. In a memory with room to spare tiles
rotate on purpose, so that the highest byte used says nothing; the smallest memory does. Goal: within 5 %.
In PSUM a tensor of up to a bank stays within one and accumulations have banks of their own, so the bound
there is the least number of banks that the accumulations and bytes live at once need.

Kernels: the examples, the kernels of the published profiles, the kernel library with its shapes, and, last,
kernels that do not fit, with what they would need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from nki import runtime
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_isa.tensor.storage import MemoryRegion
from nki_sim.placement.liveness import liveness
from nki_sim.placement.place import place, spaces
from nki_sim.placement.spill import spilled
from nki_sim.placement.utilisation import Holder, usage_of

sys.path.insert(0, str(Path(__file__).parent))
import compiled_attention
import timing_kernels

EXAMPLES = Path(__file__).parents[1] / "examples"
STEP = 0.005  # of the bound, of the search for the smallest memory
GOAL = 1.05
ROOM = dataclasses.replace(as_target("trn2"), sbuf_usable_bytes=4 << 20)


def main() -> None:
    """Print a row per kernel; exit with status 1 if one is beyond the goal."""
    print(f"{'kernel':44}{'instr.':>8}{'SBUF live':>12}{'fits in':>12}{'ratio':>8}{'banks':>7}{'fits in':>9}")
    worst = 1.0
    for name, program in programs():
        live, fits = smallest_sbuf(program)
        banks, used = smallest_psum(program)
        ratio = fits / live if live else 1.0
        worst = max(worst, ratio)
        count = sum(1 for _ in program.walk())
        print(f"{name:44}{count:8}{kib(live):>12}{kib(fits):>12}{ratio:8.3f}{banks:7}{used:9}")
    print(f"worst ratio {worst:.3f}, goal {GOAL}")
    print("\nKernels of the SDK's kernel-optimization tutorial, fp32 [4096, 8192] x [8192, 8192], trn2:")
    for version in ("blocked free", "blocked"):
        overflow(version)
    sys.exit(worst > GOAL)


def kib(size: int) -> str:
    """Bytes as KiB."""
    return f"{size / 1024:.2f} KiB"


# --- what is placed


def programs() -> Iterator[tuple[str, Program]]:
    """(name, Program) of every kernel, those of a script with all their launches."""
    for path in sorted(EXAMPLES.glob("*.py")):
        if path.stem != "broken":
            for number, program in enumerate(launched(path)):
                yield f"examples/{path.stem} #{number}", program
    for version in ("tiled", "hoisted", "blocked free"):
        yield f"matmul bf16, {version}", timing_kernels.matmul("trn2", "bfloat16", version, 2048, 1024, 2048)
    yield "matmul bf16, blocked", timing_kernels.matmul("trn2", "bfloat16", "blocked", 2048, 2048, 2048)
    for fused in (False, True):
        name = f"attention 4096, {'fused' if fused else 'baseline'}"
        yield name, compiled_attention.attention(4096, "float32", fused)
    yield from library()


def launched(path: Path) -> list[Program]:
    """The Programs a script launches."""
    with runtime.session(target=as_target("trn2"), check="none") as session, contextlib.redirect_stdout(None):
        runpy.run_path(str(path), run_name="__main__")
    return [launch.program for launch in session.launches]


def library() -> Iterator[tuple[str, Program]]:
    """The kernel library at the shapes of its documentation."""
    from nkilib.core.cumsum.cumsum import cumsum
    from nkilib.core.embeddings.rope import RoPE

    bf16 = np.dtype(ml_dtypes.bfloat16)
    calls = [
        ("nkilib cumsum", cumsum, (np.zeros((2048, 4096), np.float32),)),
        (
            "nkilib rope",
            RoPE,
            (np.zeros((128, 4, 8, 512), bf16), np.zeros((64, 4, 512), bf16), np.zeros((64, 4, 512), bf16)),
        ),
    ]
    for name, kernel, arguments in calls:
        with runtime.session(data=False, target=as_target("trn2")) as session:
            kernel(*arguments)
        for launch in session.launches:
            yield name, launch.program


# --- how little does


def smallest_sbuf(program: Program) -> tuple[int, int]:
    """Bytes per partition live at once, and the smallest SBUF found in which placement succeeds."""
    bound = place(program, ROOM).sbuf.peak
    if not bound:
        return 0, 0
    size = bound
    while not places(program, dataclasses.replace(ROOM, sbuf_usable_bytes=int(size))):
        size += max(STEP * bound, 1)
    return bound, int(size)


def smallest_psum(program: Program) -> tuple[int, int]:
    """Banks that accumulations and bytes live at once need, and the fewest in which placement succeeds."""
    live, used = liveness(program), place(program, ROOM).psum
    if not used.peak:
        return 0, 0
    open_banks = np.zeros(live.instructions + 1, np.int64)
    for index, first, last in live.groups:
        wanted = -(-program.storages[index].row_bytes // used.bank)
        open_banks[first] += wanted
        open_banks[last + 1] -= wanted
    bound = max(int(open_banks.cumsum().max()), -(-used.peak // used.bank))
    banks = bound
    while not places(program, dataclasses.replace(ROOM, psum_banks=banks)):
        banks += 1
    return bound, banks


def places(program: Program, target: Target) -> bool:
    """True if placement succeeds."""
    try:
        place(program, target)
    except NkiMemoryError:
        return False
    return True


# --- what does not fit


def overflow(version: str) -> None:
    """Print what a version of the tutorial's matmul holds at once in the order it is written."""
    program = timing_kernels.matmul("trn2", "float32", version)
    live = liveness(program)
    needed = (
        live.first.copy()
    )  # if every load stood right before the first instruction that reads what it loads
    for position, instruction in reversed(list(enumerate(program.walk()))):
        for tensor in instruction.reads:
            if tensor.storage.on_chip:
                needed[tensor.storage.index] = position
    used = [s for s in program.storages if s.region is MemoryRegion.sbuf]
    written, late = (
        [Holder(s, 0, 0, int(first[s.index]), int(live.last[s.index])) for s in used]
        for first in (live.first, needed)
    )
    usage = usage_of(written, live.instructions)
    at = int(usage.argmax())
    held: dict[str, int] = {}
    for h in written:
        if h.first <= at <= h.last:
            key = f"{h.storage.dtype}{list(h.storage.shape)}"
            held[key] = held.get(key, 0) + h.storage.row_bytes
    parts = ", ".join(f"{kib(size)} of {name}" for name, size in held.items())
    print(f"  {version}: {kib(int(usage.max()))} live at instruction {at}: {parts}")
    print(
        f"    with every load right before its first use: {kib(int(usage_of(late, live.instructions).max()))}"
    )
    target = as_target("trn2")
    found = spilled(program, live, target, spaces(target)[MemoryRegion.sbuf])
    if found is not None:
        moved = f"{found.bytes_out / 1e9:.2f} GB out, {found.bytes_in / 1e9:.2f} in"
        print(f"    spilled in that order: {moved}, {found.time / 1e6:.2f} ms of the DMA engines")


if __name__ == "__main__":
    main()
