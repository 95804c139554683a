"""Matmuls on the scoreboard: weights, the clock, parts of the array."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boards import emit, tile, timed

from nki_isa.machine.targets import TRN1, TRN2
from nki_sim.timing.clocks import TensorClock
from nki_sim.timing.scoreboard import Wait


def matmuls(count, moving=512, stationary=128, dtype="bfloat16", target=TRN2):
    ops = []
    for _ in range(count):
        operands = tile((128, stationary), dtype), tile((128, moving), dtype)
        dst = tile((stationary, moving), region="psum")
        ops.append(emit("nc_matmul", dst, *operands, accumulate=False))
    return timed(ops, target)


@pytest.mark.parametrize(("moving", "dtype", "expected"), [(512, "bfloat16", 216), (128, "bfloat16", 55.5)])
def test_weights_load_under_the_matmul_before(moving, dtype, expected):
    starts = matmuls(300, moving).start
    assert starts[-1] - starts[-2] == pytest.approx(expected, abs=1.0)  # measured back to back


@pytest.mark.parametrize("rows", [128, 64, 8])
def test_matmuls_of_few_rows_run_at_the_full_rate(rows):
    """It takes 37 % of the most columns, and half of the rate makes 50."""
    operands = [tile((rows, width), "bfloat16") for width in (128, 512)]
    ops = [
        emit("nc_matmul", tile((128, 512), "float32", "psum"), *operands, accumulate=False) for _ in range(60)
    ]
    starts = timed(ops).start
    assert starts[-1] - starts[-2] == pytest.approx(512 / 2.4 + TRN2.tensor_interval, abs=1.0)


def on_tiles(places, ports=2.0):
    """Starts of matmuls of 512 columns on 128 x 32 tiles of trn1's rates, at these columns of the array."""
    ops = [
        emit(
            "nc_matmul",
            tile((32, 512), region="psum"),
            tile((128, 32), "bfloat16"),
            tile((128, 512), "bfloat16"),
            accumulate=False,
            tile_position=(0, 0 if place is None else place),
            tile_size=(128, 128 if place is None else 32),
        )
        for place in places
    ]
    return timed(ops, replace(TRN2, throttled=False, tensor_interval=0.0, tensor_ports=ports)).start * 2.4


def test_matmuls_on_different_tiles_share_the_moving_ports():
    """Two elements of moving data a row and cycle: two of four tiles stream at a time."""
    starts = on_tiles([0, 32, 64, 96, 0, 32])
    assert np.diff(starts) == pytest.approx([256] * 5, abs=1)
    assert np.diff(on_tiles([0, 32, 64, 96], ports=4.0)) == pytest.approx([128] * 3, abs=1)


def test_a_tile_and_the_whole_array_wait_for_what_runs_on_them():
    assert np.diff(on_tiles([0, 0, 0])) == pytest.approx([512] * 2, abs=1)
    assert np.diff(on_tiles([0, 64, None, 0])) == pytest.approx([256, 512, 512], abs=1)


def test_weights_of_8_bits_load_in_half_the_time():
    machine = replace(TRN2, throttled=False)
    for dtype, cycles in (("bfloat16", 128), ("float8_e4m3", 64)):
        starts = matmuls(5, moving=4, dtype=dtype, target=machine).start
        assert np.diff(starts) == pytest.approx([cycles / 2.4 + machine.tensor_interval] * 4)


@pytest.mark.parametrize(("moving", "expected"), [(512, 857), (128, 220)])
def test_fp32_is_two_matmuls_of_two_passes(moving, expected):
    starts = matmuls(200, moving, dtype="float32").start
    assert starts[-1] - starts[-2] == pytest.approx(expected, abs=2.0)


def test_a_matmul_shorter_than_its_weights_waits_for_them():
    # streaming takes at least 64 cycles a pass, 128 for half of an fp32 product, but its weights take 256
    timeline = matmuls(5, moving=1, dtype="float32", target=TRN1)
    assert timeline.wait[-1] == Wait.weights
    assert timeline.start[-1] - timeline.start[-2] == pytest.approx(2 * 256 / 2.8)


def test_accumulation_in_psum_needs_no_semaphore():
    dst = tile((128, 512), region="psum")
    ops = [
        emit("nc_matmul", dst, tile((128, 128), "bfloat16"), tile((128, 512), "bfloat16"), accumulate=k > 0)
        for k in range(3)
    ]
    starts = timed(ops, TRN1).start
    assert np.diff(starts) == pytest.approx(512 / 2.8 + TRN1.tensor_interval)


def test_trn1_has_no_throttle_and_trn2_starts_at_half_rate():
    assert np.diff(matmuls(3, target=TRN1).start)[-1] == pytest.approx(512 / 2.8 + 2.1)
    cold = matmuls(3)
    assert np.diff(cold.start)[-1] == pytest.approx(512 / 1.2 + 2.5)
    assert cold.end[-1] - cold.start[-1] == pytest.approx(512 / 1.2 + 205)


@pytest.mark.parametrize(("share", "full"), [(0.369, False), (0.375, True), (0.381, True)])
def test_utilisation_of_a_window_sets_the_rate_of_the_next(share, full):
    # the largest share seen followed by half rate, the smallest followed by full rate
    clock = TensorClock(TRN2)
    window, begin = TRN2.throttle_window, TRN2.throttle_phase
    clock.stream(begin, share * window * 2.4, 1.0)
    clock.advance(begin + window + 1)
    assert clock.full is full
    clock.advance(begin + 3 * window)  # an idle window slows it down again
    assert not clock.full


def test_what_only_waits_for_weights_counts_less():
    clock = TensorClock(TRN2)
    begin, window = TRN2.throttle_phase, TRN2.throttle_window
    clock.stream(begin, 0.45 * window * 2.4, 0.5)
    clock.advance(begin + window)
    assert not clock.full


def test_windows_run_on_whatever_a_launch_does():
    # the one that is on when it starts is no whole one: what is streamed in the rest of it is too little
    clock = TensorClock(TRN2)
    clock.stream(0.0, TRN2.throttle_phase * 1.2, 1.0)
    clock.advance(TRN2.throttle_phase)
    assert not clock.full
    for target in (TRN2, replace(TRN2, throttle_phase=0.0)):
        clock = TensorClock(target)
        late = target.throttle_phase + 7 * target.throttle_window
        clock.stream(late - 2000.0, 1000.0, 1.0)  # after idle ones, still in its own
        assert clock.slow == pytest.approx(1000.0 / 1.2)
        clock.stream(late - 10.0, 24.0, 1.0)
        assert clock.slow == pytest.approx(1000.0 / 1.2 + 20.0)


def test_matmuls_with_few_moving_columns_do_not_warm_the_clock():
    # the engine turns around in 64 cycles of the base clock, and only what it streams counts as use
    assert np.diff(matmuls(400, moving=4).start)[-1] == pytest.approx(128 / 1.2 + 2.5)
    assert np.diff(matmuls(400, moving=128).start)[-1] == pytest.approx(128 / 2.4 + 2.5)


def test_streaming_across_windows_changes_rate_midway():
    clock = TensorClock(TRN2)
    window, begin = TRN2.throttle_window, TRN2.throttle_phase
    in_first = window * 1.2  # all of the cold window: utilisation 0.5
    end = clock.stream(begin, in_first + 2400, 1.0)
    assert end == pytest.approx(begin + window + 1000.0)
    assert clock.slow == pytest.approx(window)


def test_neighbours_far_apart_halve_the_rate_of_a_port_on_trn1():
    """A tensor_copy of every 4th or every 8th float32: 16 bytes apart are not too far, 32 are."""

    def interval(step, target):
        wide = tile((128, 512 * step))
        return timed([emit("tensor_copy", tile((128, 512)), wide[:, ::step])], target).busy[0]

    whole = interval(1, TRN1)
    assert interval(4, TRN1) == whole
    assert interval(8, TRN1) == pytest.approx(whole + 512 / 0.7 - 512 / 1.12)
    assert interval(8, TRN2) == interval(1, TRN2)
