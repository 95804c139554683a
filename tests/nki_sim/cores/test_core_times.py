"""The times of two cores: they wait for each other where they meet, and share HBM's bandwidth."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.machine.targets import TARGETS, on_logical_cores
from nki_sim.timing.plans import hbm_share
from nki_sim.timing.scoreboard import Wait


@nki.jit
def uneven(x):
    """Core 0 does much more before the barrier than core 1."""
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[nl.program_id(0)])
    for _ in range(40 if nl.program_id(0) == 0 else 1):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0, engine=nisa.engine.vector)
    out = nl.ndarray((2, 128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[nl.program_id(0)], src=tile)
    nisa.core_barrier(out, (0, 1))
    nisa.memset(dst=tile, value=0.0, engine=nisa.engine.gpsimd)
    return out


def timelines(kernel, *args, data):
    with runtime.session(timing=True, data=data) as session:
        kernel(*args)
    return [core.timeline for core in session.launches[0].cores]


def barrier_of(timeline):
    return [i.opcode for i in timeline.instructions].index("core_barrier")


@pytest.mark.parametrize("data", [True, False])
def test_both_leave_a_barrier_when_the_last_arrives(data):
    slow, fast = timelines(uneven[2], np.zeros((2, 128, 512), np.float32), data=data)
    a, b = barrier_of(slow), barrier_of(fast)
    assert slow.start[a] == fast.start[b]
    assert slow.end[a] == fast.end[b] == slow.start[a] + slow.target.barrier_ns
    assert Wait(fast.wait[b]) is Wait.core and Wait(slow.wait[a]) is not Wait.core
    # the early core waits for about the 39 instructions it did not have
    assert fast.waited[b] > 39 * 300


def test_data_does_not_change_the_times():
    x = np.zeros((2, 128, 512), np.float32)
    with_data, without = (timelines(uneven[2], x, data=data) for data in (True, False))
    assert [t.format() for t in with_data] == [t.format() for t in without]


@nki.jit
def copies(x):
    """Loads and stores 4 MiB on each core."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    me = nl.program_id(0)
    for k in range(8):
        tile = nl.ndarray((128, 1024), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[me, k])
        nisa.dma_copy(dst=out[me, k], src=tile)
    return out


def test_two_cores_share_the_stack_s_bandwidth(monkeypatch):
    """On trn2 716 GB/s serve two cores of 435 GB/s each; on trn3 every core has its own share."""
    x = np.zeros((2, 8, 128, 1024), np.float32)
    spent = {}
    for target in ("trn2", "trn3"):
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
        (alone,) = timelines(copies, x[:1], data=False)
        together = timelines(copies[2], x, data=False)
        spent[target] = together[0].duration / alone.duration
        assert together[0].duration == together[1].duration
    assert 1.1 < spent["trn2"] < 435.2 / (0.94 * 358)
    assert spent["trn3"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "target, factor", [("trn1", 1.0), ("trn2", 16 * 27.2 / (0.94 * 358)), ("trn3", 1.003)]
)
def test_share_of_one_of_two_cores(target, factor):
    assert 1 / hbm_share(TARGETS[target], 2) == pytest.approx(factor, rel=2e-2)
    assert hbm_share(TARGETS[target], 1) == 1.0


@nki.jit
def passed_on(x, is_static):
    me = nl.program_id(0)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((128, 1024), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x[me], dge_mode=nisa.dge_mode.none if is_static else nisa.dge_mode.unknown)
    nisa.dma_copy(dst=out[me], src=tile)
    return out


def test_two_cores_that_load_by_software_dge_start_later(monkeypatch):
    """By the figure of their generation; neither one core nor static loads do."""
    x = np.zeros((2, 128, 1024), np.float32)
    for name in ("trn2", "trn3"):
        monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", name)
        target = TARGETS[name]
        assert target.default_dge == "swdge" and target.program_pair_start > 0
        for cores, is_static, more in (
            (1, False, 0.0),
            (2, True, 0.0),
            (2, False, target.program_pair_start),
        ):
            for found in timelines(passed_on[cores], x[:cores], is_static, data=False):
                assert found.start_up == target.program_start + more
                assert found.total == found.start_up + found.duration + target.program_end


def test_a_logical_core_of_one_physical_core_starts_earlier():
    """By the figure of its generation; a launch on one core of two starts as one on both."""
    x = np.zeros((1, 128, 1024), np.float32)
    for target in TARGETS.values():
        alone = on_logical_cores(target, 1)
        assert alone.name == target.name and (alone is target) == (target.logical_cores == 1)
        for machine, less in ((target, 0.0), (alone, target.program_single_lead)):
            with runtime.session(target=machine, timing=True, data=False) as session:
                passed_on(x, True)
            (core,) = session.launches[0].cores
            assert core.timeline.start_up == target.program_start - less
    assert TARGETS["trn2"].program_single_lead > 0
