"""The settings of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nki_isa.machine.target import Target
from nki_sim.observe import Listener
from nki_sim.pipeline import ScheduleName
from nki_sim.process import positive_setting
from nki_sim.sanitize import check_classes
from nki_sim.workers.clusters import Cluster, as_cluster

_RESTARTS = "NKI_SIM_RESTARTS"

Fill = Literal["zeros", "sentinels"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How kernels run.

    Attributes:
        target: the generation, or None for the environment's (default trn2).
        profile: the language profile, ``"library"`` or ``"strict"``.
        data: False skips execution: outputs are zeros, times and memory are right.
        timing: True records a timeline of each launch.
        decide: without data, run all the same where a finding depends on it.
        check: what to check while a kernel runs: classes of :data:`nki_sim.sanitize.CHECKS`, as a set
            or as text such as ``"all"``, ``"none"`` or ``"overlap,nan"``; None takes the environment's
            ``NKI_SIM_CHECK``, or all.
        warnings_as_errors: True makes every warning an error, and every note of a run-time check but those
            on what may well be meant (NKI-N002, H023).
        fill: what memory holds before it is written: ``"zeros"``, or ``"sentinels"`` for NaN and, in
            integers, 4, as the vendor's simulator has it.
        trips: without data, the turns of each device loop that only data bound; None takes one.
        without: mechanisms of :data:`nki_sim.timing.mechanisms.MECHANISMS` that take no time, when timed.
        schedule: the order of instructions: ``"program"``, as the kernel states, or ``"compiler"``, that of
            :mod:`nki_sim.schedule.compiler`. Results are the same bits.
        spill: False refuses a kernel that fits SBUF only with spills to HBM; else NKI-M009 warns of them.
        workers: where the ranks of a launch run: ``"dask"``, ``"ray"``, the address of a scheduler of Dask, a
            client of it, or another :class:`nki_sim.workers.clusters.Cluster`; None takes the environment's
            ``NKI_SIM_WORKERS``, or this process. Results and times are the same.
        restarts: how many lost workers of a launch may be replaced; None takes the environment's
            ``NKI_SIM_RESTARTS``, or 0.
        listeners: what follows runs with data in this process; over ranks, cores count through all of them.
        calls: is told each kernel that is called on one rank, and its arguments, before they are looked at.
    """

    target: Target | None = None
    profile: str = "library"
    data: bool = True
    timing: bool = False
    decide: bool = False
    check: frozenset[str] | str | None = None
    warnings_as_errors: bool = False
    fill: Fill = "zeros"
    trips: int | None = None
    without: frozenset[str] = frozenset()
    schedule: ScheduleName = "program"
    spill: bool = True
    workers: Any = None
    restarts: int | None = None
    listeners: tuple[Listener, ...] = ()
    calls: Callable[[Any, tuple[Any, ...], dict[str, Any]], object] | None = None

    def checks(self) -> frozenset[str]:
        """The classes of checks in force.

        Raises:
            NkiError: NKI-L032 for a name that is not a class.
        """
        chosen = os.environ.get("NKI_SIM_CHECK", "all") if self.check is None else self.check
        return check_classes(chosen) if isinstance(chosen, str) else chosen

    def cluster(self) -> Cluster | None:
        """Where the ranks of a launch run; None for this process.

        Raises:
            NkiError: NKI-L032 for what is not a cluster, NKI-L034 for one whose package is not installed.
        """
        chosen = self.workers if self.workers is not None else os.environ.get("NKI_SIM_WORKERS")
        return as_cluster(chosen) if chosen else None

    def replaced(self) -> int:
        """How many lost workers of a launch may be replaced.

        Raises:
            NkiError: NKI-L032 for a setting that is not a positive number.
        """
        if self.restarts is not None:
            return self.restarts
        return positive_setting(_RESTARTS, 1) if os.environ.get(_RESTARTS) else 0


__all__ = ["Fill", "Options"]
