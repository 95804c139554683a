"""Runs ``nki-sim`` in the folder of the example kernels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nki_cli.main import app

DATA = Path(__file__).parent / "data"
VARIABLES = ("NEURON_PLATFORM_TARGET_OVERRIDE", "NKI_NC_VERSION", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@dataclass(frozen=True)
class Shown:
    """What a command wrote and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON object."""
        return json.loads(self.out)


@pytest.fixture
def nki_sim(monkeypatch):
    """Calls the command with the words given, in the folder of the example kernels."""
    monkeypatch.chdir(DATA)
    for variable in (
        "NEURON_PLATFORM_TARGET_OVERRIDE",
        "NKI_NC_VERSION",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
    ):
        monkeypatch.delenv(variable, raising=False)

    def call(*words: str, environment: dict[str, str] | None = None) -> Shown:
        result = CliRunner().invoke(app, [str(w) for w in words], env=environment, catch_exceptions=False)
        return Shown(result.exit_code, result.stdout, result.stderr)

    return call
