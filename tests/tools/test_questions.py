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
from nki import runtime
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.machine.targets import TRN2
from nki_tools import check, compare, profile, sbuf, step

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


@nki.jit
def in_parts(x, turns):
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for k in range(turns):
        part = tile[32 * k : 32 * k + 32, 0:2]
        nisa.tensor_scalar(dst=part, data=part, op0=nl.add, operand0=1.0)
    nisa.memset(dst=tile[96:128, :], value=float("nan"))
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_step_says_what_each_instruction_did_to_which_partitions():
    found = step(in_parts, X, 2)
    opcodes = ["dma_copy", "tensor_scalar", "tensor_scalar", "memset", "dma_copy"]
    assert [one.instruction.opcode for one in found] == opcodes
    assert [one.number for one in found] == list(range(5)) and found.left == 0
    (copied,), (first,), (second,), (filled,), (stored,) = (one.written for one in found)
    assert copied.partitions == list(range(128)) and copied.changed.all()
    assert first.partitions == list(range(32)) and second.partitions == list(range(32, 64))
    np.testing.assert_array_equal(first.before, 1.0)
    np.testing.assert_array_equal(first.after, 2.0)
    assert filled.partitions == list(range(96, 128)) and np.isnan(filled.after).all()
    assert stored.partitions == [] and stored.changed.all()
    line = "tile float32[32, 2]: 64 of 64 elements changed, partitions 32 to 63; [1, 1, 1, 1, ...] -> [2, 2,"
    assert line in str(found)
    json.dumps([one.as_dict() for one in found], allow_nan=False)


def test_step_keeps_what_is_asked_for():
    line = step(in_parts, X, 1, at="memset")[0].place.rpartition(":")[2]
    assert [one.number for one in step(in_parts, X, 3, at=line)] == [4]
    found = step(in_parts, X, 3, most=2)
    assert len(found) == 2 and found.left == 4 and str(found).endswith("4 steps more")
    with pytest.raises(NkiError, match="NKI-L012"):
        step(wrong_twice, X)


@nki.jit
def skips(x, where):
    out = nl.ndarray((8, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    index = nl.load(where)
    tile = nl.ndarray((8, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=tile, value=3.0)
    rows = out.ap([[64, 8], [1, 64]], vector_offset=index, indirect_dim=0)
    nisa.dma_copy(dst=rows, src=tile, oob_mode=nisa.oob_mode.skip)
    return out


def test_rows_that_are_skipped_are_not_changed():
    where = np.array([[0], [1], [99], [2], [3], [99], [4], [5]], np.int32)
    found = step(skips, X, where)
    (row,) = found[-1].written
    assert row.changed.any(axis=1).tolist() == [n < 8 for (n,) in where.tolist()]


def test_step_says_what_there_is_where_nothing_is_of_what_was_asked_for():
    lines = [one.place.rpartition(":")[2] for one in step(in_parts, X, 1)]
    nothing = step(in_parts, X, 1, at="nc_matmul")
    assert not nothing and "no step is of what was asked for; there are steps of " in str(nothing)
    assert all(f"line {line}" in nothing.others for line in lines) and "memset" in str(nothing)
    assert not step(in_parts, X, 1).others


def test_the_command_steps_through_each_launch(tmp_path):
    head = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\nimport numpy as np\n\n"
    calls = "x = np.ones((128, 64), np.float32)\nin_parts(x, 1)\nin_parts(x, 2)\n"
    (tmp_path / "parts.py").write_text(f"{head}{inspect.getsource(in_parts.function)}\n\n{calls}")
    run = [sys.executable, "-c", "from nki_cli.main import app; app()", "step", "parts.py", "--at", "memset"]
    shown = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert shown.count("in_parts(x float32[128, 64])") == 2 and "3  memset on gpsimd  parts.py:" in shown
    done = subprocess.run(
        [*run, "--format", "json"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    steps = [launch["steps"] for launch in json.loads(done.stdout)["launches"]]
    assert [[one["number"] for one in some] for some in steps] == [[2], [3]]
    assert steps[0][0]["written"][0]["after"] == ["nan"] * 4


def test_a_refusal_shows_the_line_that_asked(tmp_path):
    head = "import numpy as np\nfrom test_questions import doubled\nfrom nki_tools import step\n"
    (tmp_path / "asks.py").write_text(f"{head}step(doubled, wrong=1)  # here\n")
    folders = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": folders}
    run = [sys.executable, "asks.py"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "NKI-L012" in done.stderr and "asks.py:4" in done.stderr and "nki_tools" not in done.stderr


def test_a_target_is_named_as_anywhere():
    assert profile(doubled, X, target="gen2").launch.program.target == "trn1"
    with runtime.session(target="trn3", data=False) as record:
        doubled(X)
    assert record.launches[0].program.target == "trn3"
    for ask in (check, profile, sbuf, step):
        with pytest.raises(NkiError, match="NKI-V116"):
            ask(doubled, X, target="trn9")
