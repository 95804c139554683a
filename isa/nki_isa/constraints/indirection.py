"""Rules of tensor indirection: gather and scatter views made by ``.indirect(index)``.

Source: the tensor indirection sections of the SDK's ``nki.isa`` pages, the same
text for every instruction that has it.
"""

from __future__ import annotations

from typing import Any

from nki_isa.constraints.operands import STUB, in_psum, listed, start_of, tensors_of
from nki_isa.ir.constraint import Constraint
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature
from nki_isa.tensor.tensor import NkiTensor


def is_indirect(value: Any) -> bool:
    """True for a view made by ``.indirect(index)``."""
    return isinstance(value, NkiTensor) and value.dynamic is not None and value.dynamic.kind == "indirect"


def no_indirection(*, source: str = STUB) -> Constraint:
    """No operand is a view made by ``.indirect()`` (NKI-V108)."""
    return indirection(source=source)[0]


def indirection(
    *names: str,
    gather: str | None = None,
    scatter: str = "dst",
    engines: tuple[Engine, ...] = (),
    on_scalar: bool = False,
    source: str = STUB,
) -> tuple[Constraint, ...]:
    """Only `names` may be ``.indirect()`` views, from NeuronCore-v4 on (NKI-V108, V106, V101, V110).

    Args:
        gather: the operand whose partitions the index of a scattered `scatter` must line up with.
        scatter: the destination.
        engines: those that can do it; all that run the instruction if empty.
        on_scalar: True if the scalar engine is among them.
    """

    takers = listed(names, "and") if names else "no operand"

    def allowed(instruction: Any, target: Any) -> str | None:
        for name, value in instruction.__dict__.items():
            if type(value) is list:
                value = next((v for v in tensors_of(value) if is_indirect(v)), None)
            if is_indirect(value):
                if name not in names:
                    return f"{name} is an indirect view, which is possible for {takers}"
                if Feature.indirect_operands not in target.features:
                    return (
                        f"{name} is an indirect view, which exists since NeuronCore-v4; "
                        f"the target {target.name} is NeuronCore-v{target.nc_version}"
                    )
        return None

    first = Constraint(
        "NKI-V108",
        f"Tensor indirection exists since NeuronCore-v4, for {takers}."
        if names
        else "No operand is an indirect view.",
        allowed,
        "gather or scatter with nisa.dma_copy, nc_n_gather or local_gather",
        source,
    )
    if not names:
        return (first,)

    rows = [first]
    if engines:
        rows.append(_on_engines(names, engines, source))
    if on_scalar:
        rows.append(_scatter_of_scalar(scatter, source))
    rows.append(_aligned(names, gather, source))
    return tuple(rows)


def _on_engines(names: tuple[str, ...], engines: tuple[Engine, ...], source: str) -> Constraint:
    able = listed(e.name for e in engines)

    def broken(instruction: Any, target: Any) -> str | None:
        if instruction.on not in engines:
            for name in names:
                if is_indirect(instruction.__dict__[name]):
                    return f"engine is {instruction.on.name} and {name} is an indirect view; {able} can do it"
        return None

    return Constraint(
        "NKI-V106",
        f"Tensor indirection runs on {able}.",
        broken,
        "leave engine unset, or name one that has indirection",
        source,
    )


def _scatter_of_scalar(scatter: str, source: str) -> Constraint:
    def broken(instruction: Any, target: Any) -> str | None:
        value = instruction.__dict__[scatter]
        if instruction.on is Engine.scalar and is_indirect(value) and in_psum(value):
            return f"{scatter} is an indirect view in PSUM, on the scalar engine it must be in SBUF"
        return None

    return Constraint(
        "NKI-V101",
        f"A scattered {scatter} of the scalar engine is in SBUF.",
        broken,
        "scatter into SBUF, or run it on the vector engine",
        source,
    )


def _aligned(names: tuple[str, ...], gather: str | None, source: str) -> Constraint:
    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        for name in names:
            value = values[name]
            if not is_indirect(value):
                continue
            index = value.dynamic.index
            if not isinstance(index, NkiTensor) or index.storage.address is None:
                continue
            start = start_of(index)
            if start % 32:
                return f"the index of {name} starts at partition {start}, it must start at a multiple of 32"
            other = values[gather] if gather else None
            if name == gather:
                partner, what = value, name
            elif isinstance(other, NkiTensor) and is_indirect(other) and in_psum(other):
                partner, what = other.dynamic.index, f"the index of {gather}"  # type: ignore[union-attr]
            elif isinstance(other, NkiTensor) and not in_psum(other):
                partner, what = other, str(gather)
            else:
                continue
            if partner.storage.address is not None and start_of(partner) != start:
                return (
                    f"the index of {name} starts at partition {start}, {what} at {start_of(partner)}: "
                    "they must be equal"
                )
        return None

    return Constraint(
        "NKI-V110",
        "The index of an indirect view starts at a multiple of 32 and where its data starts.",
        broken,
        "allocate the index at the start partition of the data it addresses",
        source,
    )
