"""The pages of the codes: each code has one, whose wrong example gives it and whose right one does not."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nki.compiler.checker.check import check_text
from nki.compiler.language import names
from nki.launch import prepare
from nki_cli.docs import errors_pages
from nki_cli.docs.code_pages import NOT_TO_PROVOKE, ExampleKind, MalformedPage, Snippet, pages, parse
from nki_cli.main import app
from nki_isa.diagnostics.codes import CODES

ROOT = Path(__file__).parents[2]

FILE = "kernel.py"
PLAIN = Snippet(ExampleKind.right, "python", "nisa.memset(dst=tile, value=0.0)\n", {}).source()

SNIPPETS = [
    pytest.param(code, snippet, id=f"{code}-{snippet.kind.value}-{number}")
    for code, page in pages().items()
    for number, snippet in enumerate(page.snippets)
]


def codes_of(snippet: Snippet) -> tuple[set[str], set[str]]:
    """The codes a snippet gives, and those of them that are errors."""
    if snippet.language == "shell":
        Path(FILE).write_text(PLAIN)
        words = [shlex.split(line)[1:] for line in snippet.text.splitlines()]
    else:
        Path(FILE).write_text(snippet.source())
        words = [[*snippet.command(), FILE]]
    told, errors = set(), set()
    for line in words:
        shown = CliRunner().invoke(app, [*line, "--format", "json"], catch_exceptions=False)
        for found in json.loads(shown.stdout).get("diagnostics", []):
            told.add(found["code"])
            if found["severity"] == "error":
                errors.add(found["code"])
    return told, errors


@pytest.mark.parametrize("code, snippet", SNIPPETS)
def test_snippet(code, snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    monkeypatch.setenv("NKI_PRECISE_FP", "1")  # restored after what an example sets
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "")
    told, errors = codes_of(snippet)
    if snippet.kind is ExampleKind.wrong:
        assert code in told and errors <= {code}
    else:
        assert not errors and code not in told


RIGHT = [p for p in SNIPPETS if p.values[1].kind is ExampleKind.right and p.values[1].language == "python"]


@pytest.mark.parametrize("code, snippet", RIGHT)
def test_right_examples_run_without_a_warning(code, snippet, tmp_path, monkeypatch):
    """The checks of a run find nothing either, not even a note."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", snippet.options.get("target", "trn2"))
    monkeypatch.setenv("NKI_PRECISE_FP", "1")
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "")
    Path(FILE).write_text(snippet.source())
    shown = CliRunner().invoke(app, ["run", "--warnings-as-errors", FILE], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    told = set(re.findall(r"NKI-\w+", shown.stderr))
    assert told <= {"NKI-C012"}, shown.stderr  # where an example has addresses, the frame's tile has none


def test_every_code_has_a_page():
    assert set(pages()) == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_page_has_both_kinds_of_example(code):
    kinds = {snippet.kind for snippet in pages()[code].snippets}
    assert kinds == (set() if code in NOT_TO_PROVOKE else set(ExampleKind))


def test_the_examples_of_a_page_are_in_order_and_differ():
    for page in pages().values():
        kinds = [snippet.kind for snippet in page.snippets]
        assert kinds == sorted(kinds, key=list(ExampleKind).index)
        assert len({(s.text, *s.command()) for s in page.snippets}) == len(page.snippets)


def test_links_of_the_documentation_lead_somewhere():
    texts = errors_pages.files()
    anchors = {
        f"{name}#{errors_pages._anchor(line[3:])}"
        for name, text in texts.items()
        for line in text.splitlines()
        if line.startswith("## ")
    }
    for name, text in texts.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)]+)\)", prose):
            file, mark, _ = target.partition("#")
            assert ((ROOT / "docs" / name).parent / file).is_file(), f"{name}: {target}"
            assert not mark or target in anchors, f"{name}: {target}"


@pytest.mark.parametrize("code", ["NKI-V103", "NKI-L026", "NKI-I004"])
def test_the_page_as_text(nki_sim, snapshot, code):
    assert nki_sim("explain", code).out == snapshot


def test_the_page_as_json_has_whole_files(nki_sim):
    page = nki_sim("explain", "V103", "--format", "json").json
    assert page["code"] == "NKI-V103" and page["rule"] == CODES["NKI-V103"].rule
    wrong, right = page["examples"]
    assert (wrong["kind"], right["kind"]) == ("wrong", "right")
    assert "import nki" in right["text"] and right["command"] == ["check"]


def test_an_example_says_how_it_is_shown(nki_sim):
    """Where it is not by ``nki-sim check`` alone; examples of the command itself are shell lines."""
    first = {
        code: nki_sim("explain", code, "--example", "wrong").out.splitlines()[0]
        for code in ("H001", "V108", "V103", "L026")
    }
    assert first["H001"] == "# nki-sim run FILE"
    assert first["V108"].startswith("# nki-sim check --target trn")
    assert first["V103"] == "import nki" and first["L026"].startswith("nki-sim ")


def test_an_example_can_be_saved_and_checked(nki_sim, tmp_path):
    file = tmp_path / "example.py"
    file.write_text(nki_sim("explain", "V103", "--example", "wrong").out)
    shown = nki_sim("check", str(file))
    assert shown.status == 1 and "NKI-V103" in shown.out
    file.write_text(nki_sim("explain", "V103", "--example", "right").out)
    assert nki_sim("check", str(file)).status == 0


def test_what_there_is_no_example_of(nki_sim):
    shown = nki_sim("explain", "NKI-I004", "--example", "wrong")
    assert shown.status == 2 and "nothing a user writes" in shown.err


@pytest.mark.parametrize(
    "text",
    [
        "## NKI-X999\nWhy.\n\nSource: a page\n",
        "## NKI-V103\nWhy.\n",
        "## NKI-V103\n\nSource: a page\n",
        "## NKI-V103\nWhy.\n```python bad\nx = 1\n```\nSource: a page\n",
    ],
)
def test_malformed_pages_are_refused(text):
    with pytest.raises(MalformedPage):
        list(parse(text))


def test_the_map_of_the_documentation_names_every_page():
    text = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([^)]+)\)", text))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_a_published_name_that_is_not_modelled(monkeypatch):
    """NKI-U011, which no kernel meets as long as every published name is modelled."""
    monkeypatch.setitem(names.PUBLIC, "nki.language", names.PUBLIC["nki.language"] | {"new_name"})
    text = "import nki\nimport nki.language as nl\n\n@nki.jit\ndef kernel(x):\n    return nl.new_name(x)\n"
    assert [found.code for found in check_text(text, "kernel.py")] == ["NKI-U011"]


def test_a_mistake_of_ours_is_reported_as_one(nki_sim, monkeypatch, tmp_path):
    """NKI-I004."""

    def fails(*arguments, **options):
        raise ValueError("ours")

    file = tmp_path / FILE
    file.write_text(PLAIN)
    monkeypatch.setattr(prepare, "specialize_call", fails)
    shown = nki_sim("run", str(file), "--format", "json")
    assert [found["code"] for found in shown.json["diagnostics"]] == ["NKI-I004"]
