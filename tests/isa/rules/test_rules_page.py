"""The rules of the compiler, as the page of them shows: evidence, twins, and what decides."""

from pathlib import Path

from nki_cli import rules_docs
from nki_isa.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "compiler-rules.md"


def test_the_page_shows_the_table():
    """If not: python -m nki_cli.rules_docs docs"""
    assert PAGE.read_text() == rules_docs.page()


def test_a_code_that_is_one_rule_is_of_one_rule():
    whole = [rule.code for rule in RULES.values() if rule.code and rule.whole_code]
    assert len(whole) == len(set(whole)) > 5
