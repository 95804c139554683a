"""The language server over its protocol: a client of pygls speaks to `nki-sim lsp` as an editor does."""

import sys

import pytest
from lsp_editor import Editor
from lsprotocol import types
from pygls.workspace import Workspace

from nki.compiler.checker.check import check_text
from nki_cli.editor import language_server
from nki_cli.render import github_line
from nki_isa.diagnostics import Diagnostic, Severity, Span
from nki_isa.machine.targets import TRN2

HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n\n"
KERNEL = (
    HEAD
    + """\
@nki.jit
def kernel(x):
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    return x
"""
)


@pytest.fixture(scope="module")
def editor():
    made = Editor()
    yield made
    made.close()


@pytest.fixture
def file(editor, tmp_path):
    """A file that is in the editor only."""
    path = tmp_path / "kernel.py"
    yield path
    editor.shut(path)


def around(text: str, word: str, codec: str = "utf-16-le") -> types.Range:
    """The place of a word in a text, in UTF-16 units as the protocol counts."""
    before, _, _ = text.partition(word)
    line = before.count("\n")
    start = len(before.rpartition("\n")[2].encode(codec)) // 2
    end = start + len(word.encode(codec)) // 2
    return types.Range(types.Position(line, start), types.Position(line, end))


def test_the_server_says_what_it_can(editor):
    can = editor.initialized.capabilities
    assert editor.initialized.server_info.name == "nki-sim"
    assert can.hover_provider and can.code_action_provider
    assert can.text_document_sync.change is types.TextDocumentSyncKind.Incremental


def test_a_right_kernel_has_no_findings(editor, file):
    assert editor.open(file, KERNEL) == []


def test_findings_follow_what_is_typed(editor, file):
    assert editor.open(file, KERNEL) == []
    wrong = KERNEL.replace("data=tile", "data=tlie")
    place = around(KERNEL, "data=tile")
    (found,) = editor.change(file, types.TextDocumentContentChangePartial(place, "data=tlie"))
    assert (found.code, found.source) == ("NKI-L010", "nki-sim")
    assert found.severity is types.DiagnosticSeverity.Error
    assert found.message.startswith("'tlie' is not a parameter") and "help: write tile" in found.message
    assert found.range == around(wrong, "tlie")
    assert editor.write(file, KERNEL, version=3) == []


def test_the_same_findings_as_check(editor, file):
    refused = "    try:\n        pass\n    finally: pass\n"
    text = KERNEL.replace("nl.float32", "nl.flaot32").replace("    return x\n", refused)
    sent = editor.open(file, text)
    assert [d.code for d in sent] == [d.code for d in check_text(text, str(file))] == ["NKI-L011", "NKI-L057"]


def test_columns_count_utf_16_units(editor, file):
    text = KERNEL.replace("    return x", '    print("𝔗𝔯𝔫", tlie)')
    (found,) = editor.open(file, text)
    assert found.range == around(text, "tlie")


@pytest.mark.parametrize(
    "text, codes",
    [
        ("import nki\ndef f(:\n    x = (1,\n", {"NKI-L003", "NKI-L004"}),
        ("import nki\n\n\x0c\n$\n", {"NKI-L001"}),
        ("# nki\nx = '", {"NKI-L007"}),
        ("nki = 1\n" + "(" * 3000, {"NKI-L003", "NKI-L004"}),
        ("import os\n\nprint(os.getcwd()", set()),  # not a kernel: other servers report it
        ("from pathlib import Path\n\n\nasync def f():\n    yield [i async for i in x]\n", set()),
        ("import nki\n\n\nasync def f():\n    yield [i async for i in x]\n", set()),  # Python beside kernels
        ("", set()),
    ],
)
def test_any_text_is_survived(editor, file, text, codes):
    found = {d.code for d in editor.open(file, text)}
    assert found <= codes and bool(found) == bool(codes)
    assert editor.write(file, KERNEL) == []


def test_hover_over_an_instruction(editor, file):
    editor.open(file, KERNEL)
    shown = editor.hover(file, 9, KERNEL.splitlines()[9].index("tensor_scalar") + 3)
    assert shown.range == around(KERNEL, "nisa.tensor_scalar")
    page = shown.contents.value
    assert page.startswith("```python\nnki.isa.tensor_scalar(dst, data, op0, operand0")
    for part in ("**Engines**: vector", "- NKI-V109: ", "**Time** on the vector engine of trn2", "Source: "):
        assert part in page


def test_hover_over_the_name_of_an_argument_shows_what_is_called(editor, file):
    editor.open(file, KERNEL)
    shown = editor.hover(file, 9, KERNEL.splitlines()[9].index("operand0") + 1)
    assert "nki.isa.tensor_scalar" in shown.contents.value


def test_hover_over_other_names(editor, file):
    editor.open(file, KERNEL)
    line = KERNEL.splitlines()[7]
    assert "ndarray(shape" in editor.hover(file, 7, line.index("ndarray") + 1).contents.value
    assert "float32" in editor.hover(file, 7, line.index("float32") + 1).contents.value
    assert "nki.language" in editor.hover(file, 7, line.index("nl.")).contents.value
    assert editor.hover(file, 7, line.index("tile")) is None
    assert editor.hover(file, 100, 100) is None


def test_hover_over_a_finding_shows_its_page(editor, file):
    text = KERNEL.replace("operand0", "operand")
    editor.open(file, text)
    place = around(text, "operand=").start
    page = editor.hover(file, place.line, place.character + 2).contents.value
    assert page.startswith("## NKI-L012: wrong arguments of a call")
    assert "Right:" in page and "\n---\n" in page and "nki.isa.tensor_scalar(dst" in page


def test_a_fix_is_offered_where_there_is_one(editor, file):
    text = KERNEL.replace("nl.float32", "nl.flaot32").replace("operand0", "operand")
    assert len(editor.open(file, text)) == 2
    for word, new in (("nl.flaot32", "nl.float32"), ("operand=2.0", "operand0=2.0")):
        (action,) = editor.actions(file, around(text, word))
        ((edit,),) = action.edit.changes.values()
        assert (edit.range, edit.new_text) == (around(text, word), new)
        assert action.kind == types.CodeActionKind.QuickFix.value and action.title == f"Replace with `{new}`"
        assert len(action.diagnostics) == 1
    assert editor.actions(file, around(text, "nisa.dma_copy")) == []


def test_what_is_wrong_in_another_file_shows_at_the_call(editor, file, tmp_path):
    helper = tmp_path / "helper.py"
    helper.write_text("def scale(t):\n    return tt\n")
    text = "from helper import scale\n" + KERNEL.replace("    return x", "    scale(tile)\n    return x")
    (found,) = editor.open(file, text)
    call = around(text, "scale(")
    assert found.code == "NKI-L010" and found.range.start == call.start
    (related, *_) = found.related_information
    assert related.location.uri == helper.as_uri() and related.location.range.start == types.Position(1, 11)
    helper.write_text("def scale(t):\n    return t\n")
    editor.save(file)
    assert editor.diagnostics(file) == []


def test_a_closed_file_has_no_findings(editor, tmp_path):
    path = tmp_path / "kernel.py"
    assert editor.open(path, KERNEL.replace("nl.float32", "nl.flaot32"))
    assert editor.shut(path) == []


def test_a_file_of_500_lines_is_checked_while_typing(editor, file):
    body = "".join(
        f"    part{i} = tile[:, {i} : {i + 1}]\n"
        f"    nisa.tensor_scalar(dst=part{i}, data=part{i}, op0=nl.multiply, operand0={i}.0)\n"
        for i in range(245)
    )
    text = KERNEL.replace("    return x\n", body + "    return x\n")
    assert len(text.splitlines()) >= 500
    assert editor.open(file, text) == []
    for i in range(5):
        assert editor.write(file, f"{text}# {i}\n", version=2 + i) == []
    wrong = text.replace("op0=nl.multiply, operand0=244.0", "op0=nl.multiplied, operand0=244.0")
    assert [d.range.start.line for d in editor.write(file, wrong, version=7)] == [
        wrong[: wrong.index("nl.multiplied")].count("\n")
    ]


def test_the_profile_is_an_option(tmp_path):
    strict = Editor("--profile", "strict")
    try:
        text = KERNEL.replace("    return x", "    y = hash('a')\n    return x")
        path = tmp_path / "kernel.py"
        assert [d.code for d in strict.open(path, text)] == ["NKI-L005"]
    finally:
        strict.close()


def test_without_pygls_the_command_says_what_to_install(nki_sim, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygls.lsp.server", None)
    monkeypatch.delitem(sys.modules, "nki_cli.editor.language_server", raising=False)
    shown = nki_sim("lsp")
    assert shown.status == 2
    assert "NKI-L034" in shown.err and "pip install 'nki-sim[lsp]'" in shown.err


def test_annotations_for_pull_requests(nki_sim):
    shown = nki_sim("check", "wrong_shapes.py", "--format", "github")
    assert shown.status == 1
    first, *others = shown.out.splitlines()
    assert first == (
        "::error file=wrong_shapes.py,line=22,endLine=22,col=5,endColumn=35,"
        "title=NKI-V103 operand sizes differ"
        "::dma_copy: src [128, 128] has 16384 elements, dst [64, 128] has 8192: they must be equal"
        "%0Ahelp: slice the larger one"
    )
    assert all(line.startswith("::error file=wrong_shapes.py,") for line in others)


def test_what_would_end_a_workflow_command_is_escaped():
    found = Diagnostic("NKI-L010", "100 %\nof it", Span("a,b:c.py", 1), severity=Severity.note)
    assert github_line(found) == (
        "::notice file=a%2Cb%3Ac.py,line=1,endLine=1,col=1,endColumn=2,title=NKI-L010 unknown name"
        "::100 %25%0Aof it"
    )


def test_a_mistake_of_ours_does_not_end_the_server(monkeypatch):
    def fails(*arguments):
        raise ValueError("ours")

    logged = []
    server = language_server.server("library", TRN2)
    monkeypatch.setattr(language_server, "check_text", fails)
    monkeypatch.setattr(server, "window_log_message", logged.append)
    monkeypatch.setattr(server, "text_document_publish_diagnostics", logged.append)
    server.protocol._workspace = Workspace(None)
    item = types.TextDocumentItem("file:///kernel.py", "python", 1, KERNEL)
    server.workspace.put_text_document(item)
    server.refresh(item.uri)
    log, published = logged
    assert "ValueError: ours" in log.message
    assert [found.code for found in published.diagnostics] == ["NKI-I004"]
