"""Random numbers: the XORWOW recurrence, seeding, and the statistics of what comes out."""

import numpy as np
import pytest
from tiles import State, dst_of, run, tensor

from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN3
from nki_isa.ops.random_numbers import dropout, rand2, rand_get_state, rand_set_state, rng, set_rng_seed


def xorwow(words, count):
    """Marsaglia's generator on Python integers."""
    x, y, z, w, v, d = (int(word) for word in words)
    numbers = []
    for _ in range(count):
        t = x ^ (x >> 2)
        x, y, z, w = y, z, w, v
        v = (v ^ (v << 4) ^ t ^ (t << 1)) % 2**32
        d = (d + 362437) % 2**32
        numbers.append((v + d) % 2**32)
    return numbers, [x, y, z, w, v, d]


def seeds(partitions, words):
    return np.random.default_rng(5).integers(0, 2**32, (partitions, words), dtype=np.uint64).astype(np.uint32)


def test_gpsimd_generators_follow_their_state():
    state, words = State(), seeds(3, 6)
    run(rand_set_state(tensor(3, 6, dtype="uint32", contents=words)), state)
    got = run(rng(dst_of((3, 7), "uint32"), Engine.gpsimd), state)
    after = run(rand_get_state(dst_of((3, 6), "uint32")), state)
    for lane in range(3):
        numbers, ending = xorwow(words[lane], 7)
        assert got[lane].tolist() == numbers
        assert after[lane].tolist() == ending


def test_the_vector_engine_has_four_generators_per_lane():
    state, words = State(), seeds(2, 24)
    run(rand_set_state(tensor(2, 24, dtype="uint32", contents=words), Engine.vector), state, check=TRN3)
    got = run(rng(dst_of((2, 8), "uint32")), state)
    for lane in range(2):
        for k in range(4):
            assert got[lane, k::4].tolist() == xorwow(words[lane, 6 * k : 6 * k + 6], 2)[0]


def test_narrow_types_keep_the_low_bits():
    wide, narrow = State(), State()
    full = run(rng(dst_of((4, 8), "uint32")), wide)
    assert (run(rng(dst_of((4, 8), "uint8")), narrow) == (full & 0xFF)).all()


def test_a_seed_repeats_its_numbers():
    def numbers(seed):
        state = State()
        run(set_rng_seed(tensor(1, 1, dtype="uint32", contents=np.array([[seed]], np.uint32))), state)
        return run(rng(dst_of((128, 16), "uint32")), state)

    assert (numbers(1) == numbers(1)).all() and (numbers(1) != numbers(2)).any()
    assert len(np.unique(numbers(1))) > 2000  # lanes differ from each other


def test_rand2_is_uniform_between_its_bounds():
    low = tensor(128, 1, contents=np.linspace(-1, 0, 128, dtype=np.float32))
    got = run(rand2(dst_of((128, 512)), low, 2.0), check=TRN3)
    bottom = np.linspace(-1, 0, 128, dtype=np.float32)[:, None]
    assert (got >= bottom).all() and (got <= 2).all()
    np.testing.assert_allclose(got.mean(axis=1), (bottom[:, 0] + 2) / 2, atol=0.2)
    unit = (got - bottom) / (2 - bottom)
    assert unit.mean() == pytest.approx(0.5, abs=0.01) and unit.var() == pytest.approx(1 / 12, abs=0.005)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int16"])
def test_dropout(dtype):
    ones = tensor(
        128, 512, dtype=dtype, contents=np.ones((128, 512)).astype(dst_of((1, 1), dtype).dtype.numpy)
    )
    got = run(dropout(dst_of((128, 512), dtype), ones, 0.25)).astype(np.float32)
    assert set(np.unique(got)) == {0, 1} and got.mean() == pytest.approx(0.75, abs=0.01)
    assert (run(dropout(dst_of((128, 512), dtype), ones, 0.0)) == 1).all()
    assert (run(dropout(dst_of((128, 512), dtype), ones, 1.0)) == 0).all()


def test_dropout_drops_what_is_below_the_probability():
    """So that a value is dropped in just that share of all cases, numbers being 0 or more and below 1."""
    number = run(rand2(dst_of((1, 1)), 0.0, 1.0), check=TRN3)[0, 0]
    one = tensor(1, 1, contents=np.ones((1, 1), np.float32))
    above = np.nextafter(number, np.float32(1))
    assert run(dropout(dst_of((1, 1)), one, float(number)), check=TRN3) == 1
    assert run(dropout(dst_of((1, 1)), one, float(above)), check=TRN3) == 0


def test_dropout_takes_a_probability_per_partition():
    ones = tensor(2, 64, contents=np.ones((2, 64), np.float32))
    prob = tensor(2, 1, contents=np.array([[0], [1]], np.float32))
    assert run(dropout(dst_of((2, 64)), ones, prob)).sum(axis=1).tolist() == [64, 0]


def test_costs():
    wide = tensor(128, 512)
    assert rand2(wide, 0.0, 1.0).cost(TRN3).busy == pytest.approx(128 / 1.2 + TRN3.vector_interval)
    assert dropout(wide, wide, 0.5).cost(TRN3).busy == pytest.approx(512 / 1.2 + TRN3.vector_interval)


def test_the_first_lanes_serve_tiles_wherever_they_start():
    whole = tensor(128, 8, dtype="uint32")
    first, second = State(), State()
    assert np.array_equal(run(rng(whole[0:32]), first), run(rng(whole[96:128]), second))
