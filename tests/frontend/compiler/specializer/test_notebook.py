"""Kernels in the cells of a notebook: a real one, run by a real kernel process."""

from __future__ import annotations

import os
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = [
    "import numpy as np\nimport nki\nimport nki.isa as nisa\nimport nki.language as nl\nFACTOR = 2.0",
    "def scaled(dst, src):\n    nisa.tensor_scalar(dst=dst, data=src, op0=nl.multiply, operand0=FACTOR)",
    """@nki.jit
def kernel(x):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    scaled(tile, tile)
    nisa.dma_copy(dst=out, src=tile)
    return out""",
    "print(kernel(np.ones((1, 2), np.float32)))",
    "FACTOR = 5.0",
    "print(kernel(np.ones((1, 2), np.float32)))",
    """FACTOR = 2.0
def scaled(dst, src):
    nisa.tensor_scalar(dst=dst, data=src, op0=nl.add, operand0=FACTOR)""",
    "print(kernel(np.ones((1, 2), np.float32)))",
    """from nki_isa.diagnostics import NkiError

@nki.jit
def broken(x):
    assert x.shape[0] == 128, "one hundred and twenty-eight"

try:
    broken(np.ones((1, 2), np.float32))
except NkiError as refused:
    found = refused.diagnostics[0]
    print(found.code, found.message, found.span.line, found.stack[-1].function)""",
    """@nki.jit
def generator(x):
    with open("f"):
        pass

generator(np.ones((1, 2), np.float32))""",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each cell printed, or the error it ended with."""
    folder = tmp_path_factory.mktemp("notebook")
    environment = {
        **os.environ,
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    roots = [os.path.abspath(root) for root in os.environ.get("PYTHONPATH", "").split(os.pathsep) if root]
    environment["PYTHONPATH"] = os.pathsep.join(roots)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    return [_text(cell) for cell in notebook.cells]


def _text(cell: Any) -> str:
    found = []
    for output in cell.outputs:
        if output.output_type == "error":
            found.append("\n".join([f"{output.ename}: {output.evalue}", *output.traceback]))
        else:
            found.append(output.get("text", ""))
    return "".join(found)


def test_cells_run(outputs: list[str]) -> None:
    assert outputs[:4] == ["", "", "", "[[2. 2.]]\n"]


def test_a_value_changed_by_a_later_cell_is_never_overlooked(outputs: list[str]) -> None:
    assert outputs[5] == "[[5. 5.]]\n" or "NKI-L054" in outputs[5]


def test_a_kernel_calls_what_a_later_cell_defined(outputs: list[str]) -> None:
    assert outputs[7] == "[[3. 3.]]\n"


def test_errors_tell_the_line_of_the_cell(outputs: list[str]) -> None:
    assert outputs[8] == "NKI-L020 one hundred and twenty-eight 5 broken\n"


def test_refusals_reach_the_cell(outputs: list[str]) -> None:
    assert "NKI-L021" in outputs[9] and "FileNotFoundError" in outputs[9]
