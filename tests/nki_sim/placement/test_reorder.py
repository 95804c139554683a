"""Other orders of random programs: nothing that depends on the order of two instructions may change."""

from __future__ import annotations

import itertools

import numpy as np
from random_programs import PSUM, SBUF, Maker, conflicts

import nki_isa.ops  # noqa: F401
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import as_dtype
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_sim.placement.liveness import liveness
from nki_sim.placement.packing import Space
from nki_sim.placement.reorder import Reordering, moved
from nki_sim.placement.utilisation import ALL_QUADRANTS, Holder, quadrants_of, usage_of

BANK = 2048
PROGRAMS = 200


def usage(program: Program, region: MemoryRegion, unit: int, starts: dict[int, int] | None = None) -> int:
    """The most bytes per partition of `region` held at once, tensors in whole units.

    With `starts`, tensors have the bytes of the quadrants they lie in; else of all.
    """
    live = liveness(program)
    holders = []
    for storage in program.storages:
        if storage.region is region and live.first[storage.index] >= 0:
            size = storage.row_bytes if storage.address else -(-storage.row_bytes // unit) * unit
            whole = Storage(storage.index, "", region, (128, size), as_dtype("uint8"), storage.address)
            place = (0, 0) if storage.address is None else storage.address
            first, last = int(live.first[storage.index]), int(live.last[storage.index])
            start = (starts or {}).get(storage.index, place[0])
            lanes = ALL_QUADRANTS if starts is None else quadrants_of(start, storage.partitions)
            holders.append(Holder(whole, start, place[1], first, last, lanes))
    return int(usage_of(holders, live.instructions).max(initial=0))


def test_every_conflicting_pair_keeps_its_order_and_what_is_held_fits() -> None:
    made = [0, 0, 0, 0]  # programs and sizes, by the number of orders
    for seed in range(PROGRAMS):
        program = Maker(seed).program
        banks = -(-usage(program, PSUM, BANK) // BANK)
        peak = usage(program, SBUF, 4)
        pairs = [
            (earlier, later)
            for earlier, later in itertools.combinations(program.body, 2)
            if conflicts(earlier, later)
        ]
        for capacity in np.linspace(0.5, 1, 6) * peak:
            spaces = {SBUF: Space(int(capacity), 32, 4), PSUM: Space(max(banks, 1) * BANK, BANK, 4, BANK)}
            found = list(Reordering(program, liveness(program), spaces).orders({}))
            made[len(found)] += 1
            for body in found:
                place = {node: position for position, node in enumerate(body)}
                assert len(body) == len(place) and set(place) == set(program.body), seed
                assert all(place[earlier] < place[later] for earlier, later in pairs), seed
                other = Program("kernel", "trn2", program.storages, program.registers, body=body)
                assert usage(other, SBUF, 4) <= capacity, seed
                assert usage(other, PSUM, BANK) <= max(banks, 1) * BANK, seed
    assert min(made) > 20


def test_with_tensors_side_by_side_each_quadrant_holds_at_most_what_it_has() -> None:
    made = 0
    for seed in range(PROGRAMS):
        program = Maker(seed, (128, 32, 32)).program
        narrow = [s for s in program.storages if s.region is SBUF and not s.address and s.partitions == 32]
        starts = {storage.index: 32 * (k % 4) for k, storage in enumerate(narrow)}
        capacity = int(0.8 * usage(program, SBUF, 4, starts))
        spaces = {SBUF: Space(capacity, 32, 4), PSUM: Space(8 * BANK, BANK, 4, BANK)}
        for body in Reordering(program, liveness(program), spaces).orders(starts):
            other = Program("kernel", "trn2", program.storages, program.registers, body=body)
            assert usage(other, SBUF, 4, starts) <= capacity, seed
            made += usage(other, SBUF, 4) > capacity
    assert made > 20


def test_as_few_nodes_move_as_must() -> None:
    """All orders of five: those of the longest sequence that is kept need not move."""
    before = [REGISTRY["register_move"](dst=VirtualRegister(k), src=k) for k in range(5)]
    for order in itertools.permutations(range(5)):
        kept = max(
            size
            for size in range(6)
            for some in itertools.combinations(order, size)
            if list(some) == sorted(some)
        )
        assert moved(before, [before[k] for k in order]) == 5 - kept
