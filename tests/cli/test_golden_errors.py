"""The whole text of every code, as a person sees it: the wrong examples of the pages through the command."""

import linecache
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nki_cli.docs.code_pages import NOT_TO_PROVOKE, ExampleKind, Snippet, pages
from nki_cli.main import app
from nki_isa.diagnostics.codes import CODES

FILE = "kernel.py"
PLAIN = Snippet(ExampleKind.right, "python", "nisa.memset(dst=tile, value=0.0)\n", {}).source()
_TRACEBACK = re.compile(r"^Traceback .*\n(?:  .*\n)*.*\n", re.MULTILINE)  # Python's words, and our lines
WRONG = {code: [s for s in page.snippets if s.kind is ExampleKind.wrong] for code, page in pages().items()}


def test_every_code_has_a_golden_text():
    """Those that nothing a user writes leads to are shown by tests of their own, in test_explain.py."""
    assert {code for code, wrong in WRONG.items() if wrong} == set(CODES) - NOT_TO_PROVOKE


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A folder of its own, and no variable that changes what is shown."""
    monkeypatch.chdir(tmp_path)
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "NKI_SIM_CHECK", "NKI_SIM_API"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn2")
    linecache.clearcache()
    monkeypatch.setenv("NKI_PRECISE_FP", "1")  # restored after what an example sets
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "")


def shown(snippet, folder):
    """What the commands of a snippet write, their standard error last."""
    if snippet.language == "shell":
        Path(FILE).write_text(PLAIN)
        commands = [shlex.split(line)[1:] for line in snippet.text.splitlines()]
    else:
        Path(FILE).write_text(snippet.source())
        commands = [[*snippet.command(), FILE]]
    written = ""
    for words in commands:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        written += f"$ nki-sim {' '.join(words)}\n{result.stdout}{result.stderr}"
    written = _TRACEBACK.sub("Traceback ...\n", written.replace(f"{folder}/", ""))
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", written)


@pytest.mark.parametrize("code", [code for code, wrong in WRONG.items() if wrong])
def test_text_of_a_code(code, tmp_path, snapshot):
    assert "\n".join(shown(snippet, tmp_path) for snippet in WRONG[code]) == snapshot
