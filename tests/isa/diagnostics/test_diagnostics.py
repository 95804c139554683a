"""What a diagnostic says, by itself and as plain values."""

import pytest

from nki_isa.diagnostics import (
    Collector,
    Diagnostic,
    Frame,
    Label,
    NkiError,
    NkiMemoryError,
    NkiValidationError,
    Severity,
    Span,
    error,
)
from nki_isa.diagnostics.codes import CODES

HERE, THERE = Span("k.py", 3, 5, 3, 9), Span("k.py", 4, 2)
RULE = CODES["NKI-V103"].rule


def test_a_span_is_one_character_unless_it_says_more():
    assert (THERE.end_line, THERE.end_column) == (4, 3)
    assert HERE.to(THERE) == Span("k.py", 3, 5, 4, 3)
    assert str(HERE) == "k.py:3:5"


def test_a_code_that_is_not_in_the_table_is_refused():
    with pytest.raises(KeyError, match="NKI-X999"):
        Diagnostic("NKI-X999", "")


@pytest.mark.parametrize(
    "notes, remarks",
    [
        ((), [("rule", RULE)]),
        (("a", "b"), [("rule", RULE), ("note", "a"), ("note", "b")]),
        (("a", "b", "  c", "d"), [("rule", RULE), ("note", "a"), ("note", "b\n  c"), ("note", "d")]),
        (("source: page", "  more"), [("rule", RULE), ("source", "page\n  more")]),
        (("a", "rule: own: words"), [("note", "a"), ("rule", "own: words")]),
        (("see: below",), [("rule", RULE), ("note", "see: below")]),
        (("rule",), [("rule", RULE), ("note", "rule")]),
        (("  first",), [("rule", RULE), ("note", "  first")]),
    ],
)
def test_remarks_have_keys_and_go_on(notes, remarks):
    assert Diagnostic("NKI-V103", "m", notes=notes).remarks() == remarks


def test_a_mistake_of_ours_has_no_rule_of_the_kernel_s():
    assert Diagnostic("NKI-I001", "m").remarks() == []
    assert Diagnostic("NKI-I001", "m").as_dict()["rule"] is None


def test_plain_values():
    found = Diagnostic(
        "NKI-V103",
        "m",
        span=HERE,
        help="h",
        notes=("a", "source: one", "source: two"),
        labels=(Label(THERE, "here"),),
        stack=(Frame("f", HERE),),
        severity=Severity.warning,
        fix="x",
    )
    here = {"file": "k.py", "line": 3, "column": 5, "end_line": 3, "end_column": 9}
    there = {"file": "k.py", "line": 4, "column": 2, "end_line": 4, "end_column": 3}
    assert found.as_dict() == {
        "code": "NKI-V103",
        "severity": "warning",
        "category": "validation",
        "title": CODES["NKI-V103"].title,
        "message": "m",
        "span": here,
        "rule": RULE,
        "source": "one; two",
        "help": "h",
        "notes": ["a"],
        "labels": [{"span": there, "message": "here"}],
        "stack": [{"function": "f", "span": here}],
        "fix": "x",
    }
    assert Diagnostic("NKI-V103", "m").as_dict()["span"] is None
    assert str(found) == "k.py:3:5: warning[NKI-V103]: m (help: h)"
    assert str(Diagnostic("NKI-V103", "m")) == "error[NKI-V103]: m"


def test_a_place_is_given_once():
    placed = Diagnostic("NKI-V103", "m").at(HERE, [Frame("f", HERE)])
    assert (placed.span, placed.stack) == (HERE, (Frame("f", HERE),))
    assert placed.at(THERE, [Frame("g", THERE)]) is placed
    both = NkiValidationError([placed, Diagnostic("NKI-V101", "n")]).at(THERE)
    assert [d.span for d in both.diagnostics] == [HERE, THERE]
    assert type(both) is NkiValidationError


def test_an_error_is_of_the_class_of_its_code():
    assert type(error("NKI-V103", "m")) is NkiValidationError
    assert type(error("NKI-M001", "m")) is NkiMemoryError
    assert type(error("NKI-L001", "m")) is NkiError


@pytest.mark.parametrize(
    "codes, kind",
    [
        (["NKI-V103", "NKI-V101"], NkiValidationError),
        (["NKI-V103", "NKI-M001"], NkiError),
        (["NKI-M001"], NkiMemoryError),
    ],
)
def test_a_collector_raises_all_at_once(codes, kind):
    collector = Collector()
    collector.add(Diagnostic("NKI-H010", "w", severity=Severity.warning))
    collector.raise_errors()  # a warning stops nothing
    for code in codes:
        collector.add(Diagnostic(code, "m"))
        collector.add(Diagnostic(code, "m"))  # once is enough
    with pytest.raises(NkiError) as caught:
        collector.raise_errors()
    assert type(caught.value) is kind
    assert [d.code for d in caught.value.diagnostics] == ["NKI-H010", *codes]
    assert [d.code for d in collector.errors] == codes
