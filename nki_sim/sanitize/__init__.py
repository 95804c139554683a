"""The checks a run makes of its kernel: what passes on a simulator and fails on hardware.

:func:`execute_checked` runs placed Programs as :func:`nki_sim.cores.device.execute_all`
does and tells what it found. Errors are defects of the kernel; warnings are
what hardware may do otherwise than meant; notes are worth knowing.

Each check is one :class:`~nki_sim.sanitize.check.Check`, in a module of this package.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nki_isa.diagnostics import Diagnostic, NkiError, error
from nki_isa.ir.program import Program
from nki_sim.cores.device import Rank, execute_all, execute_ranks
from nki_sim.execution.memory import Addresses, Array
from nki_sim.execution.result import ExecutionResult
from nki_sim.observe import Listener
from nki_sim.process import no_collection
from nki_sim.sanitize.check import Check, Scene, told
from nki_sim.sanitize.check import checks as all_checks
from nki_sim.sanitize.fill import Sentinels

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "CHECKS",
    "DATA_CODES",
    "DEFAULT",
    "Check",
    "Scene",
    "all_checks",
    "check_classes",
    "execute_checked",
]

CHECKS: dict[str, str] = {check.name: check.finds for check in all_checks()}
"""The classes of checks, with what each finds."""

DEFAULT: frozenset[str] = frozenset(check.name for check in all_checks() if check.default)
"""What ``all`` stands for."""

DATA_CODES: frozenset[str] = frozenset(
    code for check in all_checks() if check.needs_data for code in check.codes
)
"""The codes of what can differ from one set of arguments to another."""


@functools.lru_cache(maxsize=64)
def check_classes(text: str) -> frozenset[str]:
    """The classes that a list such as ``"all"``, ``"none"`` or ``"overlap,nan"`` names.

    Raises:
        NkiError: NKI-L032 for a name that is not a class.
    """
    chosen: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name == "all":
            chosen |= DEFAULT
        elif name in CHECKS:
            chosen.add(name)
        elif name != "none":
            raise error(
                "NKI-L032",
                f"there is no check {name!r}",
                help=f"the checks are all, none, {', '.join(CHECKS)}",
            )
    return frozenset(chosen)


@no_collection()
def execute_checked(
    programs: Sequence[Program],
    placements: Sequence[Addresses],
    inputs: Sequence[Array],
    *,
    checks: frozenset[str] = DEFAULT,
    strict: bool = False,
    listeners: Sequence[Listener] = (),
    sentinels: bool = False,
) -> tuple[ExecutionResult, tuple[Diagnostic, ...]]:
    """Run `programs`, one for each core, and check them.

    Args:
        programs, placements, inputs, listeners: as for :func:`nki_sim.cores.device.execute_all`.
        checks: classes of :data:`CHECKS`.
        strict: True makes every finding an error, but for notes on what may well be meant.
        sentinels: True fills new tensors with NaN, or 4 for integers, as the vendor's simulator does;
            otherwise memory starts as zeros.

    Returns:
        The results, and what was found below an error: warnings, then notes.

    Raises:
        NkiError: everything found, if there is an error among it; also what an instruction refuses.
    """
    scene = Scene(programs, placements, inputs, checks)
    made = [check(scene) for check in all_checks() if check.name in checks and check.sees(scene)]
    filling = [Sentinels(scene.surveys)] if sentinels else []

    def run(followers: Sequence[Listener]) -> ExecutionResult:
        return execute_all(programs, placements, inputs, listeners=[*filling, *followers])

    try:
        result = run([*listeners, *scene.listeners(made)])
    except NkiError as refused:
        raise NkiError([*refused.diagnostics, *scene.findings.diagnostics(strict=strict)]) from None
    return result, told(scene, made, result, run, strict)


@no_collection()
def execute_ranks_checked(
    ranks: Sequence[Rank],
    *,
    checks: frozenset[str] = DEFAULT,
    strict: bool = False,
    listeners: Sequence[Listener] = (),
    sentinels: bool = False,
) -> tuple[list[ExecutionResult], tuple[Diagnostic, ...]]:
    """Run `ranks` and check each by itself; as :func:`execute_checked`.

    Args:
        listeners: as for :func:`nki_sim.cores.device.execute_ranks`.
    """
    checked = CheckedRanks(ranks, checks, strict=strict, sentinels=sentinels)
    try:
        results = execute_ranks(checked.followed(), listeners=listeners)
    except NkiError as refused:
        raise checked.refused(refused) from None

    def again(number: int, followers: Sequence[Listener]) -> ExecutionResult:
        return execute_ranks(checked.followed({number: followers}))[number]

    return results, checked.judge(results, again)


class CheckedRanks:
    """The checks of ranks that run together, each by itself.

    Args:
        ranks, checks, strict, sentinels: as for :func:`execute_ranks_checked`.
    """

    def __init__(self, ranks: Sequence[Rank], checks: frozenset[str], *, strict: bool, sentinels: bool):
        self._ranks, self._strict = ranks, strict
        self._scenes = [Scene(rank.programs, rank.placements, rank.inputs, checks) for rank in ranks]
        self._made = [
            [check(scene) for check in all_checks() if check.name in checks and check.sees(scene)]
            for scene in self._scenes
        ]
        self._filling = [[Sentinels(scene.surveys)] if sentinels else [] for scene in self._scenes]

    def followed(self, followers: Mapping[int, Sequence[Listener]] | None = None) -> list[Rank]:
        """The ranks with what follows each: its checks, or `followers` by rank for another run."""
        if followers is None:
            own = [scene.listeners(made) for scene, made in zip(self._scenes, self._made, strict=True)]
            followers = dict(enumerate(own))
        return [
            replace(rank, listeners=[*fill, *followers.get(number, ())])
            for number, (rank, fill) in enumerate(zip(self._ranks, self._filling, strict=True))
        ]

    def refused(self, refused: NkiError) -> NkiError:
        """What ended the run, and what was found before."""
        found = [d for scene in self._scenes for d in scene.findings.diagnostics(strict=self._strict)]
        return NkiError(dict.fromkeys([*refused.diagnostics, *found]))

    def judge(
        self,
        results: Sequence[ExecutionResult],
        again: Callable[[int, Sequence[Listener]], ExecutionResult],
    ) -> tuple[Diagnostic, ...]:
        """What the checks have to say of a run that gave `results`.

        Args:
            again: runs all ranks again, one of them followed; gives what that one gave.

        Raises:
            NkiError: everything found of a rank, if there is an error among it.
        """
        remarks: list[Diagnostic] = []
        for number, (scene, made, result) in enumerate(zip(self._scenes, self._made, results, strict=True)):
            remarks += told(scene, made, result, partial(again, number), self._strict)
        return tuple(dict.fromkeys(remarks))
