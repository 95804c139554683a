"""The LL(k) analysis: what it reads, what it refuses, what the generated parsers do."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from nki.compiler.syntax.build import METHODS
from nki.compiler.syntax.generate import Mismatch, generate
from nki.compiler.syntax.llk import (
    Choice,
    Grammar,
    GrammarError,
    Match,
    Optional,
    Repeat,
    RuleUse,
    Sequence,
    read_rules,
)
from nki.compiler.syntax.parser import language

TERMINALS = "\nA: /a/\nB: /b/\nC: /c/\n%declare _EOF\n"


def grammar(rules: str, k: int) -> Grammar:
    return Grammar.read(f"// LL({k})\n{rules}{TERMINALS}", ("start",))


def test_lark_is_the_version_whose_grammar_reader_we_know() -> None:
    assert importlib.metadata.version("lark") == "1.3.1"


def test_shape_of_what_is_read() -> None:
    rules = read_rules(
        'start: A ("x" B)* [C] _EOF -> made\n?other: "y"? | start+ | (A | B)\n!kept: "z"' + TERMINALS
    )
    (way,) = rules["start"].body.ways
    assert way.alias == "made"
    first, repeat, optional, last = way.items
    assert isinstance(first, Match) and (first.type, first.kept) == ("A", True)
    assert isinstance(repeat, Repeat) and not repeat.required and str(repeat) == '("x" B)*'
    assert isinstance(optional, Optional) and optional.placeholder
    assert isinstance(last, Match) and (last.type, last.kept) == ("_EOF", False)
    assert rules["other"].inline and not rules["start"].inline
    maybe, plus, nested = (way.items[0] for way in rules["other"].body.ways)
    assert isinstance(maybe, Optional) and not maybe.placeholder
    assert isinstance(plus, Repeat) and plus.required and isinstance(plus.body, Sequence)
    assert isinstance(plus.body.items[0], RuleUse)
    assert isinstance(nested, Choice)
    (kept,) = rules["kept"].body.ways[0].items
    assert isinstance(kept, Match) and kept.kept


REFUSED = {
    "two ways begin alike": (
        "start: A B | A C",
        1,
        r"not LL\(1\): rule start cannot tell `start: A B` from `start: A C` .* A$",
    ),
    "k tokens are not enough": ("start: A B C | A B A", 2, r"not LL\(2\): rule start .* goes on with A B$"),
    "an option and what follows it": (
        "start: [A] A _EOF",
        1,
        r"not LL\(1\): rule start cannot tell `start: A` from `start: A`",
    ),
    "a repetition and what follows it": ("start: A* A A _EOF", 2, r"goes on with A A$"),
    "a conflict with what follows the rule": (
        "start: x A _EOF\nx: B [A]",
        1,
        r"`x: A` from `end of x` .* A$",
    ),
    "a dangling else": ('start: s _EOF\ns: "if" s ["else" s] | A', 2, r'`s: "else" s` from `end of s`'),
    "left recursion": ("start: x _EOF\nx: x A | B", 2, r"x is left-recursive \(x -> x\)"),
    "hidden left recursion": ("start: x _EOF\nx: [A] y\ny: x B | C", 2, r"left-recursive \(x -> y -> x\)"),
    "an option of nothing": ("start: [A*] _EOF", 1, "can already be empty"),
    "an unknown rule": ("start: nothing", 1, "'nothing' used but not defined"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    rules, k, message = REFUSED[case]
    with pytest.raises(GrammarError, match=message):
        grammar(rules, k)


def test_refuses_a_grammar_that_does_not_state_its_k() -> None:
    with pytest.raises(GrammarError, match="does not state its k"):
        Grammar.read("start: A" + TERMINALS, ("start",))


@pytest.mark.parametrize(
    ("rules", "k"),
    [
        ("start: A B C | A B A", 3),
        ("start: A (B A)* [B] _EOF", 2),
        ("start: x A _EOF\nx: B [A B]", 2),
        ("start: x _EOF\nx: A x | B", 1),
    ],
)
def test_accepts_with_enough_tokens(rules: str, k: int) -> None:
    assert grammar(rules, k).k == k
    if k > 1:
        with pytest.raises(GrammarError, match=rf"not LL\({k - 1}\)"):
            grammar(rules, k - 1)


def test_lookahead_is_no_deeper_than_needed() -> None:
    tested = grammar("start: A B | A C | B _EOF", 2)
    one, two, three = tested.decisions[tested.rules["start"].body]
    assert one == {"A": {"B": None}} and two == {"A": {"C": None}} and three == {"B": None}


def test_the_language_is_ll2() -> None:
    assert language().grammar.k == 2


class Recorder:
    """A builder that returns what it is given."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: (name, *values[:-2])


@pytest.mark.parametrize(
    ("rules", "text", "value"),
    [
        ('start: A "," [B] C?', "A , B", ("start", "a", "b", None)),
        ('start: A "," [B] C?', "A ,", ("start", "a", None, None)),
        ('start: ["x"] "y"? A', "x y A", ("start", True, "a")),
        ("start: (A B)* C", "A B A B C", ("start", [("a", "b"), ("a", "b")], "c")),
        ("start: (A | B)+ _EOF", "A B _EOF", ("start", ["a", "b"])),
        ("start: inner C\n?inner: A [B]", "A C", ("start", "a", "c")),
        ("start: inner C\n?inner: A [B]", "A B C", ("start", ("inner", "a", "b"), "c")),
        ("start: A -> one | B C -> two", "B C", ("two", "b", "c")),
        ("start: plain\nplain: A B", "A B", ("start", ("a", "b"))),
    ],
)
def test_values_of_a_rule(rules: str, text: str, value: object) -> None:
    parser = generate(grammar(rules, 2), {"start", "inner", "one", "two"}, "")
    types = text.split()
    run = parser.start(
        [*types, "$", "$"], [t.lower() for t in types], Recorder(), lambda start, mismatch: (None, 0)
    )
    assert run("start", 0) == (value, len(types))


def test_a_mismatch_names_its_place_and_what_was_expected() -> None:
    parser = generate(grammar("start: A [B] C", 1), {"start"}, "")
    run = parser.start(["A", "A", "$"], ["a", "a"], Recorder(), lambda start, mismatch: (None, 0))
    with pytest.raises(Mismatch) as caught:
        run("start", 0)
    assert caught.value.position == 1
    assert parser.sites[caught.value.site].expected == {"B", "C"}


def test_an_alias_without_a_method_is_refused() -> None:
    with pytest.raises(LookupError, match="start names the builder method missing"):
        generate(grammar("start: A -> missing", 1), set(), "")


def test_every_builder_method_is_a_rule_or_an_alias() -> None:
    rules = language().grammar.rules
    aliases = {way.alias for rule in rules.values() for way in rule.body.ways}
    assert aliases | set(rules) >= METHODS
