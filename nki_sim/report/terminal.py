"""Tables for a terminal: what a launch was, how full the memories got, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nki_isa.program import Program
from nki_isa.tensor import NkiTensor
from nki_sim.place import Placement, Utilisation
from nki_sim.profile import LineSummary, Profile
from nki_sim.report import words

_HOLDERS = 12  # tensors listed of a memory at its peak
_LINES = 6  # of source listed


def launch_line(program: Program, elapsed: float | None = None) -> Text:
    """One line for a launch: kernel, shapes in and out, target, time if it is known."""
    inputs = ", ".join(f"{t.name} {_typed(t)}" for t in program.inputs)
    outputs = ", ".join(_typed(t) for t in program.outputs)
    line = Text.assemble((program.name, "bold"), f"({inputs}) -> {outputs or 'nothing'}  on {program.target}")
    if elapsed is not None:
        line.append(f"  {words.time(elapsed)}", "bold")
    return line


def _typed(tensor: NkiTensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


# --- time


def profile_tables(profile: Profile, placement: Placement) -> list[RenderableType]:
    """Totals, engines with what they waited for, and the lines that held engines longest."""
    found: list[RenderableType] = [_totals_table(profile, placement), "", _engines_table(profile)]
    lines = profile.lines()
    if lines:
        found += ["", _lines_table(lines)]
    found += [Text(f"note: {note}", "yellow") for note in profile.timeline.notes]
    return found


def _totals_table(profile: Profile, placement: Placement) -> Table:
    target, dma, sbuf, psum = profile.target, profile.dma, placement.sbuf, placement.psum
    around = f"start-up {words.time(target.program_start)}, wind-down {words.time(target.program_end)}"
    transfers = f"{words.counted(dma.transfers, 'transfer')} of {words.size(dma.mean_bytes)} on average"
    each = words.size(dma.mean_row_bytes)
    rows = f"{words.counted(dma.rows, 'descriptor row')} of {each}, moving {_share(dma.active_percent)}"
    rows_of_table = [
        ("total time", words.time(profile.total), f"{words.time(profile.duration)} of work, {around}"),
        _utilisation(profile),
        ("HBM read", words.size(profile.hbm_read_bytes), ""),
        ("HBM written", words.size(profile.hbm_write_bytes), f"{_share(profile.mbu)} of HBM bandwidth"),
        ("DMA", transfers, rows if dma.transfers else ""),
        ("SBUF peak", words.size(sbuf.peak), f"of {words.size(sbuf.capacity)} per partition"),
        ("PSUM peak", words.counted(psum.banks_at(psum.peak_at), "bank"), f"of {psum.capacity // psum.bank}"),
    ]
    if profile.timeline.throttled:
        slow = words.time(profile.timeline.throttled)
        rows_of_table.append(("throttled", slow, "of tensor engine streaming at its slow clock"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows_of_table:
        table.add_row(*row)
    return table


def _utilisation(profile: Profile) -> tuple[str, str, str]:
    if not profile.flops:
        return "MFU", "-", "no matmuls"
    return "MFU", _share(profile.mfu), f"HBM traffic allows {_share(profile.achievable_mfu)}"


def _engines_table(profile: Profile) -> Table:
    table = _table("engine", "instructions", "busy", "busy time", "waited for", numbers=(1, 2, 3))
    for name, engine in profile.engines.items():
        idle = sorted(engine.idle.items(), key=lambda item: (-item[1], item[0]))
        table.add_row(
            name,
            str(engine.instructions),
            _share(engine.active_percent),
            words.time(engine.active),
            ", ".join(f"{reason} {words.time(ns)}" for reason, ns in idle),
            style=None if engine.instructions else "dim",
        )
    dma = profile.dma
    queues = ", ".join(f"{name} {count}" for name, count in dma.queues.items())
    table.add_row(
        "DMA",
        str(dma.transfers),
        _share(dma.active_percent),
        words.time(dma.active),
        queues and f"queues: {queues}",
    )
    return table


def _lines_table(lines: Sequence[LineSummary]) -> Table:
    table = _table("busiest lines", "run", "busy", "waited", numbers=(1, 2, 3))
    for line in lines[:_LINES]:
        table.add_row(
            words.path(line.place), str(line.instructions), words.time(line.busy), words.time(line.waited)
        )
    return table


def _share(percent: float) -> str:
    return words.percent(percent / 100)


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
