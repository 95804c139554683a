"""What the compiler takes: a function, and how it is to be compiled as a kernel."""

from __future__ import annotations

import inspect
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from nki.compiler.source import source
from nki_isa.diagnostics import error

if TYPE_CHECKING:
    from nki.compiler.config import CompileConfig, SpecializationConfig
    from nki.compiler.specializer.schedule import Schedule

_Self = TypeVar("_Self", bound="KernelSource")


class KernelSource:
    """A function that is compiled as a kernel.

    Attributes:
        function: the function as the user wrote it.
        grid: number of SPMD programs.
        schedule: dependencies between its named instructions.
        prints: True if ``print`` of a tensor in it shows values, each time the machine comes by.
        config: how it is to be compiled, and specialized.
        bracketed: True if the number of programs was given in brackets.
    """

    def __init__(
        self,
        function: FunctionType,
        grid: int | None = None,
        schedule: Schedule = (),
        *,
        prints: bool = False,
        config: tuple[CompileConfig | None, SpecializationConfig | None] = (None, None),
    ):
        self.function = function
        self.grid = 1 if grid is None else grid
        self.bracketed = grid is not None
        self.config = config
        self.schedule = schedule
        self.prints = prints

    def having(self: _Self, **parts: Any) -> _Self:
        """The same kernel with other parts, such as ``grid=2``."""
        return type(self)(self.function, **{**self.parts, **parts})

    @property
    def parts(self) -> dict[str, Any]:
        """What it is made of beside its function."""
        grid = self.grid if self.bracketed else None
        return {"grid": grid, "schedule": self.schedule, "prints": self.prints, "config": self.config}


def kernel_source(value: Any) -> KernelSource:
    """A kernel, or a plain function as one.

    Raises:
        NkiError: NKI-L023 for what is not a function.
    """
    return value if isinstance(value, KernelSource) else KernelSource(remembered(value))


def remembered(function: Any) -> FunctionType:
    """`function`, whose text is kept as it is now.

    Raises:
        NkiError: NKI-L023 for what is not a function.
    """
    if not isinstance(function, FunctionType):
        raise error(
            "NKI-L023",
            f"nki.jit was given a {type(function).__name__}, not a function",
            help="decorate a function written with def",
        )
    source.remember(function)
    return function


def signature_of(function: Any) -> inspect.Signature:
    """The signature of `function`; annotations are not evaluated."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


__all__ = ["KernelSource", "kernel_source", "remembered", "signature_of"]
