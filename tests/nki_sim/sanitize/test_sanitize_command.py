"""``nki-sim run`` with ``--check``, ``--strict`` and ``--fill``: statuses and what is written."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from nki_cli.main import app

SCRIPT = """
    import numpy as np

    import nki
    import nki.isa as nisa
    import nki.language as nl


    @nki.jit
    def kernel(x):
        result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        spare = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[0:ROWS, :], src=x[0:ROWS, :])
        nisa.memset(dst=spare, value=0.0)
        nisa.dma_copy(dst=result, src=tile)
        return result


    print(kernel(np.ones((128, 512), np.float32))[127, 0])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script with as many rows loaded; returns status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NKI_SIM_CHECK", raising=False)

    def call(rows, *words):
        text = textwrap.dedent(SCRIPT).replace("ROWS", str(rows))
        (tmp_path / "script.py").write_text(text, encoding="utf-8")
        result = CliRunner().invoke(app, ["run", "script.py", *words], catch_exceptions=False)
        return result.exit_code, result.stdout, result.stderr

    return call


def test_an_error_ends_the_run(run):
    """Both lines are shown, the script does not go on, the status is 1."""
    status, out, err = run(64)
    assert status == 1 and out == ""
    assert "NKI-H002" in err and "is allocated here" in err and "[64:128, 0:512]" in err


def test_a_warning_does_not(run):
    """The kernel's result is returned; the tensor nobody reads is told of."""
    status, out, err = run(128)
    assert status == 0 and out.startswith("1.0")
    assert "warning[NKI-H010]" in err


def test_strict(run):
    """The same warning is an error."""
    status, _, err = run(128, "--strict")
    assert status == 1 and "error[NKI-H010]" in err


@pytest.mark.parametrize("check, codes", [("none", []), ("overlap", []), ("unused", ["NKI-H010"])])
def test_classes(run, check, codes):
    """Only the classes asked for are checked."""
    status, out, _ = run(64, "--check", check, "--format", "json")
    assert status == 0
    assert [d["code"] for d in json.loads(out)["diagnostics"]] == codes


def test_unknown_class(run):
    """A misspelt class ends the command before anything runs."""
    status, out, err = run(128, "--check", "overlaps")
    assert status == 2 and out == "" and "NKI-L032" in err


def test_environment(run, monkeypatch):
    """NKI_SIM_CHECK is the default; the option wins."""
    monkeypatch.setenv("NKI_SIM_CHECK", "none")
    assert run(64)[0] == 0
    assert run(64, "--check", "all")[0] == 1


@pytest.mark.parametrize("fill, shown", [("zeros", "0.0"), ("sentinels", "nan")])
def test_fill(run, fill, shown):
    """What unwritten memory holds."""
    status, out, _ = run(64, "--check=none", f"--fill={fill}")
    assert status == 0 and out.startswith(shown)


SKIPPING = """
    import numpy as np

    import nki
    import nki.isa as nisa
    import nki.language as nl


    @nki.jit
    def kernel(x, rows):
        result = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        index = nl.ndarray((128, 1), dtype=rows.dtype, buffer=nl.sbuf)
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=index, src=rows)
        for _ in range(2):
            nisa.memset(dst=tile, value=0.0)
            picked = x.ap([[64, 128], [1, 64]], vector_offset=index, indirect_dim=0)
            nisa.dma_copy(dst=tile, src=picked, oob_mode=nisa.oob_mode.skip)
            nisa.dma_copy(dst=result, src=tile)
        return result


    kernel(np.ones((200, 64), np.float32), np.arange(100, 228, dtype=np.int32)[:, None])
"""


def test_skipped_rows_are_counted(tmp_path, monkeypatch):
    """28 of 128 rows, twice, by line: beside the launch, and no diagnostic."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(textwrap.dedent(SKIPPING), encoding="utf-8")
    result = CliRunner().invoke(app, ["run", "script.py", "--warnings-as-errors"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert "dma_copy skipped 56 of 256 rows" in result.stderr and "NKI-" not in result.stderr
    told = json.loads(CliRunner().invoke(app, ["run", "script.py", "--format", "json"]).stdout)
    (skipped,) = told["launches"][0]["skipped"]
    assert skipped == {"instruction": "dma_copy", "place": "script.py:18:9", "skipped": 56, "of": 256}
