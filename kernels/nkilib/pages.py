"""Writes docs/library: a page on each kernel of the table, with what it measures here.

    python -m nkilib.pages docs/library [NAME ...]

Everything comes from the kernel's row; times and errors are those of the row's examples on the simulator.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nki.compiler.source.kernel_source import signature_of
from nki.runtime import Launch
from nki_sim.report import pictures
from nki_sim.words import size, time
from nkilib.registry import Example, Row, difference, rows

_NOTE = "<!-- Written by `make library-pages` from the kernel's registry_row.py. -->"
_SDK = "https://awsdocs-neuron.readthedocs-hosted.com/en/latest"


def index() -> str:
    """The page that lists all kernels."""
    lines = [
        "# The kernel library",
        "",
        _NOTE,
        "",
        "Kernels with the import paths and parameters of the vendor's library of NKI 2.28, written from the",
        "documented behaviour of those. `nki-sim lib` lists them, `nki-sim lib NAME` runs one against its",
        "reference, `nki-sim lib NAME --html OUT.html` shows where its time goes.",
        "",
        "| kernel | computes | import |",
        "|---|---|---|",
    ]
    for row in rows().values():
        lines.append(f"| [{row.name}]({row.name}.md) | {row.summary} | `{_import_of(row)}` |")
    lines += [
        "",
        "[times.md](times.md) compares their simulated times with the vendor's kernels,",
        "[roofline.md](roofline.md) how near they come to the roofline,",
        "[conformance.md](conformance.md) what the vendor's own tests say of them, [tests.md](tests.md) how",
        "they are tested here.",
        "[layers.md](layers.md) builds decoder layers of them and profiles these.",
        "How [attention](how-attention-got-fast.md) and [an MLP](how-mlp-got-fast.md) got fast, in steps.",
        "",
    ]
    return "\n".join(lines)


def described(row: Row) -> str:
    """The part of a kernel's page that says what it is."""
    defaults = signature_of(row.entry).parameters
    page = f"[{row.page}]({_SDK}/{row.page}.html)" if row.page.startswith("nki/") else "the vendor's library"
    lines = [
        f"# {row.name}",
        "",
        _NOTE,
        "",
        f"{row.summary}. Follows {page}; API level {row.since} and later.",
        "",
        "```python",
        _import_of(row),
        "```",
        "",
        "## Computes",
        "",
        row.maths,
        "",
        "## Parameters",
        "",
        "| name | default | meaning |",
        "|---|---|---|",
    ]
    for name, text in row.options.items():
        lines.append(f"| `{name}` | {_default(defaults[name].default)} | {_cell(text)} |")
    lines += ["", "## Limits", "", *(f"- {text}" for text in row.limits), ""]
    lines += ["## How it works", "", "```text", *_doc_of(row).splitlines(), "```", ""]
    return "\n".join(lines)


def measured(row: Row, folder: Path) -> str:
    """The part that says what its examples measure; writes the pictures of the first one into `folder`."""
    lines = [
        "## Examples",
        "",
        "| example | inputs | options | target, programs | simulated time | SBUF | largest error |",
        "|---|---|---|---|---|---|---|",
    ]
    for example in row.examples:
        for lnc in example.lnc:
            text, launch = _measured(row, example, lnc)
            lines.append(text)
            if example is row.examples[0] and lnc == example.lnc[-1]:
                core = launch.cores[0]
                assert core.timeline is not None
                (folder / f"{row.name}-timeline.svg").write_text(pictures.timeline(core.timeline))
                (folder / f"{row.name}-sbuf.svg").write_text(pictures.memory(core.placement.sbuf))
    bound = f"{row.tolerance.atol:.2g} + {row.tolerance.rtol:.2g} * |reference|"
    lines += [
        "",
        f"SBUF is the most bytes per partition held at once; the error is the largest difference to "
        f"`{row.reference.__name__}`, as a part of the largest magnitude. Allowed: {bound}: "
        f"{row.tolerance.reason}.",
        "",
        f"## Where its time and memory go: {row.examples[0].name}",
        "",
        f"![timeline]({row.name}-timeline.svg)",
        "",
        f"![SBUF]({row.name}-sbuf.svg)",
        "",
    ]
    return "\n".join(lines)


def _measured(row: Row, example: Example, lnc: int) -> tuple[str, Launch]:
    """A line of the table of examples, and the launch; a slow example is timed without its arithmetic."""
    arguments, target = example.arguments(), example.targets[0]
    outcome = row.run(arguments, lnc, target, timing=True, data=not example.slow)
    error = "not measured here"
    if not example.slow:
        found = [
            difference(a, b, row.tolerance)
            for a, b in zip(outcome.results, row.expected(example.arguments(), lnc))
        ]
        worst = max(one.relative for one in found)
        error = "0" if worst == 0 else f"{worst:.0e}"
    cores = outcome.launch.cores
    elapsed = max(core.timeline.total for core in cores if core.timeline)
    held = size(max(core.placement.sbuf.peak for core in cores))
    options = ", ".join(f"`{name}={_spelled(value)}`" for name, value in example.options.items())
    name = f"{example.name}{f': {example.about}' if example.about else ''}"
    cells = name, _shapes(arguments), options, f"{target}, {lnc}", time(elapsed), held, error
    return f"| {' | '.join(_cell(text) for text in cells)} |", outcome.launch


def _import_of(row: Row) -> str:
    return f"from {row.entry.__module__} import {row.entry.__name__}"


def _doc_of(row: Row) -> str:
    """The header of the kernel's module: engines, memory and why."""
    return inspect.cleandoc(sys.modules[row.entry.__module__].__doc__ or row.summary)


def _default(value: Any) -> str:
    return "" if value is inspect.Parameter.empty else f"`{_spelled(value)}`"


def _spelled(value: Any) -> str:
    return getattr(value, "name", None) or (value if isinstance(value, str) else repr(value))


def _shapes(arguments: dict[str, Any]) -> str:
    shown = [
        f"{name} {value.dtype.name}{list(value.shape)}"
        for name, value in arguments.items()
        if isinstance(value, np.ndarray)
    ]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write(folder: Path, names: Iterable[str] = ()) -> None:
    """Write the pages of these kernels, or of all, and the index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(index())
    for row in rows().values():
        if row.name in names or not names:
            (folder / f"{row.name}.md").write_text(f"{described(row)}\n{measured(row, folder)}")
            print(row.name)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2:])
