"""Every example runs as a script, as the README says, and checks itself against its numpy reference."""

import runpy
import sys
from pathlib import Path

import pytest

from nki_isa.diagnostics import NkiError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
GOOD = [path for path in EXAMPLES if path.stem != "broken"]


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    """What Python does for a script: its folder is where modules are looked for, and it has its arguments."""
    monkeypatch.syspath_prepend(str(EXAMPLES[0].parent))
    monkeypatch.setattr(sys, "argv", sys.argv[:1])


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_runs_and_matches_its_reference(path, capsys):
    """The example's own assertions compare with numpy; a line says what was shown."""
    runpy.run_path(str(path), run_name="__main__")
    assert path.stem in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_a_lesson(path):
    """Each example has prose, and each good one a reference and a main."""
    names = runpy.run_path(str(path), run_name="lesson")
    assert len(names["__doc__"].split()) >= 15
    if path in GOOD:
        assert callable(names["reference"]) and callable(names["main"])


@pytest.mark.api("0.6")
def test_the_broken_example_is_refused():
    """All its mistakes are reported together."""
    path = next(p for p in EXAMPLES if p.stem == "broken")
    with pytest.raises(NkiError) as caught:
        runpy.run_path(str(path), run_name="__main__")
    codes = {d.code for d in caught.value.diagnostics}
    assert {"NKI-L005", "NKI-L010", "NKI-L011", "NKI-L012"} <= codes
    assert all(d.span is not None and d.span.file == str(path) for d in caught.value.diagnostics)
