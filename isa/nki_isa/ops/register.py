"""Instructions on virtual registers: 32-bit scalars of the engines' sequencers.

A register holds 32 bits without a type. They read as a signed number, so one
loaded from uint32 counts as negative from 2**31 on; a float keeps its bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.memories import memory
from nki_isa.constraints.observed import RUN_TIME_OFFSET_TRN1
from nki_isa.constraints.operands import HBM, SBUF, rules
from nki_isa.cost import Cost, sequencer
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read, register_read, register_write, write
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_SOURCE = "nki/api/nki/isa (register_alloc, register_move, register_load, register_store)"


def _frozen(i: Any, target: Target) -> str | None:
    if isinstance(i.dst, VirtualRegister) and i.dst.frozen:
        return "dst is the variable of a device loop, which only the loop changes"
    return None


_NOT_FROZEN = Constraint(
    "NKI-V100",
    "The variable of a device loop is not written.",
    _frozen,
    "copy it first: r = nisa.register_alloc(); nisa.register_move(r, i)",
    _SOURCE,
)


def one_element(name: str) -> tuple[Constraint, ...]:
    """Rules of a tensor that is read or written as one value."""

    def count(i: Any, target: Target) -> str | None:
        tensor = i.__dict__[name]
        if isinstance(tensor, NkiTensor) and tensor.size != 1:
            return f"{name} {list(tensor.shape)} has {tensor.size} elements, it must have 1"
        return None

    def width(i: Any, target: Target) -> str | None:
        tensor = i.__dict__[name]
        if isinstance(tensor, NkiTensor) and tensor.dtype.kind == "packed":
            return f"{name} is {tensor.dtype}, it must be one value of at most 32 bits"
        return None

    return (
        Constraint(
            "NKI-V103", f"{name} has exactly one element.", count, f"slice {name} to one element", _SOURCE
        ),
        Constraint(
            "NKI-V105", f"{name} is a scalar data type.", width, f"view {name} as an integer type", _SOURCE
        ),
    )


@instruction
class register_move(Instruction):
    """dst = src: sets a register to an int or to another register's value.

    An int outside 32 bits keeps its low 32 bits.

    Shapes: `dst` is a register, `src` a register or an int.
    Errors: NKI-V100 for the variable of a device loop, which only the loop changes.
    Source: SDK page nki.isa.register_move.
    """

    dst = register_write()
    src = register_read()
    name = attribute(str, None, public=False)  # the API gives these no name=

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    constraints = rules(_NOT_FROZEN)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(0), "src": 1}

    def compute(self, src: int) -> int:
        """`src` itself."""
        return int(src)

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target)


@instruction
class register_load(Instruction):
    """dst = the one element of `src`, in SBUF or HBM, of at most 32 bits.

    Integers keep their value, floats their bits.

    Shapes: `dst` is a register, `src` has one element of at most 32 bits.
    Errors: NKI-V100 as for register_move; V101, V103, V105.
    Source: SDK page nki.isa.register_load.
    """

    dst = register_write()
    src = read()
    name = attribute(str, None, public=False)  # the API gives these no name=

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    observed = (RUN_TIME_OFFSET_TRN1,)
    constraints = rules(_NOT_FROZEN, memory("src", SBUF, *HBM, source=_SOURCE), *one_element("src"))

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(0), "src": t((1, 1), "int32")}

    def compute(self, src: NDArray[Any]) -> int:
        """The element as the register holds it."""
        if src.dtype.kind in "iub":
            return int(src.reshape(-1)[0])
        return int.from_bytes(src.tobytes(), "little")

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target, memory=True)


@instruction
class register_store(Instruction):
    """The one element of `dst`, in SBUF or HBM, = the low bits of register `src`.

    Shapes: `dst` has one element of at most 32 bits, `src` is a register.
    Errors: NKI-V101, V103, V105.
    Source: SDK page nki.isa.register_store.
    """

    dst = write()
    src = register_read()
    name = attribute(str, None, public=False)  # the API gives these no name=

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    observed = (RUN_TIME_OFFSET_TRN1,)
    constraints = rules(memory("dst", SBUF, *HBM, source=_SOURCE), *one_element("dst"))

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((1, 1), "int32"), "src": VirtualRegister(0)}

    def compute(self, src: int) -> NDArray[Any]:
        """One element of the data type of `dst`."""
        dtype = self.__dict__["dst"].dtype
        if dtype.kind == "bool":
            return np.array([src != 0])
        word = (int(src) & 0xFFFFFFFF).to_bytes(4, "little")
        return np.frombuffer(word[: dtype.itemsize], dtype.numpy)

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target, memory=True)
