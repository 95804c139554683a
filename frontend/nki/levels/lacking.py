"""What to say of a name that the API level in force lacks, or that a later one will lack."""

from __future__ import annotations

from nki.levels.chosen import before, choice, current
from nki.levels.missing_names import NAMES
from nki.levels.notices import NOTICES
from nki.levels.table_rows import ORDER
from nki_isa.diagnostics import Diagnostic, Severity

_names = {(row.module, row.name): row for row in NAMES}
_notices = {row.name: row for row in NOTICES}


def refusal(module: str, name: str, level: str | None = None) -> Diagnostic | None:
    """NKI-L050 for a name that other levels have and the one in force lacks; None for any other name."""
    row, level = _names.get((module, name)), level or current()
    if row is None or row.at(level):
        return None
    message = f"{module}.{name} exists {row.levels}; the API level is {level}"
    nearest = row.until if row.until and ORDER[row.until] < ORDER[level] else row.since
    return Diagnostic("NKI-L050", message, help=row.instead, notes=(choice(nearest),))


def deprecation(module: str, name: str) -> Diagnostic | None:
    """NKI-L056 for a name that the level in force has and a later one will not: a warning, or a note."""
    row = _notices.get((module, name))
    if row is None or before(row.level) or refusal(module, name) is not None:
        return None
    text = f"{row.what} is deprecated since {row.level}; the API level is {current()}"
    severity = Severity.warning if row.going else Severity.note
    return Diagnostic("NKI-L056", text, help=f"write {row.instead}", severity=severity)


__all__ = ["deprecation", "refusal"]
