"""The table of the library's kernels: one :class:`Row` each, in ``registry_row.py`` of the kernel's folder.

Tests, the command ``nki-sim lib``, the pages of docs/library and the benchmarks read a kernel's entry,
reference, options, examples and tolerances from its row and from nowhere else.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nki
import nkilib
from nki.compiler.source.kernel_source import signature_of
from nki.kernel import Kernel
from nki.runtime import Launch, session
from nki_isa.machine.targets import as_target

Inputs = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One way to call a kernel.

    Attributes:
        name: short, of letters, digits, ``-`` and ``_``; unique within its row.
        inputs: makes the arguments that are arrays, by the names of the entry's parameters.
        options: the other arguments, by the names of the entry's parameters.
        lnc: the launch grids, each a number of programs.
        targets: the generations it runs on.
        slow: True keeps it out of the default test run.
        about: what it shows or which model has this shape; for the kernel's page.
    """

    name: str
    inputs: Callable[[np.random.Generator], Inputs]
    options: Mapping[str, Any] = field(default_factory=dict)
    lnc: tuple[int, ...] = (1,)
    targets: tuple[str, ...] = ("trn2",)
    slow: bool = False
    about: str = ""

    def arguments(self) -> Inputs:
        """Inputs and options for one call; the arrays are new and the same each time."""
        return {**self.inputs(np.random.default_rng(zlib.crc32(self.name.encode()))), **self.options}


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far results may be from the reference: ``|result - reference| <= atol + rtol * |reference|``.

    Attributes:
        rtol: relative part.
        atol: absolute part.
        reason: where the difference comes from, for example one rounding to bf16.
    """

    rtol: float = 0.0
    atol: float = 0.0
    reason: str


def _same(results: Any, arguments: Inputs) -> Any:
    return results


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kernel of the library.

    Attributes:
        name: what ``nki-sim lib`` calls it; also the name of its page in docs/library.
        entry: the documented function, a kernel or a function that kernels call.
        reference: the same by mathematics alone, in numpy. It is called with those arguments of an
            example that it has parameters for; a ``lnc`` parameter receives the launch grid.
        summary: one line.
        maths: what is computed, in Markdown.
        options: what each parameter of `entry` means, by its name.
        limits: shapes, dtypes and combinations that are taken, one sentence each.
        examples: how it is called; the first is what ``nki-sim lib`` runs when nothing else is asked for.
        tolerance: of all examples.
        page: the page of the SDK documentation 2.28 that it follows, for example
            ``"nki/library/api/cumsum"``; ``"nki-library"`` where there is none.
        since: the first API level whose instructions it needs.
        launched_by: makes the kernel that is launched of `entry`: ``nki.jit``, or for a function that
            works on SBUF one that loads, calls and stores.
        values: takes what is compared out of what the kernel, or its reference, returns for the arguments
            of a call, where that is more than arrays of numbers (a scale in the last bytes of a row, rows
            without a value).
    """

    name: str
    entry: Callable[..., Any]
    reference: Callable[..., Any]
    summary: str
    maths: str
    options: Mapping[str, str]
    limits: tuple[str, ...]
    examples: tuple[Example, ...]
    tolerance: Tolerance
    page: str
    since: str = "0.2"
    launched_by: Callable[[Any], Kernel] = nki.jit
    values: Callable[[Any, Inputs], Any] = _same

    @functools.cached_property
    def kernel(self) -> Kernel:
        """What is launched."""
        return self.launched_by(self.entry)

    def example(self, name: str | None = None) -> Example:
        """The example of this name; without a name the first.

        Raises:
            KeyError: there is none of this name.
        """
        return {one.name: one for one in self.examples}[name] if name else self.examples[0]

    def expected(self, arguments: Inputs, lnc: int = 1) -> list[np.ndarray[Any, Any]]:
        """The arrays that the reference computes for the arguments of a call."""
        known = signature_of(self.reference).parameters
        given = {**arguments, "lnc": lnc}
        results = self.reference(**{name: value for name, value in given.items() if name in known})
        return arrays_of(self.values(results, arguments))

    def run(self, arguments: Inputs, lnc: int = 1, target: str = "trn2", **options: Any) -> KernelResult:
        """Launch the kernel.

        Args:
            arguments: of the call; arrays that the kernel writes change.
            lnc: number of programs.
            target: the generation.
            **options: of :class:`nki.runtime.Options`, such as ``timing=True``.
        """
        with session(target=as_target(target), **options) as record:
            returned = self.kernel[lnc](**arguments)
        return KernelResult(arrays_of(self.values(returned, arguments)), record.launches[-1])


@dataclass(frozen=True)
class KernelResult:
    """The arrays a kernel returned, and the launch that made them."""

    results: list[np.ndarray[Any, Any]]
    launch: Launch


def arrays_of(results: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays in what a kernel or its reference returns, in order; None stands for no array."""
    if results is None:
        return []
    if isinstance(results, (list, tuple)):
        return [array for item in results for array in arrays_of(item)]
    return [np.asarray(results)]


@functools.cache
def rows() -> dict[str, Row]:
    """All rows by name, in alphabetical order."""
    found: list[Row] = []
    for module in pkgutil.walk_packages(nkilib.__path__, "nkilib."):
        if module.name.endswith(".registry_row"):
            found += importlib.import_module(module.name).ROWS
    table = {row.name: row for row in sorted(found, key=lambda row: row.name.lower())}
    assert len(table) == len(found), "two rows of the registry have the same name"
    return table


@dataclass(frozen=True)
class Difference:
    """How far one result is from the reference.

    Attributes:
        absolute: the largest difference.
        scale: the largest magnitude of the reference.
        allowed: True if every element is within the tolerance.
    """

    absolute: float
    scale: float
    allowed: bool

    @property
    def relative(self) -> float:
        """The largest difference, as a part of the largest magnitude."""
        return self.absolute / self.scale if self.scale else self.absolute


def difference(
    result: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], tolerance: Tolerance
) -> Difference:
    """Compare a result with the reference; where both are NaN or the same infinity, they are equal."""
    one, other = result.astype(np.float64), expected.astype(np.float64)
    if one.shape != other.shape:
        return Difference(float("inf"), 0.0, False)
    with np.errstate(invalid="ignore"):
        apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other))
        allowed = bool((apart <= tolerance.atol + tolerance.rtol * np.abs(other)).all())
    finite = np.abs(other[np.isfinite(other)])
    return Difference(float(apart.max(initial=0.0)), float(finite.max(initial=0.0)), allowed)
