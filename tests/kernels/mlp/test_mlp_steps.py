"""The page about examples/mlp_steps.py says what it measures."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "library" / "how-mlp-got-fast.md"


@pytest.fixture(scope="module")
def steps():
    sys.path.insert(0, str(ROOT / "examples"))
    import mlp_steps

    yield mlp_steps
    sys.path.remove(str(ROOT / "examples"))


def test_the_page_tells_of_each_step(steps):
    text = PAGE.read_text()
    for number, step in enumerate(steps.STEPS, 1):
        assert f"\n## {number}. {step}\n" in text and f"\n| {step} |" in text


def test_the_page_has_the_least_time(steps):
    assert f"need {steps.least(1024):.1f} us for" in " ".join(PAGE.read_text().split())


@pytest.mark.slow
def test_the_page_has_the_table_that_is_measured(steps):
    assert f"\n\n{steps.table(1024)}\n\n" in PAGE.read_text()
