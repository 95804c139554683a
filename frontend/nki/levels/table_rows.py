"""What the tables of API levels are made of: the levels, and the kinds of rows.

Sources of the tables: API stubs of Neuron 2.28 to 2.32; SDK "NKI Migration Guides"; release notes of NKI
0.3.0 to 0.6.0; pages of Neuron 2.33.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nki_isa.machine import enums
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import OPERATORS

#: The levels, oldest first, with the SDK release that brought each.
LEVELS: dict[str, str] = {
    "0.2": "2.28",
    "0.3": "2.29",
    "0.4": "2.30",
    "0.5": "2.31",
    "0.6": "2.32",
    "0.7": "2.33",
}
NEWEST = "0.7"

#: The place of each level in time.
ORDER = {level: i for i, level in enumerate(LEVELS)}
LANGUAGE, ISA, COLLECTIVES, COMPILER = "nki.language", "nki.isa", "nki.collectives", "nki.compiler"
#: Where members of a class are: the name its instances have, or its own.
TILE_SIZE, TENSOR = "nki.language.tile_size", "nki.language.NkiTensor"


@dataclass(frozen=True, slots=True)
class Name:
    """A name that some levels lack.

    Attributes:
        module: where it is, a module or (:data:`TILE_SIZE`, :data:`TENSOR`) a class.
        name: the name.
        since: the first level that has it.
        until: the last level that has it; None if the newest does.
        instead: what to write at levels without it.
    """

    module: str
    name: str
    since: str = "0.2"
    until: str | None = None
    instead: str = ""

    def at(self, level: str) -> bool:
        """True if `level` has it."""
        return ORDER[self.since] <= ORDER[level] <= ORDER[self.until or NEWEST]

    @property
    def levels(self) -> str:
        """At which levels it exists, in words."""
        if self.until is None:
            return f"from {self.since} on"
        return f"at {self.until}" if self.since == self.until else f"from {self.since} to {self.until}"


@dataclass(frozen=True, slots=True)
class OlderForm:
    """The parameters of a function up to a level, where they differ from the newest.

    Attributes:
        module: where the function is.
        name: the function.
        until: the last level with these parameters.
        parameters: in order, those with a default as name=default.
        change: what the next level did.
        instead: keyword of this form -> what to write instead at later levels.
        translate: makes (name, keywords) of the newest form from this form's arguments by name.
    """

    module: str
    name: str
    until: str
    parameters: str
    change: str
    instead: dict[str, str]
    translate: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]

    @property
    def signature(self) -> inspect.Signature:
        """`parameters` as a signature."""
        return _signature(self.parameters)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an instruction does otherwise up to a level, called the same way.

    Attributes:
        name: the instruction, of nki.isa.
        until: the last level that does so.
        fields: those of the instruction's fields, no parameters of the API, that say so.
        change: what the next level did.
    """

    name: str
    until: str
    fields: dict[str, Any]
    change: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A change without a name or a parameter: a deprecation, or a rule that some levels lack.

    Attributes:
        what: what it is about.
        level: the level that brought it.
        change: the change.
        instead: what to write.
        name: (module, name) of a name that is deprecated since, which the checker tells of (NKI-L056).
        going: True where a release has been announced to lack it: then that is a warning, else a note.
    """

    what: str
    level: str
    change: str
    instead: str
    name: tuple[str, str] | None = None
    going: bool = False


# --- reading the table

_CLASSES: dict[str, Callable[[str], Any]] = {
    "op": lambda name: OPERATORS[name],
    "dtype": lambda name: DTYPES[name],
    "engine": lambda name: Engine[name],
}
_WORDS: dict[str, Any] = {"None": None, "True": True, "False": False, "()": (), "''": ""}


def _signature(parameters: str) -> inspect.Signature:
    made = []
    for part in parameters.split():
        name, has_default, text = part.partition("=")
        default = _default(text) if has_default else inspect.Parameter.empty
        made.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(made)


def _default(text: str) -> Any:
    kind, is_member, name = text.partition(":")
    if is_member:
        reader = _CLASSES.get(kind)
        return reader(name) if reader else getattr(enums, kind)[name]
    if text in _WORDS:
        return _WORDS[text]
    return float(text) if "." in text else int(text)


__all__ = [
    "COLLECTIVES",
    "COMPILER",
    "ISA",
    "LANGUAGE",
    "LEVELS",
    "NEWEST",
    "ORDER",
    "TENSOR",
    "TILE_SIZE",
    "OlderForm",
    "Meaning",
    "Name",
    "Notice",
]
