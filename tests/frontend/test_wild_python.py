"""Python as people write it runs at 0.7, and what of it only the tracer takes is named at 0.6."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import wild_kernels

from nki import levels
from nki.compiler.checker.check import check
from nki.runtime import session

X = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)
SOURCELESS = "a function without source text"
NAMES = list(wild_kernels.KERNELS)


def test_there_are_sixty():
    assert len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_runs_as_numpy_says(name):
    kernel, expected, constructs = wild_kernels.KERNELS[name]
    with session() as record:
        result = kernel(X)
    np.testing.assert_allclose(result, expected(X), rtol=1e-5)
    notes = [d for d in record.launches[-1].diagnostics if d.code == "NKI-L057"]
    assert len(notes) == 1 and all(construct in notes[0].message for construct in constructs)
    assert [str(d) for d in record.launches[-1].diagnostics if d.severity.value != "note"] == []


@pytest.mark.api("0.6")
@pytest.mark.parametrize("name", NAMES)
def test_what_only_the_tracer_takes_is_named_at_0_6(name):
    kernel, _, constructs = wild_kernels.KERNELS[name]
    found = [d for d in check(kernel, "strict") if d.severity.value == "error"]
    assert found and all(d.help for d in found)
    for construct in constructs:
        text = "is not a plain function" if construct == SOURCELESS else construct
        assert any(text in d.message for d in found), (construct, [d.message for d in found])


def test_levels_are_left_as_they_were():
    assert levels.current() == levels.NEWEST and sys.modules["wild_kernels"] is wild_kernels
