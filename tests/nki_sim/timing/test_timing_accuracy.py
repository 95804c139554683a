"""The benchmark's rows stay close to what hardware measured."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("timing_accuracy").ROWS


def ratio(row):
    return row.simulated() / row.measured


FAR = {  # rows of one kind that contradict each other: 28 and 19 ns for 512 bytes
    "dma row 256 B store, apart",
    "dma row 512 B store, apart",
    "dma row 512 B store, apart, 8",
}


def test_single_instructions_within_a_sixth(rows):
    singles = [row for row in rows if row.unit == "ns"]
    assert len(singles) == 86
    assert {row.name for row in singles} > FAR
    for row in singles:
        if row.name not in FAR:
            within = 1 / 10 if row.use == "fit" else 1 / 6
            assert ratio(row) == pytest.approx(1, abs=within), row.name


def test_attention_as_its_compiler_ordered_it(rows):
    for row in rows:
        if "attention" in row.name and "," not in row.name:
            assert ratio(row) == pytest.approx(1, abs=0.08), row.name


@pytest.mark.slow
def test_matrix_multiplications_within_a_tenth_and_in_order(rows):
    for target, slowest_first in (("trn1", 4), ("trn2", 2)):
        times = []
        for row in rows:
            if row.name.startswith("matmul") and row.target == target:
                simulated = row.simulated()
                assert simulated == pytest.approx(row.measured, rel=0.1), row.name
                times.append(simulated)
        # on trn2 all but the first are bound by the tensor engine, and equal within half a percent
        assert times[:slowest_first] == sorted(times[:slowest_first], reverse=True)
