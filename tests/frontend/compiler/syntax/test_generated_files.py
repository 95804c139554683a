"""Python files that hypothesmith makes up: parsed as Python parses them, without a crash or a hang."""

from __future__ import annotations

import time
import warnings

import hypothesmith
import pytest
from hypothesis import HealthCheck, given, settings
from reference import Differences, host_tree

from nki.compiler.syntax.parse import parse

SECONDS = 5.0
"""Of processor time, which the parser needs for some 300,000 tokens; the texts here have far fewer."""

_SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DEFAULT, THOROUGH = settings(_SETTINGS, max_examples=30), settings(_SETTINGS, max_examples=1000)

GRAMMAR = hypothesmith.from_grammar()
"""Texts by Python's grammar: odd spaces, comments, continued lines."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    NODES = hypothesmith.from_node()
"""Texts from random syntax trees: every construct, nested in every other."""


def compare(text: str) -> None:
    """Hold our tree against Python's, places included."""
    start = time.process_time()
    result = parse(text, "x.py")
    assert time.process_time() - start < SECONDS
    host = host_tree(text)
    if host is not None:
        assert result.diagnostics == ()
        assert Differences(text).compare(result.tree, host) == []


@DEFAULT
@given(GRAMMAR)
def test_texts_by_the_grammar(text: str) -> None:
    compare(text)


@DEFAULT
@given(NODES)
def test_texts_from_trees(text: str) -> None:
    compare(text)


@pytest.mark.slow
@THOROUGH
@given(GRAMMAR)
def test_many_texts_by_the_grammar(text: str) -> None:
    compare(text)


@pytest.mark.slow
@THOROUGH
@given(NODES)
def test_many_texts_from_trees(text: str) -> None:
    compare(text)
