"""Every row of the table of rules: its wrong twin is found with its class, its right twin is clean."""

import json

import pytest
from typer.testing import CliRunner

from nki import levels, runtime
from nki.compiler.language import frontends
from nki_cli.main import app
from nki_isa.diagnostics import Severity
from nki_isa.diagnostics.codes import CODES, Category
from nki_isa.machine.targets import TARGETS
from nki_isa.rules import RULES, Evidence, Rule, Standing, rule_of
from nki_tools import twins
from nki_tools.snippets import whole

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

ROWS = [pytest.param(row, id=row.name) for row in RULES.values() if row.wrong]
ASIDE = {"NKI-L056", "NKI-L057", "NKI-H010"}  # names with a successor, traced kernels, work for nothing


def told(command, text, tmp_path, row):
    """Code and severity of what a command says of a file, and its exit status."""
    path = tmp_path / "kernel.py"
    path.write_text(whole(text))
    words = [command, str(path), "--format", "json"]
    words += ["--target", row.targets[0] if row.targets else "trn2"]
    before = levels.current()
    try:
        level = ["--api", row.until] if row.until else []
        shown = CliRunner().invoke(app, [*level, *words], catch_exceptions=False)
    finally:
        levels.use(before)
    found = json.loads(shown.stdout)["diagnostics"]
    findings = {(d["code"], d["severity"], d.get("known")) for d in found if d["code"] not in ASIDE}
    return findings, shown.exit_code


@pytest.mark.parametrize("command", ["check", "run", "gate"])
@pytest.mark.parametrize("row", ROWS)
def test_twins(row, command, tmp_path):
    wrong, status = told(command, row.wrong, tmp_path, row)
    right, clean = told(command, row.right, tmp_path, row)
    assert (right, clean) == (set(), 0)
    if row.standing is Standing.never:
        assert (wrong, status) == (set(), 0)
        return
    (finding,) = wrong
    code, severity, known = finding
    strict = command == "check" and not frontends.takes_python()
    told_as = Severity.warning if row.tolerated and not strict else row.standing.severity
    assert (code, severity) == (row.code, told_as.value)
    assert rule_of(code, known) is row
    refused = told_as is Severity.error or (command == "gate" and row.standing.decides)
    assert status == (1 if refused else 0)


def test_rows_are_whole():
    for row in RULES.values():
        assert row.reason.endswith(".") and row.sentence.endswith("."), row.name
        assert set(row.targets) <= set(TARGETS) and (not row.level or row.level in levels.LEVELS)
        assert (row.code == "") == (row.standing is Standing.never), row.name
        assert row.evidence.documented or row.evidence.seen or row.evidence.against, row.name
        if row.standing is Standing.seen:
            assert row.evidence.seen, row.name


def test_every_code_of_the_compiler_has_a_row():
    codes = {code for code, row in CODES.items() if row.category is Category.compiler}
    assert codes == {row.code for row in RULES.values() if row.code.startswith("NKI-C")}


@pytest.mark.parametrize(
    ("compiler", "counts"), [(None, True), ("2.27", True), ("2.30", True), ("2.26", False), ("2.9", False)]
)
def test_what_was_seen_counts_from_its_compiler_on(compiler, counts):
    seen = RULES["copy-bias-tile"]
    assert seen.evidence.compilers == ("2.27",) and seen.counts(compiler) is counts
    assert RULES["start-partition"].counts(compiler)  # documented


def test_evidence_in_words():
    assert str(Evidence("a page")) == "documented: a page"
    some = Evidence(seen=2, said="NCC_X", targets=("trn1",), compilers=("2.27",), against="a sample")
    assert str(some) == 'seen in 2 public places (trn1, neuronx-cc 2.27): "NCC_X"; against it: a sample'


def test_a_rule_of_a_newer_level_is_silent_at_an_older_one():
    text = whole(RULES["name-twice"].wrong)
    before = levels.use("0.5")
    try:
        assert not [d for d in twins.findings(text, "trn2") if d.known]
    finally:
        levels.use(before)


def test_a_note_and_a_warning_stop_nothing():
    for name in ("mixed-addresses", "reshaped-row"):
        (found,) = [d for d in twins.findings(whole(RULES[name].wrong), "trn2") if d.known]
        assert found.severity is RULES[name].standing.severity is not Severity.error


def test_the_score_of_the_table_is_whole():
    score = twins.score(twins.of_rules())
    assert (score.missed, score.alarms) == ((), ())
    assert (score.precision, score.recall) == (1.0, 1.0)


def test_a_score_counts_what_is_missed_and_what_is_a_false_alarm(tmp_path):
    bad, good = whole(RULES["start-partition"].wrong), whole(RULES["start-partition"].right)
    for name, wrong, right in (("A", bad, good), ("B", good, good), ("C", bad, bad)):
        (tmp_path / f"{name}_bad.py").write_text(wrong)
        (tmp_path / f"{name}_good.py").write_text(right)
    score = twins.score(twins.of_folder(tmp_path, frozenset({"C"})))
    assert score.missed == ("B",) and score.found == 1
    assert score.alarms == ("C (which must not fire)", "C")
    assert score.recall == 0.5 and round(score.precision, 3) == 0.333


def test_row_and_rule_of():
    assert rule_of("NKI-V110", None) is RULES["start-partition"]
    assert rule_of("NKI-V103", None) is None
    assert rule_of("NKI-V103", "element-counts") is RULES["element-counts"]
    assert isinstance(RULES["element-counts"], Rule) and runtime.Options().decide is False
