"""Warnings about a kernel reach whoever runs it without the command, at its line and once each."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

SCRIPT = """
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl

@nki.jit
def k(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    unused = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=unused, src=x)  # line 11
    nisa.dma_copy(dst=out, src=x)
    return out

def test_k():
    for _ in range(3):
        k(np.ones((4, 8), np.float32))

test_k()
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "test_script.py").write_text(SCRIPT)
    return str(tmp_path / "test_script.py")


@nki.jit
def unused(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=out, src=x)
    return out


X = np.ones((4, 8), np.float32)


def test_plain_python(script):
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stderr.count("NkiWarning: [NKI-H010]") == 1
    assert f"{script}:11: " in done.stderr


def test_pytest(script):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("NkiWarning: [NKI-H010]") == 1


def test_pythons_filters_decide():
    with warnings.catch_warnings():
        warnings.simplefilter("error", nki.NkiWarning)
        with pytest.raises(nki.NkiWarning, match="NKI-H010"):
            unused(X)
        warnings.simplefilter("ignore", nki.NkiWarning)
        unused(X)


def test_a_session_tells_itself():
    with warnings.catch_warnings(), runtime.session() as session:
        warnings.simplefilter("error")
        unused(X)
    assert [d.code for d in session.launches[0].diagnostics] == ["NKI-H010"]


@nki.jit
def deprecated_engine(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x, dtype=nl.float32)  # of older releases: a warning of the language
    return out


def test_warnings_of_the_language_are_errors_too():
    with runtime.session() as session:
        deprecated_engine(X)
    (warned,) = session.launches[0].diagnostics
    assert warned.severity.value == "warning"
    with runtime.session(warnings_as_errors=True), pytest.raises(NkiError) as refused:
        deprecated_engine(X)
    assert [(d.code, d.severity.value) for d in refused.value.diagnostics] == [(warned.code, "error")]
