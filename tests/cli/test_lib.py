"""nki-sim lib."""

import json

import pytest
from typer.testing import CliRunner

from nki_cli.main import app
from nkilib.registry import rows


def run(*arguments):
    return CliRunner().invoke(app, ["lib", *arguments])


def test_lists_every_kernel():
    text = run().stdout
    assert all(name in text for name in rows())
    listed = json.loads(run("--format", "json").stdout)["kernels"]
    assert [one["name"] for one in listed] == list(rows())


def test_runs_an_example_against_its_reference():
    done = run("cumsum", "--example", "one-row")
    assert done.exit_code == 0
    assert "largest difference to the reference 0 of" in done.stdout and "total time" in done.stdout


def test_takes_options_and_the_name_of_the_entry():
    done = run("RoPE", "--example", "decode", "--contiguous-layout", "False", "--format", "json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["kernel"], told["results"][0]["allowed"]) == ("rope", True)
    assert told["launch"]["time_ns"] > 0


def test_writes_a_page(tmp_path):
    page = tmp_path / "out.html"
    assert run("cumsum", "--example=one-row", "--html", str(page)).exit_code == 0
    assert "cumsum" in page.read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["cumsums"], "the kernel library has no 'cumsums'"),
        (["cumsum", "--example", "none"], "cumsum has no example 'none'"),
        (["cumsum", "--axes", "1"], "cumsum has no option '--axes'"),
        (["cumsum", "--x", "1"], "cumsum has no option '--x'"),
        (["cumsum", "--axis"], "--axis has no value"),
    ],
)
def test_unknown_names(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2 and message in done.stderr and "NKI-L032" in done.stderr


def test_what_a_kernel_refuses():
    done = run("cumsum", "--axis", "0")
    assert done.exit_code == 1 and "last dimension only" in done.stderr
