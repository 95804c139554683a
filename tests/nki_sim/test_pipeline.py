"""From a Program to a run: the passes, in their order, on all cores."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from programs import Builder
from random_programs import Maker

from nki_isa.diagnostics import NkiMemoryError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.targets import TRN2
from nki_sim.pipeline import PlacePass, ScheduleName, SchedulePass, Staged, passes, staged
from nki_sim.placement.place import place
from nki_sim.schedule.compiler import scheduled


def order_of(program):
    """By name: an instruction may be a copy on another engine."""
    return [instruction.name for instruction in program.walk()]


def too_large():
    """A Program with a tensor that takes more of a partition than there is."""
    built = Builder()
    built.emit(REGISTRY["memset"](built.tensor(128, 55 << 10), 0.0))
    return built.program


def test_every_order_has_its_passes():
    for schedule in get_args(ScheduleName):
        assert passes(schedule)[0] == PlacePass(spills=True)
        assert passes(schedule, spills=False) == (PlacePass(spills=False), *passes(schedule)[1:])


def test_each_pass_takes_what_the_one_before_gave():
    program = Maker(3).program
    for k, instruction in enumerate(program.walk()):
        instruction.name = f"i{k}"
    (plain,) = staged([program], TRN2, passes("program"))
    assert plain.program is program and plain.placed.addresses == place(program, TRN2).addresses
    (ordered,) = staged([program], TRN2, passes("compiler"))
    assert ordered.placed.addresses == plain.placed.addresses
    assert order_of(ordered.program) == order_of(scheduled(program, TRN2, plain.placed))
    assert order_of(ordered.program) != order_of(program)
    (as_it_was,) = staged([program], TRN2, [PlacePass(), SchedulePass(look_ahead=1)])
    assert order_of(as_it_was.program) == order_of(program)


def test_a_pass_runs_on_all_cores_before_the_next_begins():
    programs = [Maker(k).program for k in range(2)]
    seen = []

    def noted(name):
        def look(given):
            seen.append((name, given.program, given.cores))
            return replace(given, diagnostics=(*given.diagnostics, name))

        return look

    found = staged(programs, TRN2, [noted("first"), noted("second")])
    assert seen == [(name, program, 2) for name in ("first", "second") for program in programs]
    assert [one.diagnostics for one in found] == [("first", "second")] * 2


def test_what_does_not_fit_is_refused_before_a_later_pass_looks():
    def unreached(given):
        raise AssertionError("a later pass ran")

    with pytest.raises(NkiMemoryError, match="220 KiB"):
        staged([Maker(0).program, too_large()], TRN2, [PlacePass(), unreached])


def test_nothing_is_placed_without_a_pass_that_does():
    built = Builder()
    built.input(np.ones((4, 4), np.float32))
    with pytest.raises(TypeError, match="without being placed"):
        _ = Staged(built.program, TRN2).placed
