"""How near kernels of the library come to the roofline at shapes of Llama 3.

    python benchmarks/roofline.py [NAME ...]

Each line is one launch on both cores of a trn2, at the shapes that a rank has under tensor parallelism. Its
bound is the longer one of two times: that of reading every argument and writing every result once at the
core's share of the HBM bandwidth, and that of the products at the tensor engine's peak. The duration
is from the first trigger to the last result, as ``nki-sim profile`` has it. Without names all kernels are
measured, and docs/library/roofline.md is written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nki.runtime import session
from nki_isa.machine.targets import TRN2, as_target
from nki_sim.report.profile import Profile
from nkilib.core.attention.attention_tkg_utils import AttnTKGConfig
from nkilib.core.utils.common_types import NormType
from nkilib.registry import rows

PAGE = Path(__file__).parents[1] / "docs" / "library" / "roofline.md"
CORES, TARGET = 2, "trn2"
DECODE, PREFILL = 80.0, 85.0  # percent of the bound that is asked for
LATENCY = 4000.0  # ns of a launch in which no bytes move, whatever its schedule
HIDDEN = {"8B": 4096, "70B": 8192}
INTERMEDIATE = {"8B": 14336, "70B": 28672}
HEADS = {"8B": 32, "70B": 64}
D = 128
NORM = NormType.RMS_NORM
Arguments = dict[str, Any]


def _zeros(*shape: int, dtype: Any = ml_dtypes.bfloat16) -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


def mlp(model: str, ranks: int, batch: int, sequence: int = 1, residual: bool = False) -> Arguments:
    """The MLP of a rank with the norm before it."""
    hidden, width = HIDDEN[model], INTERMEDIATE[model] // ranks
    given = {
        "hidden_tensor": _zeros(batch, sequence, hidden),
        "gate_proj_weights_tensor": _zeros(hidden, width),
        "up_proj_weights_tensor": _zeros(hidden, width),
        "down_proj_weights_tensor": _zeros(width, hidden),
        "normalization_weights_tensor": _zeros(1, hidden),
        "normalization_type": NORM,
    }
    if residual:
        given |= {"fused_add_tensor": _zeros(batch, sequence, hidden), "store_fused_add_result": True}
    return given


def qkv(model: str, ranks: int, batch: int, sequence: int = 1, residual: bool = False) -> Arguments:
    """The QKV projection of a rank with the norm before it; it has one head of k and v."""
    hidden, heads = HIDDEN[model], HEADS[model] // ranks
    given = {
        "input": _zeros(batch, sequence, hidden),
        "fused_qkv_weights": _zeros(hidden, (heads + 2) * D),
        "gamma_norm_weights": _zeros(1, hidden),
        "fused_norm_type": NORM,
        "d_head": D,
        "num_q_heads": heads,
        "num_kv_heads": 1,
    }
    if residual:
        more = ("mlp_prev", "attention_prev")
        given |= {name: _zeros(batch, sequence, hidden) for name in more} | {"fused_residual_add": True}
    return given


def attention_tkg(model: str, ranks: int, batch: int, keys: int) -> Arguments:
    """A new token of each sequence against one head of k and v, which is full."""
    heads = HEADS[model] // ranks
    return {
        "q": _zeros(D, batch * heads),
        "k_active": _zeros(D, batch),
        "v_active": _zeros(batch, 1, 1, D),
        "k_prior": _zeros(batch, 1, D, keys),
        "v_prior": _zeros(batch, 1, keys, D),
        "mask": _zeros(1, batch, heads, 1, dtype=np.uint8),
        "rope_pos_ids": _zeros(batch, 1, dtype=np.float32),
        "cfg": AttnTKGConfig(batch, heads, 1, keys, keys, D, use_pos_id=True, qk_in_sb=True),
    }


def output_projection_tkg(model: str, ranks: int, batch: int) -> Arguments:
    """The output projection of a rank."""
    heads = HEADS[model] // ranks
    return {"attention": _zeros(D, batch, heads, 1), "weight": _zeros(heads * D, HIDDEN[model])}


@dataclass(frozen=True)
class Shape:
    """A row of the page: a kernel, its arguments, and whether it decodes."""

    kernel: str
    name: str
    arguments: Callable[[], Arguments]
    decodes: bool = True


def _decode(kernel: Callable[..., Arguments], model: str, ranks: int, *sizes: int) -> Shape:
    sequences = f"{sizes[0]} sequences" + (f" of {sizes[1]} keys" if len(sizes) > 1 else "")
    return Shape(
        kernel.__name__, f"Llama-3 {model}, TP{ranks}, {sequences}", lambda: kernel(model, ranks, *sizes)
    )


def _prefill(kernel: Callable[..., Arguments], length: int, residual: bool) -> Shape:
    name = f"Llama-3 70B, TP32, {length} rows" + (", residuals" if residual else "")
    return Shape(kernel.__name__, name, lambda: kernel("70B", 32, 1, length, residual), decodes=False)


SHAPES = (
    _decode(attention_tkg, "8B", 8, 4, 2048),
    _decode(attention_tkg, "8B", 8, 4, 8192),
    _decode(attention_tkg, "8B", 8, 4, 16384),
    _decode(attention_tkg, "8B", 8, 16, 8192),
    _decode(attention_tkg, "8B", 8, 4, 32768),
    _decode(attention_tkg, "70B", 8, 4, 8192),
    _decode(attention_tkg, "70B", 8, 4, 16384),
    _decode(attention_tkg, "70B", 32, 8, 8192),
    _decode(mlp, "8B", 32, 4),
    _decode(mlp, "8B", 8, 4),
    _decode(mlp, "8B", 8, 32),
    _decode(mlp, "70B", 64, 4),
    _decode(mlp, "70B", 32, 4),
    _decode(mlp, "70B", 8, 4),
    _decode(qkv, "8B", 8, 4),
    _decode(qkv, "70B", 32, 4),
    _decode(qkv, "70B", 8, 4),
    _decode(output_projection_tkg, "8B", 8, 4),
    _decode(output_projection_tkg, "70B", 32, 4),
    _decode(output_projection_tkg, "70B", 8, 4),
    _prefill(qkv, 4096, False),
    _prefill(qkv, 4096, True),
    _prefill(mlp, 4096, False),
    _prefill(mlp, 4096, True),
)


@dataclass(frozen=True)
class Line:
    """One launch, the figures of its slowest core in ns; bytes are those of both cores."""

    shape: Shape
    moved: int
    memory: float
    tensor: float
    duration: float

    @property
    def bound(self) -> float:
        """The shortest time that memory and tensor engine allow."""
        return max(self.memory, self.tensor)

    @property
    def share(self) -> float:
        """The bound in percent of the duration."""
        return 100.0 * self.bound / self.duration

    @property
    def most(self) -> float:
        """The bound in percent of the bound and :data:`LATENCY`: more no schedule reaches."""
        return 100.0 * self.bound / (self.bound + LATENCY)


def measured(shape: Shape) -> Line:
    """Time one launch, without its arithmetic."""
    kernel = rows()[shape.kernel].kernel
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, session(target=as_target(TARGET), data=False, timing=True, check="none") as record:
        kernel[CORES](**shape.arguments())
    profiles = [Profile.of(core.timeline) for core in record.launches[-1].cores if core.timeline]
    slowest = max(profiles, key=lambda profile: profile.duration)
    target = slowest.target
    share = target.hbm_bytes_per_ns / min(CORES, target.hbm_cores)
    return Line(
        shape,
        sum(profile.hbm_minimum_bytes for profile in profiles),
        slowest.hbm_minimum_bytes / share,
        slowest.flops / (target.peak_tflops_bf16 * 1e3),
        slowest.duration,
    )


def goal(lines: list[Line], decodes: bool) -> str:
    """How many lines reach what is asked for, of all and of those that can."""
    asked = DECODE if decodes else PREFILL
    mine = [line for line in lines if line.shape.decodes == decodes]
    if not mine:
        return ""
    reached = [line for line in mine if line.share >= asked]
    name = "Decoding" if decodes else "Prefill"
    text = f"{name}: {len(reached)} of {len(mine)} reach {asked:.0f} % of the bound"
    able = [line for line in mine if line.most >= asked]
    if len(able) < len(mine):
        text += f", of the {len(able)} that can with {LATENCY / 1e3:.0f} us beside it"
    return text + "."


def text_of(line: Line) -> str:
    """A row of the table."""
    bound = "HBM" if line.memory >= line.tensor else "tensor"
    times = f"{line.memory / 1e3:.1f} us | {line.tensor / 1e3:.1f} us | {line.duration / 1e3:.1f} us"
    over = (line.duration - line.bound) / 1e3
    start = f"| {line.shape.kernel} | {line.shape.name} | {line.moved / 1e6:.1f} MB | {times}"
    return f"{start} | {line.share:.0f} % of {bound} | {line.most:.1f} % | {over:.1f} us |"


def page(lines: list[Line]) -> str:
    """docs/library/roofline.md."""
    text = [
        "# How near to the roofline",
        "",
        "<!-- Written by `python benchmarks/roofline.py`. -->",
        "",
        "Two cores of a trn2, which share one HBM stack of 716 GB/s, at the shapes of one rank; bf16. The",
        "bound is the longer one of the time to read every argument and write every result once, and the",
        "time of the products at the tensor engine's peak. The duration goes from the first trigger",
        f"to the last result: {TRN2.program_start / 1e3:.1f} us of start-up and 2 us of wind-down come to",
        f"every launch, {TRN2.program_pair_start / 1e3:.1f} us more to those that copy by software DGE.",
        "",
        "4 us of a launch move no bytes, whatever its schedule: 0.75 us until the first byte, 0.25 us of",
        "small loads before the large ones, 0.7 us until an engine sees the last byte, 0.7 us for a product",
        "and its way out of PSUM, 1.4 us for the store, 0.2 us between them. The column `at most` is the",
        f"bound with that. HBM gives two cores {100 * TRN2.hbm_efficiency:.0f} % of its bandwidth,",
        "a descriptor of 8 KiB 98.5 % of it; the first of loads in a row waits for HBM, up to 0.75 us.",
        "",
        "Where a kernel is below what it could reach: mlp and qkv share the rows of their weights, so that",
        "the cores exchange sums, 2.1 us. mlp does so while the weights of the down projection arrive; where",
        "these are few (8B, TP32) it waits. qkv does so beside its last loads, which are cut by columns,",
        "in descriptors half as long; its few hidden states come in short descriptors too, 0.5 us.",
        "",
        "A QKV projection with residuals reads three tensors of hidden states for one product: at best it",
        "reaches 70 % of the tensor engine's peak, the ratio of its two times below.",
        "",
        goal(lines, True),
        goal(lines, False),
        "",
        "| kernel | shape | moved | HBM | tensor engine | duration | of the bound | at most | over it |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(text_of, lines),
    ]
    return "\n".join([*text, ""])


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="kernels; all by default, and then the page is written")
    names = parser.parse_args().names
    lines = []
    for shape in SHAPES:
        if not names or shape.kernel in names:
            lines.append(measured(shape))
            print(text_of(lines[-1]), flush=True)
    for decodes in (True, False):
        print(goal(lines, decodes))
    if not names:
        PAGE.write_text(page(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
