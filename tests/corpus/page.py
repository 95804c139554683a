"""Writes docs/memory-checks.md from the corpus: ``python tests/corpus/page.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

import cases as corpus

from nki import runtime
from nki_isa.diagnostics import Diagnostic, NkiError
from nki_sim.sanitize import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "memory-checks.md"

INTRODUCTION = """# What is checked while a kernel runs

`nki-sim run` checks every kernel it runs, and so does a plain `python script.py`. A simulator that only
computes lets pass what fails on hardware: reads of unwritten bytes, tensors that share an address, PSUM used
in ways the tensor engine does not have. Everything found in a run is reported at once, with the line where it
happens and the lines that have to do with it. With an error no array of the caller changes. In plain Python,
pytest and notebooks a warning is one of Python's, `nki.NkiWarning`, told once for each line, which Python's
warning filters can silence or make an error; notes are told by `nki-sim run` alone. `nki-sim check` and
`gate` do no arithmetic, and make those of these checks that shapes and addresses alone decide.

    nki-sim run kernel.py                       all checks
    nki-sim run kernel.py --check=none          none of them
    nki-sim run kernel.py --check=overlap,psum  some of them
    nki-sim run kernel.py --warnings-as-errors  warnings count as errors, and notes, but not N002 and H023
    nki-sim run kernel.py --fill=sentinels      unwritten memory is NaN, or 4, as in the vendor's simulator
    NKI_SIM_CHECK=none python script.py         the same choice for scripts run by themselves

| class | finds |
|---|---|
"""

RULES = """
An **error** is a defect. A **warning** is what hardware may do otherwise than the text says, or work that
goes nowhere. A **note** is worth knowing.

## How it is decided

**Written bytes.** Every tensor starts with nothing written, exact to the byte, whatever held its memory
before: a tile that gets the bytes of another one does not get its values. A read of unwritten bytes is an
error only if a result depends on it. That is not guessed from the instructions: the kernel runs again with
other bytes in those places, and what comes out is compared. Lanes that are computed on but masked,
overwritten or never stored give the same results, and a note. Such a second run happens only where
unwritten bytes were read, so a kernel without such reads does not pay for it. Data decide: a lane that a
mask leaves out for these arguments may come in with others; `--warnings-as-errors` reports it regardless.

**Addresses.** Tensors placed by the compiler never share bytes while both are needed. Tensors with
`address=` are where they were put. Bytes of one that are overwritten through another and then read are an
error (`overlap`). If they only take turns, values are right in the order of the text; but the compiler
orders instructions by the tensors they name, and may move what depends on nothing. Where neither an
engine's own order, nor a chain of results, nor `depends_on`, `with_schedule` or `no_reorder` puts one
access before the other, there is a warning (`order`). Tensors whose times of use do not interleave are over
before the next begins, as with a stack or a ring of buffers, and nothing is said. A tensor that has the
address and size of an earlier one in another data type, and is read before it is written, is that one read
as other numbers: what is written through one is written for both. (`t.view(dtype)` says so in the text.)

**Source and destination.** Engines read element by element in the order of the access pattern and write
behind it, so a destination may be a source, or lie over elements already read. It may not lie over elements
still to be read. DMA descriptors run in any order. Here every source is read before anything is written, so
the results of a run do not show the difference.

**PSUM.** A matmul overwrites, or adds to what a matmul has written; on NeuronCore-v2 and v3 adding to
anything else is undefined. Reading a sum and then adding to it is legal, and rarely meant: a warning. So
are two accumulations that take turns in one bank: the documentation has one accumulation under way per
bank.

**Results.** Something of every returned tensor is written, else there is an error; elements left out are a
warning, since layouts with padding leave some unused, and which rows a scatter or a skipped index writes is
data. A tensor that is written and neither read nor returned is a warning, unless the instruction has
another result that is used.

**Numbers.** A NaN or infinity in a result that no argument holds is a note, once a launch: the first
instruction that made one that reached a result, what it read, and where it reached it. A launch whose
results are finite pays for a look at them; any other runs once more to find the line. What a kernel was
given as a number, such as a mask's minus infinity, and what never reaches a result is not reported. It stays
a note with `--warnings-as-errors`: the kernel may be right and the arguments large.

**Registers.** A virtual register is set where something is moved or loaded into it, an accumulator register
of an engine where an instruction resets or loads it. Which are read before that is told from the order of
the text, with a device loop counted as run; whether a result depends on the value, as for bytes.

Not checked: what other programs do to the same HBM. Accesses between the cores of a launch are checked for
races (NKI-H021).

## The corpus

These kernels are the test suite of the checks. `# finds` marks the line a finding points at, `# with`
further lines it names. Nothing but an expected note may be said about the kernels without a defect.
"""


def write() -> str:
    """The page."""
    parts = [INTRODUCTION.rstrip()]
    parts += [f"| `{name}` | {what} |" for name, what in CHECKS.items()]
    text = "\n".join(parts) + "\n" + RULES
    cases = corpus.cases()
    for module in corpus.MODULES:
        text += f"\n### {inspect.getdoc(corpus.load(module))}\n"
        for case in cases:
            if case.module == module:
                text += _section(case)
    return text


def _section(case: corpus.Case) -> str:
    verdict = "Defect" if case.finds else "Correct"
    lines, first = case.source
    body = "".join(lines).rstrip()
    text = f"\n**{verdict}: {case.text}**\n\n```python\n{body}\n```\n"
    told = [_told(d, first) for d in _found(case)]
    return text + ("\n" + "\n\n".join(told) + "\n" if told else "")


def _found(case: corpus.Case) -> list[Diagnostic]:
    with runtime.session(check="all") as session:
        try:
            case.kernel(*case.arguments())
        except NkiError as refused:
            return list(refused.diagnostics)
    return list(session.launches[0].diagnostics)


def _told(diagnostic: Diagnostic, first: int) -> str:
    where = f", line {diagnostic.span.line - first + 1}" if diagnostic.span else ""
    text = f"> {diagnostic.severity.value} {diagnostic.code}{where}: {diagnostic.message}"
    for label in diagnostic.labels:
        text += f"  \n> line {label.span.line - first + 1}: {label.message}"
    for note in diagnostic.notes:
        text += f"  \n> note: {note}"
    return text


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
