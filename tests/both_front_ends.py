"""Compiles each kernel twice: what the parser's front end makes of it, the tracer's must make too."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import nki
from nki.compiler.language import frontends
from nki.compiler.language.frontends import FrontEnd
from nki.compiler.specializer.specialize import Specialized
from nki.launch import prepare
from nki.launch.cache import Cache
from nki_isa.ir.program import programs_equal
from nki_isa.text.printer import format_program

_module: Any = sys.modules["nki.compiler.specializer.specialize"]  # the package has a function of that name
_specialize_call = _module.specialize_call


class Differs(AssertionError):
    """The two front ends made different Programs of a kernel."""


@contextmanager
def front_end(choice: FrontEnd | str) -> Iterator[None]:
    """`choice` is in force inside the block."""
    before = frontends.use(choice)
    try:
        yield
    finally:
        frontends.use(before)


def specialize_twice(kernel: Any, args: Any, kwargs: Any, **options: Any) -> Specialized:
    """What the front end in force makes; if that is the parser, only after the tracer made the same."""
    made = _specialize_call(kernel, args, kwargs, **options)
    if made.traced:
        return made
    compared.append(kernel.function.__name__)
    with front_end(FrontEnd.tracer):
        traced = _specialize_call(kernel, args, kwargs, **options)
    if not traced.traced or not programs_equal(made.program, traced.program):
        texts = [format_program(one.program).splitlines() for one in (made, traced)]
        told = list(difflib.unified_diff(*texts, "parser", "tracer", lineterm="", n=1))
        raise Differs(f"{kernel.function.__name__}:\n" + "\n".join(told[:60]))
    assert made.result == traced.result
    return made


compared: list[str] = []
"""The kernels of which both Programs were made."""


@contextmanager
def comparing() -> Iterator[list[str]]:
    """Inside the block every kernel is compiled by both; gives the names of those that were."""
    start = len(compared)
    names: list[str] = []
    with (
        mock.patch.multiple(prepare, specialize_call=specialize_twice, cache=Cache()),
        mock.patch.object(nki.compiler, "specialize_call", specialize_twice),
    ):
        yield names
    names += compared[start:]


def install() -> None:
    """Compile every kernel of this process by both."""
    prepare.specialize_call = nki.compiler.specialize_call = _module.specialize_call = specialize_twice  # type: ignore[attr-defined]
