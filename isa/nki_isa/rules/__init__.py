"""Rules of the compiler and of the hardware as data: one row each, with what it is known from.

The rows stand in modules by what they speak of. The predicate of a row is a constraint of the instructions
it speaks of, or a check of the whole program; a finding names its row.
"""

from __future__ import annotations

from nki_isa.rules import dma, elementwise, engine_access, language, memory, programs, psum, tensor_engine
from nki_isa.rules.rule import Evidence, Rule, Standing, version_of

__all__ = ["RULES", "Evidence", "Rule", "Standing", "rule_of", "version_of"]

_MODULES = (engine_access, elementwise, tensor_engine, psum, dma, memory, programs, language)

#: Every row by its name, in the order of the documentation.
RULES: dict[str, Rule] = {
    row.name: row for module in _MODULES for row in vars(module).values() if isinstance(row, Rule)
}

_ALONE: dict[str, Rule] = {}
for _row in RULES.values():
    if _row.code and _row.whole_code:
        if _row.code in _ALONE:
            raise RuntimeError(f"two rows are all of {_row.code}")
        _ALONE[_row.code] = _row


def rule_of(code: str, known: str | None) -> Rule | None:
    """The row that a finding names, or the only one its code has; None where none is known."""
    return RULES[known] if known in RULES else _ALONE.get(code)
