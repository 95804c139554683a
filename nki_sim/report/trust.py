"""How far to trust a time: is the run of a kind that was compared with hardware, and how well did that go?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nki_isa.machine.target import EvidenceKind
from nki_sim import words
from nki_sim.timing.scoreboard import Timeline

_ASSUMED = 0.2  # of the time instructions hold engines; more of it on assumed figures is not calibrated


@dataclass(frozen=True, slots=True)
class Compared:
    """Kernels of one generation that were compared with hardware; docs/fidelity.md has each.

    Attributes:
        rows: how many.
        mean, high: mean and 90th percentile of the error of their total times, in percent.
        compiler_mean, compiler_high: the same in the compiler's order of instructions.
        least, most: the shortest and the longest time, in ns.
    """

    rows: int
    mean: float
    high: float
    compiler_mean: float
    compiler_high: float
    least: float
    most: float


COMPARED = {
    "trn1": Compared(20, 10.1, 15.1, 8.1, 15.4, 1056000, 51800000),
    "trn2": Compared(568, 11.8, 25.0, 7.9, 16.0, 17940, 39890000),
}
"""By generation; one that is missing has no published times. From ``benchmarks/fidelity/results.csv``."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether a prediction is inside the domain the model was compared with hardware in.

    Attributes:
        inside: True if it is.
        says: why, and the error there.
    """

    inside: bool
    says: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"inside": self.inside, "says": self.says}


def trust(timeline: Timeline) -> Trust:
    """The label of a run."""
    target = timeline.target
    compared = COMPARED.get(target.name)
    if compared is None:
        return Trust(
            False, f"outside the calibrated domain: no times measured on {target.name} are published"
        )
    error = (
        f"{compared.rows} kernels on {target.name} were off by {compared.mean:.0f} % on average, nine of ten "
        f"by less than {compared.high:.0f} %, in the compiler's order by {compared.compiler_mean:.0f} % and "
        f"{compared.compiler_high:.0f} %"
    )
    share, figure = _assumed(timeline)
    why = []
    if share > _ASSUMED:
        why.append(
            f"{words.percent(share)} of the time engines are held rests on assumed figures, most on {figure}"
        )
    if not compared.least <= timeline.total <= compared.most:
        why.append(
            f"kernels compared took {words.time(compared.least)} to {words.time(compared.most)}, not "
            f"{words.time(timeline.total)}"
        )
    if timeline.notes:
        why.append("how often its loops run is not known")
    if why:
        return Trust(False, f"outside the calibrated domain: {'; '.join(why)}; inside it, {error}")
    return Trust(True, f"inside the calibrated domain: {error}")


def _assumed(timeline: Timeline) -> tuple[float, str]:
    """The share of the time engines and queues are held that rests on assumed figures; the dearest."""
    sources = timeline.target.sources
    held = (timeline.busy - timeline.begin).tolist()
    sums: dict[str, float] = {}
    for cost, time in zip(timeline.costs, held, strict=True):
        for figure in dict.fromkeys((cost.rate, cost.source)):
            if figure and sources[figure].evidence is EvidenceKind.assumed:
                sums[figure] = sums.get(figure, 0.0) + time
                break
    total = sum(held)
    if not sums or not total:
        return 0.0, ""
    return sum(sums.values()) / total, max(sums, key=lambda name: sums[name])
