"""Mechanisms of the machine, switched off one by one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PSUM, Builder
from random_programs import Maker

from nki_isa.diagnostics import NkiError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Program
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import FIGURES
from nki_isa.machine.targets import TARGETS, TRN1, TRN2
from nki_sim.cores.core_times import simulate, simulate_all
from nki_sim.report.ablation import ablation
from nki_sim.timing.mechanisms import MECHANISMS, mechanisms, without


class Nowhere:
    """A placement that takes all tensors to be apart."""

    addresses: dict[int, tuple[int, int]] = {}


def mixed(seed: int, target: str = "trn1") -> Program:
    """Loads, matmuls, activations, vector instructions and stores of tiles chosen at random."""
    chance = random.Random(seed)
    built = Builder(target)
    make = REGISTRY
    source, result = built.tensor(128, 2048), built.output(128, 2048)
    given = built.tensor(128, 2048, region=result.buffer, kind="input")
    columns = chance.choice([8, 64, 128])
    tiles = [source[:, k * columns : (k + 1) * columns] for k in range(6)]
    bias = built.tensor(128, 1)
    sums = [built.tensor(128, 128, region=PSUM)[:, :columns] for _ in range(3)]
    for _ in range(chance.randint(5, 40)):
        one, two = chance.choice(tiles), chance.choice(tiles)
        total = chance.choice(sums)
        match chance.choice(["load", "store", "copy", "exp", "scale", "matmul", "drain", "memset"]):
            case "load":
                made = make["dma_copy"](dst=one, src=given[:, :columns])
            case "store":
                made = make["dma_copy"](dst=result[:, :columns], src=one)
            case "copy":
                engine = chance.choice([Engine.vector, Engine.scalar, Engine.gpsimd])
                made = make["tensor_copy"](dst=one, src=two, engine=engine)
            case "exp":
                made = make["activation"](dst=one, op=chance.choice(["exp", "tanh"]), data=two, bias=bias)
            case "scale":
                made = make["tensor_scalar"](dst=one, data=two, op0="multiply", operand0=bias)
            case "matmul":
                made = make["nc_matmul"](total[:columns], one, two, accumulate=False)
            case "drain":
                made = make["tensor_copy"](dst=one[:columns], src=total[:columns])
            case "memset":
                made = make["memset"](dst=one, value=0.0)
        built.program.body.append(made)
    return built.program


def test_each_is_made_of_figures_that_its_absence_changes() -> None:
    for name, mechanism in MECHANISMS.items():
        assert set(mechanism.off) <= {*FIGURES, "throttled", "dma_shared", "spills"}, name
        changed = [t for t in TARGETS.values() for f, off in mechanism.off.items() if getattr(t, f) != off]
        assert changed, name
    assert without(TRN2, ()) is TRN2
    assert without(TRN2, MECHANISMS).throttled is False and TRN2.throttled is True


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(MECHANISMS)))
def test_without_a_mechanism_no_program_is_slower(seed: int, name: str) -> None:
    """Of a machine that serves nobody first who comes first: no clock that throttles, no sharing."""
    base = without(TRN1, {"queue-sharing"})
    program = mixed(seed)
    (before,) = simulate_all([program], [None], target=base)
    (after,) = simulate_all([program], [None], target=without(base, {name}))
    assert after.duration <= before.duration + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_without_sharing_and_throttle_no_program_is_slower(seed: int) -> None:
    for program in (mixed(seed, "trn2"), Maker(seed, kinds=("copy", "add", "store", "load")).program):
        whole = simulate(program).duration
        for name in ("throttle", "queue-sharing", "hbm-sharing"):
            (after,) = simulate_all([program], [None], target=without(TRN2, {name}))
            assert after.duration <= whole + 1e-6, name


def test_what_each_costs_is_the_difference_it_makes() -> None:
    program = mixed(3, "trn2")
    rows = ablation([program], [Nowhere()])
    assert {row.name for row in rows} == set(MECHANISMS)
    assert [row.saved for row in rows] == sorted((row.saved for row in rows), reverse=True)
    total = simulate(program).total
    for row in rows:
        (alone,) = simulate_all([program], [None], target=without(TRN2, {row.name}))
        assert row.time == alone.total
        assert row.saved == pytest.approx(total - row.time)
    fewer = ablation([program], [Nowhere()], off={"throttle"})
    assert {row.name for row in fewer} == set(MECHANISMS) - {"throttle"}


def test_semaphores_cost_what_the_hand_offs_of_a_chain_take() -> None:
    """Scalar and vector engine copy a tile back and forth: each copy waits for a semaphore of the other."""
    built = Builder("trn2")
    one, two = built.tensor(128, 64), built.tensor(128, 64)
    engines = [Engine.vector, Engine.scalar]
    for k in range(6):
        built.emit(REGISTRY["tensor_copy"](dst=two, src=one, engine=engines[k % 2]))
        one, two = two, one
    whole = simulate(built.program).duration
    (chain,) = simulate_all([built.program], [None], target=without(TRN2, {"semaphores"}))
    assert whole - chain.duration == pytest.approx(5 * TRN2.semaphore_ns)


def test_an_unknown_name_is_refused() -> None:
    assert mechanisms("throttle, semaphores") == {"throttle", "semaphores"}
    with pytest.raises(NkiError, match="there is no mechanism 'throtle'"):
        mechanisms("throtle")
