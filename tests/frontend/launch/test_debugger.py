"""What a debugger that stops in a kernel shows of tensors: values under `nki.simulate`, else shapes."""

from __future__ import annotations

import io
import pdb
import sys

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError

X = np.full((2, 4), 4.25, np.float32)


@nki.jit
def stops(x, how):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    first = nl.load(x)
    second = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    product = nl.ndarray((4, 4), dtype=nl.float32, buffer=nl.psum)
    nisa.tensor_scalar(dst=second, data=first, op0=nl.multiply, operand0=3.0)
    nisa.nc_matmul(product, stationary=second, moving=first)
    if how == "plain":
        breakpoint()
    else:
        for _ in nl.dynamic_range(2):
            breakpoint()
            nisa.tensor_scalar(dst=second, data=second, op0=nl.add, operand0=1.0)
    nisa.tensor_scalar(dst=second, data=second, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=out, src=second)
    return out


def told(monkeypatch, kernel, commands, how="plain"):
    """What the debugger writes, and the result."""
    written = io.StringIO()
    debugger = pdb.Pdb(
        stdin=io.StringIO(f"{commands}\ncontinue\n"), stdout=written, nosigint=True, readrc=False
    )
    debugger.use_rawinput = False
    monkeypatch.setattr(sys, "breakpointhook", lambda: debugger.set_trace(sys._getframe(1)))
    found = kernel(X, how)
    return written.getvalue(), found


@pytest.mark.parametrize("level", [pytest.param("0.6", marks=pytest.mark.api("0.6")), "0.7"])
def test_values_of_what_was_done_so_far(monkeypatch, level):
    """Of tiles, views, PSUM, inputs, and bytes of a tile that is not used any more."""
    commands = ["p second", "p first[0:1, 0:2]", "pp x[0]", "p product[0:1]", "p [first.shape]"]
    text, found = told(monkeypatch, nki.simulate(stops), "\n".join(commands))
    assert "second[2, 4] float32 sbuf\n[[12.75 12.75 12.75 12.75]\n [12.75" in text
    assert "first[1, 2] float32 sbuf\n[[4.25 4.25]]" in text
    assert "x[4] float32 shared_hbm\n[4.25 4.25 4.25 4.25]" in text
    assert f"psum\n[[{2 * 4.25 * 12.75:.3f} " in text
    assert "[(2, 4)]" in text
    np.testing.assert_array_equal(found, 3 * X + 1)


def test_without_simulate_a_tensor_is_described(monkeypatch):
    text, _ = told(monkeypatch, stops, "p second")
    assert "(Pdb) second[2, 4] float32 sbuf\n(Pdb)" in text


def test_inside_a_loop_of_the_device_values_are_not_known(monkeypatch):
    text, _ = told(monkeypatch, nki.simulate(stops), "p second", how="loop")
    assert "second[2, 4] float32 sbuf (inside a loop that the device runs" in text


def test_messages_describe_tensors_without_values():
    @nki.jit
    def refused(x):
        tile = nl.load(x)
        return tile[0:1, 0:9]

    with pytest.raises(NkiError) as caught:
        nki.simulate(refused)(X)
    assert "tile[2, 4] float32 sbuf, which has size 4" in str(caught.value)
