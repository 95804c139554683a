"""Functions and objects that a kernel is called with are checked like what it reaches by name."""

from __future__ import annotations

import numpy as np
import pytest

import nki
import nki.language as nl
from nki.compiler.check import check_text
from nki_isa.diagnostics import NkiError

A = np.zeros((4, 4), np.float32)


def right(x):
    return x


def wrong(x):
    nl.arange(3)
    return x


class Settings(nl.NKIObject):
    def __init__(self, step):
        self.step = step

    def run(self, x):
        return self.step(x)


class Broken(nl.NKIObject):
    def run(self, x):
        del x


def codes(kernel, *arguments):
    with pytest.raises(NkiError) as caught:
        kernel(*arguments)
    return [d.code for d in caught.value.diagnostics]


@nki.jit
def calls(x, step):
    return step(x)


@nki.jit
def calls_first(x, steps):
    return steps[0](x)


@nki.jit
def runs(x, settings):
    return settings.run(x)


@pytest.mark.parametrize(
    ("kernel", "good", "bad", "code"),
    [
        (calls, right, wrong, "NKI-L015"),
        (calls_first, [right], [wrong], "NKI-L015"),
        (runs, Settings(right), Settings(wrong), "NKI-L015"),
        (runs, Settings(right), Broken(), "NKI-L005"),
    ],
)
def test_what_a_kernel_is_handed_is_checked_anew_for_each(kernel, good, bad, code):
    kernel(A, good)
    assert codes(kernel, A, bad) == [code]
    kernel(A, good)


STAR = """
import nki
from nki.language import *

@nki.jit
def kernel(x):
    return arange(128) + zeroes(x)
"""


def test_removed_names_behind_a_star_import_are_told_as_removed():
    found = check_text(STAR, "kernel.py")
    assert [(d.code, d.message) for d in found if d.code != "NKI-L005"] == [
        ("NKI-L015", "arange was removed from the NKI API"),
        ("NKI-L010", "'zeroes' is no parameter, local, global or supported built-in"),
    ]
