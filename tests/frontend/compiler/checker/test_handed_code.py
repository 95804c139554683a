"""Functions and objects that a kernel is called with are checked like what it reaches by name."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import nki
import nki.language as nl
from nki.compiler.checker.check import check_text
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


@pytest.mark.api("0.6")
@pytest.mark.parametrize(
    ("kernel", "good", "bad", "code"),
    [
        (calls, right, wrong, "NKI-L015"),
        (calls_first, (right,), (wrong,), "NKI-L015"),
        (runs, Settings(right), Settings(wrong), "NKI-L015"),
        (runs, Settings(right), Broken(), "NKI-L005"),
    ],
)
def test_what_a_kernel_is_handed_is_checked_anew_for_each(kernel, good, bad, code):
    kernel(A, good)
    assert codes(kernel, A, bad) == [code]
    kernel(A, good)


def capturing(steps):
    @nki.jit
    def kernel(x):
        return steps[0](x)

    return kernel


def defaulting(steps):
    @nki.jit
    def kernel(x, steps=steps):
        return steps[0](x)

    return kernel


def adapted(step):
    def adapter(x):
        return step(x)

    return adapter


def capturing_adapter(step):
    step = adapted(step)

    @nki.jit
    def kernel(x):
        return step(x)

    return kernel


@pytest.mark.parametrize(
    "make",
    [
        lambda step: capturing([step]),
        lambda step: capturing((functools.partial(step),)),
        lambda step: defaulting((step,)),
        capturing_adapter,
    ],
    ids=["list", "partial", "default", "closure"],
)
def test_what_kernels_of_one_text_hold_is_checked_anew_for_each(make):
    """The functions are in containers, in defaults, or captured by what is captured."""
    make(right)(A)
    assert codes(make(wrong), A) == ["NKI-L015"]
    make(right)(A)


def test_functions_of_one_text_are_told_apart_by_what_they_captured():
    calls(A, adapted(right))
    assert codes(calls, A, adapted(wrong)) == ["NKI-L015"]


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
        ("NKI-L010", "'zeroes' is not a parameter, local, global or supported built-in"),
    ]
