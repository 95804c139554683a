"""A static check, and the language server, read texts; nothing that a text names is imported or run."""

import builtins
import os
import subprocess
import sys

import pytest
from watching import watched

from nki.compiler.checker import scope
from nki.compiler.checker.check import check_file, check_text

NAMES = sorted(name for name in sys.stdlib_module_names if name.isidentifier())
MODULES = [
    *NAMES,
    *(f"{name}.__main__" for name in NAMES),
    *(
        "numpy.f2py.__main__",
        "numpy.testing",
        "numpy.distutils",
        "ml_dtypes.nothing",
        "xml.etree.ElementTree",
    ),
    *(
        "nki.launch.torch_operator",
        "nki.launch.jax_callback",
        "nki.nothing",
        "nki.compiler.syntax.parser",
        "nki_sim.report.html",
    ),
    *("pip.__main__", "idlelib.idle", "nki_cli.main", "nowhere.at.all"),
]
WATCHED = "import watching, sys; watching.into(sys.argv.pop(1)); from nki_cli.main import app; app()"
KERNEL = """

import nki
import nki.language as nl


@nki.jit
def k(x):
{body}
    return x
"""


@pytest.fixture(autouse=True, scope="module")
def tables():
    """The parser's own tables are made, from the grammar."""
    check_text("import nki\n", "first.py")


def hostile(form):
    """A text with all modules, imported in one way, and used in a kernel."""
    names = [f"m{i}" for i in range(len(MODULES))]
    lines = "".join(form(module, name) + "\n" for module, name in zip(MODULES, names))
    body = "\n".join(f"    {name}.path(x)\n    v{name} = {name}.main.start" for name in names)
    return lines + KERNEL.format(body=body)


FORMS = {
    "as": lambda module, name: f"import {module} as {name}",
    "from": lambda module, name: (
        f"from {module.rpartition('.')[0] or module} import {module.rpartition('.')[2]} as {name}"
    ),
    "star": lambda module, name: f"from {module} import *\nimport {module} as {name}",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", ["strict", "library"])
def test_nothing_a_text_names_is_imported(form, profile, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    text = hostile(FORMS[form])
    before = set(sys.modules)
    with watched() as events:
        check_text(text, str(tmp_path / "hostile.py"), profile)
    assert events == []
    assert set(sys.modules) == before
    assert capfd.readouterr() == ("", "")


def test_files_beside_it_are_read_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    touch = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    package = tmp_path / "package"
    package.mkdir()
    for path in (package / "__init__.py", package / "inner.py", tmp_path / "beside.py"):
        path.write_text(f"{touch}\ndef helper(x):\n    return x\n")
    (tmp_path / "sitecustomize.py").write_text(touch)
    file = tmp_path / "kernel.py"
    imports = (
        "import beside\nfrom package import inner\nfrom package.inner import *\nfrom . import beside as b\n"
    )
    file.write_text(touch + imports + KERNEL.format(body="    beside.helper(inner.helper(x))\n    helper(x)"))
    with watched() as events:
        assert check_file(str(file), "library") == []
    assert not ran.exists()
    assert not [e for e in events if str(tmp_path / "ran") in str(e) or e[0] in ("import", "exec")]


@pytest.mark.parametrize(
    "written, near",
    [
        ("math.sqroot", "sqrt"),
        ("np.linalgg", "linalg"),
        ("collections.orderedDict", "OrderedDict"),
        ("nl.floar32", "float32"),
    ],
)
def test_misspelt_names_of_known_modules_are_still_told(written, near, tmp_path):
    text = f"import collections\nimport math\nimport numpy as np\n{KERNEL.format(body=f'    y = {written}')}"
    found = [
        d for d in check_text(text, str(tmp_path / "k.py"), "library") if d.code in ("NKI-L010", "NKI-L011")
    ]
    assert len(found) == 1 and near in found[0].help


@pytest.mark.parametrize("written", ["np.f2py", "np.testing", "np.linalg", "asyncio.run", "turtle.anything"])
def test_names_that_are_not_known_for_certain_are_not_refused(written, tmp_path):
    text = f"import asyncio\nimport turtle\nimport numpy as np\n{KERNEL.format(body=f'    y = {written}')}"
    assert not [d for d in check_text(text, str(tmp_path / "k.py"), "library") if d.code == "NKI-L010"]


@pytest.mark.parametrize(
    "classes",
    [
        "class A(A): pass\n",
        "class A(B): pass\nclass B(A): pass\n",
        "class A(B, B): pass\nclass B(C, A): pass\nclass C(B): pass\n",
    ],
)
def test_a_class_may_inherit_from_itself(classes, tmp_path):
    text = classes + KERNEL.format(body="    A().f()\n    y = A.g")
    assert {d.code for d in check_text(text, str(tmp_path / "k.py"))} <= {"NKI-L005", "NKI-L057"}


def test_methods_of_bases_are_found_in_order(tmp_path):
    text = "import base\n\n\nclass A:\n    def f(self): pass\n\n\nclass B(A, base.Unknown): pass\n"
    names = scope.text_scope(tmp_path / "k.py", text)
    assert names.get("B").member("f").qualname == "A.f"
    assert names.get("B").member("g") is scope.Unresolved.unknown
    assert names.get("A").member("g") is scope.Unresolved.missing


def test_the_command_imports_nothing(tmp_path):
    """In a process of its own: its standard output has the report alone."""
    file = tmp_path / "hostile.py"
    file.write_text(hostile(FORMS["as"]))
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(log), "check", "--static", str(file)],
        env={**environment(), "PYTHONPATH": __file__.rpartition("/")[0]},
        capture_output=True,
        text=True,
    )
    assert "Beautiful is better" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("hostile.py"), done.stderr
    assert not {name for kind, name in told_in(log) if kind == "import"} & HARMFUL


CODE = {"import", "compile", "exec", "marshal.loads", "ctypes.dlopen"}
HARMFUL = {"this", "antigravity", "venv", "venv.__main__", "turtle", "tkinter", "idlelib", "test", "pip"}


def told_in(log):
    """The events of a log: their kinds, and what each is about."""
    lines = log.read_text().splitlines()
    return {(kind, about.strip("'")) for kind, _, about in (line.partition(" ") for line in lines)}


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("NKI_", "PYTEST_"))}


def test_the_server_runs_nothing(tmp_path, monkeypatch):
    """Through the protocol: a hostile text is opened, changed, asked about and closed."""
    lsp = pytest.importorskip("lsp_editor", reason="needs pygls")
    log = tmp_path / "log"
    monkeypatch.setenv("PYTHONPATH", __file__.rpartition("/")[0])
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    editor = lsp.Editor(command=WATCHED, first=(str(log),))
    try:
        path = tmp_path / "kernel.py"
        editor.open(path, KERNEL.format(body="    y = nl.float32"))
        files = sorted(p for p in tmp_path.rglob("*") if p != log)
        for version, form in enumerate(FORMS.values(), 2):
            editor.write(path, hostile(form), version=version)
            editor.hover(path, 3, 8)
        editor.shut(path)
        assert sorted(p for p in tmp_path.rglob("*") if p != log) == files
        told = told_in(log)
        assert {kind for kind, _ in told} <= CODE  # the protocol's own
        assert not {name for kind, name in told if kind == "import"} & HARMFUL
    finally:
        editor.close()


def test_builtins_are_looked_up_and_not_called(tmp_path):
    """Every built-in, called by a kernel with everything that could hurt."""
    body = "\n".join(
        f"    {name}('import os; os.mkdir(\"ran\")')" for name in dir(builtins) if name.islower()
    )
    with watched() as events:
        check_text(KERNEL.format(body=body), str(tmp_path / "k.py"), "library")
    assert events == []
