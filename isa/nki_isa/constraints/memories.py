"""Rules about the memory an operand lives in."""

from __future__ import annotations

from typing import Any

from nki_isa.constraints.operands import (
    PSUM,
    STUB,
    each_tensor,
    in_psum,
    listed,
    region_name,
)
from nki_isa.ir.constraint import Constraint
from nki_isa.machine.target import Feature
from nki_isa.machine.targets import since
from nki_isa.rules import elementwise
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor


def memory(*names_and_regions: str | MemoryRegion, source: str = STUB) -> Constraint:
    """Each of the operands named lives in one of the regions given (NKI-V101)."""
    names = tuple(x for x in names_and_regions if isinstance(x, str))
    regions = frozenset(x for x in names_and_regions if isinstance(x, MemoryRegion))
    wanted = listed(dict.fromkeys(region_name(r) for r in MemoryRegion if r in regions))

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.storage.region in regions:
            return None
        return f"is in {region_name(tensor.storage.region)}, it must be in {wanted}"

    rule = f"{listed(names, 'and')} {'is' if len(names) == 1 else 'are'} in {wanted}."
    copy = f"copy the operand to {wanted} first"
    allocate = f"allocate the result in {wanted}, and copy it from there"
    help = allocate if names == ("dst",) else f"{copy}; {allocate}" if "dst" in names else copy
    return Constraint("NKI-V101", rule, each_tensor(names, test), help, source)


def memory_since(name: str, feature: Feature, *, source: str = STUB) -> Constraint:
    """`name` lives in SBUF, on generations with `feature` also in PSUM (NKI-V101)."""
    version = since(feature)

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.storage.region is PSUM and not target.has(feature):
            return f"is in PSUM, which is possible since NeuronCore-v{version}; the target is {target.name}"
        return None

    rule = f"{name} is in PSUM only since NeuronCore-v{version}."
    return Constraint("NKI-V101", rule, each_tensor((name,), test), f"allocate {name} in SBUF", source)


def not_both_psum(first: str, second: str, *, source: str = STUB) -> Constraint:
    """`first` and `second` are not both in PSUM (NKI-V101)."""

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        if in_psum(values[first]) and in_psum(values[second]):
            return f"{first} and {second} are both in PSUM, at most one of them may be"
        return None

    rule = f"At most one of {first} and {second} is in PSUM."
    help = f"copy {first} or {second} to SBUF first"
    return Constraint("NKI-V101", rule, broken, help, source, elementwise.TWO_PSUM_SOURCES)
