"""The memories of a NeuronCore and the buffers in them: where bytes live."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn

from nki_isa.diagnostics import Diagnostic, Frame, RunTimeValueError
from nki_isa.machine.dtypes import DTYPES, DType


class MemoryRegion(enum.Enum):
    """The memories a tensor can live in.

    Attributes:
        on_chip: True for SBUF and PSUM, which have partitions.
    """

    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"

    def __init__(self, text: str):
        self.on_chip = text in ("sbuf", "psum")

    def __eq__(self, other: object) -> bool:
        """Identity, but that what an input answers (:data:`INPUT`) equals both kinds of HBM."""
        if self is other:
            return True
        return (
            (self is INPUT or other is INPUT)
            and isinstance(other, MemoryRegion)
            and self.is_hbm
            and other.is_hbm
        )

    __hash__ = enum.Enum.__hash__

    @property
    def is_hbm(self) -> bool:
        """True for both kinds of HBM."""
        return not self.on_chip


SBUF, PSUM = MemoryRegion.sbuf, MemoryRegion.psum

#: ``.buffer`` of a kernel's input: published kernels assert that it is ``nl.hbm``, others ``nl.shared_hbm``.
INPUT = object.__new__(MemoryRegion)
INPUT._name_ = INPUT._value_ = "shared_hbm"
INPUT.on_chip = False


@dataclass(eq=False, slots=True)
class Storage:
    """A buffer a kernel allocated, or an input it was given.

    Attributes:
        index: position in the Program's list of storages; its identity in IR text.
        name: the user's name for it, or one made from the region and index.
        region: the memory it lives in.
        shape: as allocated; dimension 0 is the partition dimension on chip.
        dtype: as allocated.
        address: ``(partition, byte)`` the user asked for, or None to be placed.
        kind: ``"local"``, ``"input"``, ``"constant"``, or ``"spill"`` for HBM that the compiler allocated, to
            keep there what SBUF has no room for.
        stack: the user's calls that allocated it, innermost last.
        data: initial bytes of a constant, else None.
        on_chip: True for SBUF and PSUM.
        partitions: partitions occupied; 1 for HBM, which has none.
        row_bytes: bytes in one partition, or in the whole buffer for HBM.
    """

    index: int
    name: str
    region: MemoryRegion
    shape: tuple[int, ...]
    dtype: DType
    address: tuple[int, int] | None = None
    kind: str = "local"
    stack: tuple[Frame, ...] = ()
    data: bytes | None = None
    on_chip: bool = field(init=False, repr=False)
    partitions: int = field(init=False, repr=False)
    row_bytes: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.on_chip = self.region is SBUF or self.region is PSUM
        self.partitions = self.shape[0] if self.on_chip else 1
        self.row_bytes = math.prod(self.shape[self.on_chip :]) * self.dtype.itemsize

    @property
    def is_given(self) -> bool:
        """True for what is there before the first instruction: tensors of the caller and constants."""
        return self.kind in ("input", "constant")


_LOOPS = "use nl.fori_loop or nl.while_loop for loops the device decides about"
_BRANCHES = "compute both and choose with nisa.tensor_copy_predicated, or run a loop zero or one times"
_ARITHMETIC = (
    "store it to a tile with nisa.register_store, compute there, and load it back with nisa.register_load"
)


def known_at_run_time(message: str, remedy: str) -> RunTimeValueError:
    """NKI-L022, ready to raise; Python sees a TypeError."""
    return RunTimeValueError([Diagnostic("NKI-L022", message, help=remedy)])


def _refuse(how: str, remedy: str) -> Callable[..., NoReturn]:
    def method(self: VirtualRegister, *others: Any) -> NoReturn:
        raise known_at_run_time(f"{self!r} {how}; its value is known at run time only", remedy)

    return method


class VirtualRegister:
    """A 32-bit scalar in an engine's register file, known only at run time.

    Attributes:
        index: its number in the Program.
        frozen: True for a loop's induction variable, which cannot be written.
        stack: the user's calls that allocated it, innermost last; empty where unknown, as in parsed IR text.
    """

    __slots__ = ("frozen", "index", "stack")

    def __init__(self, index: int = -1, frozen: bool = False, stack: tuple[Frame, ...] = ()):
        self.index = index
        self.frozen = frozen
        self.stack = stack

    def __repr__(self) -> str:
        return f"register {self.index}"

    # --- what a register is not

    __bool__ = _refuse("was used as a condition", f"{_BRANCHES}: nl.while_loop(register, body)")
    __int__ = __float__ = _refuse("was converted to a number", _ARITHMETIC)
    __index__ = _refuse("was used as an int", _LOOPS)
    __iter__ = __contains__ = _refuse("was iterated over", _LOOPS)
    __lt__ = __le__ = __gt__ = __ge__ = _refuse("was compared", _BRANCHES)
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _refuse(
        "was computed with", _ARITHMETIC
    )
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __add__
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __add__
    __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = __add__
    __neg__ = __pos__ = __abs__ = __invert__ = __round__ = __add__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """True for the same register; NKI-L022 for a question about its value."""
        if isinstance(other, (int, float, VirtualRegister)) and other is not self:
            raise known_at_run_time(
                f"{self!r} was compared with {other!r}; its value is known at run time only", _BRANCHES
            )
        return self is other


_compute: ContextVar[Callable[[str, Any, Any], NkiScalar] | None] = ContextVar("compute", default=None)


@contextlib.contextmanager
def computing(compute: Callable[[str, Any, Any], NkiScalar]) -> Iterator[None]:
    """Inside the block an operator of scalars is ``compute(operator, left, right)``."""
    token = _compute.set(compute)
    try:
        yield
    finally:
        _compute.reset(token)


def _computed(operator: str, left: Any, right: Any) -> Any:
    compute = _compute.get()
    if compute is None:
        what = f"{left!r} {operator} {right!r} is asked for outside of a kernel"
        raise known_at_run_time(what, _ARITHMETIC)
    return compute(operator, left, right)


def _operator(symbol: str) -> Callable[[NkiScalar, Any], Any]:
    return lambda self, other: _computed(symbol, self, other)


def _reflected(symbol: str) -> Callable[[NkiScalar, Any], Any]:
    return lambda self, other: _computed(symbol, other, self)


class NkiScalar(VirtualRegister):
    """One integer of 32 or 64 bits computed on the device: each operator records the next one.

    ``+``, ``-`` and ``*`` wrap in the scalar's own width. An int32 one is compared too, but nothing takes
    what comes of it. Other operators, and the value itself, are refused as those of a register (NKI-L022).

    Attributes:
        dtype: int32 or int64.
        is_comparison: True for what a comparison gave.
        register: what a Program knows it by.

    Source: SDK page ``nki.isa.NkiScalar`` and its deep dive on scalars.
    """

    __slots__ = ("dtype", "is_comparison", "register")

    def __init__(self, state: VirtualRegister, dtype: DType | None = None, is_comparison: bool = False):
        super().__init__(state.index, True, state.stack)
        self.dtype = DTYPES["int32"] if dtype is None else dtype
        self.is_comparison = is_comparison
        self.register: VirtualRegister = state.register if isinstance(state, NkiScalar) else state

    def __repr__(self) -> str:
        return f"{self.dtype} scalar {self.index}"

    __add__, __sub__, __mul__ = _operator("+"), _operator("-"), _operator("*")
    __radd__, __rsub__, __rmul__ = _reflected("+"), _reflected("-"), _reflected("*")
    __lt__, __le__ = _operator("<"), _operator("<=")
    __gt__, __ge__ = _operator(">"), _operator(">=")
    __eq__, __ne__ = _operator("=="), _operator("!=")
    __hash__ = object.__hash__

    def __neg__(self) -> Any:
        return _computed("-", 0, self)

    def __pos__(self) -> Any:
        return _computed("+", self, 0)
