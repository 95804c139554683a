"""docs/fidelity.md says what the benchmark found, row by row."""

from __future__ import annotations

import collections
import csv
import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FIDELITY = ROOT / "benchmarks" / "fidelity"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(FIDELITY))
    return importlib.import_module("page")


def test_no_published_row_is_lost() -> None:
    with (FIDELITY / "nki_library.csv").open() as file:
        rows = collections.Counter(row["kernel"] for row in csv.DictReader(file))
    assert rows == {
        "attention_cte": 110,
        "mlp_tkg": 81,
        "mlp_cte": 77,
        "rmsnorm_tkg": 20,
        "qkv_tkg": 18,
        "layernorm_tkg": 6,
        "rmsnorm_quant": 3,
    }


def test_statistics_of_rows_that_are_easy_to_check(page) -> None:
    mean, median, high, bias, rank = page.statistics([100, 200, 400, 1000], [110, 180, 400, 1300])
    assert (mean, median, bias) == (pytest.approx(12.5), pytest.approx(10), pytest.approx(7.5))
    assert high == pytest.approx(24)
    assert rank == pytest.approx(1)
    assert page.rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert page.rank_correlation(np.array([1, 1, 2, 3]), np.array([1, 1, 2, 3])) == pytest.approx(1)
    assert np.isnan(page.rank_correlation(np.array([1, 2]), np.array([1, 2])))


def test_the_page_is_what_the_results_make(page, tmp_path, monkeypatch) -> None:
    copy = tmp_path / "fidelity.md"
    copy.write_text(page.PAGE.read_text())
    monkeypatch.setattr(page, "PAGE", copy)
    page.main()
    assert copy.read_text() == (ROOT / "docs" / "fidelity.md").read_text()


def test_every_row_that_did_not_run_says_why() -> None:
    with (FIDELITY / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(bool(row["program"]) != bool(row["remark"]) for row in rows)
    assert sum(bool(row["program"]) for row in rows) > 150
