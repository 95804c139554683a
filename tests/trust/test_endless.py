"""Loops without end are told with their line; Ctrl-C says which line ran and leaves nothing behind."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

DATA = np.ones((4, 8), np.float32)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setenv("NKI_SIM_MAX_STEPS", "20_000")
    monkeypatch.setenv("NKI_SIM_MAX_TURNS", "2_000")


@nki.jit
def traced_loop(x, kind):
    if kind == "comprehension":
        return [n for n in itertools.repeat(1) if n > 1]
    if kind == "generator":
        return sum(n for n in itertools.repeat(0))
    if kind == "iterator":
        for n in itertools.count():
            if n < 0:
                break
    return x


@pytest.mark.api("0.7")
@pytest.mark.parametrize("kind, line", [("comprehension", 3), ("generator", 5), ("iterator", 7)])
def test_a_traced_loop_without_end_is_told_by_its_line(monkeypatch, kind, line):
    monkeypatch.setenv("NKI_SIM_MAX_SECONDS", "1")
    with pytest.raises(NkiError) as caught:
        traced_loop(DATA, kind)
    (found,) = [d for d in caught.value.diagnostics if d.code == "NKI-L035"]
    assert found.span.line - traced_loop.function.__code__.co_firstlineno in (line, line + 1)
    assert "NKI_SIM_MAX_SECONDS=2" in found.help


@nki.jit
def host_loop(x, kind):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    n = 0
    if kind == "true":
        while True:
            pass
    if kind == "one":
        while 1:
            n = n + 1
    if kind == "condition":
        while n < 10:
            n = n - 1
    if kind == "instructions":
        while n < 10:
            nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0=1.0)
    if kind == "growing":
        values = [1]
        for value in values:
            values.append(value)
    if kind == "long":
        for i in range(10**12):
            n = i
    if kind == "nested":
        for _ in range(1000):
            for _ in range(1000):
                n = n + 1
    if kind == "unrolled":
        for _ in range(10**9):
            nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0=1.0)
    if kind == "calls":
        n = doubling(60)
    if kind == "in a function":
        n = endless(3)
    nisa.dma_copy(dst=out, src=t)
    return out


def doubling(n):
    if n == 0:
        return 1
    return doubling(n - 1) + doubling(n - 1)


def endless(n):
    while n != 0:
        n = n + 1
    return n


@nki.jit
def device_loop(x, kind):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    going = nisa.register_alloc(1)
    if kind == "while":
        while going:
            nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)
    if kind == "range":
        for _ in nl.dynamic_range(10**9):
            nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)
    if kind == "nested":
        for _ in nl.dynamic_range(1000):
            for _ in nl.dynamic_range(1000):
                nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)
    if kind == "empty":
        while going:
            for _ in nl.dynamic_range(0):
                nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)
    if kind == "enough":
        for _ in nl.dynamic_range(40):
            for _ in nl.dynamic_range(40):
                nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=1.0)
    nisa.dma_copy(dst=out, src=t)
    return out


def refused(kernel, kind):
    with pytest.raises(NkiError) as found:
        kernel(DATA, kind)
    (diagnostic,) = found.value.diagnostics
    return diagnostic


KINDS = {
    "true": "while True:",
    "one": "while 1:",
    "condition": "while n < 10:",
    "instructions": "while n < 10:",
    "growing": "for value in values:",
    "long": "for i in range(10**12):",
    "nested": "for _ in range(1000):",
    "unrolled": "for _ in range(10**9):",
    "in a function": "while n != 0:",
}


def line(number):
    with open(__file__) as file:
        return file.read().splitlines()[number - 1].strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_loop_without_end_is_named(kind):
    found = refused(host_loop, kind)
    assert found.code == "NKI-L035" and "20,000 steps" in found.message
    assert "NKI_SIM_MAX_STEPS=40000" in found.help
    assert line(found.labels[0].span.line) == KINDS[kind]


def test_calls_are_steps_too():
    assert refused(host_loop, "calls").code == "NKI-L035"


@pytest.mark.parametrize("kind", ["while", "range", "nested", "empty"])
def test_a_device_loop_without_end_is_named(kind):
    found = refused(device_loop, kind)
    assert found.code == "NKI-H014" and "2,000 turns" in found.message
    assert "NKI_SIM_MAX_TURNS=4000" in found.help
    assert line(found.span.line).startswith(("while going:", "for _ in nl.dynamic_range("))


def test_what_the_help_says_is_enough(monkeypatch):
    assert np.array_equal(device_loop(DATA, "enough"), DATA)
    monkeypatch.setenv("NKI_SIM_MAX_TURNS", "1000")
    assert refused(device_loop, "enough").code == "NKI-H014"
    monkeypatch.setenv("NKI_SIM_MAX_TURNS", "2000")
    assert np.array_equal(device_loop(DATA, "enough"), DATA)


@pytest.mark.parametrize("setting", ["0", "-1", "many", "1.5", "²"])
def test_a_limit_is_a_positive_number(monkeypatch, setting):
    monkeypatch.setenv("NKI_SIM_MAX_TURNS", setting)
    assert refused(device_loop, "enough").code == "NKI-L032"
    monkeypatch.delenv("NKI_SIM_MAX_TURNS")
    monkeypatch.setenv("NKI_SIM_MAX_STEPS", setting)
    assert refused(host_loop, f"none {setting}").code == "NKI-L032"


SCRIPT = """
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def k(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    print("compiling")
    {loop}
        nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)  # here
    nisa.dma_copy(dst=out, src=t)
    return out


k(np.ones((4, 8), np.float32))
"""


def interrupted_after(seconds, script):
    """What is told of a run that gets Ctrl-C so many seconds after its kernel was first read."""
    environment = {**os.environ, "NKI_SIM_MAX_STEPS": "9" * 12, "NKI_SIM_MAX_TURNS": "9" * 12}
    environment["NKI_SIM_API"] = "0.6"  # where a loop over nl.dynamic_range runs on the device
    command = [sys.executable, "-u", "-c", "from nki_cli.main import app; app()", "run", str(script)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd=script.parent
    )
    try:
        assert process.stdout.readline() == "compiling\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.startswith("interrupted: k was at ") and "Traceback" not in told
    assert [p.name for p in script.parent.iterdir()] == [script.name]
    return told.strip()


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("loop", ["while True:", "for _ in nl.dynamic_range(10**9):"])
def test_ctrl_c_says_which_line_ran(loop, tmp_path):
    """A signal that came before the loop began, as on a busy machine, comes later the next time."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(loop=loop))
    number = next(i for i, text in enumerate(script.read_text().splitlines(), 1) if "# here" in text)
    at_the_loop = (f":{number}", f":{number - 1}")
    assert any(interrupted_after(seconds, script).endswith(at_the_loop) for seconds in (2, 8, 32))


def test_after_an_interruption_the_next_call_is_right(monkeypatch):
    """What was being recorded or run leaves nothing behind."""
    from nki_sim.execution import machine

    before = device_loop(DATA, "enough")
    calls = 0

    def interrupt(self, loop):
        nonlocal calls
        calls += 1
        if calls == 700:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(machine.Machine, "_turn", interrupt)
        for _ in range(2):  # checked, then replayed
            calls = 0
            with pytest.raises(KeyboardInterrupt):
                device_loop(DATA, "enough")
    assert np.array_equal(device_loop(DATA, "enough"), before)
