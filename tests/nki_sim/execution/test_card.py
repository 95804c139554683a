"""What a card returned, bit for bit.

Row sums on one NeuronCore of a trn1.2xlarge, for inputs that numpy makes from a seed: Laela Zorana, "Kernel
grader measurements, MI300X and Trainium" (2026), CC BY 4.0, on GitHub as
LaelaZorana/kernel-grader-mi300x-rocm-trainium-nki. Published are the checksum of the inputs, that the card
equals the sum from the first element to the last in each of 16,384 rows, how many rows equal the sum in
float64, and the sum of all rows. The vendor's simulator equals the card in 3,590 of the rows.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl


class Published(NamedTuple):
    """Of one seed."""

    inputs_sha256: str
    rows_equal_to_float64: int
    sum_of_all_rows: float


CARD = {
    3: Published("167108d24ee210ea9992a7a347a260a064f902c82de00937a5f3385953e07fac", 891, 262003.62091064453),
    7: Published("5e36626a52c9f0abd64b14578a2cb31b684dfbb41f2e8646b24bc182ea7381ca", 942, 262308.5208091736),
    11: Published(
        "7f04730a2a405377f5760a293dc7f3f60d194acd5f69a400f892fc475e407a4a", 951, 262308.01123809814
    ),
    19: Published("dfc199a4de3974aa98cde80a79a880c449b505aa9c48f974f1d22fd0a3bb6984", 904, 261701.7068748474),
}
ROWS, COLUMNS = 4096, 128


def weights(seed):
    """The input of the measurement: two tiles of another kernel are drawn before it."""
    random = np.random.default_rng(seed)
    for _ in range(2):
        random.random((128, 512), dtype=np.float32)
    return random.random((ROWS, COLUMNS), dtype=np.float32)


@nki.jit
def row_sums(x):
    sums = nl.ndarray((x.shape[0], 1), dtype=x.dtype, buffer=nl.shared_hbm)
    for start in range(0, x.shape[0], 128):
        tile = nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
        total = nl.ndarray((128, 1), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[start : start + 128, :])
        nisa.tensor_reduce(dst=total, op=nl.add, data=tile, axis=1)
        nisa.dma_copy(dst=sums[start : start + 128, :], src=total)
    return sums


@pytest.mark.parametrize("seed", CARD)
def test_row_sums_are_those_of_the_card(seed, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    x = weights(seed)
    assert hashlib.sha256(x.tobytes()).hexdigest() == CARD[seed].inputs_sha256
    sums = row_sums(x)[:, 0]
    sequential = np.zeros(ROWS, np.float32)
    for column in x.T:
        sequential += column
    assert np.array_equal(sums, sequential)  # as the card does in 4,096 of 4,096 rows
    exact = x.astype(np.float64).sum(axis=1).astype(np.float32)
    assert np.count_nonzero(sums == exact) == CARD[seed].rows_equal_to_float64
    assert sums.astype(np.float64).sum() == CARD[seed].sum_of_all_rows
