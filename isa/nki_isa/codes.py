"""The table of diagnostic codes: one row each, never reused, never renumbered.

The letter is the category: L language, V validation, M memory, H hazard,
N numeric, U unsupported, I internal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Category(enum.Enum):
    """Whose fault a diagnostic is, as a closed list."""

    language = "language"
    validation = "validation"
    memory = "memory"
    hazard = "hazard"
    numeric = "numeric"
    unsupported = "unsupported"
    internal = "internal"


_LETTERS = {
    "L": Category.language,
    "V": Category.validation,
    "M": Category.memory,
    "H": Category.hazard,
    "N": Category.numeric,
    "U": Category.unsupported,
    "I": Category.internal,
}


@dataclass(frozen=True, slots=True)
class Code:
    """A row: the code, a short title, and the rule in one sentence."""

    code: str
    title: str
    rule: str

    @property
    def category(self) -> Category:
        """The category its letter stands for."""
        return _LETTERS[self.code.split("-")[1][0]]


_ROWS = (
    # --- language: lexing and parsing
    Code("NKI-L001", "unreadable character", "Source text is made of the tokens of the NKI language."),
    Code("NKI-L002", "bad indentation", "A block is indented by one consistent step and dedents to an open level."),
    Code("NKI-L003", "unmatched bracket", "Every bracket opened is closed by its own kind."),
    Code("NKI-L004", "syntax error", "Source text follows the grammar of the NKI language."),
    Code("NKI-L005", "not in the NKI language", "Only the statements and expressions of the NKI language are compiled."),
    Code("NKI-L006", "bad assignment target", "Only names, attributes, subscripts and tuples of them are assigned to."),
    # --- language: names and calls
    Code("NKI-L010", "unknown name", "A name is a parameter, a local, a module global or a supported built-in."),
    Code("NKI-L011", "unknown attribute of an nki module", "Only names that the nki API has can be used."),
    Code("NKI-L012", "wrong arguments of a call", "A call gives each parameter once and no argument the callee lacks."),
    Code("NKI-L013", "no source for a function", "What a kernel reaches by name is compiled from its source text."),
    Code("NKI-L014", "statement outside its place", "break and continue stand in loops, return in functions."),
    Code("NKI-L015", "API of the Beta 1 language", "Beta 1 names were removed; Beta 2 has replacements."),
    # --- language: specialization
    Code("NKI-L020", "assertion failed", "An assert in a kernel holds for the shapes and scalars given."),
    Code("NKI-L021", "error while specializing", "Meta-code evaluates without an error."),
    Code("NKI-L022", "device value used at compile time", "Tensor contents and registers are unknown at specialization."),
    Code("NKI-L023", "not a kernel", "Only functions decorated with @nki.jit are compiled."),
    Code("NKI-L024", "unsupported kernel argument", "Kernels take arrays, scalars, strings, None and containers of them."),
    Code("NKI-L025", "bad return value", "A kernel returns HBM tensors, or tuples and lists of them."),
    Code("NKI-L026", "file not found", "A command is given a file that exists and is Python source."),
    Code("NKI-L027", "no kernel call in file", "A file given to run, profile or ir calls at least one kernel."),
    Code("NKI-L028", "malformed IR text", "IR text follows the grammar that `nki-sim ir` prints."),
    Code("NKI-L029", "called outside a kernel", "Device operations are written inside a function that nki.jit compiles."),
    # --- validation: instructions
    Code("NKI-V100", "wrong kind of operand", "Each operand of an instruction is a tensor, a scalar or a value as documented."),
    Code("NKI-V101", "wrong memory", "Each operand lives in a memory its engine can reach."),
    Code("NKI-V102", "too many partitions", "A tile spans at most the 128 partitions of SBUF and PSUM."),
    Code("NKI-V103", "operand sizes differ", "Operands of one instruction agree in partitions and free sizes as documented."),
    Code("NKI-V104", "free size over the limit", "The free size of an operand stays within the instruction's limit."),
    Code("NKI-V105", "unsupported data type", "An operand has one of the data types its instruction supports."),
    Code("NKI-V106", "unsupported engine", "An instruction runs on the engines that implement it."),
    Code("NKI-V107", "unsupported operator", "An instruction takes the operators its engine implements."),
    Code("NKI-V108", "not on this generation", "An instruction or mode exists on the generations that have its hardware."),
    Code("NKI-V109", "bad scalar operand", "A scalar operand is an immediate or one fp32 value per partition."),
    Code("NKI-V110", "bad start partition", "Access starts at partition 0, 32, 64 or 96, by its partition count."),
    Code("NKI-V111", "bad attribute value", "A compile-time attribute has one of its documented values."),
    Code("NKI-V112", "too many dimensions", "An access pattern has at most the dimensions the instruction encodes."),
    Code("NKI-V113", "attributes that exclude each other", "Options of one instruction combine as documented."),
    Code("NKI-V114", "misaligned access", "An access starts at the alignment its memory requires."),
    Code("NKI-V115", "unknown target", "A target is one of the generations trn1 (inf2), trn2 and trn3."),
)

CODES: dict[str, Code] = {row.code: row for row in _ROWS}
