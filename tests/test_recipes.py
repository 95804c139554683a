"""Where to add what (CONTRIBUTING.md): each recipe is followed here, and its places are counted.

That of a check is followed in tests/nki_sim/sanitize/test_checks.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nki_cli
import nki_isa
import nkilib
from nki_cli import commands
from nki_isa.ir.instruction import Instruction, Order, instruction
from nki_isa.machine.enums import Engine

FLOOR = Path(nki_isa.__file__).parent

HEAD = """
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
"""


def run_with(tmp_path, package, files: dict[str, str], script: str, **environment: str) -> str:
    """What a script prints where a package has these files too."""
    floor = Path(package.__file__).parent
    shutil.copytree(floor, tmp_path / floor.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in files.items():
        place = tmp_path / floor.name / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    path = tmp_path / "script.py"
    path.write_text(HEAD + script)
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_generation_is_one_file(tmp_path):
    text = (FLOOR / "machine" / "targets" / "trn3.py").read_text()
    text = text.replace('name="trn3"', 'name="trn9"').replace("nc_version=4", "nc_version=5")
    text = text.replace("    default_dge=", '    aliases=("trainium-nine",),\n    default_dge=')
    script = """
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
    files = {"machine/targets/trn9.py": text}
    assert run_with(tmp_path, nki_isa, files, script, NKI_NC_VERSION="gen5") == "doubled\n"


NEW_INSTRUCTION = '''
"""Halves."""

from __future__ import annotations

from typing import Any

from nki_isa.cost import Cost, streaming
from nki_isa.constraints.operands import elements_per_partition, rules
from nki_isa.constraints.sizes import same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.ir.fields import read, write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.ops.base import VECTOR_ENGINE, ComputeInstruction
from nki_isa.tensor.tensor import NkiTensor


@instruction
class tensor_halve(ComputeInstruction):
    """dst = src / 2."""

    engines = (VECTOR_ENGINE,)
    source = "none"
    order = Order.streamed
    modes = streaming.ONE_INPUT
    dst: NkiTensor = write()
    src: NkiTensor = read()
    constraints = rules(*tile("dst", "src"), *same_shape("dst", "src"))

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "src": t()}

    def compute(self, src: Any) -> Any:
        return src / 2

    def cost(self, target: Any) -> Cost:
        rate = streaming.rate_of(target, self.modes, self.dst, self.src)
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst), rate=rate)
'''


def test_an_instruction_is_one_class(tmp_path):
    """It runs, is checked, timed, printed and read back, and stands in the reference."""
    script = """
from nki.compiler import specialize
from nki_cli.docs.isa_page import page
from nki_isa.diagnostics import NkiError
from nki_isa.text.printer import format_program
from nki_isa.text.parser import parse_program


@nki.jit
def half(x, wrong):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_halve(tile, tile[:, 0:2] if wrong else tile)
    nisa.dma_copy(dst=out, src=tile)
    return out


x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
assert np.array_equal(half(x, False), x / 2)
program = specialize(half, x, False)
assert "tensor_halve" in format_program(program)
assert format_program(parse_program(format_program(program))) == format_program(program)
assert "### tensor_halve" in page()
try:
    half(x, True)
except NkiError as refused:
    print(refused.diagnostics[0].code)
"""
    assert run_with(tmp_path, nki_isa, {"ops/halving.py": NEW_INSTRUCTION}, script) == "NKI-V103\n"


def test_an_instruction_states_its_order_and_a_sample():
    """There is no default that could let a new one pass unchecked."""
    with pytest.raises(TypeError, match="half_stated does not state order, sample"):

        @instruction
        class half_stated(Instruction):
            """Nothing."""

            engines = (Engine.vector,)

    with pytest.raises(TypeError, match="half_stated does not state sample"):

        @instruction
        class half_stated(Instruction):
            """Nothing."""

            engines = (Engine.vector,)
            order = Order.streamed


NEW_COMMAND = '''
"""``nki-sim greet``: says hello."""


def greet() -> None:
    """Say hello."""
    print("hello")
'''


def test_a_command_is_a_module_and_its_name_in_the_list(tmp_path):
    listed = Path(commands.__file__).read_text().replace("NAMES = (", 'NAMES = ("greet", ')
    script = """
from typer.testing import CliRunner
from nki_cli.main import app

assert "Say hello." in CliRunner().invoke(app, ["--help"]).stdout
print(CliRunner().invoke(app, ["greet"]).stdout, end="")
"""
    files = {"commands/greet.py": NEW_COMMAND, "commands/__init__.py": listed}
    assert run_with(tmp_path, nki_cli, files, script) == "hello\n"
    folder = Path(commands.__file__).parent
    assert sorted(commands.NAMES) == sorted(path.stem for path in folder.glob("[!_]*.py"))


NEW_ROW = '''
"""halved in the table of kernels."""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nkilib.registry import Example, Row, Tolerance


@nki.jit
def halved(x):
    """Half of `x`."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=0.5)
    nisa.dma_copy(dst=out, src=tile)
    return out


def _ones(rng):
    return {"x": np.ones((4, 8), np.float32)}


ROWS = (
    Row(
        name="halved",
        entry=halved,
        reference=lambda x: x / 2,
        summary="Half of a tile",
        maths="x / 2",
        options={"x": "[P, F]"},
        limits=(),
        examples=(Example(name="small", inputs=_ones),),
        tolerance=Tolerance(reason="exact"),
        page="nki/library/api/halved",
    ),
)
'''


def test_a_library_kernel_is_a_folder_with_a_row(tmp_path):
    script = """
from typer.testing import CliRunner
from nki_cli.main import app

assert "halved" in CliRunner().invoke(app, ["lib"]).stdout
found = CliRunner().invoke(app, ["lib", "halved"])
print(found.exit_code, found.stderr, end="")
"""
    files = {"core/halved/__init__.py": "", "core/halved/registry_row.py": NEW_ROW}
    assert run_with(tmp_path, nkilib, files, script) == "0 "
