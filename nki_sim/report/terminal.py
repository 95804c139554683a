"""Tables for a terminal: what a launch was, how full the memories got, where the time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nki_isa.ir.program import Program
from nki_sim import words
from nki_sim.placement.place import Placement, Utilisation
from nki_sim.placement.utilisation import bars, by_line
from nki_sim.report import facts
from nki_sim.report.ablation import Ablated
from nki_sim.report.comparison import Change
from nki_sim.report.links import LinkRows
from nki_sim.report.profile import Profile
from nki_sim.report.usage import AllocationScope, Uses, savings, scopes_by_call, scopes_by_name
from nki_sim.timing.mechanisms import MECHANISMS

_HOLDERS = 12  # tensors listed of a memory at its peak
_LINES = 6  # of source listed
_LINKS = 8  # listed
_SAVINGS, _SCOPES, _PAIRS = 4, 24, 6  # rows listed
_CELLS = 72  # of the curve


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
    engines = _table("engine", "instructions", "active", "active time", "idle: waited for", numbers=(1, 2, 3))
    for engine in facts.engines(profile):
        engines.add_row(*engine, style="dim" if engine[1] == "0" else None)
    found: list[RenderableType] = [totals, "", engines]
    busiest = facts.lines(profile, _LINES)
    if busiest:
        table = _table("busiest lines", "run", "busy", "waited", numbers=(1, 2, 3))
        for line in busiest:
            table.add_row(*line)
        found += ["", table, *(Text(remark, "dim") for remark in profile.remarks())]
    by_size = facts.dma_rows(profile)
    if by_size:
        table = _table("DMA rows", "transfers", "rows", "bytes", "of the full rate", numbers=(1, 2, 3, 4))
        for size in by_size:
            table.add_row(*size)
        found += ["", table]
    dearest = facts.advice(profile)
    if dearest:
        table = _table("critical path", "time", "share", "what to try", numbers=(1, 2))
        for one in dearest:
            table.add_row(*one)
        found += ["", table]
    found += ["", *map(Text, facts.verdict(profile))]
    return found + [Text(f"note: {note}", "yellow") for note in profile.timeline.notes]


def ablation_table(rows: Sequence[Ablated]) -> RenderableType:
    """What each mechanism costs a launch."""
    table = _table("mechanism switched off", "total", "saves", "what it is", numbers=(1, 2))
    for row in rows:
        saved = f"{'-' if row.saved < 0 else ''}{words.time(abs(row.saved))}"
        table.add_row(
            row.name,
            words.time(row.time),
            saved,
            MECHANISMS[row.name].says,
            style="dim" if row.saved == 0 else None,
        )
    return table


def changes_table(rows: Sequence[Change]) -> RenderableType:
    """The figures of two launches beside each other."""
    spelled: dict[str, Callable[[float], str]] = {
        "ns": words.time,
        "bytes": words.size,
        "count": "{:,.0f}".format,
    }
    table = _table("figure", "before", "after", "change", numbers=(1, 2, 3))
    for row in rows:
        percent = row.percent
        changed = "" if row.before == row.after else "new" if percent is None else f"{percent:+.1f} %"
        values = (spelled[row.unit](value) for value in (row.before, row.after))
        table.add_row(row.figure, *values, changed, style=None if changed else "dim")
    return table


# --- memory


def links_table(found: LinkRows) -> RenderableType:
    """The busiest links of a launch over ranks."""
    table = _table("link", "GB/s", "bytes", "of the launch", numbers=(1, 2, 3))
    for link, octets, share in found.busiest(_LINKS):
        rate = found.topology.rate(link)
        table.add_row(str(link), f"{rate:.4g}", words.size(octets), words.percent(share))
    count = len(found.rows)
    shown = f", {_LINKS} of {count}" if count > _LINKS else ""
    return Group(Text(f"links of {found.topology.name}, the busiest first{shown}"), table)


def memory_tables(program: Program, placement: Placement) -> list[RenderableType]:
    """SBUF and PSUM over program order and at their peak: who holds them, and what to shrink first."""
    found: list[RenderableType] = [_capacity_table(placement)]
    uses = Uses(program)
    for used in (placement.sbuf, placement.psum):
        if used.peak:
            found += ["", _curve(used), "", _holders_table(used), "", _savings_table(used, uses)]
            found += [
                part for table in (_scopes_table(used), _shared_table(used)) if table for part in ("", table)
            ]
    return found


def _capacity_table(placement: Placement) -> Table:
    table = _table(
        "per partition", "peak", "of", "", "banks", "at instruction", "highest byte", "free at the peak",
        numbers=(1, 2, 3, 4, 5, 6),
    )  # fmt: skip
    for used in (placement.sbuf, placement.psum):
        banks = f"{used.banks_at(used.peak_at)} of {used.capacity // used.bank}" if used.bank else "-"
        table.add_row(
            used.region.value.upper(),
            words.size(used.peak),
            words.size(used.capacity),
            Text(words.percent(used.peak / used.capacity), _load_style(used.peak / used.capacity)),
            banks,
            str(used.peak_at) if used.peak else "-",
            words.size(used.high_water),
            _free(used),
        )
    return table


def _free(used: Utilisation) -> str:
    """Free bytes at the peak, and how they are cut."""
    pieces = [size for _, size in used.free_pieces(used.peak_at)]
    if len(pieces) < 2:
        return words.size(sum(pieces))
    return f"{words.size(sum(pieces))} in {len(pieces)} pieces, the largest {words.size(max(pieces))}"


def _load_style(fraction: float) -> str:
    return "red" if fraction > 0.95 else "yellow" if fraction > 0.8 else "green"


def _curve(used: Utilisation) -> Text:
    """Bytes held over program order in one line: each cell is the fullest moment of its stretch."""
    line = Text.assemble((f"{used.region.value.upper()} ", "bold"), (bars(used.usage, _CELLS), "cyan"))
    line.append(
        f"  {words.counted(len(used.usage), 'instruction')}, full height {words.size(used.peak)}", "dim"
    )
    return line


def _holders_table(used: Utilisation) -> Table:
    """The tensors held at the peak, those of one source line, shape and dtype together."""
    ranked = by_line(used.held_at(used.peak_at))
    table = _table(
        f"in {used.region.value.upper()} at the peak", "shape", "each", "count", "together", "at byte",
        "live", "allocated at", numbers=(2, 3, 4, 5),
    )  # fmt: skip
    for group in ranked[:_HOLDERS]:
        table.add_row(*words.held_row(group))
    rest = [h for group in ranked[_HOLDERS:] for h in group]
    if rest:
        total = words.size(sum(h.storage.row_bytes for h in rest))
        table.add_row("others", "", "", str(len(rest)), total, "", "", "")
    return table


def _savings_table(used: Utilisation, uses: Uses) -> Table:
    table = _table("shrink first", "hold", "peak without", "halved", "how", numbers=(1, 2, 3))
    for row in facts.savings(used, savings(used, uses)[:_SAVINGS]):
        table.add_row(*row)
    return table


def _scopes_table(used: Utilisation) -> Table | None:
    """The scopes of names where there are any, and the calls that allocated where there are several."""
    lines: list[tuple[str, AllocationScope]] = []
    names, calls = scopes_by_name(used.live), scopes_by_call(used.live)
    for tree in (names, calls if _functions(calls) > 1 else None):
        if tree:
            lines += [(f"{'  ' * depth}{scope.label}", scope) for depth, scope in tree.walk()]
    if not lines:
        return None
    table = _table("scope", "tensors", "at the peak", "own peak", numbers=(1, 2, 3))
    for label, scope in lines[:_SCOPES]:
        at, own = scope.held(used)
        table.add_row(Text(label), str(len(scope.holders)), words.size(at), words.size(own))
    if len(lines) > _SCOPES:
        table.add_row(f"and {len(lines) - _SCOPES} more", "", "", "")
    return table


def _functions(calls: AllocationScope) -> int:
    return len({frame.function for holder in calls.holders for frame in holder.storage.stack})


def _shared_table(used: Utilisation) -> Table | None:
    """Tensors with addresses that share bytes while both are live, with both lines."""
    pairs = list(islice(used.shared(), _PAIRS + 1))
    if not pairs:
        return None
    table = _table("share bytes while both are live", "with")
    for pair in pairs[:_PAIRS]:
        table.add_row(*map(words.tensor, pair))
    if len(pairs) > _PAIRS:
        table.add_row("and more", "")
    return table


def _table(*columns: str, numbers: tuple[int, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="right" if k in numbers else "left", overflow="fold")
    return table
