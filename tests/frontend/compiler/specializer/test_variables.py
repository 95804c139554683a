"""Tensors without a name of the user's are called after the variable they are assigned to."""

# ruff: noqa: F841, the names of variables are what is tested

from __future__ import annotations

import sys

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler.specializer import variables
from nki.compiler.specializer.specialize import specialize_call
from nki.language import NKIObject
from nki_isa.machine.targets import TRN2
from nki_isa.text.parser import parse_program
from nki_isa.text.printer import format_program

SHAPE = (128, 4)


def _load(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    return tile


def _new():
    return nl.ndarray(SHAPE, nl.float32)


def _fill(dst):
    nisa.memset(dst, value=0.0)


class _Tiles(NKIObject):
    def __init__(self):
        self.gate = nl.ndarray(SHAPE, nl.float32)


@nki.jit
def every_target(x):
    lhs = _load(x)
    rhs = _load(x)
    first, second = _new(), nl.ndarray(SHAPE, nl.float32)
    tiles = []
    for _ in range(3):
        tiles.append(_new())
    kept = [
        nl.ndarray(SHAPE, nl.float32),
        nl.ndarray(
            SHAPE,
            nl.float32,
        ),
    ]
    by_name = {"q": _new()}
    by_name["k"] = _new()
    _Tiles()
    _fill(dst=_new())
    _fill(nl.ndarray(SHAPE, nl.float32))
    view = nl.ndarray(SHAPE, nl.float32).reshape((128, 2, 2))
    chosen = _new() if x.shape[0] == 128 else lhs
    lhs = _load(x)
    mine = nl.ndarray(SHAPE, nl.float32, name="yours")
    return x


EXPECTED = (
    "x lhs rhs first second tiles tiles#2 tiles#3 kept kept#2 by_name by_name#2 gate dst sbuf14 view chosen "
    "lhs#2 yours"
)


def _names(kernel, *arrays):
    return [s.name for s in specialize_call(kernel, arrays, {}, target=TRN2).program.storages]


#: On 3.10 all tensors that one statement makes go by its first target.
COARSE = EXPECTED.replace("second", "first#2").split()
HAS_PLACES = sys.version_info >= (3, 11)


def test_variable_of_every_target():
    expected = EXPECTED.split() if HAS_PLACES else COARSE
    assert _names(every_target, np.zeros(SHAPE, np.float32)) == expected


def test_variable_without_places(monkeypatch):
    """As on Python 3.10, which knows the line of a call only."""
    monkeypatch.setattr(variables, "place_of", lambda code, offset: None)
    monkeypatch.setattr(variables, "_USES", {})
    monkeypatch.setattr(variables, "_VARIABLES", {})
    assert _names(every_target, np.zeros(SHAPE, np.float32)) == COARSE


@nki.jit
def composed(x):
    tile = nl.load(x)
    y = nl.softmax(nl.add(tile, tile))
    identity = nl.shared_identity_matrix(128)
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nl.store(out, y)
    return out


@pytest.mark.skipif(not HAS_PLACES, reason="which call of a statement runs is known from 3.11 on")
def test_steps_of_a_function_are_called_by_what_they_hold():
    steps = "y:maximum y:shifted y:exp y:sum y:inverse y"
    expected = f"x tile sbuf2 {steps} identity identity:constant out"
    assert _names(composed, np.zeros(SHAPE, np.float32)) == expected.split()


def test_names_survive_as_text():
    program = specialize_call(every_target, (np.zeros(SHAPE, np.float32),), {}, target=TRN2).program
    again = parse_program(format_program(program))
    assert [s.name for s in again.storages] == [s.name for s in program.storages]
