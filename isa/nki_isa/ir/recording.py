"""What an instruction sees of the kernel that it becomes part of, when it is emitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nki_isa.diagnostics import NkiError
    from nki_isa.ir.instruction import Instruction
    from nki_isa.machine.target import Target
    from nki_isa.rules.rule import Rule
    from nki_isa.tensor.storage import Storage


class Recording(Protocol):
    """A Program under construction.

    Attributes:
        target: the generation it is specialized for.
        grid: number of SPMD programs the kernel is launched with.
        strict: refuse what published kernels do and the documentation does not allow.
        collectives: those emitted so far.
        multiplied: what matmuls keep of what they have written, by the index of a storage.
    """

    target: Target
    grid: int
    strict: bool
    collectives: list[Instruction]
    multiplied: dict[int, Any]

    @property
    def in_device_loop(self) -> bool:
        """True inside the body of a loop that runs on the device."""

    def repeats(self, storage: Storage) -> bool:
        """True if what is emitted now runs in a device loop that `storage` is allocated outside of."""

    def is_named(self, storage: Storage) -> bool:
        """True if the kernel gave `storage` its name, or the caller did."""

    def tell(self, row: Rule, message: str, *, help: str) -> None:
        """Keep a finding about `row`, as severe as the row is sure."""

    def warn(self, found: NkiError) -> None:
        """Keep the diagnostics of `found` as warnings."""

    def prepare(self, instruction: Any) -> None:
        """`instruction` prepares a collective, for which there is one place; NKI-V155 if it is taken."""

    def trigger(self, instruction: Any) -> None:
        """`instruction` triggers what was prepared; NKI-V155 if nothing was."""
