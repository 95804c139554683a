"""The checks before specialization: every finding with its words and place, and none on correct kernels."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

import nki
from nki.compiler.checker.check import check, check_file, require
from nki_isa.diagnostics import Diagnostic, NkiError, Severity, Span

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

HEAD = """\
import math
from dataclasses import dataclass
from enum import Enum

import nki
import nki.isa as nisa
import nki.language as nl
import numpy as np

"""

# name -> the text after HEAD; the kernel is `kernel` unless the text says otherwise.
WRONG: dict[str, str] = {
    "constructs": """
@nki.jit
def kernel(a):
    try:
        x = [i for i in range(4)]
    except ValueError:
        x = {1, 2}
    global y
    return lambda z: z
""",
    "several_files_of_reach": """
def inner(x):
    raise ValueError(x)

def middle(x):
    inner(x)

@nki.jit
def kernel(a):
    middle(a)
""",
    "unknown_name": """
@nki.jit
def kernel(tile, a):
    nisa.dma_copy(dst=tlie, src=a)
    frobnicate(a)
""",
    "unknown_builtin": """
@nki.jit
def kernel(a):
    open("x")
    eval("a")
    for i, x in enumerate(a):
        pass
""",
    "unknown_attribute": """
@nki.jit
def kernel(a):
    t = nl.ndarray((128, 4), nl.flaot32, nl.sbuf)
    nisa.tensor_cpy(dst=t, src=a)
    nisa.dma_copy(dst=t, src=a, dge_mode=nisa.dge_mode.hw)
    return math.ciel(2.5) + nl.tile_size.pmx + np.infinity_
""",
    "instruction_arguments": """
@nki.jit
def kernel(a, b, t):
    nisa.tensor_tensor(dst=t, data1=a, data3=b, op=nl.add)
    nisa.tensor_copy(t)
    nisa.nc_matmul(stationary=a, moving=b)
    nisa.tensor_copy(t, a, dst=t)
    nisa.register_load(1, 2, 3, 4, 5, 6)
""",
    "language_arguments": """
@nki.jit
def kernel(a):
    t = nl.ndarray((128, 4), nl.float32, memory=nl.sbuf)
    u = nl.ndarray()
    return nl.ds(0)
""",
    "user_arguments": """
def scale(x, factor=1.0):
    return x

class Plain(nl.NKIObject):
    width: int
    depth: int = 2

    def grow(self, by):
        self.shrink(by, 1)

    def shrink(self, by):
        self.width = self.width - by

class Written(nl.NKIObject):
    def __init__(self, width):
        self.width = width

@dataclass
class Data(nl.NKIObject):
    width: int

@nki.jit
def kernel(a):
    scale()
    scale(a, factr=2)
    scale(a, 1, 2)
    plain = Plain(1, 2, 3)
    plain.grow(1)
    Written()
    Data(width=1, height=2)
""",
    "beta1_names": """
@nki.jit
def kernel(a):
    i = nl.arange(128)
    g = nl.mgrid[0:128, 0:4]
    t = nl.ndarray((8, nl.par_dim(128), 4), nl.float32, nl.sbuf)
    nl.atomic_rmw(a, t, nl.add)
    nisa.tensor_copy_dynamic_src(a)
""",
    "beta1_results": """
@nki.jit
def kernel(a, result):
    result[...] = nisa.reciprocal(a)
    x = nisa.activation(nl.exp, a)
    y = nisa.activation(dst=result, op=nl.exp, data=a)
    nisa.tensor_copy(dst=result, src=y)
    nisa.tensor_copy(dst=result, src=nisa.nc_transpose(a))
    print(nisa.memset(result, 0.0).shape)
""",
    "beta1_keywords": """
@nki.jit
def kernel(a, t):
    nisa.tensor_copy(dst=t, src=a, mask=a, dtype=nl.float32)
    nisa.dma_copy(dst=t, src=a, dst_rmw_op=nl.add)
""",
    "beta1_namespace": """
import neuronxcc.nki.language as old

@nki.jit
def kernel(a):
    old.store(a, old.load(a))
""",
    "places": """
@nki.jit
def kernel(a):
    if a:
        break
    for i in range(3):
        def body(j):
            continue
""",
    "stray_return": """
@nki.jit
def kernel(a):
    x = 1
return x
""",
    "unassigned": """
@nki.jit
def kernel(a):
    total = total + 1
    for i in range(4):
        acc = acc + i
    if a:
        b = 1
    c = b
    print(late)
    late = 2
""",
    "syntax_inside_and_outside": """
def not_reached(x):
    return x +

@nki.jit
def kernel(a):
    x = (a
    return y
""",
    "user_module_and_class": """
class Config:
    width = 4

@nki.jit
def kernel(a, c: Config):
    return Config().width
""",
    "kernel_handed_to_jit": """
def kernel(a):
    del a

run = nki.jit(kernel)
""",
    "keyword_only": """
def helper(x, *rest, y=1, **more):
    return x

@nki.jit
def kernel(a, *, flag=True):
    helper(*a, **a)
""",
}

RIGHT: dict[str, str] = {
    "add": """
@nki.jit
def kernel(a, b):
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    x = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
    y = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=x, src=a)
    nisa.dma_copy(dst=y, src=b)
    nisa.tensor_tensor(dst=x, data1=x, data2=y, op=nl.add)
    nisa.dma_copy(dst=out, src=x)
    return out
""",
    "loops_and_registers": """
@nki.jit
def kernel(a, count):
    t = nl.ndarray((128, 4), nl.float32, nl.sbuf)
    reg = nisa.register_alloc(0)
    nisa.register_load(reg, count)
    def body(i):
        nisa.dma_copy(dst=t, src=a)
    nl.fori_loop(0, reg, body)
    with nl.no_reorder():
        nisa.memset(t, 0.0)
    while reg:
        nisa.register_load(reg, count)
""",
    "classes": """
class Mode(Enum):
    fast = 1
    slow = 2

@dataclass
class Config(nl.NKIObject):
    width: int
    mode: Mode = Mode.fast

    def __post_init__(self):
        self.half = self.width // 2

    @staticmethod
    def default(width):
        return Config(width=width)

@nki.jit
def kernel(a):
    config = Config.default(4)
    other = Config(8, mode=Mode.slow)
    if config.mode == Mode.fast and other.half is not None:
        print(config.mode.name)
    values = {"a": 1}
    values["b"] = config.width if config.half > 1 else 2
    return values.get("b")
""",
    "functions_as_values": """
def relu(dst, src):
    nisa.activation(dst=dst, data=src, op=nl.relu)

def select(name):
    if name == "relu":
        return relu
    return None

TABLE = {"relu": relu}

@nki.jit
def kernel(a, b):
    chosen = select("relu")
    chosen(dst=a, src=b)
    TABLE["relu"](a, b)
""",
    "assigned_on_some_paths": """
@nki.jit
def kernel(a, n):
    for i in range(4):
        if i == 0:
            x = 1
        else:
            x = x + last
        last = x
    first, (second, third) = 1, (2, 3)
    if n > 1:
        y = 2
    while n:
        n -= 1
        if n == 1:
            continue
        y = n
        break
    return x + y + first + third
""",
    "handles_of_instructions": """
@nki.jit
def kernel(a, t, flag):
    first = nisa.dma_copy(dst=t, src=a)
    handles = [first]
    handles.append(nisa.memset(t, 0.0))
    table = {"a": None}
    table["a"] = nisa.memset(dst=t, value=0.0)
    nisa.memset(t, 0.0) if flag else nisa.memset(t, 1.0)
    second = nisa.memset(t, 0.0)
    second.depends_on(first)
    return handles
""",
    "decorators_of_all_spellings": """
from nki import jit

@nki.jit(mode="trace")
def helper(a):
    return a

@jit
def kernel(a):
    return helper(a)
""",
    "annotations_are_not_evaluated": """
@nki.jit
def kernel(a: "unknown.tensor", b: "what", c: int | None = None) -> "nothing":
    x: also_unknown = 1
    return x
""",
    "host_code_beside_kernels": """
def host(*args, **kwargs):
    try:
        return [x for x in args if x]
    finally:
        with open("f"):
            pass

@nki.jit
def kernel(a):
    return a

if __name__ == "__main__":
    undefined_in_main(host(kernel))
""",
}

_counter = itertools.count()


def load(tmp_path: Path, text: str) -> ModuleType:
    """The text as an imported module of a name of its own."""
    name = f"checked_{next(_counter)}"
    path = tmp_path / f"{name}.py"
    path.write_text(HEAD + text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shown(found: list[Diagnostic], path: Path) -> str:
    """Everything a diagnostic says, without the directory."""

    def place(span: Span | None) -> str:
        return f"{span.line}:{span.column}-{span.end_line}:{span.end_column}" if span else "-"

    lines = []
    for d in found:
        lines.append(f"{place(d.span)} {d.severity.value}[{d.code}] {d.message}")
        lines += [f"    help: {d.help}"] if d.help else []
        lines += [f"    note: {note}" for note in d.notes]
        lines += [f"    {place(label.span)}: {label.message}" for label in d.labels]
        if len(d.stack) > 1:
            lines.append("    in " + " > ".join(f"{f.function} {place(f.span)}" for f in d.stack))
    return "\n".join(lines).replace(str(path), "kernel.py")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kernels(name: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(HEAD + WRONG[name])
    found = check_file(str(path))
    assert any(d.severity is Severity.error for d in found)
    assert all(d.help for d in found)
    assert shown(found, path) == snapshot


_NOT_IMPORTABLE = ("beta1_namespace", "places", "stray_return", "syntax_inside_and_outside", "constructs")


@pytest.mark.parametrize("name", [name for name in WRONG if name not in _NOT_IMPORTABLE])
def test_a_running_program_gets_the_same_findings_as_its_text(name: str, tmp_path: Path) -> None:
    module = load(tmp_path, WRONG[name])
    path = Path(str(module.__file__))
    live, text = check(module.kernel), check_file(str(path))
    assert shown(live, path) == shown(text, path)
    if {d.code for d in live} <= {"NKI-L010", "NKI-L011", "NKI-L012"}:  # errors where they are reached
        assert require(module.kernel).found == live
        return
    with pytest.raises(NkiError) as caught:
        require(module.kernel)
    assert list(caught.value.diagnostics) == live


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("profile", ["library", "strict"])
def test_correct_kernels_give_no_findings(name: str, profile: str, tmp_path: Path) -> None:
    module = load(tmp_path, RIGHT[name])
    path = Path(str(module.__file__))
    assert [str(d) for d in check_file(str(path), profile)] == []
    assert [str(d) for d in check(module.kernel, profile)] == []
    assert require(module.kernel, profile).found == []


def test_profiles_differ_where_the_table_says(tmp_path: Path) -> None:
    module = load(tmp_path, "\n@nki.jit\ndef kernel(a):\n    return hash(1), sum((1, 2))\n")
    assert [(d.code, d.severity.value) for d in check(module.kernel)] == [("NKI-L005", "warning")]
    assert [(d.code, d.severity.value) for d in check(module.kernel, "strict")] == [("NKI-L005", "error")] * 2
    assert [d.severity for d in require(module.kernel).found] == [Severity.warning]


def test_unknown_profile() -> None:
    with pytest.raises(NkiError, match="no language profile 'strickt'"):
        check(lambda: None, "strickt")


def test_what_is_no_function(tmp_path: Path) -> None:
    with pytest.raises(NkiError, match="NKI-L023"):
        check(3)
    with pytest.raises(NkiError, match="NKI-L026"):
        check_file(str(tmp_path / "none.py"))


def test_a_plain_function_is_checked_as_a_kernel(tmp_path: Path) -> None:
    module = load(tmp_path, "\ndef plain(a):\n    return nowhere\n")
    assert [d.code for d in check(module.plain)] == ["NKI-L010"]


def test_functions_without_source_are_named() -> None:
    namespace: dict[str, object] = {}
    exec(compile("def made(a):\n    return a\n", "<made up>", "exec"), namespace)
    assert [d.code for d in check(namespace["made"])] == ["NKI-L013"]


def test_lambdas_that_a_kernel_reaches_are_named(tmp_path: Path) -> None:
    module = load(tmp_path, "\nshift = lambda x: x + 1\n\n@nki.jit\ndef kernel(a):\n    return shift(1)\n")
    (found,) = check(module.kernel)
    assert found.code == "NKI-L013" and found.stack[0].function == "kernel"


def test_captured_functions_are_reached(tmp_path: Path) -> None:
    text = """
def make(step):
    @nki.jit
    def kernel(a):
        return step(a)
    return kernel

def good(x):
    return x

def bad(x):
    del x

right, wrong = make(good), make(bad)
"""
    module = load(tmp_path, text)
    assert require(module.right).found == []
    assert [d.code for d in check(module.wrong)] == ["NKI-L005"]
    with pytest.raises(NkiError):
        require(module.wrong)
    assert require(module.right).found == []


def test_only_methods_that_are_used_are_reached(tmp_path: Path) -> None:
    text = """
class Both(nl.NKIObject):
    def on_host(self):
        with open("f") as f:
            return f

    def in_kernel(self):
        return 1

@nki.jit
def kernel(a):
    return Both().in_kernel()
"""
    module = load(tmp_path, text)
    assert check(module.kernel) == []
    assert check_file(str(module.__file__)) == []


def test_other_files_are_found_through_imports(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import helper\n")
    (package / "inner.py").write_text("from . import deep\n\ndef helper(x):\n    return deep.last(x)\n")
    (package / "deep.py").write_text("def last(x):\n    yield x\n\ndef broken(x y):\n    pass\n")
    (tmp_path / "main.py").write_text(
        "import nki\nimport package\nfrom package.inner import helpr\n\n@nki.jit\ndef kernel(a):\n"
        "    package.helper(a)\n    package.helpr(a)\n    helpr(a)\n\nraise SystemExit('was run')\n"
    )
    found = check_file(str(tmp_path / "main.py"))
    assert [(d.code, Path(d.span.file).name, d.span.line) for d in found if d.span] == [
        ("NKI-L010", "main.py", 8),
        ("NKI-L010", "main.py", 9),
        ("NKI-L005", "deep.py", 2),
    ]
    assert [f.function for f in found[-1].stack] == ["kernel", "helper", "last"]


def test_findings_of_shared_helpers_are_told_once(tmp_path: Path) -> None:
    kernels = "".join(f"@nki.jit\ndef {name}(a):\n    helper(a)\n\n" for name in ("one", "two"))
    text = f"\ndef helper(x):\n    del x\n\n{kernels}"
    module = load(tmp_path, text)
    assert [d.code for d in check_file(str(module.__file__))] == ["NKI-L005"]


def test_require_remembers_until_something_reached_changes(tmp_path: Path) -> None:
    text = "\ndef helper(x):\n    return x\n\n@nki.jit\ndef kernel(a):\n    return helper(a)\n"
    module = load(tmp_path, text)
    other = load(tmp_path, "\ndef helper(x):\n    del x\n")
    require(module.kernel)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        require(module.kernel)
        times.append(time.perf_counter() - start)
    assert min(times) < 20e-6
    module.helper = other.helper
    with pytest.raises(NkiError):
        require(module.kernel)


def test_checking_is_deterministic(tmp_path: Path) -> None:
    module = load(tmp_path, WRONG["user_arguments"])
    first = [str(d) for d in check(module.kernel)]
    assert first == [str(d) for d in check(nki.jit(module.kernel.function))]


MISFITS = """

def pair(a, b):
    return a

@nki.jit
def kernel(x, how="well"):
    if how == "function":
        pair(1)
    if how == "instruction":
        nisa.memset(x)
    return x
"""


def test_a_call_that_does_not_fit_is_an_error_where_it_is_reached(tmp_path: Path) -> None:
    """The vendor's compiler evaluates the branches taken; its kernel library of 2.28 has such a call."""
    kernel, x = load(tmp_path, MISFITS).kernel, np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(kernel(x), x)
    for how in ("function", "instruction"):
        with pytest.raises(NkiError) as caught:
            kernel(x, how)
        assert [d.code for d in caught.value.diagnostics] == ["NKI-L012"] * 2
    with pytest.raises(NkiError):
        require(kernel, "strict")


def test_a_function_that_fills_a_table_of_the_file_has_run_on_the_host(tmp_path: Path) -> None:
    """Only what such a table holds can be reached: objects of a class, functions handed on."""
    text = """
def powers(count):
    return [2**i for i in range(count)]

def scaled(t):
    return [t for _ in range(2)]

def chosen(by):
    return by

POWERS = powers(4)
TABLE = chosen(scaled)

@nki.jit
def kernel(a):
    return POWERS[2]

@nki.jit
def through_table(a):
    return TABLE(a)
"""
    module = load(tmp_path, text)
    assert check(module.kernel) == []
    (found,) = check_file(str(module.__file__))
    assert found.code == "NKI-L005" and found.stack[0].function == "through_table"


MISSING = """
@nki.jit
def kernel(x, how=False):
    if how:
        return nl.no_such_name(x)
    return x
"""


def test_a_name_that_nki_lacks_is_an_error_where_it_is_reached(tmp_path: Path) -> None:
    """Public kernels have such names in branches for dtypes they never met."""
    kernel, x = load(tmp_path, MISSING).kernel, np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(kernel(x), x)
    with pytest.raises(NkiError) as caught:
        kernel(x, True)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L011"]
    with pytest.raises(NkiError):
        require(kernel, "strict")
