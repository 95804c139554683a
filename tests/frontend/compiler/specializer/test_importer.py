"""Kernels anywhere: what source a function is compiled from, and what if there is none."""

from __future__ import annotations

import doctest
import importlib
import linecache
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki.compiler.source.host_modules import is_host
from nki.compiler.source.source import comes_from
from nki.compiler.specializer.importer import ImportedModule, Importer
from nki.compiler.specializer.specialize import specialize_call
from nki_isa.diagnostics import Diagnostic, NkiError
from nki_isa.machine.targets import as_target

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

A = np.ones((2, 4), np.float32)
HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n"
BODY = """
def size():
    return 128


@nki.jit
def kernel(x):
    return [size(), x.shape[0]]
"""


def run(kernel: Any, *args: Any) -> Any:
    return specialize_call(nki.jit(kernel), args, {}, target=as_target("trn2")).result


def refused(kernel: Any, *args: Any) -> Diagnostic:
    with pytest.raises(NkiError) as found:
        run(kernel, *args)
    return found.value.diagnostics[0]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes a module and imports it; forgets it afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def make(name: str, text: str) -> ModuleType:
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- edited files


def test_a_kernel_means_what_it_meant_when_it_was_decorated(write: Any, tmp_path: Path) -> None:
    module = write("edited_later", HEAD + BODY)
    path = tmp_path / "edited_later.py"
    path.write_text("\n\n\n" + HEAD + BODY.replace("128", "256"))
    assert run(module.kernel, A) == [128, 2]
    path.unlink()
    assert run(module.kernel, A) == [128, 2]


def test_a_reloaded_module_means_what_it_says_now(write: Any, tmp_path: Path) -> None:
    module = write("reloaded", HEAD + BODY)
    assert run(module.kernel, A) == [128, 2]
    (tmp_path / "reloaded.py").write_text("\n\n\n" + HEAD + BODY.replace("128", "256"))
    importlib.invalidate_caches()
    assert run(importlib.reload(module).kernel, A) == [256, 2]


HELPER = "def value(x):\n    y = x + 1\n    return y\n"


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param("# a line\n" + HELPER, id="moved"),
        pytest.param(HELPER.replace("+ 1", "+ 100"), id="constant"),
        pytest.param(HELPER.replace("x + 1", "x + z"), id="name"),
        pytest.param(HELPER.replace("def value(x)", "def value(q)"), id="parameter"),
        pytest.param(HELPER.replace("    y = x + 1\n", ""), id="shorter"),
    ],
)
def test_a_helper_file_that_changed_before_it_was_read(write: Any, tmp_path: Path, edited: str) -> None:
    helper = write("helper_changes", HELPER)
    (tmp_path / "helper_changes.py").write_text(edited)

    def kernel(x):
        return helper.value(1)

    found = refused(kernel, A)
    assert found.code == "NKI-L013"
    assert "helper_changes.py" in found.message


def test_a_change_is_said(write: Any, tmp_path: Path) -> None:
    helper = write("helper_says", HELPER)
    (tmp_path / "helper_says.py").write_text(HELPER.replace("+ 1", "+ 100"))

    def kernel(x):
        return helper.value(1)

    found = refused(kernel, A)
    assert found.message == f"{tmp_path / 'helper_says.py'} has changed since value was defined"
    assert found.help == "run the file again, or reload its module with importlib.reload"


def test_unrelated_edits_do_not_matter(write: Any, tmp_path: Path) -> None:
    helper = write("helper_grows", HELPER)
    (tmp_path / "helper_grows.py").write_text(HELPER + "\ndef another():\n    return 5\n")

    def kernel(x):
        return helper.value(1)

    assert run(kernel, A) == 2


# --- no source


def test_text_given_to_exec_has_no_source() -> None:
    names: dict[str, Any] = {}
    exec(HEAD + BODY, names)
    found = refused(names["kernel"], A)
    # Newer hosts remember the text of `python -c`, under the same name; it is not this kernel's.
    assert found.code == "NKI-L013" and "<string>" in found.message and found.help


def test_a_helper_without_source() -> None:
    names: dict[str, Any] = {}
    exec("def helper(x):\n    return x", names)
    helper = names["helper"]

    def kernel(x):
        return helper(1)

    found = refused(kernel, A)
    assert found.code == "NKI-L013"


def test_code_made_by_exec_is_not_looked_for_in_the_text_of_a_command(monkeypatch: Any) -> None:
    """Both are called <string>; Python 3.13 keeps the text of -c under that name."""
    command = HEAD + "print('a command')\n"
    kept = (len(command), None, command.splitlines(True), "<string>")
    monkeypatch.setitem(linecache.cache, "<string>", kept)
    names: dict[str, Any] = {}
    exec(compile("def made(x):\n    return x\n", "<string>", "exec"), names)
    found = refused(names["made"], A)
    assert (found.code, found.message) == ("NKI-L013", "the source of '<string>' cannot be found")


def test_a_lambda_reached_by_name() -> None:
    square = lambda x: x * x  # noqa: E731

    def kernel(x):
        return square(3)

    assert refused(kernel, A).code == "NKI-L013"


@pytest.mark.parametrize(
    ("command", "stdin"),
    [(["-c", HEAD + BODY + "kernel(0)"], ""), (["-"], HEAD + BODY + "kernel(0)")],
    ids=["-c", "stdin"],
)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python keeps the text of -c and of typed-in lines")
def test_command_lines_have_no_source(command: list[str], stdin: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NKI_SIM_API": "0.6"},
    )
    assert done.returncode == 1 and "NKI-L013" in done.stderr


# --- where kernels stand


def test_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + BODY + "import numpy as np\nprint(kernel(np.ones((2, 4), np.float32)))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[128, 2]\n", 0), done.stderr


def test_a_module_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "kernels.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped_kernel.py", HEAD + BODY)
    monkeypatch.syspath_prepend(str(archive))
    module = importlib.import_module("zipped_kernel")
    assert run(module.kernel, A) == [128, 2]


def doctested() -> None:
    """
    >>> import nki, numpy as np
    >>> def half(n):
    ...     return n // 2
    >>> @nki.jit
    ... def kernel(x):
    ...     return [half(x.shape[1]), x.ndim]
    >>> kernel(np.ones((2, 8), np.float32))
    [4, 2]
    """


def test_a_doctest() -> None:
    examples = doctest.DocTestFinder().find(doctested, globs={})
    results = [doctest.DocTestRunner().run(example) for example in examples]
    assert [r.failed for r in results] == [0]


@pytest.mark.parametrize(
    "statement, use",
    [
        ("import pack", "pack.inner.deep.two()"),
        ("import pack.inner.deep", "pack.inner.deep.two()"),
        ("import pack.inner.deep as d", "d.two()"),
        ("from pack import inner", "inner.deep.two()"),
        ("from pack.inner import deep", "deep.two()"),
        ("from pack.inner.deep import two", "two()"),
        ("from pack.inner.deep import two as deux", "deux()"),
        ("from pack.inner.deep import *", "two()"),
        ("from pack import again", "again()"),
    ],
)
def test_spellings_of_import(write: Any, statement: str, use: str) -> None:
    write("pack.inner.deep", "ONE = 1\n\ndef two():\n    return ONE + one()\n\ndef one():\n    return 1\n")
    write("pack.inner.__init__", "from . import deep\n")
    write("pack.__init__", "from . import inner\nfrom .inner.deep import two as again\n")
    for name in [n for n in sys.modules if n.split(".")[0] == "pack"]:
        del sys.modules[name]
    module = write("imports_pack", f"{HEAD}{statement}\n\n@nki.jit\ndef kernel(x):\n    return {use}\n")
    assert run(module.kernel, A) == 2


def test_modules_that_import_each_other(write: Any, tmp_path: Path) -> None:
    (tmp_path / "ping.py").write_text(
        "import pong\n\ndef down(n):\n    return 0 if n == 0 else 1 + pong.down(n - 1)\n"
    )
    pong = write("pong", "import ping\n\ndef down(n):\n    return 0 if n == 0 else 10 + ping.down(n - 1)\n")

    def kernel(x):
        return pong.down(3)

    assert run(kernel, A) == 21


def test_two_files_with_the_same_text_stay_apart(write: Any) -> None:
    text = (
        HEAD
        + "import {0}_values as values\n\n@nki.jit\ndef kernel(x):\n    assert values.GOOD, values.NAME\n"
        "    return values.NAME\n"
    )
    results = []
    for name, good in (("left", True), ("right", False)):
        write(f"{name}_values", f"GOOD = {good}\nNAME = {name!r}\n")
        module = write(
            f"{name}_kernel", text.format(name).replace(f"import {name}_values", f"import {name}_values")
        )
        results.append(module.kernel)
    assert run(results[0], A) == "left"
    found = refused(results[1], A)
    assert found.span is not None and found.span.file.endswith("right_kernel.py") and found.message == "right"


def test_a_module_of_the_users_with_a_name_of_the_standard_library(write: Any) -> None:
    assert is_host("statistics")
    sys.modules.pop("statistics", None)
    module = write("statistics", "def size(x):\n    return x.shape[0] + [4][0]\n")
    assert not is_host("statistics")

    def kernel(x):
        return module.size(x)

    assert run(kernel, A) == 6


@pytest.mark.parametrize(
    ("module", "host"),
    [("math", True), ("os.path", True), ("numpy.linalg", True), ("nki.isa", True), ("nki_isa.tensor", True),
     ("nkilib.core", False), ("__main__", False), ("sibling", False), (None, True), ("sys", True)],
)  # fmt: skip
def test_host_modules(module: str | None, host: bool) -> None:
    assert is_host(module) is host


# --- what is brought in


def test_an_imported_module_cannot_be_assigned_to() -> None:
    import sibling

    module = Importer().bring(sibling)
    assert isinstance(module, ImportedModule)
    with pytest.raises(NkiError, match="sibling.SCALE was assigned in a kernel"):
        module.SCALE = 3
    assert sibling.SCALE == 0.5


def test_assigning_to_a_module_in_a_kernel() -> None:
    import sibling

    def kernel(x):
        sibling.SCALE = 3

    found = refused(kernel, A)
    assert (
        found.code == "NKI-L021"
        and found.help == "return the value, or pass an object in and set its attribute"
    )


def test_names_missing_in_an_imported_module() -> None:
    import sibling

    def kernel(x):
        return sibling.scale

    assert refused(kernel, A).code in ("NKI-L010", "NKI-L011", "NKI-L021")


def test_closures_that_are_empty_until_later() -> None:
    def kernel(x):
        return later(x)

    def later(x):
        return x.ndim

    assert run(kernel, A) == 2


def test_mutual_recursion_of_closures() -> None:
    def even(n):
        return True if n == 0 else odd(n - 1)

    def odd(n):
        return False if n == 0 else even(n - 1)

    def kernel(x):
        return [even(10), odd(7), even(3)]

    assert run(kernel, A) == [True, True, False]


def test_annotations_are_never_evaluated(write: Any) -> None:
    module = write(
        "annotated_kernels",
        """
        from __future__ import annotations
        import nki
        import nki.language as nl

        class Config(nl.NKIObject):
            size: Missing
            other: "AlsoMissing" = 3

        @nki.jit
        def kernel(x: Nowhere, n: Never = 2) -> Nothing:
            y: Unknown = x.ndim
            def inner(z: Unseen) -> None:
                return z
            c = Config(size=4)
            return [inner(y), n, c.size, c.other]
        """,
    )
    assert run(module.kernel, A) == [2, 2, 4, 3]
    assert repr(module.kernel).startswith("<nki kernel kernel(")


@pytest.mark.parametrize(
    "body",
    [
        "    return " + " + ".join(["x"] * 900),
        "    if x == 0:\n        y = 0\n"
        + "".join(f"    elif x == {i}:\n        y = {i}\n" for i in range(1, 400))
        + "    return 900 * y",
    ],
    ids=["sum", "elif"],
)
def test_long_expressions_and_chains(write: Any, body: str) -> None:
    module = write(f"long_{len(body)}", f"{HEAD}@nki.jit\ndef kernel(x):\n{body}\n")
    assert run(module.kernel, 1) == 900


def test_an_expression_too_deep_to_go_through(write: Any) -> None:
    module = write("too_long", f"{HEAD}@nki.jit\ndef kernel(x):\n    return {' + '.join(['x'] * 2000)}\n")
    try:
        result = module.kernel(1)
    except NkiError as found:
        assert [d.code for d in found.diagnostics] == ["NKI-L004"]
    else:
        assert result == 2000  # newer hosts have room for it


def test_a_class_inside_a_class_and_class_attributes() -> None:
    import metacode

    def kernel(point):
        return [point.moved(1).x, metacode.Point.origin().y, metacode.Mode.fast.value]

    assert run(kernel, metacode.Point(3)) == [4, 0, 1]


class Slots:
    __slots__ = ("x", "y")

    def __init__(self, x: int):
        self.x = x

    def grow(self):
        self.x += 1
        return self.x


def test_objects_with_slots_are_copied_like_others() -> None:
    import nki.compiler.specializer.specialize as module

    assert module is not None
    original = Slots(1)
    importer = Importer()
    copy = importer.bring(original)
    assert copy.grow() == 2 and original.x == 1 and not hasattr(copy, "y")


def test_names_and_documentation_stay() -> None:
    import metacode

    kernel = nki.jit(metacode.add)
    assert (kernel.__name__, kernel.__module__, kernel.__wrapped__) == ("add", "metacode", metacode.add)  # type: ignore[attr-defined]
    assert nki.jit(kernel) is kernel and nki.simulate(kernel).function is metacode.add


def test_specialize_takes_keywords_and_targets() -> None:
    def kernel(x, n=1):
        out = nl.ndarray((n, 1), nl.float32, buffer=nl.shared_hbm)
        return out

    assert specialize(kernel, A, n=7, target="gen4").outputs[0].shape == (7, 1)
    assert specialize(kernel, x=A).target == "trn2"


# --- assertions that pytest rewrites


@nki.jit
def asserting(x):
    assert x.shape[0] == 64 * 2, "a message in two pieces"
    assert x.shape[1] == -(-7 // 2), f"{x.shape}"
    assert (x.shape[0], 4) == (128, 4)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=nl.load(x))
    return out


def test_assertions_that_pytest_rewrites_are_those_of_the_text() -> None:
    """The module of this kernel is rewritten: constants that the text's code folds are apart in it."""
    assert any(name.startswith("@py_assert") for name in asserting.function.__code__.co_varnames)
    x = np.ones((128, 4), np.float32)
    np.testing.assert_array_equal(asserting(x), x)
    with pytest.raises(NkiError, match="NKI-L020.*a message in two pieces"):
        asserting(np.ones((64, 4), np.float32))


def test_what_stands_outside_of_rewritten_assertions_counts() -> None:
    """A text that uses a number its rewritten function lacks is another text."""
    rewritten = asserting.function.__code__
    other = compile("def asserting(x):\n    return x + 77777", "<other>", "exec").co_consts[0]
    assert not comes_from(other, lambda: other, rewritten)
