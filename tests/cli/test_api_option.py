"""``nki-sim --api``."""

import os
import subprocess
import sys

import pytest

from nki import levels

KERNEL = """import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def kernel(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer='sbuf')
    nisa.dma_copy(tile, x)
    nisa.dma_copy(tile, x, dst_rmw_op=nl.add)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


print(kernel(np.ones((2, 2), np.float32)).sum())
"""


@pytest.fixture(autouse=True)
def newest_afterwards():
    yield
    levels.use(levels.NEWEST)


def test_a_kernel_runs_at_its_level(nki_sim, tmp_path):
    file = tmp_path / "old.py"
    file.write_text(KERNEL)
    assert "8.0" in nki_sim("--api", "0.2", "run", str(file)).out
    levels.use(levels.NEWEST)
    assert "NKI-L050" in nki_sim("check", str(file), "--format", "lines").out


def test_an_unknown_level_is_wrong_use(nki_sim):
    shown = nki_sim("--api", "1.0", "targets")
    assert shown.status == 2 and "no API level" in shown.err and "Neuron 2.28" in shown.err


@pytest.mark.parametrize("command", [["-m", "nki_cli.main"], ["-c", "import nki"]])
def test_an_unknown_level_in_the_environment_is_told_without_a_traceback(command):
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "NKI_SIM_API": "0.9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "NKI-L051" in done.stderr and "Traceback" not in done.stderr
    assert "there is no API level '0.9'" in done.stderr and "NKI_SIM_API" in done.stderr
