"""The gate: verdicts from Python and from the command line, their statuses and formats."""

import json
from pathlib import Path

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.rules import RULES, Standing
from nki_tools import Verdict, gate, reports
from nki_tools.gate import judge
from nki_tools.snippets import whole

X = np.ones((128, 64), np.float32)
ROOT = Path(__file__).parents[2]


@nki.jit
def scaled(x, start=0, copies=1):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    rows = nl.ds(start, 32)
    for _ in range(copies):
        nisa.tensor_scalar(dst=t[rows, :], data=t[rows, :], op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=t)
    return out


@nki.jit
def biased(x):
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    bias = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    nisa.memset(dst=bias, value=1.0)
    nisa.activation(dst=t, op=nl.copy, data=t, bias=bias)
    nisa.dma_copy(dst=out, src=t)
    return out


@nki.jit
def sums_a_part(x, columns):
    """Adds up a tile of which the first `columns` columns are written, and stores that many."""
    out = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    r = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t[:, 0:32], src=x[:, 0:32])
    nisa.tensor_scalar(dst=r, data=t, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=out, src=r[:, 0:columns])
    return out


@nki.jit
def scatters(x):
    out = nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    start = nisa.register_alloc(16)
    nisa.dma_copy(dst=t, src=x)
    nisa.tensor_copy(dst=t[:, nl.ds(start, 8)], src=t[:, 0:8])
    nisa.dma_copy(dst=out, src=t[:, 0:8])
    return out


def test_what_is_taken_and_what_is_refused():
    assert gate(scaled, X, 32).verdict is Verdict.takes
    refused = gate(scaled, X, start=16)
    assert refused.verdict is Verdict.refuses and refused.kernel == "scaled"
    (reason,) = refused.reasons
    assert reason.rule is RULES["start-partition"] and reason.decides
    assert reason.finding.span is not None and reason.finding.help
    assert "documented:" in reason.evidence and "seen in 10 public places (trn2" in reason.evidence


def test_a_rule_counts_on_its_generations_and_compilers():
    assert gate(biased, X, target="trn2").verdict is Verdict.takes
    assert gate(biased, X, target=TRN1).verdict is Verdict.refuses
    assert gate(biased, X, target="trn1", compiler="2.27").verdict is Verdict.refuses
    older = gate(biased, X, target="trn1", compiler="2.26")
    assert older.verdict is Verdict.takes
    assert [r.decides for r in older.reasons] == [False]
    assert older.reasons[0].evidence.endswith("not known of neuronx-cc 2.26")
    with pytest.raises(NkiError, match="NKI-L032.*compiler"):
        gate(biased, X, compiler="newest")


def test_data_decide_where_shapes_do_not():
    """A tile written in part is read as a whole: running tells whether the rest reaches a result."""
    assert gate(sums_a_part, X, 32).verdict is Verdict.takes
    refused = gate(sums_a_part, X, 33)
    assert refused.verdict is Verdict.refuses
    assert [r.finding.code for r in refused.reasons if r.decides] == ["NKI-H002"]


def test_what_no_evidence_covers_is_unknown():
    unknown = gate(scatters, X)
    assert unknown.verdict is Verdict.unknown
    assert unknown.uncovered == {"a compute result at a run-time offset": 1}
    assert "no evidence covers a compute result" in str(unknown)


def test_what_is_not_modelled_is_unknown_and_errors_win():
    unmodelled = Diagnostic("NKI-U010", "a form that is not modelled")
    crowded = Diagnostic("NKI-M001", "SBUF overflows")
    broken = Diagnostic("NKI-V111", "a value that is none")
    warned = Diagnostic("NKI-H010", "a result nobody uses", severity=Severity.warning)
    assert judge("k", [unmodelled], (), TRN2).verdict is Verdict.unknown
    assert judge("k", [crowded], (), TRN2).uncovered == {"SBUF overflows": 1}
    assert judge("k", [unmodelled, broken], (), TRN2).verdict is Verdict.refuses
    assert judge("k", [warned], (), TRN2).verdict is Verdict.takes
    assert judge("k", [], (), TRN2).verdict is Verdict.takes


def written(folder, name):
    """A file for each twin of a rule."""
    paths = []
    for kind in ("wrong", "right"):
        paths.append(folder / f"{kind}.py")
        paths[-1].write_text(whole(getattr(RULES[name], kind)))
    return [str(path) for path in paths]


def test_statuses_and_text(nki_sim, tmp_path):
    wrong, right = written(tmp_path, "start-partition")
    shown = nki_sim("gate", right)
    assert (shown.status, shown.out) == (0, "kernel: takes it (trn2)\n")
    shown = nki_sim("gate", wrong, right)
    assert shown.status == 1
    assert "error[NKI-V110]" in shown.out and "wrong.py:" in shown.out
    assert "= source: documented: nki/guides" in shown.out and "= help: " in shown.out
    assert shown.out.endswith("kernel: refuses it (trn2)\nkernel: takes it (trn2)\n")


def test_a_script_of_its_own_trouble(nki_sim, tmp_path):
    silent, crashing = tmp_path / "silent.py", tmp_path / "crashing.py"
    silent.write_text("import nki\n")
    crashing.write_text("import nki\nopen('/no/such/file')\n")
    assert nki_sim("gate", str(silent)).status == 2
    shown = nki_sim("gate", str(crashing))
    assert shown.status == 1 and "NKI-L031" in shown.out


def test_text_that_is_refused_is_a_verdict(nki_sim, tmp_path):
    wrong, _ = written(tmp_path, "loop-target")
    before = levels.current()
    try:
        shown = nki_sim("--api", "0.6", "gate", wrong, "--format", "json")
    finally:
        levels.use(before)
    found = json.loads(shown.out)
    assert (shown.status, found["verdict"]) == (1, "refuses it")
    assert [r["code"] for r in found["launches"][0]["reasons"]] == ["NKI-L005"]


def test_json(nki_sim, tmp_path):
    wrong, right = written(tmp_path, "reshaped-row")
    shown = nki_sim("gate", wrong, "--format", "json", "--compiler", "2.27")
    found = json.loads(shown.out)
    assert (shown.status, found["command"], found["compiler"]) == (1, "gate", "2.27")
    (launch,) = found["launches"]
    (reason,) = launch["reasons"]
    assert (launch["verdict"], reason["class"]) == ("refuses it", "warning seen at compile")
    assert (
        reason["known"] == "reshaped-row" and reason["decides"] and reason["evidence"].startswith("seen in 3")
    )
    both = json.loads(nki_sim("gate", wrong, right, "--format", "json").out)
    assert (both["verdict"], len(both["files"])) == ("refuses it", 2)
    assert nki_sim("gate", wrong, "--compiler", "2.x").status == 2


def test_sarif(nki_sim, tmp_path):
    wrong, _ = written(tmp_path, "psum-alignment")
    log = json.loads(nki_sim("gate", wrong, "--format", "sarif").out)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "NKI-C011"
    region = result["locations"][0]["physicalLocation"]["region"]
    assert region["startLine"] <= region["endLine"] and region["startColumn"] >= 1
    assert result["level"] == "warning" and result["properties"]["verdict"] == "refuses it"


@pytest.mark.parametrize("name", ["start-partition", "square-activation-reduce", "program-size"])
def test_explain_serves_rules(nki_sim, name):
    rule = RULES[name]
    shown = nki_sim("explain", name).out
    assert rule.sentence in " ".join(shown.split()) and str(rule.evidence) in " ".join(shown.split())
    found = json.loads(nki_sim("explain", name, "--format", "json").out)
    assert (found["class"], len(found["examples"])) == (rule.standing.value, 2 if rule.wrong else 0)
    if rule.wrong:
        assert nki_sim("explain", name, "--example", "right").out == whole(rule.right)


# --- the form of a report

REPORT = """\
### What was refused
iota with an odd step

### The error text
```text
[NCC_X] no such
   pattern
```

### neuronx-cc
<!-- What `neuronx-cc --version` prints. -->
neuronx-cc version 2.27.2878.0+abc, also 2.24.8799

### Generation
trn2, inf2

### API level
0.6

### Refused kernel
```python
nisa.memset(dst=tile, value=1.0)
```

### Kernel that is taken
```python
nisa.memset(dst=tile, value=2.0)
```

### Documented
no
"""


def test_a_filled_form_makes_a_row():
    row = reports.row_of(REPORT)
    assert (row.name, row.standing, row.sentence) == (
        "iota-with-an-odd-step",
        Standing.note,
        "iota with an odd step.",
    )
    assert str(row.evidence) == (
        'seen in 1 public place (trn2, trn1, neuronx-cc 2.24, neuronx-cc 2.27): "[NCC_X] no such pattern"'
    )
    assert row.targets == ("trn2", "trn1") and row.level == "0.6" and row.since == "2.24"
    assert (row.wrong, row.right) == (
        "nisa.memset(dst=tile, value=1.0)\n",
        "nisa.memset(dst=tile, value=2.0)\n",
    )
    documented = reports.row_of(REPORT.replace("### Documented\nno", "### Documented\nthe page of iota"))
    assert documented.standing is Standing.error and documented.evidence.documented == "the page of iota"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("trn2, inf2", "trn9", "NKI-V116"),
        ("2.27.2878.0+abc, also 2.24.8799", "newest", "NKI-L032.*version"),
        ("iota with an odd step", "", "NKI-L032.*What was refused"),
        ("### Refused kernel", "### Kernel", "NKI-L032.*Refused kernel"),
    ],
)
def test_a_form_that_is_not_filled_is_refused(before, after, words):
    with pytest.raises(NkiError, match=words):
        reports.row_of(REPORT.replace(before, after))


def test_the_form_asks_for_what_a_row_needs():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "refusal.md").read_text()
    asked = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert asked == list(reports.FIELDS)
    with pytest.raises(NkiError, match="What was refused"):
        reports.row_of(text)
