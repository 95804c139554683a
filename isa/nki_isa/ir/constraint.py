"""A documented rule of an instruction, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nki_isa.machine.target import Target
    from nki_isa.rules.rule import Rule


class Complaint(str):
    """The message of a constraint that is broken in a way with a help of its own."""

    help: str

    def __new__(cls, message: str, help: str) -> Complaint:
        made = super().__new__(cls, message)
        made.help = help
        return made


@dataclass(frozen=True, slots=True)
class Constraint:
    """One documented rule of an instruction, as data.

    Attributes:
        code: the diagnostic's code.
        rule: the rule in one sentence, without values.
        broken: given the instruction and the target, the message with the value
            received and the limit, or None where the rule holds.
        help: what to write instead, unless the message is a :class:`Complaint`, which knows better.
        source: the documentation page or measurement that states the rule.
        row: what is known of it beyond that, and how severe a finding is; an error without one.
    """

    code: str
    rule: str
    broken: Callable[[Any, Target], str | None]
    help: str
    source: str
    row: Rule | None = None
