"""What instructions in which cores wait for each other have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from nki_isa.ir.instruction import Instruction

Array = NDArray[Any]


class Seat(NamedTuple):
    """Where a core is among those of a launch.

    Attributes:
        rank: its rank.
        core: its number among the cores of its rank.
        ranks: how many ranks there are.
        cores: how many cores each has.
    """

    rank: int
    core: int
    ranks: int = 1
    cores: int = 1


class Grouped:
    """What an instruction has whose ranks go by groups."""

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The ranks, by group, each in order."""
        raise NotImplementedError

    def group_of(self, rank: int) -> tuple[int, ...]:
        """The ranks of the group of `rank`, itself included, in order; empty if it is in none."""
        return next((group for group in self.groups if rank in group), ())


class Meeting(Instruction):
    """An instruction in which cores meet: each waits until all of them have reached theirs.

    Class attributes:
        moves: False if it names its tensors only, and neither reads nor writes their bytes.
        partial: True if its data say which parts of its tensors it uses.
        listened_together: True if listeners hear of it when all have met, not as each core arrives.
    """

    synchronises = True
    moves: ClassVar[bool] = True
    partial: ClassVar[bool] = False
    listened_together: ClassVar[bool] = False

    @property
    def orders(self) -> bool:
        """True if what each core did in shared HBM before it is done for all of them after it."""
        return True

    def partners(self, seat: Seat) -> frozenset[tuple[int, int]]:
        """The rank and number of each core that the one at `seat` has to meet, itself included."""
        raise NotImplementedError(self.opcode)

    def agrees(self, other: Instruction) -> bool:
        """True if it and that of a partner are one meeting."""
        return type(self) is type(other)

    def said(self) -> str:
        """The call, shortened."""
        raise NotImplementedError(self.opcode)

    def lines(self, seats: Sequence[Seat]) -> list[list[int]]:
        """Of the cores that meet at `seats`, those that exchange data with each other, in order."""
        return [[*range(len(seats))]] if self.moves else []

    def used(self, place: int, ranks: Sequence[int], sent: Sequence[Sequence[Array]]) -> Instruction:
        """The call with what it uses of its tensors in the place of them, if it is `partial`.

        Args:
            place: of the core that makes it, in its line.
            ranks: those of its line.
            sent: what each of them reads.
        """
        return self

    def deliver(
        self, seats: Sequence[Seat], calls: Sequence[Any], sent: Sequence[Sequence[Array]]
    ) -> list[list[Array | None]]:
        """What the cores of a line receive.

        Args:
            seats: where they are.
            calls: the instruction of each; this is one of them.
            sent: what each of them reads, as stored, in the order of its :attr:`reads`.

        Returns:
            For each of them an array for each tensor it writes, masked where that keeps what it holds, or
            None if it keeps all of it.
        """
        raise NotImplementedError(self.opcode)


__all__ = ["Array", "Grouped", "Meeting", "Seat"]
