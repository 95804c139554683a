"""The rules of the compiler, as the page of them shows: evidence, twins, and what decides."""

from nki_isa.diagnostics.codes import CODES
from nki_isa.rules import RULES, rule_of


def test_a_code_that_is_one_rule_is_of_one_rule():
    whole = [rule.code for rule in RULES.values() if rule.code and rule.whole_code]
    assert len(whole) == len(set(whole)) > 5


def test_findings_that_name_no_rule_are_of_the_only_one_of_their_code():
    alone = [f"NKI-C{n:03}" for n in (*range(1, 6), 7, *range(10, 14), *range(15, 31))]
    alone += ["NKI-H002", "NKI-H006", "NKI-H007", "NKI-H008", "NKI-H011", "NKI-L005", "NKI-M003"]
    alone += ["NKI-V022", "NKI-V107", "NKI-V110", "NKI-V120"]
    found = {code: rule_of(code, None) for code in CODES}
    assert [code for code in sorted(found) if found[code]] == alone
    assert all(found[code].code == code for code in alone)
    assert rule_of("NKI-V107", "start-partition") is RULES["start-partition"]
