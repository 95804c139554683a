"""Files of Beta 1: one list of what to write instead, whatever the command and the imports."""

import re
import subprocess
import sys

import pytest

IMPORTS = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\nimport numpy as np\n"
BODY = """

@nki.jit
def k(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    ip, jf = nl.mgrid[0:128, 0:64]
    t = nl.load(x[ip, jf], mask=(ip < x.shape[0]))
    u = nl.add(t, nl.exp(t, mask=None), mask=None)
    tt = nisa.nc_transpose(t)
    nl.store(out[ip, jf], value=nisa.nc_transpose(tt))
    return out


k(np.ones((100, 64), np.float32))
"""
OLD = IMPORTS.replace("import nki", "import neuronxcc.nki").replace(".nki\n", ".nki as nki\n")
COPY = """
{decorator}
def copy(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.load(x, mask=None)
    nisa.dma_copy(dst=out, src=x)
    return out


{call}
"""
CALL = "copy(np.ones((4, 8), np.float32))"
RUNNING = ("run", "profile", "sbuf", "ir")


def errors(shown, *, imports=False):
    """Code and message of each error of a JSON object, those about the imports only if asked for."""
    found = [(d["code"], d["message"]) for d in shown.json["diagnostics"] if d["severity"] == "error"]
    return [row for row in found if imports or "namespace" not in row[1]]


@pytest.fixture
def script(tmp_path):
    def write(text):
        (tmp_path / "kernel.py").write_text(text)
        return str(tmp_path / "kernel.py")

    return write


def test_the_body_is_checked_as_with_the_new_imports(nki_sim, script):
    new = errors(nki_sim("check", script(IMPORTS + BODY), "--format", "json"))
    old = nki_sim("check", script(OLD + BODY), "--format", "json")
    assert new == errors(old) and len(new) == 6
    assert len(errors(old, imports=True)) == len(new) + 3
    fixes = [d["fix"] for d in old.json["diagnostics"] if "namespace" in d["message"]]
    assert fixes == ["import nki as nki", *IMPORTS.splitlines()[1:3]]


@pytest.mark.parametrize("command", RUNNING)
def test_commands_that_run_say_the_same(nki_sim, script, command):
    path = script(OLD + BODY)
    shown = nki_sim(command, path, "--format", "json")
    assert shown.status == 1
    assert errors(shown, imports=True) == errors(nki_sim("check", path, "--format", "json"), imports=True)


@pytest.mark.parametrize("decorator", ["@nki.baremetal", "@nki.benchmark(warmup=2)", "@nki.profile()"])
@pytest.mark.parametrize("command", ["check", *RUNNING])
def test_decorators(nki_sim, script, decorator, command):
    """They make a kernel: what is wrong inside is told too."""
    path = script(IMPORTS + COPY.format(decorator=decorator, call=CALL))
    shown = nki_sim(command, path, "--format", "json")
    assert shown.status == 1
    name = re.match(r"@([\w.]+)", decorator)[1]
    assert [f"{name} was removed" in message for _, message in errors(shown)] == [True, False]
    assert {code for code, _ in errors(shown)} == {"NKI-L015"}
    right = script(IMPORTS + COPY.replace(", mask=None", "").format(decorator="@nki.jit", call=CALL))
    assert nki_sim(command, right).status == 0


@pytest.mark.parametrize("call", [f"nki.simulate_kernel(copy, {CALL[5:]}", f"nki.simulate(copy)({CALL[5:]}"])
def test_simulate_kernel(nki_sim, script, call):
    text = IMPORTS + COPY.replace(", mask=None", "").format(decorator="@nki.jit", call=call)
    shown = nki_sim("check", script(text), "--format", "json")
    assert [code for code, _ in errors(shown)] == ["NKI-L015"] * ("simulate_kernel" in call)


@pytest.mark.parametrize(
    "line, code, word",
    [
        ("from nki.language import mgrid", "NKI-L015", "write slices"),
        ("from nki import benchmark", "NKI-L015", "nki-sim profile"),
        ("from nki.isa import device_print", "NKI-L011", "nl.device_print"),
        ("from nkilib.core.none.such import kernel", "NKI-U011", "nkilib_src.nkilib.core.none"),
        ("nki.benchmark", "NKI-L015", "nki-sim profile"),
        ("import neuronxcc.nki as old", "NKI-L015", "import nki"),
    ],
)
def test_names_in_plain_python(script, line, code, word):
    path = script(f"import nki\n{line}\n")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error[{code}]" in done.stderr and word in done.stderr and "Traceback" not in done.stderr
    assert f"{path}:2:" in done.stderr


def test_hasattr_still_answers():
    import nki.isa
    import nki.language

    assert not hasattr(nki, "benchmark") and not hasattr(nki.language, "mgrid")
    assert getattr(nki.isa, "fp32", None) is None
