"""``nki-sim sweep``: a call of a script at many points."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from nki_cli.main import app

SCRIPT = """\
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl

@nki.jit
def first(x):
    return x

def check(x, width):
    assert x.shape[1] % width == 0, f"{x.shape[1]} is not a multiple of {width}"

@nki.jit
def scaled(x, width, op=nl.add):
    check(x, width)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for k in range(x.shape[1] // width):
        tile = nl.ndarray((x.shape[0], width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, nl.ds(k * width, width)])
        nisa.tensor_scalar(dst=tile, data=tile, op0=op, operand0=2.0)
        nisa.dma_copy(dst=out[:, nl.ds(k * width, width)], src=tile)
    return out

print("said")
x = first(np.ones((128, 512), np.float32))
np.testing.assert_array_equal(scaled(x, 512), 3)
raise SystemExit("not reached")
"""


@pytest.fixture
def sweep(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*options, status=0):
        result = CliRunner().invoke(app, ["sweep", str(script), "--jobs", "1", *options])
        assert result.exit_code == status, result.output
        return result

    return run


def test_the_best_points_are_shown(sweep, tmp_path):
    shown = sweep(
        *(
            "--set",
            "width=64,96,512",
            "--target",
            "trn2,trn3",
            "--best",
            "2",
            "--out",
            str(tmp_path / "a.svg"),
        )
    )
    lines = shown.stdout.splitlines()
    assert lines[0] == "scaled: 6 points, 4 ok, 2 refused"
    assert [line.split()[0] for line in lines if "KiB" in line] == ["512", "512"]
    assert "2 points: NKI-L020 512 is not a multiple of 96" in lines and "said" not in shown.output
    assert "a.svg written: 6 rows" in shown.stderr and (tmp_path / "a.svg").read_text().startswith("<svg")


def test_all_rows_are_given_to_programs(sweep):
    text = sweep("--set", "width=32:129:32", "--shape", "x=128xn", "--set", "n=384", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["width"], row["n"], row["state"]) for row in rows] == [
        (w, "384", "ok") for w in ("32", "64", "96", "128")
    ]
    options = ("--set", "width=64,512", "--set", "op=nl.add,nl.multiply", "--where", "width < 100 or not 1")
    found = json.loads(sweep(*options, "--format", "json").stdout)
    assert [row["op"] for row in found["rows"]] == ["nl.add", "nl.multiply"] * 2
    assert {row["width"] for row in found["best"]} == {64} and found["kernel"] == "scaled"
    assert found["pareto"][0]["width"] == 64


def test_another_kernel_may_be_named(sweep):
    assert sweep("--kernel", "first", "--shape", "x=64x8,64x16").stdout.startswith("first: 2 points, 2 ok")


def test_a_sweep_without_a_point_that_runs_fails(sweep):
    assert "NKI-L020" in sweep("--set", "width=96", status=1).stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), "NKI-L032"),
        (("--set", "width"), "NKI-L032"),
        (("--set", "width=4:1"), "NKI-L032"),
        (("--set", "depth=4"), "NKI-L027"),
        (("--set", "width=64", "--kernel", "third"), "NKI-L027"),
        (("--set", "width=64", "--where", "wide > 3"), "NKI-L032"),
        (("--set", "width=64", "--where", "open('x')"), "NKI-L032"),
        (("--set", "width=64", "--where", "width >"), "NKI-L032"),
        (("--set", "width=64", "--out", "rows.xls"), "NKI-L032"),
        (("--set", "width=64", "--target", "trn9"), "NKI-V116"),
    ],
)
def test_what_cannot_be_asked_is_said(sweep, options, code):
    assert code in sweep(*options, status=2).output
