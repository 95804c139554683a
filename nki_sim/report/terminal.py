"""Tables for a terminal: what a launch was, how full the memories got, where the time went."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nki_isa.program import Program
from nki_sim.place import Placement, Utilisation
from nki_sim.profile import Profile
from nki_sim.report import facts, words

_HOLDERS = 12  # tensors listed of a memory at its peak
_LINES = 6  # of source listed


def launch_line(program: Program, elapsed: float | None = None, remark: str = "") -> Text:
    """One line for a launch: kernel, shapes in and out, target, a remark, time if it is known."""
    line = Text.assemble((program.name, "bold"), f"{facts.signature(program)}  on {program.target}{remark}")
    if elapsed is not None:
        line.append(f"  {words.time(elapsed)}", "bold")
    return line


# --- time


def profile_tables(profile: Profile, placement: Placement) -> list[RenderableType]:
    """Totals, engines with what they waited for, and the lines that held engines longest."""
    totals = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    totals.add_column(no_wrap=True)
    totals.add_column(style="bold", no_wrap=True)
    totals.add_column(overflow="fold")
    for row in facts.totals(profile, placement):
        totals.add_row(*row)
    engines = _table("engine", "instructions", "busy", "busy time", "waited for", numbers=(1, 2, 3))
    for engine in facts.engines(profile):
        engines.add_row(*engine, style="dim" if engine[1] == "0" else None)
    found: list[RenderableType] = [totals, "", engines]
    busiest = facts.lines(profile, _LINES)
    if busiest:
        table = _table("busiest lines", "run", "busy", "waited", numbers=(1, 2, 3))
        for line in busiest:
            table.add_row(*line)
        found += ["", table]
    return found + [Text(f"note: {note}", "yellow") for note in profile.timeline.notes]


# --- memory


def memory_tables(placement: Placement) -> list[RenderableType]:
    """SBUF and PSUM at their peak, and who holds them there."""
    found: list[RenderableType] = [_capacity_table(placement)]
    for used in (placement.sbuf, placement.psum):
        if used.peak:
            found += ["", _holders_table(used)]
    return found


def _capacity_table(placement: Placement) -> Table:
    table = _table("per partition", "peak", "of", "", "banks", "at instruction", numbers=(1, 2, 3, 4, 5))
    for used in (placement.sbuf, placement.psum):
        banks = f"{used.banks_at(used.peak_at)} of {used.capacity // used.bank}" if used.bank else "-"
        table.add_row(
            used.region.value.upper(),
            words.size(used.peak),
            words.size(used.capacity),
            Text(words.percent(used.peak / used.capacity), _load_style(used.peak / used.capacity)),
            banks,
            str(used.peak_at) if used.peak else "-",
        )
    return table


def _load_style(fraction: float) -> str:
    return "red" if fraction > 0.95 else "yellow" if fraction > 0.8 else "green"


def _holders_table(used: Utilisation) -> Table:
    """The tensors held at the peak, those of one source line, shape and dtype together."""
    groups: dict[Any, list[Any]] = {}
    for holder in used.held_at(used.peak_at):
        storage = holder.storage
        key = (words.place(storage.stack) or storage.name, storage.shape, str(storage.dtype))
        groups.setdefault(key, []).append(holder)
    ranked = sorted(groups.values(), key=lambda g: (-sum(h.storage.row_bytes for h in g), g[0].storage.index))
    table = _table(
        f"in {used.region.value.upper()} at the peak", "shape", "each", "count", "together", "allocated at",
        numbers=(2, 3, 4),
    )  # fmt: skip
    for group in ranked[:_HOLDERS]:
        storage = group[0].storage
        table.add_row(
            storage.name,
            f"{storage.dtype}[{', '.join(map(str, storage.shape))}]",
            words.size(storage.row_bytes),
            str(len(group)),
            words.size(sum(h.storage.row_bytes for h in group)),
            words.place(storage.stack),
        )
    rest = [h for group in ranked[_HOLDERS:] for h in group]
    if rest:
        total = words.size(sum(h.storage.row_bytes for h in rest))
        table.add_row("others", "", "", str(len(rest)), total, "")
    return table


def _table(*columns: str, numbers: tuple[int, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k in numbers else "left", overflow="fold")
    return table
