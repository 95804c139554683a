"""Every function of nki.language says what it computes, what it refuses and who says so."""

import inspect

import pytest

import nki.language as nl
from nki.language.docstrings import MEANINGS
from nki_isa.machine.operators import OPERATORS, Operator

FUNCTIONS = sorted(name for name in nl.__all__ if inspect.isfunction(getattr(nl, name)))
CALLED = sorted(name for name in OPERATORS if callable(getattr(nl, name)))


def test_each_operator_has_a_meaning_of_its_own():
    assert set(MEANINGS) == set(OPERATORS)
    assert len(set(MEANINGS.values())) == len(MEANINGS)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CALLED])
def test_source_and_errors(name):
    text = inspect.getdoc(getattr(nl, name))
    assert "Source:" in text and "Raises:" in text


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_says_its_range_and_generation(name):
    row, text = OPERATORS[name], inspect.getdoc(getattr(nl, name))
    assert isinstance(getattr(nl, name), Operator)
    assert text.lower().startswith(MEANINGS[name].lower())
    assert ("Valid for arguments in" in text) == bool(row.domain)
    assert ("of the vector engine from NeuronCore-v4 on" in text) == (row.needs is not None)


def test_no_two_functions_share_a_docstring():
    texts = [
        inspect.getdoc(getattr(nl, name)) for name in {*FUNCTIONS, *OPERATORS} - {"range", "static_range"}
    ]
    assert len(set(texts)) == len(texts)
