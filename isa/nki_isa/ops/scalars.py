"""Integers computed on the device: what the scalars of the API record (``nki.isa.NkiScalar``).

A scalar lives in a register as it is, 32 or 64 bits wide; results wrap in its width.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.data_types import dtypes
from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import HBM, SBUF, rules
from nki_isa.cost import Cost, sequencer
from nki_isa.ir.fields import attribute, read, register_read, register_write, write
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.machine.enums import Engine
from nki_isa.ops.register import one_element
from nki_isa.tensor.storage import VirtualRegister

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_SOURCE = "nki/api/nki/isa (NkiScalar, scalar_load, scalar_store)"
_INTEGERS = ("int32", "int64")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def wrapped(value: int, bits: int) -> int:
    """`value` in so many bits, signed."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


@instruction
class scalar_load(Instruction):
    """dst = the one element of `src`, int32 or int64, in SBUF or HBM; what nisa.scalar_load records.

    Shapes: src 1x1.
    Errors: NKI-V101, V103, V105.
    Source: SDK page nki.isa.scalar_load.
    """

    dst = register_write()
    src = read()
    name = attribute(str, None, public=False)

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    wide = keeps_width = True
    namespace = ""  # nisa.scalar_load makes the scalar
    constraints = rules(
        memory("src", SBUF, *HBM, source=_SOURCE),
        *one_element("src"),
        dtypes("src", _INTEGERS, source=_SOURCE),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(0), "src": t((1, 1), "int32")}

    def compute(self, src: NDArray[Any]) -> int:
        """The element."""
        return int(src.reshape(-1)[0])

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target, memory=True)


@instruction
class scalar_store(Instruction):
    """The one element of `dst`, in SBUF or HBM, = `value`, a scalar of its data type; nisa.scalar_store.

    Shapes: dst 1x1.
    Errors: NKI-V101, V103, V105.
    Source: SDK page nki.isa.scalar_store.
    """

    dst = write()
    value = register_read()
    name = attribute(str, None, public=False)

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    wide = True
    namespace = ""
    constraints = rules(
        memory("dst", SBUF, *HBM, source=_SOURCE),
        *one_element("dst"),
        dtypes("dst", _INTEGERS, source=_SOURCE),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((1, 1), "int32"), "value": VirtualRegister(0)}

    def compute(self, value: int) -> NDArray[Any]:
        """One element of the data type of `dst`."""
        dtype = self.__dict__["dst"].dtype
        return np.array([wrapped(int(value), dtype.bits)], dtype.numpy)

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target, memory=True)


@instruction
class scalar_compute(Instruction):
    """dst = left `operator` right, wrapped in `bits` bits; what an operator of two scalars records.

    A constant wider than 32 bits is ``right + (high << 32)``.

    Shapes: registers.
    Errors: none of its own; NKI-V153 where the operator is written.
    Source: SDK page nki.isa.NkiScalar.
    """

    dst = register_write()
    left = register_read()
    operator = attribute(str)
    right = register_read()
    bits = attribute(int, 32)
    high = attribute(int, 0)
    name = attribute(str, None, public=False)

    engines = (Engine.sync,)
    source = _SOURCE
    order = Order.streamed
    keeps_width = True
    namespace = ""
    constraints = rules()

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": VirtualRegister(1), "left": VirtualRegister(0), "operator": "+", "right": 1}

    def compute(self, left: int, right: int) -> int:
        """The value that the register keeps."""
        values = self.__dict__
        right = int(right) + (values["high"] << 32)
        return wrapped(OPERATORS[values["operator"]](int(left), right), values["bits"])

    def cost(self, target: Target) -> Cost:
        return sequencer.register(target)
