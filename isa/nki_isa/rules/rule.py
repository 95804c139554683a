"""What a rule of the compiler or of the hardware is known from: a row of the one table of such rules.

A rule that a page of the SDK states and one that only compilers were seen to keep are rows alike; what is
known of a rule decides how severe a finding is (:class:`Standing`). Who breaks a rule is found where the
instruction, tensor or program it speaks of is checked: that code names the row.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nki_isa.diagnostics import Severity
from nki_isa.diagnostics.codes import CODES


class Standing(enum.Enum):
    """How firmly a rule is known: the class of its findings."""

    error = "error"  # documented, or seen many times and contradicted by nothing
    seen = "warning seen at compile"  # seen, undocumented or tied to a version
    warning = "warning"  # seen to go wrong, and done by public kernels that work
    note = "note"  # seen once, or against the documentation
    never = "never"  # working kernels do it: no finding

    @property
    def severity(self) -> Severity | None:
        """Of a finding; None where there is none."""
        return _SEVERITIES[self]

    @property
    def decides(self) -> bool:
        """True if a finding means that the compiler refuses the kernel."""
        return self in (Standing.error, Standing.seen)


_SEVERITIES = {
    Standing.error: Severity.error,
    Standing.seen: Severity.warning,
    Standing.warning: Severity.warning,
    Standing.note: Severity.note,
    Standing.never: None,
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a rule is known from.

    Attributes:
        documented: the page of the SDK that states it; empty where none does.
        seen: how many public places report it (places, not authors).
        said: what the compiler or the runtime said, shortened.
        targets: generations it was seen on.
        compilers: versions of neuronx-cc it was seen with, oldest first.
        against: what speaks against it; empty where nothing does.
    """

    documented: str = ""
    seen: int = 0
    said: str = ""
    targets: tuple[str, ...] = ()
    compilers: tuple[str, ...] = ()
    against: str = ""

    def __str__(self) -> str:
        parts = [f"documented: {self.documented}"] if self.documented else []
        if self.seen:
            times = f"seen in {self.seen} public place{'s' * (self.seen != 1)}"
            where = ", ".join([*self.targets, *(f"neuronx-cc {version}" for version in self.compilers)])
            parts.append(times + (f" ({where})" if where else "") + (f': "{self.said}"' if self.said else ""))
        if self.against:
            parts.append(f"against it: {self.against}")
        return "; ".join(parts) or "not seen yet"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row.

    Attributes:
        name: what ``nki-sim explain`` takes.
        code: of its findings; empty for a rule that must not fire.
        standing: its class.
        reason: why the hardware or the compiler has it, in a sentence or two.
        evidence: where it is known from.
        wrong, right: twins, each the lines of a kernel's body or a whole file (see ``nki_tools.twins``).
        rule: the rule in one sentence; that of the code where it is left out.
        targets: the generations it holds on; all if empty.
        level: the oldest API level it holds at; all if empty.
        until: the newest API level it holds at; all later ones too if empty.
        whole_code: True if every finding of its code is one of it.
        tolerated: True if kernels that were published run where it is not checked: outside of the strict
            language profile an error is a warning, and the gate's verdict stays.
    """

    name: str
    code: str
    standing: Standing
    reason: str
    evidence: Evidence
    wrong: str
    right: str
    rule: str = ""
    targets: tuple[str, ...] = ()
    level: str = ""
    until: str = ""
    whole_code: bool = False
    tolerated: bool = False

    @property
    def sentence(self) -> str:
        """The rule in one sentence."""
        return self.rule or CODES[self.code].rule

    @property
    def since(self) -> str:
        """The oldest compiler it was seen with; empty where that is unknown or the rule is documented."""
        return "" if self.evidence.documented or not self.evidence.compilers else self.evidence.compilers[0]

    def on(self, target: str) -> bool:
        """True if it holds on the generation `target`."""
        return not self.targets or target in self.targets

    def counts(self, compiler: str | None) -> bool:
        """True if what is known of it covers version `compiler` of neuronx-cc; None stands for the newest."""
        return compiler is None or not self.since or version_of(compiler) >= version_of(self.since)


def version_of(text: str) -> tuple[int, ...]:
    """``"2.27"`` as numbers.

    Raises:
        ValueError: it is not made of numbers and dots.
    """
    return tuple(int(part) for part in text.split("."))
