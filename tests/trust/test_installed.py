"""The wheel and the sdist, built here, install into an environment of their own and run an example."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
pytest.importorskip("hatchling", reason="needs hatchling: pip install hatchling")


def ran(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel, and an sdist with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    ran(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data") if sys.version_info >= (3, 12) else archive.extractall(
            folder
        )
    source = folder / sdist.name.removesuffix(".tar.gz")
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "again", cwd=source)
    return {
        "wheel": next(folder.glob("*.whl")),
        "sdist": next((folder / "again").glob("*.whl")),
        "source": source,
    }


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request, built, tmp_path_factory):
    """An environment with the project alone; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(built[request.param]) as wheel:
        wheel.extractall(site)
    here = {str(Path(path)) for path in sys.path if path.endswith("site-packages")}
    (site / "dependencies.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in here)
    )
    return folder


def test_the_wheel_has_all_it_needs(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    for needed in (
        "nki/compiler/syntax/grammar.lark",
        "nki/py.typed",
        "nki_sim/report/page/page.html",
        "nki_sim/report/page/page.js",
        "nki_cli/docs/codes/language.md",
        "nkilib/__init__.py",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/")) or name.endswith(".pyc")]


def test_both_ways_give_the_same_files(built):
    one, other = (zipfile.ZipFile(built[kind]) for kind in ("wheel", "sdist"))
    assert {n: one.read(n) for n in one.namelist()} == {n: other.read(n) for n in other.namelist()}


def test_the_source_has_its_papers(built):
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert (built["source"] / name).is_file()


def test_an_example_runs(installed, tmp_path):
    python = installed / "bin" / "python"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    where = "import nki, nki_sim, nki_isa, nki_cli; print(nki.__file__, nki_cli.__file__)"
    told = ran(python, "-c", where, cwd=tmp_path, env=environment)
    assert str(ROOT) not in told and told.count(str(installed)) == 2
    command = [python, "-c", "from nki_cli.main import app; app()"]
    example = tmp_path / "tensor_add.py"
    example.write_text((ROOT / "examples" / "tensor_add.py").read_text())
    ran(*command, "run", example, cwd=tmp_path, env=environment)
    ran(*command, "profile", example, "--html", "out.html", cwd=tmp_path, env=environment)
    assert (tmp_path / "out.html").stat().st_size > 10_000
    assert "no errors" in ran(*command, "check", "--static", example, cwd=tmp_path, env=environment)
    assert "NKI-L001" in ran(*command, "explain", "NKI-L001", cwd=tmp_path, env=environment)
