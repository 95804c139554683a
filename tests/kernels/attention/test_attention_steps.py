"""The page about examples/attention_steps.py says what it measures."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "library" / "how-attention-got-fast.md"


@pytest.fixture(scope="module")
def steps():
    sys.path.insert(0, str(ROOT / "examples"))
    import attention_steps

    yield attention_steps
    sys.path.remove(str(ROOT / "examples"))


@pytest.mark.slow
def test_the_page_has_the_times_that_are_measured(steps):
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) % \|", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(steps.STEPS)
    measured = steps.times(4096)
    for name, time, share in rows:
        assert f"{measured[name]:.1f}" == time
        assert f"{100 * steps.least(4096) / measured[name]:.1f}" == share
