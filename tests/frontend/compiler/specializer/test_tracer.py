"""The tracing front end: what it takes, what it says, whose lines it shows, and how it is chosen."""

from __future__ import annotations

import contextlib
import functools
import pdb

import numpy as np
import pytest
from both_front_ends import front_end

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler.checker.check import check, check_file
from nki.compiler.language import frontends
from nki.compiler.language.frontends import FrontEnd
from nki.runtime import session
from nki_isa.diagnostics import NkiError, Severity

X = np.random.default_rng(0).random((128, 64), np.float32)


@pytest.fixture
def tracer():
    with front_end(FrontEnd.tracer):
        yield


def copy(dst, src):
    nisa.dma_copy(dst=dst, src=src)


@nki.jit
def comprehends(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tiles = [nl.ndarray((128, 32), dtype=x.dtype, buffer=nl.sbuf) for _ in range(2)]
    for i, tile in enumerate(tiles):
        copy(tile, x[:, i * 32 : (i + 1) * 32])
        copy(out[:, i * 32 : (i + 1) * 32], tile)
    return out


def test_a_kernel_of_python_runs(tracer):
    assert np.array_equal(comprehends(X), X)


def test_a_note_names_what_only_the_tracer_takes(tracer):
    with session() as record:
        comprehends(X)
    (told,) = record.launches[-1].diagnostics
    assert (told.code, told.severity) == ("NKI-L057", Severity.note)
    assert "list comprehension" in told.message
    assert told.span.line == comprehends.function.__code__.co_firstlineno + 3


def test_the_parser_refuses_it_and_says_how_to_trace_it():
    with front_end(FrontEnd.parser), pytest.raises(NkiError) as caught:
        comprehends(X)
    (found,) = [d for d in caught.value.diagnostics if "comprehension" in d.message]
    assert found.code == "NKI-L005"
    assert "--frontend tracer" in found.help and "NKI_COMPILER_FRONTEND=tracer" in found.help


def test_the_strict_profile_says_what_the_parser_would_not_take(tracer):
    (found,) = [d for d in check(comprehends, "strict") if "comprehension" in d.message]
    assert found.code == "NKI-L005" and "tracer" not in found.help


@pytest.mark.parametrize(
    "text, choice", [("custom", "parser"), ("parser", "parser"), ("tracer", "tracer"), ("", "auto")]
)
def test_the_environment_chooses(text, choice, monkeypatch):
    monkeypatch.setenv("NKI_COMPILER_FRONTEND", text)
    assert frontends.of_environment().value == choice


def test_an_unknown_front_end_is_refused(monkeypatch):
    monkeypatch.setenv("NKI_COMPILER_FRONTEND", "magic")
    with pytest.raises(NkiError, match="NKI-L032.*magic") as caught:
        frontends.of_environment()
    assert "NKI_COMPILER_FRONTEND" in caught.value.diagnostics[0].notes[0]
    with pytest.raises(NkiError, match="NKI-L032"):
        frontends.use("magic")


# --- the user's lines, closures, classes and exceptions


class Refused(ValueError):
    pass


def inner(x):
    raise Refused("a tile of this size")


@nki.jit
def raises(x):
    inner(x)


def test_an_error_comes_with_the_users_calls(tracer):
    with pytest.raises(NkiError) as caught:
        raises(X)
    (found,) = caught.value.diagnostics
    assert found.code == "NKI-L021" and found.message == "Refused: a tile of this size"
    assert [frame.function for frame in found.stack] == ["raises", "inner"]
    assert found.span.line == inner.__code__.co_firstlineno + 1
    assert isinstance(caught.value.__cause__, Refused)


@nki.jit
def two_errors(x):
    tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=tile[:, :32])
    nisa.tensor_copy(dst=tile[:, :32], src=tile)


def test_all_errors_of_instructions_are_told_at_once(tracer):
    with pytest.raises(NkiError) as caught:
        two_errors(X)
    lines = [d.span.line - two_errors.function.__code__.co_firstlineno for d in caught.value.diagnostics]
    assert lines == [3, 4]


@nki.jit
def catches(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    try:
        inner(x)
    except Refused:
        copy(out, x)
    return out


def test_exceptions_are_the_users_own(tracer):
    assert np.array_equal(catches(X), X)


COUNT = [0]


def test_closures_and_objects_are_the_users_own(tracer):
    marker = object()
    seen = []

    @nki.jit
    def kernel(x, thing, things):
        COUNT[0] += 1
        seen.append((thing is marker, things["a"] is marker, x is things["x"]))
        return x

    kernel(X, marker, {"a": marker, "x": X})
    assert seen == [(True, True, False)]
    before = COUNT[0]
    kernel(X, marker, {"a": marker, "x": X})
    assert COUNT[0] == before + 1  # traced at each call: what it depends on is not known


def test_non_ascii_lines_are_placed_in_characters(tracer):
    @nki.jit
    def kernel(x):
        return "é", nisa.tensor_copy(dst=x, src=x)

    with pytest.raises(NkiError) as caught:
        kernel(X)
    assert caught.value.diagnostics[0].span.column == 21


def test_a_function_without_text_is_traced(tracer):
    names = {"nl": nl, "nisa": nisa}
    exec(
        "def made(x):\n"
        "    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)\n"
        "    nisa.dma_copy(dst=out, src=x)\n"
        "    return out\n",
        names,
    )
    assert np.array_equal(nki.jit(names["made"])(X), X)


@nki.jit
def calls_a_kernel(x):
    return comprehends(comprehends(x))


def test_a_kernel_inside_a_kernel_is_inlined(tracer):
    assert np.array_equal(calls_a_kernel(X), X)
    with front_end(FrontEnd.tracer), session() as record:
        calls_a_kernel(X)
    assert comprehends.function.__code__ in record.reached


def test_a_kernel_with_a_schedule_is_not_inlined(tracer):
    scheduled = comprehends.with_schedule([("a", "b")])

    @nki.jit
    def kernel(x):
        return scheduled(x)

    with pytest.raises(NkiError, match="NKI-L045"):
        kernel(X)


@nki.jit
def prints(x):
    tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
    copy(tile, x)
    print("tile", tile)
    return x


def test_print_shows_values_in_the_simulator(tracer, capsys):
    prints(X)
    assert "float32" in capsys.readouterr().out
    nki.simulate(prints)(X)
    assert f"{X[0, 0]:.3f}"[:4] in capsys.readouterr().out
    import builtins

    assert builtins.print is print and print.__module__ == "builtins"


@nki.jit
def stops(x):
    y = 3  # noqa: F841
    breakpoint()
    return x


def test_the_debugger_stands_in_the_users_function(tracer, monkeypatch):
    stopped = []

    class Debugger(pdb.Pdb):
        def interaction(self, frame, *rest):
            if frame.f_code.co_name == "stops":
                stopped.append(frame.f_locals["y"])
                self.set_continue()

    def hook():
        import sys

        Debugger(nosigint=True).set_trace(sys._getframe(1))

    monkeypatch.setattr("sys.breakpointhook", hook)
    stops(X)
    assert stopped == [3]


# --- values of run time


@nki.jit
def branches(x, how):
    register = nisa.register_alloc(1)
    how(register)
    return x


@pytest.mark.parametrize(
    "how", [bool, int, range, float, lambda r: r + 1, lambda r: [0, 1][r], lambda r: r < 2, lambda r: list(r)]
)
def test_a_register_in_python_is_a_type_error(tracer, how):
    with pytest.raises(NkiError, match="NKI-L022"):
        branches(X, how)

    @nki.jit
    def kernel(x):
        try:
            how(nisa.register_alloc(1))
        except TypeError as found:
            assert "run time" in str(found)
            return x

    assert kernel(X) is not None


# --- the text is read first


def test_check_tells_what_it_knows_without_refusing_python(tmp_path, tracer):
    path = tmp_path / "kernel.py"
    path.write_text(
        "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n"
        "@nki.jit\n"
        "def kernel(x):\n"
        "    tiles = [t for t in (x,)]\n"
        "    nisa.dma_cpy(dst=x, src=x)\n"
        "    nisa.memset(x)\n"
        "    undefined_name\n"
        "    nl.ndarray((1, 1), nl.float32, mask=None)\n"
    )
    found = check_file(str(path))
    assert [(d.code, d.severity.value) for d in found] == [
        ("NKI-L011", "error"),
        ("NKI-L012", "error"),
        ("NKI-L010", "error"),
        ("NKI-L015", "error"),
        ("NKI-L057", "note"),
    ]


def test_reading_runs_nothing(tmp_path, tracer):
    path = tmp_path / "kernel.py"
    path.write_text("import nki\nopen('made', 'w')\n@nki.jit\ndef kernel(x):\n    open('made', 'w')\n")
    with contextlib.chdir(tmp_path) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        check_file(str(path))
    assert not (tmp_path / "made").exists()


@functools.cache
def scale(n):
    return 2.0**n


def test_a_parsed_and_a_traced_kernel_share_a_helper(tracer):
    """What the tracer learns of a function does not change how the parser compiles it."""

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        copy(out, x)
        return out

    assert np.array_equal(kernel(X), X)
    with front_end(FrontEnd.parser):
        assert np.array_equal(kernel(X), X)
    assert np.array_equal(kernel(X), X)
