"""The compiler's order of random programs: nothing depends on it but the time."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Builder
from random_programs import KINDS, Maker, Places, conflicts, crowded

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Program
from nki_isa.ir.rewrite import in_order
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TRN1, TRN2
from nki_isa.tensor.storage import PSUM
from nki_isa.tensor.tensor import NkiTensor
from nki_sim import pipeline
from nki_sim.cores.core_times import simulate
from nki_sim.cores.device import execute
from nki_sim.schedule.compiler import scheduled


class At:
    """A placement."""

    def __init__(self, addresses: Places):
        self.addresses = addresses


def made(seed: int) -> Program:
    """A random program whose instructions have names, which those on another engine keep."""
    program = Maker(seed).program
    for k, instruction in enumerate(program.walk()):
        instruction.name = f"i{k}"
    return program


def names(program: Program) -> list[str | None]:
    return [instruction.name for instruction in program.walk()]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 32, 256]))
def test_every_conflicting_pair_keeps_its_order(seed: int, look_ahead: int) -> None:
    program = made(seed)
    places = crowded(program, seed)
    found = names(scheduled(program, TRN2, At(places), look_ahead=look_ahead))
    at = {name: k for k, name in enumerate(found)}
    assert len(found) == len(at) and set(found) == set(names(program))
    for earlier, later in itertools.combinations(program.walk(), 2):
        if conflicts(earlier, later, places):
            assert at[earlier.name] < at[later.name]
        assert at[earlier.name] < at[later.name] or look_ahead > 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_dma_queue_keeps_its_order(seed: int) -> None:
    program = Maker(seed, kinds=("copy", "store", "load")).program
    queues: dict[str, list[Instruction]] = {}
    for ordered in (program, scheduled(program, TRN2, At(crowded(program, seed)))):
        found: dict[str, list[Instruction]] = {}
        for instruction in ordered.walk():
            moved = instruction.cost(TRN2).transfer
            if moved is not None:
                found.setdefault(f"{moved.mode} {moved.direction}", []).append(instruction)
        assert found == (queues or found)
        queues = found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_it_computes_the_same_bits(seed: int) -> None:
    """Tensors share bytes here, so that each store tells who wrote them last."""
    program = Maker(seed, kinds=("copy", "store", "load", "random")).program
    data = np.random.default_rng(seed).integers(0, 256, (128, 64), dtype=np.uint8)
    program.storages[0].kind = "input"
    program.inputs.append(NkiTensor.whole(program.storages[0]))
    program.outputs.append(NkiTensor.whole(program.storages[1]))
    places = crowded(program, seed)
    other = scheduled(program, TRN2, At(places))
    first, second = (execute(p, places, [data]).outputs[0] for p in (program, other))
    assert first.tobytes() == second.tobytes()


def test_it_is_the_same_every_time_and_moves_what_it_can() -> None:
    changed = 0
    for seed in range(30):
        program = made(seed)
        places = At(crowded(program, seed))
        first, second = (scheduled(program, TRN2, places) for _ in range(2))
        assert names(first) == names(second)
        assert [i.on for i in first.walk()] == [i.on for i in second.walk()]
        changed += names(first) != names(program)
    assert changed > 10


def engines_only(seed: int) -> Program:
    return Maker(seed, kinds=tuple(set(KINDS) - {"meet", "while", "store", "load"})).program


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_dependence_never_makes_a_program_faster(seed: int) -> None:
    """Of what engines run in the order given; transfers share their engines first come, first served."""
    program = engines_only(seed)
    before = simulate(program).duration
    body = [node for node in program.body if isinstance(node, Instruction)]
    chance = random.Random(seed)
    later = chance.randrange(1, len(body))
    body[later].after = (*body[later].after, body[chance.randrange(later)])
    assert simulate(program).duration >= before


def test_a_load_is_started_while_an_engine_waits() -> None:
    """Two tiles, each loaded, doubled and stored: the second load does not wait for the first store."""
    built = Builder("trn1")
    source = built.input(np.zeros((128, 1024), np.float32))
    result = built.output(128, 1024)
    make = REGISTRY
    for half in (slice(0, 512), slice(512, 1024)):
        tile = built.tensor(128, 512)
        built.emit(make["dma_copy"](dst=tile, src=source[:, half]))
        built.emit(make["tensor_tensor"](dst=tile, data1=tile, data2=tile, op="add"))
        built.emit(make["dma_copy"](dst=result[:, half], src=tile))
    found = scheduled(built.program, TRN1, At(built.placement))
    opcodes = [i.opcode for i in found.walk()]
    assert opcodes == ["dma_copy", "dma_copy", "tensor_tensor", "dma_copy", "tensor_tensor", "dma_copy"]
    assert scheduled(built.program, TRN1, At(built.placement), look_ahead=1) is built.program


@pytest.mark.parametrize("mode, passes", [(dge_mode.none, True), (dge_mode.hwdge, False)])
def test_a_load_passes_one_that_waits_if_descriptors_lie_ready(mode: dge_mode, passes: bool) -> None:
    """The first load overwrites what a sum still reads, the second nothing."""
    built = Builder("trn2")
    source = built.input(np.zeros((128, 1024), np.float32))
    tile, other, total = built.tensor(128, 512), built.tensor(128, 512), built.tensor(128, 512)
    summed = REGISTRY["tensor_tensor"](dst=total, data1=tile, data2=tile, op="add")
    loads = [
        REGISTRY["dma_copy"](dst=dst, src=source[:, part], dge_mode=mode)
        for dst, part in ((tile, slice(0, 512)), (other, slice(512, 1024)))
    ]
    for instruction in (summed, *loads):
        built.emit(instruction)
    found = [i for i in scheduled(built.program, TRN2, At(built.placement)).walk() if i is not summed]
    assert (found == loads[::-1]) is passes


def test_none_is_put_before_an_older_one_that_it_would_hold_back() -> None:
    """A sum waits for a copy: a short sum fits before it on its engine, a long one does not."""
    for size, moved in ((64, True), (4096, False)):
        built = Builder("trn2")
        first, second = built.tensor(128, 512), built.tensor(128, 512)
        other, result = built.tensor(128, size), built.tensor(128, size)
        built.emit(REGISTRY["activation"](dst=second, op="copy", data=first))
        built.emit(REGISTRY["tensor_tensor"](dst=second, data1=second, data2=first, op="add"))
        built.emit(REGISTRY["tensor_tensor"](dst=result, data1=other, data2=other, op="add"))
        old = list(built.program.walk())
        found = list(scheduled(built.program, TRN2, At(built.placement)).walk())
        assert (found != old) is moved


def test_a_transfer_waits_for_the_engine_that_starts_it() -> None:
    """What stands behind it and has an engine of its own goes first."""
    built = Builder("trn2")
    make = REGISTRY
    source = built.input(np.zeros((128, 512), np.float32))
    wide, tile, other = built.tensor(128, 4096), built.tensor(128, 512), built.tensor(128, 512)
    built.emit(make["tensor_copy"](dst=wide, src=wide, engine=Engine.scalar))
    built.emit(make["dma_copy"](dst=tile, src=source, dge_mode=dge_mode.hwdge, engine=Engine.scalar))
    built.emit(make["tensor_tensor"](dst=other, data1=other, data2=other, op="add"))
    found = scheduled(built.program, TRN2, At(built.placement))
    assert [i.opcode for i in found.walk()] == ["tensor_copy", "tensor_tensor", "dma_copy"]


@pytest.mark.parametrize("is_written", [False, True])
def test_what_a_sendrecv_may_guard_does_not_cross_it(is_written: bool) -> None:
    """A load crosses it unless the kernel writes what it loads: another core may say so by meeting."""
    built = Builder("trn2")
    make = REGISTRY
    source, shared = built.input(np.zeros((128, 512), np.float32)), built.output(128, 512)
    mine, theirs, tile = (built.tensor(128, 512) for _ in range(3))
    built.emit(make["tensor_tensor"](dst=mine, data1=mine, data2=mine, op="add"))
    built.emit(make["dma_copy"](dst=shared, src=mine))
    built.emit(make["sendrecv"](dst=theirs, src=mine, send_to_rank=1, recv_from_rank=1, pipe_id=0))
    built.emit(make["dma_copy"](dst=tile, src=shared if is_written else source))
    old = list(built.program.walk())
    new = list(scheduled(built.program, TRN2, At(built.placement)).walk())
    assert set(new) == set(old)
    assert (new.index(old[3]) < new.index(old[2])) is not is_written


def engines_of_copies(built: Builder, target: Target, count: int = 4, **given: Any) -> list[Engine]:
    """Where copies of tiles of PSUM run while the vector engine has a long sum to make."""
    make = REGISTRY
    long, tile = built.tensor(128, 4096), built.tensor(128, 512, region=PSUM)
    copies = [make["tensor_copy"](dst=built.tensor(128, 512), src=tile, **given) for _ in range(count)]
    built.emit(make["tensor_tensor"](dst=long, data1=long, data2=long, op="add"), *copies)
    found = scheduled(built.program, target, At(built.placement))
    assert {i.engine for i in copies} == {given.get("engine", Engine.unknown)}  # the kernel's own stay
    return [i.on for i in found.walk() if i.opcode == "tensor_copy"]


def test_a_copy_without_an_engine_goes_to_one_that_is_free() -> None:
    """gpsimd does not reach PSUM; the scalar engine of trn1 makes no copies; an engine asked for stands."""
    scalar, vector = Engine.scalar, Engine.vector
    assert engines_of_copies(Builder("trn2"), TRN2) == [scalar] * 4
    assert set(engines_of_copies(Builder("trn2"), TRN2, 16)) == {scalar, vector}
    assert engines_of_copies(Builder("trn2"), TRN2, engine=vector) == [vector] * 4
    assert engines_of_copies(Builder("trn1"), TRN1) == [vector] * 4


def test_a_copy_that_another_runs_after_stays_where_it_is() -> None:
    built = Builder("trn2")
    make = REGISTRY
    long, tile, other = built.tensor(128, 4096), built.tensor(128, 512), built.tensor(128, 512)
    copied = make["tensor_copy"](dst=tile, src=tile)
    later = make["activation"](dst=other, op="copy", data=other)
    later.after = (copied,)
    built.emit(make["tensor_tensor"](dst=long, data1=long, data2=long, op="add"), copied, later)
    assert list(scheduled(built.program, TRN2, At(built.placement)).walk())[1] is copied


@nki.jit
def doubled(a):
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    for k in range(4):
        tile = nl.ndarray((128, 128), dtype=a.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=a[:, k * 128 : (k + 1) * 128])
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
        nisa.dma_copy(dst=out[:, k * 128 : (k + 1) * 128], src=tile)
    return out


def test_a_session_chooses_the_order() -> None:
    data = np.random.default_rng(0).standard_normal((128, 512)).astype(np.float32)
    totals, results = {}, {}
    for order in ("program", "compiler", "program"):
        with runtime.session(schedule=order, timing=True) as seen:
            results[order] = doubled(data)
        (launch,) = seen.launches
        assert launch.schedule == order
        totals[order] = launch.timeline.total
    assert np.array_equal(results["program"], results["compiler"])
    assert totals["compiler"] <= totals["program"]


@nki.jit
def exchanged(a, plan):
    """In each phase both cores read what either wrote in earlier ones, add it up and write their own."""
    me = nl.program_id(0)
    shared = nl.ndarray((2 * len(plan), 128, 16), dtype=a.dtype, buffer=nl.shared_hbm)
    total = nl.ndarray((128, 16), dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=total, src=a[me])
    for phase in range(len(plan)):
        for slot in plan[phase]:
            tile = nl.ndarray((128, 16), dtype=a.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=shared[slot])
            nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)
        nisa.dma_copy(dst=shared[2 * phase + me], src=total)
        nisa.core_barrier(shared, (0, 1))
    return shared


@st.composite
def plans(draw) -> tuple[tuple[int, ...], ...]:
    """The slots each phase reads: of phases before it."""
    phases = draw(st.integers(2, 4))
    return tuple(
        tuple(draw(st.lists(st.integers(0, 2 * phase - 1), max_size=4))) if phase else ()
        for phase in range(phases)
    )


def exchange(plan: tuple[tuple[int, ...], ...], order: str) -> tuple[bytes, runtime.Launch]:
    """What the cores leave in shared HBM; the race detector's clocks watch them."""
    data = np.random.default_rng(len(plan)).integers(0, 9, (2, 128, 16)).astype(np.float32)
    with runtime.session(schedule=order, check="races") as session:
        result = exchanged[2](data, plan)
    return result.tobytes(), session.launches[0]


@settings(max_examples=12, deadline=None)
@given(plans())
def test_the_clocks_of_the_race_detector_find_no_broken_order(plan: tuple[tuple[int, ...], ...]) -> None:
    before, after = (exchange(plan, order)[0] for order in ("program", "compiler"))
    assert before == after


def test_the_clocks_find_what_is_moved_over_a_barrier(monkeypatch) -> None:
    """A scheduler that does not know barriers: they come when all else is done."""

    def careless(program: Program, *_: object, **__: object) -> Program:
        return in_order(program, sorted(program.body, key=lambda one: one.opcode == "core_barrier"))

    monkeypatch.setattr(pipeline, "scheduled", careless)
    with pytest.raises(NkiError) as raised:
        exchange(((), (0, 1)), "compiler")
    assert {found.code for found in raised.value.diagnostics} == {"NKI-H021"}
