"""How diagnostics look: carets under what they mean, whatever the source line holds."""

import itertools
import linecache
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from nki import rendering, uncaught
from nki_cli import render
from nki_isa.diagnostics import Diagnostic, Frame, Label, NkiError, Severity, Span, error

SOURCE = """\
def kernel(a):
\ttile = nl.load(a)
    größe = nl.matmul("宽", wide=1)
    first = 1; second = call(
        first,
        second)
    return tile
def other():
    pass
"""


@pytest.fixture(autouse=True)
def no_sources_of_other_tests():
    """Tests write files of the same relative names in folders of their own."""
    linecache.clearcache()


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kernel.py").write_text(SOURCE, encoding="utf-8")
    return "kernel.py"


def lines_of(diagnostic):
    return rendering.plain([diagnostic]).split("\n")


def marked(diagnostic):
    """(source line, what its carets and dashes stand under) by display column."""
    lines = lines_of(diagnostic)
    found = []
    for above, below in itertools.pairwise(lines):
        signs = below.partition("|")[2]
        if signs.strip()[:1] in ("^", "-") and signs.strip():
            text = above.partition("|")[2]
            columns = [k for k, c in enumerate(signs.split(" said")[0]) if c in "^-"]
            cells = "".join(c if rendering._width(c) == 1 else c + "\0" for c in text)
            found.append("".join(cells[k] for k in columns if k < len(cells)).replace("\0", ""))
    return found


@pytest.mark.parametrize(
    "line, column, end, meant",
    [
        (2, 2, 6, "tile"),  # after a tab
        (2, 17, 18, "a"),
        (3, 5, 10, "größe"),
        (3, 23, 26, '"宽"'),  # a wide character
        (3, 28, 34, "wide=1"),  # after a wide character
    ],
)
def test_carets_stand_under_the_span(source, line, column, end, meant):
    found = marked(Diagnostic("NKI-L010", "said", span=Span(source, line, column, line, end)))
    assert found == [meant]


def test_a_span_that_knows_its_line_only_underlines_the_line(source):
    assert marked(Diagnostic("NKI-L010", "said", span=Span(source, 3))) == ['größe = nl.matmul("宽", wide=1)']


def test_a_span_of_several_lines_is_underlined_on_each(source):
    found = marked(Diagnostic("NKI-L010", "said", span=Span(source, 4, 25, 6, 15)))
    assert found == ["call(", "first,", "second)"[:6]]


def test_long_spans_leave_out_their_middle(source, tmp_path):
    Path("long.py").write_text("x\n" * 40)
    lines = lines_of(Diagnostic("NKI-L010", "said", span=Span("long.py", 3, 1, 30, 2)))
    assert [line.split(" |")[0].strip() for line in lines if " | x" in line] == [
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "30",
    ]
    assert any(line.startswith("...") for line in lines)


@pytest.mark.parametrize("column, end", [(200, 300), (18, 18), (1, 1)])
def test_a_span_past_the_line_still_shows_one_caret(source, column, end):
    lines = lines_of(Diagnostic("NKI-L010", "said", span=Span(source, 7, column, 7, end)))
    assert sum("^" in line for line in lines) == 1


def test_a_diagnostic_in_full(source, snapshot):
    diagnostic = Diagnostic(
        "NKI-V103",
        "nc_matmul: moving has 64 partitions, stationary has 128: they must be equal",
        span=Span(source, 3, 13, 3, 35),
        help="slice both to the partitions of stationary",
        notes=("rule: operands agree", "a fact\nof two lines"),
        labels=(
            Label(Span(source, 2, 2, 2, 6), "allocated here"),
            Label(Span("missing.py", 7, 1), "and in a file that is gone"),
        ),
        stack=(
            Frame("<module>", Span("run.py", 12, 1)),
            Frame("kernel", Span(source, 8, 5)),
            Frame("other", Span(source, 3, 13, 3, 35)),
        ),
        fix="nisa.nc_matmul",
    )
    assert rendering.plain([diagnostic]) == snapshot


def test_without_a_place_only_message_and_remarks_show(snapshot):
    assert rendering.plain(error("NKI-L026", "x.py does not exist", help="look again")) == snapshot


def test_indented_notes_are_a_list_of_the_one_before():
    found = Diagnostic(
        "NKI-M001", "full", notes=("rule: it fits", "live at the peak:", "  80 KiB: a", "  4 KiB: b", "so")
    )
    assert rendering.plain([found]).split("\n")[1:] == [
        "  = rule: it fits",
        "  = note: live at the peak:",
        "      80 KiB: a",
        "      4 KiB: b",
        "  = note: so",
    ]


def test_deep_recursion_is_folded(source):
    stack = tuple(Frame(f"f{k}", Span(source, 1, k)) for k in range(1, 41))
    text = rendering.plain([Diagnostic("NKI-L021", "deep", span=stack[-1].span, stack=stack)])
    assert text.count("called from") == 9
    assert "= called from 31 more functions" in text
    assert "called from f39 at" in text and "called from f1 at" in text


def test_characters_that_steer_a_terminal_are_shown_as_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("x = '\x1b[31m\u202e'\n")
    text = rendering.plain([Diagnostic("NKI-L010", "said", span=Span("evil.py", 1, 1, 1, 2))])
    assert "\x1b" not in text and "\u202e" not in text


def test_files_show_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rendering.shown(Span(str(tmp_path / "a.py"), 3, 4)) == "a.py:3:4"
    assert rendering.shown(Span("/elsewhere/a.py", 3, 4)) == "/elsewhere/a.py:3:4"


def test_coloured_text_is_the_plain_text(source):
    diagnostic = Diagnostic("NKI-L010", "said", span=Span(source, 2, 2, 2, 6), help="write it")
    assert str(render.rich_text(diagnostic)) == rendering.plain([diagnostic])


@pytest.mark.parametrize("severity, colour", [("error", "31"), ("warning", "33"), ("note", "36")])
def test_severities_have_their_colours(source, severity, colour, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    diagnostic = Diagnostic("NKI-L010", "said", span=Span(source, 2, 2, 2, 6), severity=Severity(severity))
    console = Console(force_terminal=True, color_system="standard", width=200)
    with console.capture() as captured:
        console.print(render.rich_text(diagnostic), soft_wrap=True)
    assert f"\x1b[1;{colour}m^^^^" in captured.get()


def test_editor_lines_are_one_line_each(source):
    diagnostic = Diagnostic("NKI-L010", "said\nin two lines", span=Span(source, 2, 3))
    assert render.editor_line(diagnostic) == "kernel.py:2:3: error[NKI-L010]: said in two lines"


@pytest.mark.parametrize(
    "severities, words",
    [
        ((), "no errors in f.py"),
        (("error",), "1 error in f.py"),
        (("error", "error", "warning"), "2 errors, 1 warning in f.py"),
        (("note",), "no errors in f.py"),
    ],
)
def test_summary(severities, words):
    found = [Diagnostic("NKI-L010", "said", severity=Severity(s)) for s in severities]
    assert rendering.summary(found, "f.py") == words


# --- errors nobody caught

SCRIPT = """\
import nki.uncaught
from nki_isa.diagnostics import error

nki.uncaught.install()


def call():
    raise {what}


if True:  # größe
    größe = 1; call()
"""


def run_plainly(tmp_path, what):
    (tmp_path / "script.py").write_text(SCRIPT.format(what=what), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_plain_python_shows_the_text_instead_of_a_traceback(tmp_path):
    shown = run_plainly(tmp_path, "error('NKI-L024', 'no array', help='pass one')")
    assert shown.returncode == 1
    assert shown.stderr.startswith("error[NKI-L024]: no array\n --> script.py:8:5\n")
    assert "= help: pass one" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_mistake_of_this_project_keeps_its_traceback(tmp_path):
    assert "Traceback" in run_plainly(tmp_path, "error('NKI-I002', 'ours')").stderr


def test_other_exceptions_are_left_alone(tmp_path):
    assert "ValueError: theirs" in run_plainly(tmp_path, "ValueError('theirs')").stderr


def test_a_notebook_gets_the_same_lines(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(NkiError, "_render_traceback_", None, raising=False)
    uncaught.install()
    found = error("NKI-L024", "no array", help="pass one")
    assert found._render_traceback_() == rendering.plain(found).splitlines()
    assert found._render_traceback_()[0] == "error[NKI-L024]: no array"


def test_columns_count_characters_not_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wide.py").write_text("größe = 1; call()\n", encoding="utf-8")

    def call():
        raise error("NKI-L024", "no array")

    with pytest.raises(NkiError) as caught:
        exec(compile(Path("wide.py").read_text("utf-8"), "wide.py", "exec"), {"call": call})
    diagnostic = uncaught.diagnostics_of(caught.value, "wide.py")[0]
    outer = diagnostic.stack[0].span
    assert outer.line == 1
    assert outer.column == (12 if sys.version_info >= (3, 11) else 1)


def test_user_traceback_starts_in_the_users_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        "def f():\n    raise ValueError\ntry:\n    f()\nexcept ValueError as e:\n    raise KeyError from e\n"
    )
    Path("mine.py").write_text(text)
    with pytest.raises(KeyError) as caught:
        exec(compile(text, "mine.py", "exec"), {})
    shown = uncaught.user_traceback(caught.value, "mine.py")
    assert "test_rendering.py" not in shown
    assert shown.count('File "mine.py"') == 3
    assert "direct cause" in shown
    assert not uncaught.came_through_us(caught.value, "mine.py")


def test_what_fails_inside_is_our_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from nki.launch import call\ncall.launch(None, (), {})\n")
    with pytest.raises(AttributeError) as caught:
        exec(compile(Path("mine.py").read_text(), "mine.py", "exec"), {})
    assert uncaught.came_through_us(caught.value, "mine.py")
    assert "call.py" in uncaught.user_traceback(caught.value, "mine.py")
    assert uncaught.user_place(caught.value, "mine.py").line == 2
