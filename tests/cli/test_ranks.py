"""Commands on scripts that launch kernels over ranks."""

import json
from pathlib import Path

from typer.testing import CliRunner

from nki_cli.main import app

EXAMPLE = Path(__file__).parents[2] / "examples" / "tensor_parallel_mlp.py"


def test_profiles_show_collectives_of_each_rank(tmp_path):
    trace = tmp_path / "trace.json"
    result = CliRunner().invoke(app, ["profile", str(EXAMPLE), "--trace", str(trace)])
    assert result.exit_code == 0, result.output
    assert "rank 3 core 1" in result.output and "ranks exchange" in result.output
    events = json.loads(trace.read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["ph"] == "M" and "name" in event["args"]}
    assert "collectives" in names and any("rank 3 core 1" in name for name in names)


def test_a_run_says_how_many_ranks():
    result = CliRunner().invoke(app, ["run", str(EXAMPLE)])
    assert result.exit_code == 0 and "4 ranks, 8 cores" in result.output + result.stderr
