"""The scoreboard against hand-computed timelines, and whole programs."""

from __future__ import annotations

import time

import pytest
from boards import ENGINES, Op, emit, part, tile, timed

from nki_isa.ir.program import Loop, Program, While
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.core_times import simulate
from nki_sim.timing.plans import LANES
from nki_sim.timing.scoreboard import Scoreboard, Wait

# --- hand-computed timelines


def test_engines_run_beside_each_other_and_wait_for_data():
    a, b, c = (tile((128, 4)) for _ in range(3))
    timeline = timed(
        [
            Op(Engine.vector, a),
            Op(Engine.vector, b),  # in order: 100 after the first
            Op(Engine.scalar, c, [a]),  # 200 + 36 semaphore
            Op(Engine.vector, a, [a]),  # 200 + 35 on its own engine; and after the reader of a: 436 + 36
            Op(Engine.gpsimd, c, [b]),  # reads b at 300 + 36, overwrites c: 436 + 36
        ]
    )
    assert timeline.format() == "\n".join(
        [
            "0 vector op 0.0..100.0..200.0",
            "1 vector op 100.0..200.0..300.0",
            "2 scalar op 236.0..336.0..436.0  waited 236.0 for data of 0",
            "3 vector op 472.0..572.0..672.0  waited 272.0 for reuse of 2",
            "4 gpsimd op 472.0..572.0..672.0  waited 472.0 for reuse of 2",
        ]
    )
    assert timeline.duration == 672.0
    assert timeline.total == 672.0 + TRN2.program_start + TRN2.program_end
    assert timeline.handoff.tolist() == [0, 0, 36, 36, 36]


def test_parts_of_a_tensor_are_independent():
    whole = tile((128, 2, 8))
    left, right = (part(whole, (0, 128), (k, k + 1), (0, 8)) for k in (0, 1))
    lower = part(whole, (64, 128), (0, 1), (0, 8))
    reader = Op(Engine.gpsimd, tile((64, 8)), [lower])
    timeline = timed([Op(Engine.vector, left), Op(Engine.scalar, right), reader])
    assert timeline.start.tolist() == [0.0, 0.0, 236.0]


def test_engine_overwrites_what_it_read_itself_without_a_wait():
    a, b = tile((128, 4)), tile((128, 4))
    timeline = timed([Op(Engine.vector, b, [a]), Op(Engine.vector, a)])
    assert timeline.start.tolist() == [0.0, 100.0]


def test_an_instruction_waits_for_those_it_is_to_run_after():
    first, second, free = (
        Op(Engine.vector, tile((128, 4))),
        Op(Engine.scalar, tile((128, 4))),
        Op(Engine.gpsimd),
    )
    second.after = (first, Op(Engine.gpsimd))  # another that is not of this run does not matter
    timeline = timed([first, second, free])
    assert timeline.start.tolist() == [0.0, 236.0, 0.0]
    assert (timeline.wait[1], timeline.cause[1]) == (Wait.order, 0)
    third, last = Op(Engine.vector, tile((128, 4))), Op(Engine.scalar, tile((128, 4)))
    last.after = (first, third)  # the later of both counts, 300 + 36
    assert timed([first, third, last]).start.tolist() == [0.0, 100.0, 336.0]
    last.after = (third, first)
    assert timed([first, third, last]).start.tolist() == [0.0, 100.0, 336.0]


def test_load_multiply_copy_store():
    # Software descriptors: 1200 to build, 755 to the first byte; 8 rows of 4 KiB on each of 16 engines
    # take 8 x (4.7 + 4096 / 27.2), or 23 instead of 27.2 to load them; 600 until the last engine is done,
    # which waits for HBM as long again, 356 until the semaphore is seen.
    source = tile((128, 1024), region="shared_hbm", kind="input")
    result = tile((128, 1024), region="shared_hbm")
    loaded, copied = tile((128, 1024)), tile((128, 1024))
    timeline = timed(
        [
            emit("dma_copy", dst=loaded, src=source),
            emit("tensor_copy", dst=copied, src=loaded, engine=Engine.vector),
            emit("dma_copy", dst=result, src=copied),
        ]
    )
    load = 8 * (4.7 + 4096 / 23)
    visible = 1955 + load + 956 + 32768 * (1 / 23 - 1 / 27.2)
    assert timeline.begin[0] == 1955
    assert timeline.busy[0] == pytest.approx(1955 + load)
    assert timeline.end[0] == pytest.approx(visible)
    assert timeline.start[1] == pytest.approx(visible + 23)
    copied_at = visible + 23 + 1024 / 2 / 0.96 + 150
    assert timeline.end[1] == pytest.approx(copied_at)
    assert timeline.start[2] == pytest.approx(copied_at + 36)
    assert timeline.begin[2] == pytest.approx(copied_at + 36 + 1200 + 630)
    assert [LANES[k] for k in timeline.lane] == ["swdge load", "vector", "swdge store"]
    assert timeline.wait.tolist() == [Wait.none, Wait.data, Wait.data]


def test_a_new_activation_table_is_loaded_ahead_of_the_data():
    a, b = tile((128, 4)), tile((128, 4))
    ops = [
        Op(Engine.vector, a, busy=2000.0, latency=2000.0),
        Op(Engine.scalar, b, [a], table="exp"),  # the load runs while the vector engine works
        Op(Engine.scalar, a, table="exp"),
        Op(Engine.scalar, tile((128, 4)), table="gelu"),
    ]
    timeline = timed(ops)
    assert timeline.start.tolist() == [0.0, 2036.0, 2136.0, 2236.0 + TRN2.scalar_table_load]
    assert timeline.wait[3] == Wait.table


# --- programs


def looped(start, stop, body, index=None):
    register = VirtualRegister(0, frozen=True) if index is None else index
    return Loop(register, start, stop, 1, body)


def test_loops_with_known_bounds_run_all_their_turns():
    a = tile((128, 4))
    inner = looped(0, 2, [Op(Engine.vector, a)], VirtualRegister(1))
    timeline = simulate(Program("p", "trn2", body=[looped(0, 3, [inner])]))
    assert timeline.start.tolist() == [100.0 * k for k in range(6)]
    assert timeline.notes == ()


def test_loops_only_data_can_bound_run_once_and_say_so():
    a, bound, condition = tile((128, 4)), VirtualRegister(1), VirtualRegister(2)
    program = Program(
        "p",
        "trn2",
        body=[
            Op(Engine.sync, counter=bound),
            looped(0, bound, [Op(Engine.vector, a)]),
            While(condition, [Op(Engine.scalar, tile((128, 4)))]),
        ],
    )
    timeline = simulate(program)
    assert len(timeline) == 3
    assert len(timeline.notes) == 2 and all("timed for one turn" in note for note in timeline.notes)
    assert all("--trips N" in note for note in timeline.notes)
    asked = simulate(program, trips=5)
    assert len(asked) == 1 + 5 + 5
    assert len(asked.notes) == 2 and all("timed for 5 turns, as asked" in note for note in asked.notes)
    assert len(simulate(program, trips=0)) == 1


def test_registers_are_waited_for():
    counter = VirtualRegister(3)
    timeline = timed([Op(Engine.sync, counter=counter), Op(Engine.vector, tile((128, 4)), bound=counter)])
    assert timeline.start[1] == 236.0
    assert timeline.wait[1] == Wait.register


def test_run_time_addresses_follow_the_loop_index():
    index = VirtualRegister(0, frozen=True)
    out = tile((4, 128, 8), region="shared_hbm")
    dynamic = DynamicOffset("scalar", index, stride=1024, dim=0, limit=4)
    row = NkiTensor((128, 8), (8, 1), 0, out.dtype, out.storage, dynamic)
    op = Op(Engine.vector, row, latency=5000.0)
    other = Op(Engine.scalar, NkiTensor((128, 8), (8, 1), 3 * 1024, out.dtype, out.storage))
    known = simulate(Program("p", "trn2", body=[looped(0, 3, [op], index), other]))
    assert known.start.tolist() == [0.0, 100.0, 200.0, 0.0]  # row 3 is nobody else's
    board = Scoreboard(TRN2)
    board.issue(op)
    board.issue(other)
    assert board.finish().start[1] == 5036.0  # without the register it could be any row


def test_an_input_that_is_overwritten_waits_for_its_readers():
    table = tile((128, 8), region="shared_hbm", kind="input")
    timeline = timed([Op(Engine.vector, tile((128, 8)), [table]), Op(Engine.scalar, table)])
    assert timeline.start[1] == 236.0


def test_an_input_that_one_instruction_reads_and_writes_is_timed():
    """An update in place is the first to touch it: its own read is nothing to wait for."""
    cache = tile((128, 8), region="shared_hbm", kind="input")
    timeline = timed([Op(Engine.vector, tile((128, 8)), [cache]), Op(Engine.scalar, cache, [cache])])
    assert timeline.start[1] == 236.0  # as an overwrite that reads nothing


def test_an_output_written_by_tiles_times_in_linear_time():
    out = tile((8192, 4096), region="shared_hbm")
    ops = [
        Op(ENGINES[k % 4], part(out, (k // 64 * 128, k // 64 * 128 + 128), (k % 64 * 64, k % 64 * 64 + 64)))
        for k in range(4096)
    ]
    began = time.perf_counter()
    timeline = timed(ops)
    assert time.perf_counter() - began < 4.0
    assert timeline.duration == 1023 * 100.0 + 200.0
