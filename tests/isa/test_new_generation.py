"""A new generation is one new file: names, rules, costs and placement follow from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nki_isa

KERNEL = """
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.machine.targets import TARGETS, as_target

assert list(TARGETS)[-1] == "trn9" and as_target("gen5") is as_target("Trainium-nine") is TARGETS["trn9"]


@nki.jit
def double(x):
    assert nisa.get_nc_version() == nisa.nc_version.gen5 > nisa.nc_version.gen4
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=tile)
    return out


x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
assert np.array_equal(double(x), 2 * x)
print("doubled")
"""


def test_a_generation_is_one_file(tmp_path):
    floor = Path(nki_isa.__file__).parent
    shutil.copytree(floor, tmp_path / floor.name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / floor.name / "machine" / "targets"
    text = (folder / "trn3.py").read_text()
    text = text.replace('name="trn3"', 'name="trn9"').replace("nc_version=4", "nc_version=5")
    text = text.replace("    default_dge=", '    aliases=("trainium-nine",),\n    default_dge=')
    (folder / "trn9.py").write_text(text)
    script = tmp_path / "script.py"
    script.write_text(KERNEL)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NKI_NC_VERSION": "gen5"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "doubled\n", done.stderr
