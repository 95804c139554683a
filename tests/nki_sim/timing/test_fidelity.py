"""docs/fidelity.md says what the benchmark found, row by row."""

from __future__ import annotations

import collections
import csv
import importlib.util
import itertools
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from programs import Builder

from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import EvidenceKind
from nki_isa.machine.targets import TARGETS, TRN2
from nki_sim.cores.core_times import simulate
from nki_sim.report.trust import COMPARED, Trust, trust

ROOT = Path(__file__).parents[3]
FIDELITY = ROOT / "benchmarks" / "fidelity"


def script(monkeypatch, name: str):
    """A script of the benchmark; tests/corpus has a module `page` too."""
    monkeypatch.setattr(sys, "path", [str(FIDELITY), str(FIDELITY.parent), *sys.path])
    monkeypatch.setenv("NKI_SIM_API", "0.2")
    spec = importlib.util.spec_from_file_location(f"fidelity_{name}", FIDELITY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(monkeypatch):
    return script(monkeypatch, "page")


@pytest.fixture
def fit(monkeypatch):
    return script(monkeypatch, "fit")


@pytest.fixture
def evaluate(monkeypatch):
    return script(monkeypatch, "evaluate")


def table(name: str) -> list[dict[str, str]]:
    with (FIDELITY / name).open() as file:
        return list(csv.DictReader(file))


def test_no_published_row_is_lost(evaluate) -> None:
    """The rows of sections 4.A to 4.M: those of the library, of the vendor's pages and of two studies."""
    rows = [*evaluate.library_rows(Path("fetched")), *evaluate.rewritten_rows(), *evaluate.public_rows()]
    assert collections.Counter(row.group for row in rows) == {
        "attention_cte": 179,
        "mlp_tkg": 125,
        "mlp_cte": 135,
        "rmsnorm_tkg": 22,
        "qkv_tkg": 31,
        "layernorm_tkg": 10,
        "rmsnorm_quant": 13,  # four of them targets of its design note
        "NKIBench": 16,
        "fusion study: MLP": 30,
        "fusion study: attention": 8,
        "fusion study: long attention": 8,
        "matmul tutorial, trn1": 4,
        "matmul tutorial, trn2": 4,
        "other figures of the profiles": 87,
        "profiler guide: MLP": 3,
        "single instructions": 86,
    }
    names = [(row.group, row.name) for row in rows]
    assert len(set(names)) == len(names)
    evaluated = {(row["group"], row["row"]): row for row in table("results.csv")}
    assert evaluated.keys() == set(names)
    for row in rows:
        found = evaluated[row.group, row.name]
        assert (found["use"], float(found["measured"])) == (row.use, pytest.approx(row.measured, abs=0.001))


def test_kernels_of_two_commits_are_imported_side_by_side(evaluate, tmp_path) -> None:
    """Each from its own folder; afterwards nothing of it is left."""
    for state in ("newer", "older"):
        package = tmp_path / state / "states_of_a_kernel"
        package.mkdir(parents=True)
        package.joinpath("__init__.py").write_text("")
        package.joinpath("kernel.py").write_text(f"state = {state!r}")
    found, path = [], list(sys.path)
    for state in ("older", "newer", "older"):
        with evaluate.imports_from(tmp_path / state, "states_of_a_kernel"):
            found.append(importlib.import_module("states_of_a_kernel.kernel").state)
    assert found == ["older", "newer", "older"]
    assert sys.path == path and "states_of_a_kernel" not in sys.modules


def test_rows_that_fit_and_rows_that_check_are_apart(fit, evaluate) -> None:
    rows = [*evaluate.library_rows(Path("fetched")), *evaluate.rewritten_rows(), *evaluate.public_rows()]
    used = {(fitted.generation, name) for fitted in fit.FITTED for name in fitted.rows}
    used |= {(generation, name) for (generation, _), names in fit.READ.items() for name in names}
    assert used == {(row.generation, row.name) for row in rows if row.use == "fit"}
    assert not used & {(row.generation, row.name) for row in rows if row.use == "check"}
    figures = {(fitted.generation, fitted.figure) for fitted in fit.FITTED}
    assert len(figures) == len(fit.FITTED)
    assert figures == {
        (target.name, figure)
        for target in TARGETS.values()
        for figure, source in target.sources.items()
        if source.evidence is EvidenceKind.fitted
    }


def test_a_fit_finds_the_value_that_made_its_rows(fit) -> None:
    """Rows made with one figure changed: the refit gives it back, and so does each group left out."""
    values = np.array([60.0, 80.0, 100.0, 120.0, 140.0])
    truth = 109.0
    curves = [fit.Curve(base + truth, values, base + values) for base in (10.0, 300.0, 5000.0)]
    assert fit.best(curves) == pytest.approx(truth, abs=0.02)
    assert fit.error(curves, truth) == pytest.approx(0, abs=1e-9)
    off = fit.Curve(2 * (300.0 + truth), values, 300.0 + values)
    assert fit.best([*curves, off]) > truth + 5
    assert fit.error([off], truth) == pytest.approx(50)


def test_figures_are_refitted_to_what_is_written_down(fit) -> None:
    written = table("fit.csv")
    for fitted in fit.FITTED:
        mine = [r for r in written if (r["generation"], r["figure"]) == (fitted.generation, fitted.figure)]
        assert [row["left_out"] for row in mine] == (list(fitted.groups) if len(fitted.groups) > 1 else [""])
        if not fitted.slow:
            assert [{k: str(v) for k, v in line.items()} for line in fit.refit(fitted)] == mine
            curves = list(fit.curves(fitted).values())
            lost = fit.error(curves, float(mine[0]["value"])) - fit.error(curves, float(mine[0]["refitted"]))
            assert lost < 5, (fitted.figure, "is far from what its rows say")


def test_statistics_of_rows_that_are_easy_to_check(page) -> None:
    mean, median, high, bias, rank = page.statistics([100, 200, 400, 1000], [110, 180, 400, 1300])
    assert (mean, median, bias) == (pytest.approx(12.5), pytest.approx(10), pytest.approx(7.5))
    assert high == pytest.approx(24)
    assert rank == pytest.approx(1)
    assert page.rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert page.rank_correlation(np.array([1, 1, 2, 3]), np.array([1, 1, 2, 3])) == pytest.approx(1)
    assert np.isnan(page.rank_correlation(np.array([1, 2]), np.array([1, 2])))


def test_the_page_is_what_the_results_make(page, tmp_path, monkeypatch) -> None:
    made = {name: getattr(page, name) for name in ("PAGE", "TRUST")}
    for name, path in made.items():
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace("|", "¦", 9))
        monkeypatch.setattr(page, name, copy)
    page.main()
    for name, path in made.items():
        assert getattr(page, name).read_text().replace("¦", "|") == path.read_text()


def test_the_label_of_a_time_has_the_errors_of_the_results(page) -> None:
    found = page.compared(table("results.csv"))
    assert found.keys() == COMPARED.keys()
    for name, one in COMPARED.items():
        assert astuple(one) == pytest.approx(astuple(found[name]), abs=0.5)


_DTYPES = ("float32", "bfloat16")
LADDERS = (  # published versions of one thing, by parts of their names
    ("NKIBench", "mamba"),
    ("NKIBench", "rope"),
    *(
        ("fusion study: MLP", f"MLP {shape} {dtype}")
        for shape in ("128 x 128 x 512", "256 x 512 x 1024", "512 x 1024 x 2048")
        for dtype in _DTYPES
    ),
    ("fusion study: MLP", "MLP 1024 x 2048 x 4096 float32"),
    *(("fusion study: attention", f"attention {dtype} {size}") for size in (512, 1024) for dtype in _DTYPES),
    *(
        ("fusion study: long attention", f"attention {dtype} {size}")
        for size in (2048, 4096)
        for dtype in _DTYPES
    ),
    ("matmul tutorial, trn1", "matmul bfloat16"),
    ("matmul tutorial, trn2", "matmul float32"),
)


@pytest.mark.parametrize("group, part", LADDERS)
@pytest.mark.parametrize("order", ["program", "compiler"])
def test_published_ladders_stand_in_the_right_order(group: str, part: str, order: str) -> None:
    """Versions whose published times differ by more than 15 % do so in the same direction here."""
    rows = [row for row in table("results.csv") if row["group"] == group and part in row["row"]]
    compared, wrong = 0, []
    for one, other in itertools.combinations(rows, 2):
        published = float(one["measured"]) / float(other["measured"])
        if abs(np.log(published)) > np.log(1.15):
            compared += 1
            if (float(one[order]) > float(other[order])) != (published > 1):
                wrong.append((one["row"], other["row"]))
    assert compared
    assert not wrong


def test_ladders_of_small_shapes_are_simulated_in_the_right_order(evaluate) -> None:
    rows = {row.name: row for row in evaluate.rewritten_rows()}
    for shape in ("128 x 128 x 512", "256 x 512 x 1024"):
        for dtype in ("float32", "bfloat16"):
            steps = [rows[f"MLP {shape} {dtype}, gelu {kind}"] for kind in ("separate", "taylor", "table")]
            measured = [row.measured for row in steps]
            simulated = [row.times()["program"] for row in steps]
            assert measured == sorted(measured, reverse=True)
            assert simulated == sorted(simulated, reverse=True)
    kernels = sys.modules["timing_kernels"]
    versions = ("tiled", "hoisted", "blocked free", "blocked")
    times = [
        simulate(kernels.matmul("trn1", "bfloat16", version, 1024, 2048, 1024)).duration
        for version in versions
    ]
    assert times == sorted(times, reverse=True)


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
    assumed = [f for f, s in TRN2.sources.items() if s.evidence is EvidenceKind.assumed]
    guessed = run("trn2", "tensor_copy", 100, src=None, engine=Engine.gpsimd)
    assert guessed.inside == ("gpsimd_rate" not in assumed and "gpsimd_start_cycles" not in assumed)


def test_every_row_that_did_not_run_says_why() -> None:
    rows = table("results.csv")
    assert all(bool(row["program"]) != bool(row["remark"]) for row in rows)
    left = [row for row in rows if not row["program"]]
    assert len(left) == 0
