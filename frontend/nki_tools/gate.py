"""Would the compiler take a kernel, and will the hardware agree? A verdict, with what decided it.

Every rule that is known of the compiler and of the hardware (:mod:`nki_isa.rules`, and the constraints of
instructions) is looked at for the shapes of a call: "refuses it" where one is broken whose class says so,
"unknown" where the kernel uses what no evidence covers, else "takes it". Nothing is guessed.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nki import runtime
from nki_isa.diagnostics import Diagnostic, NkiError, Severity, error
from nki_isa.diagnostics.codes import Category
from nki_isa.machine.targets import as_target, default_target
from nki_isa.rules import Rule, rule_of, version_of
from nki_tools.covered import uncovered

if TYPE_CHECKING:
    from nki.kernel import Kernel
    from nki_isa.ir.program import Program
    from nki_isa.machine.target import Target


class Verdict(enum.Enum):
    """What becomes of a launch."""

    takes = "takes it"
    refuses = "refuses it"
    unknown = "unknown"

    @property
    def status(self) -> int:
        """The exit status of ``nki-sim gate``."""
        return {Verdict.takes: 0, Verdict.refuses: 1, Verdict.unknown: 3}[self]


@dataclass(frozen=True)
class Reason:
    """A finding, and what is known of its rule.

    Attributes:
        finding: the diagnostic, with the line and what to write instead.
        rule: its row, where it has one.
        decides: True if it is why the verdict is what it is.
        evidence: where the rule is documented, and how often it was seen.
    """

    finding: Diagnostic
    rule: Rule | None
    decides: bool
    evidence: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.finding.as_dict(),
            "known": self.rule.name if self.rule else None,
            "class": self.rule.standing.value if self.rule else self.finding.severity.value,
            "decides": self.decides,
            "evidence": self.evidence,
        }


@dataclass(frozen=True)
class Judgement:
    """The verdict of one launch.

    Attributes:
        kernel: its name.
        verdict: what the compiler does with it.
        reasons: what was found, the deciding first.
        uncovered: constructs that no evidence covers, and how often the kernel uses each.
        target: the generation.
        compiler: the version of neuronx-cc whose rules counted; None for the newest.
    """

    kernel: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    uncovered: dict[str, int]
    target: str
    compiler: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kernel": self.kernel,
            "verdict": self.verdict.value,
            "target": self.target,
            "compiler": self.compiler,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "uncovered": [{"construct": what, "count": count} for what, count in self.uncovered.items()],
        }

    def __str__(self) -> str:
        lines = [f"{self.kernel}: {self.verdict.value} ({self.target})"]
        lines += [f"  {reason.finding}" for reason in self.reasons]
        lines += [f"  no evidence covers {what}: {count} times" for what, count in self.uncovered.items()]
        return "\n".join(lines)


def gate(
    kernel: Kernel, *args: Any, target: Target | str | None = None, compiler: str | None = None, **kwargs: Any
) -> Judgement:
    """The verdict of ``kernel(*args, **kwargs)``.

    Args:
        target: the generation; that of the environment if it is None.
        compiler: a version of neuronx-cc such as ``"2.27"``; what was seen with newer ones only does not
            count.

    Raises:
        NkiError: NKI-L032 for a compiler that is not a version.
    """
    known = read_compiler(compiler)
    chosen = default_target() if target is None else as_target(target)
    name = kernel.function.__name__
    with runtime.session(target=chosen, data=False, check="all", decide=True) as session:
        try:
            kernel(*args, **kwargs)
        except NkiError as refused:
            return judge(name, refused.diagnostics, (), chosen, known)
    launch = session.launches[-1]
    return judge(name, launch.diagnostics, [core.program for core in launch.cores], chosen, known)


def read_compiler(text: str | None) -> str | None:
    """A version of neuronx-cc.

    Raises:
        NkiError: NKI-L032, it is none.
    """
    if text is not None:
        try:
            version_of(text)
        except ValueError:
            help = "write a version of neuronx-cc, such as 2.27"
            raise error("NKI-L032", f"{text!r} is not a version of the compiler", help=help) from None
    return text


def judge(
    kernel: str,
    found: Iterable[Diagnostic],
    programs: Sequence[Program],
    target: Target,
    compiler: str | None = None,
) -> Judgement:
    """The verdict of a launch of which `found` is all that was found.

    Args:
        programs: what its cores run; empty where it was refused before.
    """
    reasons = sorted((_reason(d, compiler) for d in found), key=lambda reason: not reason.decides)
    counts: Counter[str] = Counter()
    for program in programs[:1]:
        counts.update(uncovered(program))
    unknown = [r.finding for r in reasons if _is_unmodelled(r.finding)]
    for finding in unknown:
        counts[finding.message] += 1
    if any(reason.decides for reason in reasons):
        verdict = Verdict.refuses
    else:
        verdict = Verdict.unknown if counts else Verdict.takes
    return Judgement(kernel, verdict, tuple(reasons), dict(counts), target.name, compiler)


#: Memory is planned by the compiler's own allocator, which may reorder and spill where ours gives up.
_PLANNED = frozenset({"NKI-M001", "NKI-M002", "NKI-M005"})


def _is_unmodelled(found: Diagnostic) -> bool:
    """True for what this project does not know, or may know wrongly: no verdict rests on it."""
    category = found.category
    if category in (Category.unsupported, Category.internal):
        return True
    return found.code in _PLANNED


def _reason(found: Diagnostic, compiler: str | None) -> Reason:
    rule = rule_of(found.code, found.known)
    if rule is not None:
        decides = rule.standing.decides and rule.counts(compiler) and found.severity is not Severity.note
        evidence = str(rule.evidence)
        if rule.standing.decides and not rule.counts(compiler):
            evidence += f"; not known of neuronx-cc {compiler}"
        return Reason(found, rule, decides, evidence)
    sources = [text for key, text in found.remarks() if key == "source"]
    evidence = f"documented: {'; '.join(sources)}" if sources else "a rule of the language and its API"
    decides = found.severity is Severity.error and not _is_unmodelled(found)
    return Reason(found, None, decides, evidence)
