"""What people ask of a kernel call from Python; the commands print the same."""

import importlib
import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import TRN2
from nki_tools import check, compare, profile, sbuf

KIB = 1024
X = np.ones((128, 64), np.float32)


@nki.jit
def doubled(x, columns=64):
    tile = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[:, 0:64], src=x)
    nisa.tensor_scalar(dst=tile[:, 0:64], data=tile[:, 0:64], op0=nl.multiply, operand0=2.0)
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile[:, 0:64])
    return out


@nki.jit
def too_much(x):
    halves = [nl.ndarray((128, 32 * KIB), dtype=nl.float32, buffer=nl.sbuf) for _ in range(2)]
    for half in halves:
        nisa.memset(dst=half, value=1.0)
    nisa.tensor_tensor(dst=halves[0], data1=halves[0], data2=halves[1], op=nl.add)
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=halves[0][:, 0:64])
    return out


@nki.jit
def wrong_twice(x):
    tile = nl.load(x)
    nisa.memset(dst=tile, value=1.0, colour="red")
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0, size=3)
    return tile


def test_check_gives_every_error_and_raises_none():
    assert check(doubled, X) == ()
    errors = [d.code for d in check(wrong_twice, X) if d.severity is Severity.error]
    assert errors.count("NKI-L012") == 2
    (found,) = check(too_much, X, spill=False)
    assert (found.code, found.severity) == ("NKI-M001", Severity.error)


def test_profile_gives_the_time_and_its_parts():
    found = profile(doubled, X, target="trn2")
    (core,) = found.profiles
    assert found.time == core.total > TRN2.program_start + TRN2.program_end
    assert found.as_dict()["time_ns"] == found.time and found.as_dict()["ablation"] is None
    assert "doubled(x float32[128, 64])" in str(found) and "without" not in str(found)
    saved = {row.name: row for row in found.ablation()}
    less = profile(doubled, X, target="trn2", without=["semaphores"])
    assert less.time == saved["semaphores"].time < found.time
    assert less.without == {"semaphores"} and "without semaphores" in str(less)
    with pytest.raises(NkiError, match="NKI-L032"):
        profile(doubled, X, without=["gravity"])


def test_profile_runs_on_data_when_asked(tmp_path):
    x = X.copy()
    found = profile(doubled, x, data=True, schedule="compiler")
    assert found.launch.schedule == "compiler" and "in the compiler's order" in str(found)
    found.write_trace(tmp_path / "t.json")
    found.write_html(tmp_path / "t.html")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert (tmp_path / "t.html").read_text().startswith("<!")


def test_sbuf_gives_the_peak_and_says_what_does_not_fit(tmp_path):
    found = sbuf(doubled, X, columns=16 * KIB)
    assert found.fits and found.launch.placement.sbuf.peak == 64 * KIB
    assert found.as_dict()["cores"][0]["memory"]["sbuf"]["peak_kib"] == 64
    full = sbuf(too_much, X, spill=False)
    assert not full.fits and full.refused.diagnostics[0].code == "NKI-M001"
    assert full.launch.placement.sbuf.peak == 256 * KIB and "halves" in str(full)
    full.write_html(tmp_path / "m.html")
    assert "too_much" in (tmp_path / "m.html").read_text()
    with pytest.raises(NkiError, match="NKI-L012"):
        sbuf(wrong_twice, X)


@pytest.mark.parametrize("command, ask, options", [("profile", profile, ["--no-data"]), ("sbuf", sbuf, [])])
def test_the_command_prints_what_the_function_says(command, ask, options, tmp_path, monkeypatch):
    head = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\nimport numpy as np\n\n"
    kernel = inspect.getsource(doubled.function)
    call = 'if __name__ == "__main__":\n    doubled(np.ones((128, 64), np.float32))\n'
    (tmp_path / "asked.py").write_text(f"{head}{kernel}\n\n{call}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("asked")
    del sys.modules["asked"]
    run = [sys.executable, "-c", "from nki_cli.main import app; app()", command, "asked.py", *options]
    environment = {**os.environ, "COLUMNS": "120"}
    shown = subprocess.run(run, capture_output=True, text=True, env=environment, check=True).stdout
    assert shown.rstrip("\n") == str(ask(module.doubled, X))


@nki.jit
def in_one_go(x):
    """As doubled, without the tile of 64 KiB, and with the product on another engine."""
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(dst=tile, data=tile, op=nl.copy, scale=2.0)
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_compare_says_what_changed():
    before, after = profile(doubled, X, columns=16 * KIB), profile(in_one_go, X)
    found = compare(before, after)
    rows = {change.figure: change for change in found.changes}
    assert (rows["SBUF peak"].before, rows["SBUF peak"].after) == (64 * KIB, 256)
    assert rows["SBUF peak"].percent == 100 * (256 - 64 * KIB) / (64 * KIB)
    assert (
        rows["vector busy"].after == rows["scalar busy"].before == 0 and rows["scalar busy"].percent is None
    )
    assert (rows["HBM read"].before, rows["HBM read"].percent) == (128 * 64 * 4, 0)
    assert rows["instructions"].after == 3 and "tensor busy" not in rows
    path = [change for name, change in rows.items() if name.startswith("critical path")]
    assert sum(change.after for change in path) == pytest.approx(after.profiles[0].duration)
    assert found.speedup == before.time / after.time < 1
    text = str(found)
    assert "doubled(" in text and ", after" in text and "-99.6 %" in text and "new" in text
    same = compare(before, before)
    assert same.speedup == 1 and not any(change.percent for change in same.changes)


def test_the_command_compares_call_by_call(tmp_path):
    head = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\nimport numpy as np\n\n"
    for name, kernel, calls in (("old", doubled, 1), ("new", in_one_go, 2)):
        call = f"{kernel.function.__name__}(np.ones((128, 64), np.float32))\n" * calls
        (tmp_path / f"{name}.py").write_text(f"{head}{inspect.getsource(kernel.function)}\n\n{call}")
    run = [sys.executable, "-c", "from nki_cli.main import app; app()", "compare", "old.py", "new.py"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.rstrip("\n") == str(compare(profile(doubled, X), profile(in_one_go, X)))
    assert "new.py makes 1 call more" in done.stderr
    done = subprocess.run(
        [*run, "--format", "json", "--no-data"], capture_output=True, text=True, cwd=tmp_path
    )
    (launch,) = json.loads(done.stdout)["launches"]
    assert launch["before"]["kernel"] == "doubled" and launch["after"]["kernel"] == "in_one_go"
