"""Compares the simulated time of this project's kernels with the vendor's own, on the same inputs.

    python benchmarks/library.py CHECKOUT [NAME ...]

CHECKOUT is a checkout of github.com/aws-neuron/nki-library at tag 2.28; it is only read. Each example of each
row of the table of kernels is timed, without its arithmetic, on its launch grids and its first target. The
vendor's kernels are timed at the API level they are written for, 0.2; ours at the same. Without names all
kernels are measured, and docs/library/times.md is written.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import importlib
import io
import math
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nki import levels
from nki.kernel import Kernel
from nki.runtime import session
from nki_isa.machine.targets import as_target
from nki_sim.words import time

LEVEL = "0.2"
PAGE = Path(__file__).parents[1] / "docs" / "library" / "times.md"
_PACKED = {np.dtype(np.uint16): "float4_e2m1fn_x4", np.dtype(np.uint32): "float8_e4m3fn_x4"}
_WRONG = {("moe_cte", "dropping"): "its results are zeros, it leaves out what does not fill 1024 positions"}
_OURS, _THEIRS = "nkilib.", "nkilib_src.nkilib."


@dataclass(frozen=True)
class Line:
    """One example on one launch grid: ns of ours and of theirs, or why theirs has none."""

    kernel: str
    example: str
    target: str
    lnc: int
    ours: float
    theirs: float
    reason: str = ""

    @property
    def ratio(self) -> float:
        """Our time as a part of theirs; NaN where theirs has none."""
        return self.ours / self.theirs if self.theirs else math.nan


def measured(names: list[str]) -> Iterator[Line]:
    """Time the rows of these names, or all."""
    from nkilib.registry import rows

    for row in rows().values():
        if names and row.name not in names:
            continue
        theirs, reason = _theirs(row)
        for example in row.examples:
            for lnc in example.lnc:
                target = example.targets[0]
                ours = _elapsed(row.kernel, example.arguments(), lnc, target)
                other, why = 0.0, reason or _WRONG.get((row.name, example.name), "")
                if theirs is not None and not why:
                    try:
                        arguments = example.arguments()
                        given = {name: _packed(name, _translated(value)) for name, value in arguments.items()}
                        other = _elapsed(theirs, given, lnc, target)
                    except Exception as problem:  # whatever their kernel does with inputs it does not take
                        why = _first_line(problem)
                yield Line(row.name, example.name, target, lnc, ours, other, why)


def _theirs(row: Any) -> tuple[Kernel | None, str]:
    """The vendor's kernel of a row."""
    module = row.entry.__module__.replace(_OURS, _THEIRS, 1)
    for name in ("neuronxcc", "neuronxcc.nki", "neuronxcc.nki.typing"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["neuronxcc.nki.typing"].mutable_tensor = Any  # type: ignore[attr-defined]  # an annotation
    try:
        return row.launched_by(getattr(importlib.import_module(module), row.entry.__name__)), ""
    except Exception as problem:  # importing their tree runs it
        return None, _first_line(problem)


def _first_line(problem: Exception) -> str:
    lines = str(problem).splitlines() or [type(problem).__name__]
    errors = [line for line in lines if "error[" in line]
    return re.sub(r"\S*/nkilib_src/\S* ", "", (errors or lines)[0])


@dataclass(frozen=True)
class _Packed:
    """Words that each hold four MX values, as an array of the packed type, which numpy lacks."""

    words: np.ndarray[Any, Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self.words


def _packed(name: str, value: Any) -> Any:
    """MX weights, which ours take as words too."""
    if isinstance(value, np.ndarray) and name.endswith(("weights", "_w")) and value.dtype in _PACKED:
        return _Packed(value, _PACKED[value.dtype])
    return value


def _translated(value: Any) -> Any:
    """An option of ours as the vendor's: members of enumerations and objects by their names."""
    kind = type(value)
    if not kind.__module__.startswith(_OURS):
        return value
    theirs = getattr(importlib.import_module(kind.__module__.replace(_OURS, _THEIRS, 1)), kind.__name__)
    if isinstance(value, enum.Enum):
        return theirs[value.name]
    names = [field.name for field in fields(value)] if is_dataclass(value) else list(vars(value))
    return theirs(**{name: _translated(getattr(value, name)) for name in names})


def _elapsed(kernel: Kernel, arguments: dict[str, Any], lnc: int, target: str) -> float:
    """ns until the last core is done."""
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, session(target=as_target(target), data=False, timing=True, check="none") as record:
        kernel[lnc](**arguments)
    timelines = [core.timeline for core in record.launches[-1].cores if core.timeline]
    if not timelines:
        raise ValueError("it does nothing, without an error")
    return max(line.total for line in timelines)


def mean(lines: list[Line]) -> float:
    """The geometric mean of the ratios."""
    ratios = [line.ratio for line in lines if line.theirs]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def page(lines: list[Line]) -> str:
    """docs/library/times.md."""
    compared = [line for line in lines if line.theirs]
    worst = max((line.ratio for line in compared), default=math.nan)
    text = [
        "# Simulated times, ours and the vendor's",
        "",
        "<!-- Written by `python benchmarks/library.py CHECKOUT`. -->",
        "",
        f"The same inputs on the same machine model, at API level {LEVEL}; the vendor's kernels of tag 2.28.",
        f"Over {len(compared)} launches the geometric mean of our time to theirs is {mean(lines):.2f},",
        f"the largest ratio {worst:.2f}. Both times contain the start-up (13.5 us; 29 us on",
        "two cores that copy from HBM by software DGE) and 2 us of wind-down.",
        "",
        "| kernel | geometric mean | largest |",
        "|---|---|---|",
    ]
    for name in dict.fromkeys(line.kernel for line in lines):
        mine = [line for line in compared if line.kernel == name]
        if mine:
            text.append(f"| {name} | {mean(mine):.2f} | {max(line.ratio for line in mine):.2f} |")
    text += [
        "",
        "| kernel | example | target, programs | ours | vendor's | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        other = time(line.theirs) if line.theirs else f"none: {line.reason[:120]}".replace("|", "\\|")
        ratio = f"{line.ratio:.2f}" if line.theirs else ""
        start = f"| {line.kernel} | {line.example} | {line.target}, {line.lnc} | {time(line.ours)}"
        text.append(f"{start} | {other} | {ratio} |")
    return "\n".join([*text, ""])


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("names", nargs="*", help="kernels; all by default, and then the page is written")
    options = parser.parse_args()
    if not (options.checkout / "src" / "nkilib_src").is_dir():
        parser.error(f"{options.checkout} is not a checkout of nki-library")
    sys.path.append(str(options.checkout / "src"))
    sys.dont_write_bytecode = True  # the checkout is only read
    levels.use(LEVEL)
    lines = []
    for line in measured(options.names):
        lines.append(line)
        other = f"{time(line.theirs)}  {line.ratio:.2f}" if line.theirs else line.reason
        print(f"{line.kernel:24} {line.example:20} lnc{line.lnc} {time(line.ours):>12}  {other}", flush=True)
    print(f"geometric mean {mean(lines):.3f} over {sum(line.theirs > 0 for line in lines)}")
    if not options.names:
        PAGE.write_text(page(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
