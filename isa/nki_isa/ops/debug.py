"""What a kernel says while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.memories import memory
from nki_isa.constraints.operands import SBUF, rules
from nki_isa.cost import Cost
from nki_isa.ir.constraint import Constraint
from nki_isa.ir.fields import attribute, read
from nki_isa.ir.instruction import Instruction, MakeTile, Order, instruction
from nki_isa.machine.dtypes import DType, to_float32
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import MemoryRegion

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_SOURCE = "nki/api/nki/language (device_print)"
_LINE = 100  # characters
_WHOLE = 256  # elements up to which a tensor is shown whole
_EDGE = 3  # elements shown at either end of a longer dimension


def _text_prefix(i: Any, target: Target) -> str | None:
    if not isinstance(i.print_prefix, str):
        return f"print_prefix is {i.print_prefix!r}, it must be a string"
    return None


@instruction
class device_print(Instruction):
    """Prints a prefix, the dtype and shape of a tensor in SBUF or HBM, and its values, each time it runs.

    Values print with as many digits as tell them apart; of a tensor with more than 256 elements the first
    and last 3 of each dimension. It takes no time and no engine: timelines leave it out.

    Shapes: `tensor` is of any shape, in SBUF or HBM.
    Errors: NKI-V101, V111.
    Source: SDK page ``nki.language.device_print``; the format is ours.
    """

    print_prefix = attribute(str)
    tensor = read()

    engines = (Engine.sync,)
    namespace = "nki.language"
    is_free = True
    stateful = True
    source = _SOURCE
    order = Order.streamed
    constraints = rules(
        Constraint(
            "NKI-V111",
            "print_prefix is a string known at specialization.",
            _text_prefix,
            'write nl.device_print("label", tensor)',
            _SOURCE,
        ),
        memory("tensor", SBUF, MemoryRegion.private_hbm, MemoryRegion.shared_hbm, source=_SOURCE),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"print_prefix": "t", "tensor": t((4, 4))}

    def compute(self, state: Any, tensor: NDArray[Any]) -> tuple[()]:
        """Print `tensor`; gives nothing."""
        if state.silent:
            return ()
        dtype = self.__dict__["tensor"].dtype
        print(
            f"{self.__dict__['print_prefix']} {dtype}{list(tensor.shape)}\n{_shown(tensor, dtype)}",
            flush=True,
        )
        return ()

    def cost(self, target: Target) -> Cost:
        """Nothing."""
        return Cost(0.0, 0.0, "register_ns")


def _shown(values: NDArray[Any], dtype: DType) -> str:
    """The values as text that no setting of numpy changes."""
    plain = values if dtype.kind in ("int", "uint", "bool") else to_float32(values, dtype)
    with np.printoptions(
        threshold=_WHOLE,
        edgeitems=_EDGE,
        linewidth=_LINE,
        suppress=False,
        sign="-",
        nanstr="nan",
        infstr="inf",
        legacy=False,
    ):
        return np.array2string(plain, floatmode="unique", separator=" ")
