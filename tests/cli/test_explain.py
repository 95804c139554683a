"""The pages of the diagnostic codes: every code has one, its wrong snippet gives the code, its right one no error."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nki_cli.explain_pages import Kind, Snippet, pages
from nki_cli.main import app

FILE = "kernel.py"
PLAIN = Snippet(Kind.right, "python", "nisa.memset(dst=tile, value=0.0)\n", {}).source()

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
        for found in __import__("json").loads(shown.stdout).get("diagnostics", []):
            told.add(found["code"])
            if found["severity"] == "error":
                errors.add(found["code"])
    return told, errors


@pytest.mark.parametrize("code, snippet", SNIPPETS)
def test_snippet(code, snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURON_PLATFORM_TARGET_OVERRIDE", raising=False)
    told, errors = codes_of(snippet)
    if snippet.kind is Kind.wrong:
        assert told == {code}
    else:
        assert not errors and code not in told
