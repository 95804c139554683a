"""API levels: NKI 0.2 to 0.7, of which one is in force; the tables of this package say how they differ.

A level is chosen with :func:`use`, the environment variable ``NKI_SIM_API`` or ``nki-sim --api``; the
default is the newest. The modules then hold the names of that level, and their functions take its
parameters, in its order; calls are translated to the newest form, which is what is modelled.
"""

from nki.levels.chosen import (
    among,
    before,
    choice,
    current,
    dtype_named,
    known_dtype,
    of_environment,
    older,
    read_level,
    taken_before,
)
from nki.levels.entries import (
    changed,
    enter,
    fields_of,
    fitting,
    form_of,
    keyword_refusal,
    leveled,
    orders,
    place_of,
    translated,
    with_members,
    with_orders,
)
from nki.levels.forms import FORMS, MEANINGS
from nki.levels.in_force import member_notes, refusing_members, use
from nki.levels.lacking import deprecation, refusal
from nki.levels.missing_names import NAMES
from nki.levels.notices import INFERRED, NOTICES, WHILE
from nki.levels.table_rows import LEVELS, NEWEST, TENSOR, TILE_SIZE, Name, Notice, OlderForm

__all__ = [
    "FORMS",
    "INFERRED",
    "LEVELS",
    "MEANINGS",
    "NAMES",
    "NEWEST",
    "NOTICES",
    "TENSOR",
    "TILE_SIZE",
    "WHILE",
    "OlderForm",
    "Name",
    "Notice",
    "among",
    "before",
    "changed",
    "choice",
    "current",
    "deprecation",
    "dtype_named",
    "enter",
    "fields_of",
    "fitting",
    "form_of",
    "keyword_refusal",
    "known_dtype",
    "leveled",
    "member_notes",
    "of_environment",
    "older",
    "orders",
    "place_of",
    "read_level",
    "taken_before",
    "refusal",
    "refusing_members",
    "translated",
    "use",
    "with_members",
    "with_orders",
]
