"""What a profile says, as rows of text that every report shows alike."""

from __future__ import annotations

from collections.abc import Sequence

from nki_isa.ir.program import Program
from nki_isa.tensor.tensor import NkiTensor
from nki_sim import words
from nki_sim.placement.place import Placement, Utilisation
from nki_sim.report.profile import Profile
from nki_sim.report.usage import Saving


def signature(program: Program) -> str:
    """The tensors a launch took and gave: ``(a float32[128, 64]) -> float32[128, 64]``."""
    inputs = ", ".join(f"{t.name} {_typed(t)}" for t in program.inputs)
    outputs = ", ".join(_typed(t) for t in program.outputs)
    return f"({inputs}) -> {outputs or 'nothing'}"


def _typed(tensor: NkiTensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def which(core: int, cores: int) -> str:
    """``, core 1 of 2`` where there are several."""
    return f", core {core} of {cores}" if cores > 1 else ""


def totals(profile: Profile, placement: Placement) -> list[tuple[str, str, str]]:
    """(figure, value, remark) for the launch as a whole."""
    target, dma, sbuf, psum = profile.target, profile.dma, placement.sbuf, placement.psum
    around = f"start-up {words.time(profile.timeline.start_up)}, wind-down {words.time(target.program_end)}"
    transfers = f"{words.counted(dma.transfers, 'transfer')} of {words.size(dma.mean_bytes)} on average"
    each = words.size(dma.mean_row_bytes)
    rows = f"{words.counted(dma.rows, 'descriptor row')} of {each}, moving {share(dma.active_percent)}"
    found = [
        ("total time", words.time(profile.total), f"{words.time(profile.duration)} of work, {around}"),
        _utilisation(profile),
        ("MBU", share(profile.mbu), "of HBM bandwidth"),
        ("HBM read", words.size(profile.hbm_read_bytes), _spilled(profile.spill_reload_bytes, "coming back")),
        ("HBM written", words.size(profile.hbm_write_bytes), _spilled(profile.spill_save_bytes, "going out")),
        _moved(profile),
        ("DMA", transfers, rows if dma.transfers else ""),
        ("SBUF peak", words.size(sbuf.peak), f"of {words.size(sbuf.capacity)} per partition"),
        ("PSUM peak", words.counted(psum.banks_at(psum.peak_at), "bank"), f"of {psum.capacity // psum.bank}"),
    ]
    if profile.timeline.throttled:
        slow = words.time(profile.timeline.throttled)
        found.append(("throttled", slow, "of tensor engine streaming at its slow clock"))
    return found


def capacities(placement: Placement) -> list[tuple[str, str, str]]:
    """(figure, value, remark) of both memories."""
    found = []
    for used in (placement.sbuf, placement.psum):
        name, share = used.region.value.upper(), words.percent(used.peak / used.capacity)
        remark = f"{share} of {words.size(used.capacity)} per partition, at instruction {used.peak_at}"
        found.append((f"{name} peak", words.size(used.peak), remark if used.peak else ""))
        pieces = [size for _, size in used.free_pieces(used.peak_at)]
        cut = (
            f"in {len(pieces)} pieces, the largest {words.size(max(pieces))}"
            if len(pieces) > 1
            else "in one piece"
        )
        found.append((f"{name} free then", words.size(sum(pieces)), cut))
        if used.bank:
            most = int(used.bank_usage().max(initial=0))
            found.append((f"{name} banks", str(most), f"of {used.capacity // used.bank} at most at once"))
    return found


def savings(used: Utilisation, found: Sequence[Saving]) -> list[tuple[str, str, str, str, str]]:
    """(tensors, what they hold, the peak without them, the peak if halved, what to do)."""
    rows = []
    for saving in found:
        name, more = saving.holders[0].storage.name, len(saving.holders) - 1
        rows.append(
            (
                f"{name} and {more} more" if more else name,
                words.size(saving.together),
                words.size(used.peak - saving.without),
                words.size(used.peak - saving.halved),
                saving.advice,
            )
        )
    return rows


def _utilisation(profile: Profile) -> tuple[str, str, str]:
    if not profile.flops:
        return "MFU", "-", "no matmuls"
    return (
        "MFU",
        share(profile.mfu),
        f"of the bf16 peak; its HBM traffic allows {share(profile.achievable_mfu)}",
    )


def _spilled(moved: int, how: str) -> str:
    return f"{words.size(moved)} of it are tensors {how} that SBUF has no room for" if moved else ""


def _moved(profile: Profile) -> tuple[str, str, str]:
    moved, least = profile.hbm_read_bytes + profile.hbm_write_bytes, profile.hbm_minimum_bytes
    times = f", {moved / least:.2f} times as much is moved" if least else ""
    return "HBM minimum", words.size(least), f"arguments read and results written once{times}"


def verdict(profile: Profile) -> list[str]:
    """What bounds a launch, where it is on the roofline and how far to trust its time, a sentence each."""
    says = (profile.bound, _roofline(profile), f"This time is {profile.trust.says} (docs/fidelity.md).")
    return [line for line in says if line]


def _roofline(profile: Profile) -> str:
    """Where a launch is on the roofline, with both ceilings; empty without matmuls."""
    if not profile.flops:
        return ""
    line = profile.roofline
    reached = line["reached_tflops"]
    ceilings = {"the tensor engine": line["compute_ceiling_tflops"], "HBM": line["memory_ceiling_tflops"]}
    lower, higher = sorted(ceilings, key=lambda name: ceilings[name])
    return (
        f"Roofline: {reached:.2f} TFLOPS at {line['arithmetic_intensity']:.1f} FLOP per HBM byte, "
        f"{words.percent(reached / ceilings[lower])} of the {ceilings[lower]:.1f} that {lower} allows there; "
        f"{higher} allows {ceilings[higher]:.1f}."
    )


def dma_rows(profile: Profile) -> list[tuple[str, str, str, str, str]]:
    """(row size, transfers, rows, bytes, share of the rate of their engines) by size of descriptor rows."""
    return [
        (
            f"{words.size(row.least)} and more" if row.below is None else f"below {words.size(row.below)}",
            str(row.transfers),
            str(row.rows),
            words.size(row.bytes),
            share(row.efficiency),
        )
        for row in profile.dma_rows()
    ]


def advice(profile: Profile) -> list[tuple[str, str, str, str]]:
    """(place, time and share of the critical path, what to try) of the dearest lines."""
    return [
        (words.path(one.place), words.time(one.time), share(one.share), one.says) for one in profile.advice()
    ]


def engines(profile: Profile) -> list[tuple[str, str, str, str, str]]:
    """(engine, instructions, share of the time it is active, active time, idle by cause), DMA last."""
    found = []
    for name, engine in profile.engines.items():
        idle = sorted(engine.idle.items(), key=lambda item: (item[0] == "done", -item[1], item[0]))
        waits = ", ".join(f"{reason} {words.time(ns)}" for reason, ns in idle) if engine.instructions else ""
        active = share(engine.active_percent)
        found.append((name, str(engine.instructions), active, words.time(engine.active), waits))
    dma = profile.dma
    queues = ", ".join(f"{name} {count}" for name, count in dma.queues.items())
    active = share(dma.active_percent)
    found.append(("DMA", str(dma.transfers), active, words.time(dma.active), queues and f"queues: {queues}"))
    return found


def lines(profile: Profile, most: int) -> list[tuple[str, str, str, str]]:
    """(place, how often it ran, busy time, time waited) of the lines that held engines longest."""
    return [
        (words.path(line.place), str(line.instructions), words.time(line.busy), words.time(line.waited))
        for line in profile.lines()[:most]
    ]


def share(percent: float) -> str:
    """A percentage as text."""
    return words.percent(percent / 100)
