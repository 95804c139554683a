"""What the host cannot hold or write is said so: nothing is allocated in vain, nothing half-written."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki.launch import run
from nki_isa.diagnostics import NkiError
from nki_sim import process
from nki_sim.report.files import replacing

GIB = 1 << 30


@nki.jit
def large(x, gib):
    out = nl.ndarray((gib * 1024, 262144), dtype=nl.float32, buffer=nl.shared_hbm)
    t = nl.ndarray((4, 8), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    nisa.dma_copy(dst=out[0:4, 0:8], src=t)
    return out


DATA = np.ones((4, 8), np.float32)


def refused(*arguments):
    with pytest.raises(NkiError) as found:
        large(*arguments)
    (diagnostic,) = found.value.diagnostics
    return diagnostic


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_hbm_has_its_capacity():
    before = peak()
    found = refused(DATA, 4096)
    assert found.code == "NKI-M003" and "HBM" in found.message
    assert peak() - before < GIB // 4


def test_a_launch_larger_than_the_host_names_its_tensors(monkeypatch):
    monkeypatch.setattr(run, "available_bytes", lambda: 3 * GIB)
    before = peak()
    found = refused(DATA, 2)
    assert found.code == "NKI-M008"
    assert "takes 4.00 GiB" in found.message and "has 3 GiB left" in found.message
    assert found.notes[0] == "2 GiB: out float32[2048, 262144]"
    assert "out = nl.ndarray" in Path(__file__).read_text().splitlines()[found.span.line - 1]
    assert "--no-data" in found.help
    assert peak() - before < GIB // 4


def test_memory_that_runs_out_meanwhile_is_told_too(monkeypatch):
    def none_left(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(run, "execute", none_left)
    assert refused(DATA, 1).code == "NKI-M008"


def test_without_data_nothing_is_allocated(monkeypatch):
    monkeypatch.setattr(run, "available_bytes", lambda: 0)
    before = peak()
    with runtime.session(data=False, timing=True) as session:
        result = large(DATA, 64)
    assert result.shape == (65536, 262144) and not result[5, 7]
    assert session.launches[0].timeline.total > 0
    assert peak() - before < GIB // 4


def test_the_host_says_how_much_there_is():
    found = process.available_bytes()
    assert found is None or found > 1 << 20


# --- files


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "kernel.py"
    path.write_text(
        "import numpy as np\nimport nki\nimport nki.isa as nisa\nimport nki.language as nl\n\n\n"
        "@nki.jit\ndef k(x):\n    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)\n"
        "    nisa.dma_copy(dst=out, src=x)\n    return out\n\n\nk(np.ones((4, 8), np.float32))\n"
    )
    return path


def command(*words, **options):
    start = [sys.executable, "-c", "from nki_cli.main import app; app()"]
    return subprocess.run([*start, *map(str, words)], capture_output=True, text=True, **options)


PLACES = ["missing/folder/out", "folder", "", ".", "/", "file/inside", "x" * 300, "/dev/full"]


@pytest.mark.parametrize("option, place", [*(("--html", place) for place in PLACES), ("--trace", "folder")])
def test_a_report_that_cannot_be_written_is_a_coded_error(script, option, place):
    folder = script.parent
    (folder / "folder").mkdir()
    (folder / "file").write_text("kept")
    done = command("profile", script, option, place, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "NKI-L033" in done.stderr and "Traceback" not in done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["file", "folder", "kernel.py"]
    assert (folder / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(script):
    script.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = command("profile", script, "--html", script.parent / "out.html")
    script.parent.chmod(stat.S_IRWXU)
    assert done.returncode == 2 and "NKI-L033" in done.stderr


def test_an_old_report_stays_if_the_new_one_fails(tmp_path):
    path = tmp_path / "out.html"
    path.write_text("old")
    with pytest.raises(OSError), replacing(path) as file:
        file.write("new")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_report_goes_where_a_link_leads(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replacing(tmp_path / "link") as file:
        file.write("text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "text"


def test_a_report_goes_through_a_pipe(tmp_path):
    """What is not a file is not replaced by one, such as /dev/null."""
    read, write = os.pipe()
    with replacing(f"/dev/fd/{write}") as file:
        file.write("text")
    os.close(write)
    assert os.read(read, 99) == b"text"
    with replacing("/dev/null") as file:
        file.write("text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [("targets", "--format", "json"), ("--help",)])
def test_an_output_that_is_full_is_a_coded_error(words):
    start = [sys.executable, "-c", "from nki_cli.main import app; app()"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*start, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "NKI-L033" in done.stderr


def test_a_file_that_is_not_one_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    for place in (tmp_path / "pipe.py", "/dev/zero"):
        done = command("check", "--static", place, timeout=60)
        assert done.returncode == 2 and "NKI-L026" in done.stderr
