"""docs/fidelity.md says what the benchmark found, row by row."""

from __future__ import annotations

import collections
import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import Builder

from nki_isa.ir.instruction import REGISTRY, Engine
from nki_isa.machine.target import Evidence
from nki_isa.machine.targets import TRN2
from nki_sim.cores.core_times import simulate
from nki_sim.report.trust import COMPARED, Trust, trust

ROOT = Path(__file__).parents[3]
FIDELITY = ROOT / "benchmarks" / "fidelity"


@pytest.fixture
def page(monkeypatch):
    """The script; tests/corpus has a module of this name too."""
    monkeypatch.syspath_prepend(str(FIDELITY))
    spec = importlib.util.spec_from_file_location("fidelity_page", FIDELITY / "page.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    return script


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


def test_the_label_of_a_time_has_the_errors_of_the_results(page) -> None:
    with (FIDELITY / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["program"] and row["unit"] != "ns"]
    units = {"us": 1e3, "ms": 1e6}
    assert {row["generation"] for row in rows} == set(COMPARED)
    for name, compared in COMPARED.items():
        mine = [row for row in rows if row["generation"] == name]
        measured, simulated = (
            [float(row[kind]) * units[row["unit"]] for row in mine] for kind in ("measured", "program")
        )
        mean, _, high, _, _ = page.statistics(measured, simulated)
        assert compared.rows == len(mine)
        assert (compared.mean, compared.high) == (
            pytest.approx(mean, abs=0.06),
            pytest.approx(high, abs=0.06),
        )
        assert (compared.least, compared.most) == (
            pytest.approx(min(measured), abs=1),
            pytest.approx(max(measured), abs=1),
        )


def run(target: str, opcode: str, count: int, **operands) -> Trust:
    built = Builder(target)
    tile = built.tensor(128, 512)
    for _ in range(count):
        built.emit(REGISTRY[opcode](dst=tile, **{k: tile if v is None else v for k, v in operands.items()}))
    return trust(simulate(built.program))


def test_a_time_is_inside_the_domain_or_says_why_not() -> None:
    inside = run("trn2", "tensor_copy", 100, src=None, engine=Engine.vector)
    assert inside.inside and inside.says.startswith("inside the calibrated domain: ")
    unknown = run("trn3", "tensor_copy", 100, src=None, engine=Engine.vector)
    assert not unknown.inside and "no times measured on trn3" in unknown.says
    short = run("trn2", "tensor_copy", 1, src=None, engine=Engine.vector)
    assert not short.inside and "kernels compared took" in short.says
    assumed = [f for f, s in TRN2.sources.items() if s.evidence is Evidence.assumed]
    guessed = run("trn2", "tensor_copy", 100, src=None, engine=Engine.gpsimd)
    assert guessed.inside == ("gpsimd_rate" not in assumed and "gpsimd_start_cycles" not in assumed)


def test_every_row_that_did_not_run_says_why() -> None:
    with (FIDELITY / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(bool(row["program"]) != bool(row["remark"]) for row in rows)
    assert sum(bool(row["program"]) for row in rows) > 150
