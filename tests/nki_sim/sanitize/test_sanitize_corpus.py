"""Every planted defect of the corpus is found with its lines, and nothing is said about its look-alikes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nki import runtime
from nki_isa.diagnostics import NkiError

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
import cases as corpus
import page

CASES = corpus.cases()
DEFECTS = [c for c in CASES if c.finds is not None]
GOOD = [c for c in CASES if c.finds is None]


def run(case, check, **options):
    """The diagnostics of a run, and the arguments after it."""
    arguments = case.arguments()
    with runtime.session(check=check, **options) as session:
        try:
            case.kernel(*arguments)
        except NkiError as refused:
            return list(refused.diagnostics), arguments
    return list(session.launches[0].diagnostics), arguments


def test_corpus_is_large_enough():
    """Half of at least sixty kernels have a defect, and every defect has a look-alike class."""
    assert len(CASES) >= 60
    assert len(DEFECTS) >= 30 and len(GOOD) >= 30
    assert all(c.name.startswith("defect_") for c in DEFECTS)
    assert all(c.name.startswith("good_") for c in GOOD)


@pytest.mark.parametrize("case", DEFECTS, ids=lambda c: f"{c.module}-{c.name}")
def test_defect_is_found(case):
    """The finding has the code, severity and lines marked in the kernel; only `also` comes with it."""
    found, _ = run(case, "all")
    line, code, severity = case.finds
    mine = [d for d in found if d.code == code]
    assert len(mine) == 1, [str(d) for d in found]
    assert (mine[0].span.line, mine[0].severity.value) == (line, severity)
    assert case.lines <= {label.span.line for label in mine[0].labels}
    assert {d.code for d in found} - {code} <= case.also, [str(d) for d in found]


@pytest.mark.parametrize("case", GOOD, ids=lambda c: f"{c.module}-{c.name}")
def test_look_alike_passes(case):
    """No error and no warning; a note only where the kernel says so."""
    found, _ = run(case, "all")
    assert all(d.severity.value == "note" for d in found), [str(d) for d in found]
    assert {(d.span.line, d.code) for d in found} == case.notes


@pytest.mark.parametrize("case", DEFECTS, ids=lambda c: f"{c.module}-{c.name}")
def test_defect_passes_unchecked(case):
    """Without checks nothing is said, but for indices out of bounds, which nothing can run with."""
    found, _ = run(case, "none")
    assert [d.code for d in found] == (["NKI-H001"] if case.finds[1] == "NKI-H001" else [])


@pytest.mark.parametrize("case", DEFECTS, ids=lambda c: f"{c.module}-{c.name}")
def test_arguments_stay_on_error(case):
    """Where an error is found the caller's arrays are as they were."""
    found, arguments = run(case, "all")
    if any(d.severity.value == "error" for d in found):
        for before, after in zip(case.arguments(), arguments, strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("case", [c for c in GOOD if c.notes], ids=lambda c: c.name)
def test_strict_makes_notes_errors(case):
    """With strict, lanes that are read and never stored are errors."""
    found, _ = run(case, "all", warnings_as_errors=True)
    assert {(d.span.line, d.code, d.severity.value) for d in found} == {(*n, "error") for n in case.notes}


def test_page_shows_the_corpus():
    """docs/memory-checks.md is what tests/corpus/page.py writes."""
    assert page.PAGE.read_text(encoding="utf-8") == page.write()
