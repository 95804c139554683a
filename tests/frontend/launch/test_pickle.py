"""Programs, timelines, profiles and launches go through pickle and copy: what is one thing stays one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki.compiler import specialize
from nki_isa.text.printer import format_program
from nki_sim.cores.core_times import simulate
from nki_sim.report.profile import Profile

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

WAYS = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
X = np.ones((4, 8), np.float32)


@nki.jit
def kernel(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    assert x.buffer == nl.hbm and x.buffer == nl.shared_hbm
    nisa.dma_copy(dst=tile, src=x)
    nisa.activation(dst=tile, data=tile, op=nl.exp)
    for _ in nl.dynamic_range(3):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_program_stays_what_it_is(way):
    program = specialize(kernel, X)
    other = way(program)
    assert format_program(other) == format_program(program)
    timeline, same = simulate(program), simulate(other)
    assert same.format() == timeline.format()
    load, exp = other.body[0], other.body[1]
    assert load.dst.storage is exp.data.storage
    assert load.src.buffer == nl.hbm and load.src.buffer == nl.shared_hbm and load.dst.buffer is nl.sbuf


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_timeline_and_its_profile_stay_what_they_are(way):
    timeline = simulate(specialize(kernel, X))
    other = way(timeline)
    assert other.target is timeline.target
    assert other.format() == timeline.format()
    turns = [i for i in other.instructions if i.opcode == "tensor_scalar"]
    assert len(turns) == 3 and turns[0] is turns[1] is turns[2]
    profile = Profile.of(timeline)
    assert way(profile).as_dict() == profile.as_dict()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_record_of_a_launch_stays_what_it_is(way):
    with runtime.session(timing=True) as record:
        kernel(X)
    (launch,) = record.launches
    other = way(launch)
    (core,) = other.cores
    assert other.kernel == launch.kernel == "kernel"
    assert core.timeline.format() == launch.cores[0].timeline.format()
    assert format_program(core.program) == format_program(launch.cores[0].program)
    assert core.placement.addresses == launch.cores[0].placement.addresses
