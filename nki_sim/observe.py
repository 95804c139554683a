"""What follows a run: one base for checks, races, times, and whoever else looks on.

A run tells its listeners what happens, in the order they are given. It asks only those that have something
to do: a hook that a listener does not define costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, NkiError
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target
from nki_isa.ops.meeting import Meeting
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor

Array = NDArray[Any]


class Memories(Protocol):
    """The bytes of a core, as far as listeners read them."""

    def address(self, tensor: NkiTensor, shift: int = ...) -> Any:
        """Where `tensor`, moved on by `shift` elements, starts in its array, and how it steps."""

    def buffer(self, storage: Storage) -> Array:
        """The array whose bytes hold `storage`."""

    def bind(self, tensor: NkiTensor) -> Array:
        """`tensor` as an array of its dtype: the bytes themselves, or a copy where indices gather them."""

    def scalar_shift(self, tensor: NkiTensor) -> int | None:
        """Elements by which the scalar offset of `tensor` moves it; None if that leaves the tensor."""

    def selection(self, tensor: NkiTensor, group: int = ...) -> tuple[NkiTensor, Array]:
        """What a gathered or scattered view selects from, and the indices as they are."""

    def gather(self, tensor: NkiTensor, *, skip: bool = ...) -> tuple[Array, Array | None]:
        """The elements that indices select, and which of them are inside the tensor."""


class Engines(Protocol):
    """What the engines of a core keep, as far as listeners look at it."""

    target: Target
    accumulators: dict[Engine, Array]
    arguments: Callable[[Instruction, Operator, Array], None] | None
    silent: bool


class Core(Protocol):
    """What a listener sees of a core: its Program, its memories, and what its engines keep."""

    program: Program

    @property
    def memory(self) -> Memories: ...

    @property
    def state(self) -> Engines: ...


class Listener:
    """Follows a run of the cores of a launch; a subclass defines the hooks it needs.

    Attributes:
        needs_values: False for one that looks at no memory: it may hear of an instruction while those before
            it have not run, in program order and with the registers that the instruction will find.
    """

    needs_values: ClassVar[bool] = True

    def start(self, cores: Sequence[Core]) -> None:
        """The cores, inputs loaded, are about to run."""

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """`instruction` of `core` is about to run; `registers` are the live values, not a copy."""

    def after(self, core: int, instruction: Instruction) -> None:
        """`instruction` of `core` has run."""

    def meet(self, group: Sequence[tuple[int, Meeting]]) -> None:
        """These cores have arrived at these instructions, in which they meet."""

    def finish(self) -> None:
        """All cores have run; their memories are as they left them."""


def hooks(listeners: Iterable[Listener], name: str) -> list[Callable[..., None]]:
    """The hooks of this name that `listeners` define, in order."""
    return [getattr(one, name) for one in listeners if name in _defined(one)]


def finish(listeners: Sequence[Listener]) -> None:
    """Tell all `listeners` that the run is over.

    Raises:
        NkiError: everything that any of them refuses.
    """
    refused: list[Diagnostic] = []
    for over in hooks(listeners, "finish"):
        try:
            over()
        except NkiError as found:
            refused += found.diagnostics
    if refused:
        raise NkiError(refused)


_DEFINED: dict[type[Listener], frozenset[str]] = {}


def _defined(listener: Listener) -> frozenset[str]:
    """The methods of its class that are not those of the base where they first stand, which does nothing."""
    kind = type(listener)
    known = _DEFINED.get(kind)
    if known is None:
        first: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            for name, value in vars(base).items():
                first.setdefault(name, value)
        known = _DEFINED[kind] = frozenset(
            name for name, value in first.items() if getattr(kind, name) is not value
        )
    return known
