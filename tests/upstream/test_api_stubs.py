"""The vendor's API stubs, from a checkout of its SDK repository: our lists of names, and their examples.

    NKI_SDK=/path/to/aws-neuron-sdk make test-upstream

The stubs are read as text; nothing of them is kept. Without a checkout these tests say so and are skipped.
"""

import ast
import os
import re
import runpy
import textwrap
from pathlib import Path

import numpy as np
import pytest

from nki import runtime
from nki_isa.machine.targets import as_target

SDK = os.environ.get("NKI_SDK")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not SDK, reason="set NKI_SDK to a checkout of aws-neuron-sdk"),
]

OURS = runpy.run_path(str(Path(__file__).parents[1] / "frontend" / "api_names.py"))


def stub(module):
    """The statements of a module's stub; none without a checkout."""
    path = Path(SDK or "") / "nki" / "api" / "nki" / module / "__init__.py"
    return ast.parse(path.read_text()).body if SDK else []


def parameters(function):
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    defaults = [ast.unparse(value).replace(" ", "") for value in function.args.defaults]
    first = len(names) - len(defaults)
    return [n if i < first else f"{n}={defaults[i - first]}" for i, n in enumerate(names)]


@pytest.mark.parametrize("module", ["language", "isa", "collectives"])
def test_our_list_is_that_of_the_stubs(module):
    body, prefix = stub(module), module.upper()
    functions = {f.name: parameters(f) for f in body if isinstance(f, ast.FunctionDef)}
    ours = OURS[f"{prefix}_FUNCTIONS"]
    assert {name: row.split() for name, row in ours.items()} == functions
    targets = [t for s in body if isinstance(s, ast.Assign) for t in s.targets]
    targets += [s.target for s in body if isinstance(s, ast.AnnAssign)]
    values = {t.id for t in targets if isinstance(t, ast.Name)} - {"DType"}
    assert set(OURS.get(f"{prefix}_VALUES", ())) - {"DType"} == values
    for cls in (s for s in body if isinstance(s, ast.ClassDef)):
        methods = {s.name for s in cls.body if isinstance(s, ast.FunctionDef) and s.name[:2] != "__"}
        fields = {s.target.id for s in cls.body if isinstance(s, ast.AnnAssign)}
        fields |= {t.id for s in cls.body if isinstance(s, ast.Assign) for t in s.targets}
        assert set(OURS[f"{prefix}_CLASSES"][cls.name].split()) == methods | fields, cls.name


def examples():
    """(function, code) of each example that makes its own tiles and asserts that two are equal."""
    found = []
    for function in (s for s in stub("language") if isinstance(s, ast.FunctionDef)):
        for block in re.split(r"\.\. code-block:: python\n", ast.get_docstring(function) or "")[1:]:
            lines = [line for line in block.splitlines() if "import nki" not in line]
            end = next((i for i, line in enumerate(lines) if line and line[0] != " "), len(lines))
            code = textwrap.dedent("\n".join(lines[:end])).strip("\n")
            if "assert nl.equal" in code and "_tensor" not in code:
                found.append((function.name, code))
    return found


KERNEL = """
import nki
import nki.isa as nisa
import nki.language as nl

def stored(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out

@nki.jit
def kernel():
    pairs = []
{body}
    return pairs
"""


@pytest.mark.parametrize("number, name", [(i, name) for i, (name, _) in enumerate(examples())])
def test_examples_of_the_stubs_run_unchanged_but_for_the_assert(number, name, tmp_path):
    code = examples()[number][1]
    body = re.sub(r"assert nl\.equal\((\w+), (\w+)\)", r"pairs.append((stored(\1), stored(\2)))", code)
    path = tmp_path / f"{name}.py"
    text = KERNEL.format(body=textwrap.indent(body, "    "))
    path.write_text(text)
    names = {"__name__": name, "__file__": str(path)}
    exec(compile(text, str(path), "exec"), names)
    with runtime.session(target=as_target("trn3" if name.startswith("abs_m") else "trn2")):
        pairs = names["kernel"]()
    assert pairs
    for result, expected in pairs:
        np.testing.assert_array_equal(result.astype(np.float64), expected.astype(np.float64))


def test_there_are_examples():
    assert len(examples()) > 25
