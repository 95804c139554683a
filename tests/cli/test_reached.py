"""``nki-sim check`` reaches every kernel call of a script, or names the kernels it did not reach."""

import subprocess
import sys

import pytest

HEAD = """
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def good(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


@nki.jit
def bad(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray((2 * x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=out, src=x)
    return out


x = np.ones((128, 64), np.float32)
"""
REACHING = {
    "in an assert": "assert np.allclose(bad(x), x)",
    "in a caught assert": "try:\n    assert not bad(x).any(), 'zeros'\nexcept Exception:\n    pass",
    "after a failed assert": "assert np.allclose(good(x), x), 'not a copy'\nbad(x)",
    "after np.testing": "np.testing.assert_allclose(good(x), x)\nbad(x)",
    "after a comparison of its own": (
        "def compare(got):\n    assert (got == x).all()\n\n\ncompare(good(x))\ncompare(bad(x))"
    ),
    "in a try": "try:\n    bad(x)\nexcept ValueError:\n    pass\nexcept Exception as e:\n    print(e)",
    "in a loop of tries": (
        "for kernel in (good, bad, good):\n    try:\n        kernel(x)\n    except Exception:\n        pass"
    ),
    "in suppress": "import contextlib\nwith contextlib.suppress(Exception):\n    bad(x)",
    "raised as another error": "try:\n    bad(x)\nexcept Exception as e:\n    raise KeyError from e",
    "in a session of its own": (
        "from nki import runtime\nwith runtime.session():\n    try:\n        bad(x)\n    except Exception:\n"
        "        pass"
    ),
}


@pytest.fixture
def script(tmp_path):
    """Writes a script that goes on after HEAD with the text given."""

    def write(text, name="script.py", head=HEAD):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{head}\n{text}\n")
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("text", REACHING.values(), ids=REACHING)
def test_a_refusal_is_reported(nki_sim, script, text):
    shown = nki_sim("check", script(text), "--format", "json")
    assert shown.status == 1
    assert "NKI-V102" in {d["code"] for d in shown.json["diagnostics"] if d["severity"] == "error"}


MISSING = {
    "after an exit": ("if not np.array_equal(good(x), x):\n    raise SystemExit(1)\nbad(x)", ["bad"], 1),
    "in a test": ("def test_bad():\n    assert bad(x).shape == x.shape", ["good", "bad"], 0),
    "not at all": ("good(x)", ["bad"], 1),
    "under another name": ("if __name__ == 'module':\n    bad(x)\ngood(x)", ["bad"], 1),
}


@pytest.mark.parametrize("text, names, reached", MISSING.values(), ids=MISSING)
def test_a_kernel_that_is_not_reached_is_named(nki_sim, script, text, names, reached):
    path = script(text)
    shown = nki_sim("check", path)
    assert shown.status == 0
    assert f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} not called when" in shown.out
    assert f"{reached} of 2 kernels reached" in shown.out.splitlines()[-1]
    assert "were not checked" in shown.out
    required = nki_sim("check", "--require-launch", path, "--format", "json")
    assert required.status == 1
    assert [d["code"] for d in required.json["diagnostics"] if d["severity"] == "error"] == ["NKI-L027"]
    assert required.json["kernels_reached"] == reached


def test_a_kernel_that_another_calls_is_reached(nki_sim, script):
    outer = "\n@nki.jit\ndef outer(x):\n    return good(x)\n\n\nouter(np.ones((4, 4), np.float32))"
    shown = nki_sim("check", script(outer, head=HEAD.partition("@nki.jit\ndef bad")[0]))
    assert shown.out.endswith("(1 kernel call checked for trn2)\n")


def test_a_file_without_kernels(nki_sim, script):
    shown = nki_sim("check", script("", head="import nki"))
    assert shown.status == 0 and "no kernel is called when" in shown.out


def test_the_text_alone(nki_sim, script):
    assert nki_sim("check", "--static", script("bad(x)")).out.endswith("(text only)\n")


@pytest.mark.parametrize("command", ["run", "profile", "ir", "sbuf"])
def test_a_caught_refusal_is_a_warning_of_other_commands(nki_sim, script, command):
    """The script decides what it means; that no kernel was called would be wrong."""
    shown = nki_sim(command, script("try:\n    bad(x)\nexcept Exception:\n    pass"))
    assert shown.status == 0
    assert "warning[NKI-V102]" in shown.err and "the script caught this error" in shown.err
    assert "NKI-L027" not in shown.err


# --- several files


def test_files_and_folders(nki_sim, script, tmp_path):
    good, bad = script("good(x)\nbad", "a/good.py"), script("bad(x)", "a/bad.py")
    script("raise ValueError", "a/other.py", head="import numpy")
    shown = nki_sim("check", good, bad)
    assert shown.status == 1
    assert f"no errors in {good} (1 of 2 kernels reached" in shown.out
    assert shown.out.endswith("1 error in 2 files\n")
    found = nki_sim("check", tmp_path, "--format", "json")
    assert found.status == 1
    assert [(one["file"], one["errors"]) for one in found.json["files"]] == [(bad, 1), (good, 0)]


def test_files_of_one_name_have_neighbours_of_their_own(nki_sim, script):
    """Each file is run as if it were alone: a module it imports is that of its folder."""
    for folder, rows in (("one", 64), ("two", 32)):
        script("", f"{folder}/sizes.py", head=f"ROWS = {rows}")
    paths = [script("from sizes import ROWS\nprint(good(x[:ROWS]))", f"{f}/main.py") for f in ("one", "two")]
    found = nki_sim("check", *paths, "--format", "json").json["files"]
    assert [one["launches"] for one in found] == [1, 1]
    assert "sizes" not in sys.modules


def test_a_folder_without_kernels_is_wrong_use(nki_sim, tmp_path):
    shown = nki_sim("check", tmp_path)
    assert shown.status == 2 and "NKI-L026" in shown.err


# --- the command itself


def test_help_and_version(nki_sim):
    assert nki_sim("-h").out == nki_sim("--help").out
    assert nki_sim("check", "-h").out == nki_sim("check", "--help").out
    assert nki_sim("--version").out.startswith("nki-sim 0.")


@pytest.mark.parametrize(
    "old, new",
    [
        (("--profile", "strict"), ("--language", "strict")),
        (("--profile=library",), ("--language=library",)),
        (("--strict",), ("--warnings-as-errors",)),
    ],
)
def test_old_spellings_are_kept_with_a_note(nki_sim, old, new):
    before, now = nki_sim("run", "add.py", *old), nki_sim("run", "add.py", *new)
    assert (before.status, before.out) == (now.status, now.out) == (0, now.out)
    name, called = old[0].partition("=")[0], new[0].partition("=")[0]
    assert before.err == f"note: {name} is called {called} now\n{now.err}"


def test_old_spellings_after_two_dashes_are_the_scripts(nki_sim):
    shown = nki_sim("run", "arguments.py", "--", "--columns", "96", "--strict")
    assert "--strict" in shown.out and "note" not in shown.err


@pytest.mark.parametrize("words", [["targets"], ["--help"], ["isa", "--help"], ["run", "add.py"]])
def test_a_reader_that_leaves_early(words, nki_sim):
    """As ``nki-sim targets | true``: the status of SIGPIPE, or 0, and no word on standard error."""
    command = [sys.executable, "-c", "from nki_cli.main import app; app()", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() in (0, 141)
    assert "Traceback" not in error and "BrokenPipe" not in error
