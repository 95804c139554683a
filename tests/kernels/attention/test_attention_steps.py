"""examples/attention_steps.py: every step is attention, and its page says what it measures."""

import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nkilib.core.attention.reference import attention_cte_reference

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "library" / "how-attention-got-fast.md"


@pytest.fixture(scope="module")
def steps():
    sys.path.insert(0, str(ROOT / "examples"))
    import attention_steps

    yield attention_steps
    sys.path.remove(str(ROOT / "examples"))


def test_every_step_is_causal_attention(steps):
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 64, 1536)).astype(ml_dtypes.bfloat16)
    v = rng.standard_normal((1536, 64)).astype(ml_dtypes.bfloat16)
    expected = attention_cte_reference(q[None], k[None], v[None], tp_q=False)[0].astype(np.float32)
    for step in steps.STEPS:
        result = steps.run(step, q, k, v).astype(np.float32)
        np.testing.assert_allclose(result, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_the_page_has_the_times_that_are_measured(steps):
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) % \|", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(steps.STEPS)
    measured = steps.times(4096)
    for name, time, share in rows:
        assert f"{measured[name]:.1f}" == time
        assert f"{100 * steps.least(4096) / measured[name]:.1f}" == share
