"""What every row of the kernel library's table must keep; a new row is tested by being there."""

import importlib

import numpy as np
import pytest

from nki import levels
from nki.compiler.checker.check import check
from nki.compiler.source.kernel_source import signature_of
from nki_isa.diagnostics import Severity
from nkilib.registry import rows

# What an example is rightly told of: without shard_on_tokens each program routes all tokens.
NOTED = {("router_topk", "qwen3"): ["NKI-H023"]}


def calls():
    """Every example of every row, at each level it is for, on each of its targets and launch grids."""
    for row in rows().values():
        for example in row.examples:
            for level in (row.since, levels.NEWEST):
                for target in example.targets:
                    for lnc in example.lnc:
                        name = f"{row.name}-{example.name}-{level}-{target}-lnc{lnc}"
                        marks = [pytest.mark.slow] if example.slow else []
                        yield pytest.param(row, example, level, target, lnc, id=name, marks=marks)


def told(found):
    """The codes found, but for notes: of successors that older levels lack, of what was refused once."""
    aside = [d for d in found if d.code == "NKI-L056" or (d.known and d.severity is Severity.note)]
    return [diagnostic.code for diagnostic in found if diagnostic not in aside]


@pytest.fixture
def at():
    before = levels.current()
    yield levels.use
    levels.use(before)


@pytest.mark.parametrize("row, example, level, target, lnc", list(calls()))
def test_example_equals_the_reference(row, example, level, target, lnc, at):
    """The results are those of the reference, and no check and no warning has anything to say."""
    at(level)
    outcome = row.run(
        example.arguments(),
        lnc,
        target,
        check="all",
        warnings_as_errors=True,
        profile="strict" if level == levels.NEWEST else "library",
    )
    expected = row.expected(example.arguments(), lnc)
    assert len(outcome.results) == len(expected) > 0
    for result, wanted in zip(outcome.results, expected, strict=True):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(
            result.astype(np.float64),
            wanted.astype(np.float64),
            rtol=row.tolerance.rtol,
            atol=row.tolerance.atol,
        )
    assert told(outcome.launch.diagnostics) == NOTED.get((row.name, example.name), [])


@pytest.mark.parametrize("row", rows().values(), ids=list(rows()))
class TestRow:
    def test_is_clean_in_the_strict_language(self, row):
        assert told(check(row.kernel, "strict")) == []

    def test_documents_the_parameters_of_its_entry(self, row):
        assert list(row.options) == list(signature_of(row.entry).parameters)
        for example in row.examples:
            assert set(example.arguments()) <= set(signature_of(row.kernel).parameters)

    def test_names_its_examples_once(self, row):
        names = [example.name for example in row.examples]
        assert len(set(names)) == len(names)
        assert not row.examples[0].slow  # it is what `nki-sim lib` runs

    def test_says_why_it_has_a_tolerance(self, row):
        assert row.tolerance.reason
        assert importlib.import_module(row.reference.__module__).__name__.endswith("reference")


def test_examples_are_the_same_each_time():
    example = rows()["cumsum"].example("tails")
    np.testing.assert_array_equal(example.arguments()["x"], example.arguments()["x"])
    with pytest.raises(KeyError):
        rows()["cumsum"].example("unknown")
