"""Sweeps: rows and their order, the same in one process and in several; killed, and taken up again."""

import csv
import io
import json
import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler.language import frontends
from nki_isa.diagnostics import NkiError
from nki_tools import sweep
from nki_tools.sweep.points import COLUMNS, points_of
from nki_tools.sweep.store import Store
from nki_tools.sweep.table import Table


@dataclass(frozen=True)
class Config:
    width: int = 64
    scale: float = 2.0


@nki.jit
def scaled(x, width=128, config=None, op=nl.multiply):
    """x by a number, in tiles of `width` columns."""
    if config is not None:
        width = config.width
    assert x.shape[1] % width == 0, f"{x.shape[1]} is not a multiple of {width}"
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for k in range(x.shape[1] // width):
        columns = nl.ds(k * width, width)
        tile = nl.ndarray((x.shape[0], width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, columns])
        nisa.tensor_scalar(dst=tile, data=tile, op0=op, operand0=2.0)
        nisa.dma_copy(dst=out[:, columns], src=tile)
    return out


X = np.ones((128, 512), np.float32)
SPACE = {"width": [64, 128, 96, 512], "target": ["trn2", "trn3"]}


def test_a_row_is_what_a_profile_says():
    (row,) = sweep(scaled, {"width": [128]}, {"x": X}, jobs=1).rows
    with nki.runtime.session(timing=True) as record:
        scaled(X, 128)
    (core,) = record.launches[0].cores
    assert row["state"] == "ok" and row["time_ns"] == core.timeline.total
    assert row["sbuf_bytes"] == core.placement.sbuf.peak == 128 * 4
    assert row["hbm_bytes"] == 2 * X.nbytes and row["instructions"] == 12
    assert row["target"] == "trn2" and row["bound_by"] in ("DMA", "vector", "latency of DMA")


def test_rows_come_in_the_order_of_the_points_whatever_runs_them():
    told = []
    alone = sweep(scaled, SPACE, {"x": X}, jobs=1, progress=lambda *done: told.append(done))
    shared = sweep(scaled, SPACE, {"x": X}, jobs=2)
    assert alone.rows == shared.rows and alone.csv() == shared.csv()
    assert [(r["width"], r["target"]) for r in alone.rows] == [
        (w, t) for w in SPACE["width"] for t in SPACE["target"]
    ]
    assert [(done, total) for done, total, _ in told] == [(k, 8) for k in range(1, 9)]


def test_what_a_point_refuses_is_its_row():
    found = sweep(scaled, {"width": [96, 128, "wide"]}, {"x": X}, jobs=1)
    refused, fine, wrong = found.rows
    assert (refused["state"], refused["code"]) == ("refused", "NKI-L020")
    assert refused["error"] == "512 is not a multiple of 96" and "test_sweep.py" in refused["place"]
    assert fine["state"] == "ok" and fine["error"] is None
    assert wrong["state"] == "refused" and wrong["time_ns"] is None
    assert found.best() == fine


@nki.jit
def held(x, count):
    """`count` copies of x, all held to the end."""
    tiles = []
    for _ in range(count):
        tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        tiles.append(tile)
    for tile in tiles:
        nisa.dma_copy(dst=x, src=tile)
    return x


def test_what_does_not_fit_says_how_much_it_needs():
    (row,) = sweep(held, {"count": [4], "x": [(128, 16384)]}, {"x": X}, jobs=1).rows
    assert (row["state"], row["code"], row["time_ns"]) == ("refused", "NKI-M001", None)
    assert row["sbuf_bytes"] == 4 * 16384 * 4


def test_shapes_fields_and_operators_are_values():
    found = sweep(
        scaled,
        {"config.width": [64, 128], "n": [256, 512], "x": [(128, "n")], "op": [nl.add], "cores": [1]},
        {"x": X, "config": Config()},
        jobs=1,
    )
    assert [row["instructions"] for row in found.rows] == [12, 24, 6, 12]
    assert [row["x"] for row in found.rows] == ["128xn"] * 4 and found.rows[0]["op"] == "nl.add"
    assert found.varying == ("config.width", "n")


def test_arguments_may_be_made_for_each_point():
    found = sweep(scaled, {"n": [256, 512]}, lambda point: {"x": np.ones((64, point["n"]), np.int32)}, jobs=1)
    assert [row["hbm_bytes"] for row in found.rows] == [2 * 64 * n * 4 for n in (256, 512)]


@pytest.mark.parametrize("space", [{"widht": [1]}, {"x": [(128, "n")]}, {"config.depth": [1]}])
def test_a_name_that_nothing_has_is_refused(space):
    with pytest.raises(NkiError) as refused:
        sweep(scaled, space, {"x": X, "config": Config()}, jobs=1)
    assert refused.value.diagnostics[0].code == "NKI-L032"


def test_points_that_cannot_be_the_fastest_are_passed_over():
    bound = {64: 0.0, 128: 1e9, 512: 0.0}
    found = sweep(scaled, {"width": [64, 128, 512]}, {"x": X}, jobs=1, bound=lambda p: bound[p["width"]])
    assert [row["state"] for row in found.rows] == ["ok", "passed over", "ok"]


class Bomb:
    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_is_an_error_and_loses_nothing(tmp_path):
    store = tmp_path / "sweep.sqlite"
    sweep(scaled, {"width": [64]}, {"x": X}, jobs=1, store=store)
    with pytest.raises(NkiError) as lost:
        sweep(scaled, {"width": [64], "op": [nl.multiply, Bomb()]}, {"x": X}, jobs=2, store=store)
    assert lost.value.diagnostics[0].code == "NKI-L058"
    with Store(store) as kept:
        assert kept._base.execute("SELECT count(*) FROM points").fetchone()[0] >= 1


@pytest.mark.parametrize("backend", ["dask", "nonsense"])
def test_a_backend_that_is_not_ready_is_an_error(backend):
    with pytest.raises(NkiError) as refused:
        sweep(scaled, {"width": [64]}, {"x": X}, jobs=2, backend=backend)
    assert refused.value.diagnostics[0].code in ("NKI-L032", "NKI-L034")


# --- the store

SCRIPT = """\
import sys
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
from nki_tools import sweep

@nki.jit
def kernel(x, turns):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for _ in range(turns):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=out, src=tile)
    return out

def main(store, jobs):
    x = np.ones((128, 64), np.float32)
    return sweep(kernel, {"turns": range(100, 140)}, {"x": x}, jobs=jobs, store=store)

if __name__ == "__main__":
    main(sys.argv[1], 2)
"""


def swept(script, store):
    """What a copy of :data:`SCRIPT` gives in this process."""
    return runpy.run_path(str(script))["main"](store, 1)


def count(store):
    if not store.exists():
        return 0
    base = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return base.execute("SELECT count(*) FROM points").fetchone()[0]
    except sqlite3.OperationalError:  # its table is being made
        return 0
    finally:
        base.close()


def test_killed_in_the_middle_and_taken_up_again(tmp_path):
    script, store = tmp_path / "script.py", tmp_path / "sweep.sqlite"
    script.write_text(SCRIPT)
    # A pause at each commit: the sweep is killed in its middle however fast the machine is.
    slow = tmp_path / "slow.py"
    slow.write_text(
        textwrap.dedent("""
        import runpy, sys, time
        from nki_tools.sweep.store import Store
        put = Store.put
        Store.put = lambda *args: (put(*args), time.sleep(0.05))
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        """)
    )
    command = [sys.executable, str(slow), str(script), str(store)]
    running = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while count(store) < 5 and time.monotonic() < until and running.poll() is None:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    base = sqlite3.connect(store)
    before = dict(base.execute("SELECT key, rowid FROM points"))
    assert 5 <= len(before) < 40
    base.execute("CREATE TABLE repeated (key TEXT)")
    base.execute(
        "CREATE TRIGGER again BEFORE INSERT ON points WHEN EXISTS (SELECT 1 FROM points WHERE key = NEW.key) "
        "BEGIN INSERT INTO repeated VALUES (NEW.key); END"
    )
    base.commit()
    resumed = swept(script, store)
    assert resumed.rows == swept(script, tmp_path / "other.sqlite").rows and len(resumed) == 40
    after = dict(base.execute("SELECT key, rowid FROM points"))
    assert len(after) == 40 and before.items() <= after.items()
    assert not base.execute("SELECT count(*) FROM repeated").fetchone()[0]
    base.close()


def test_a_store_forgets_what_a_changed_file_decided(tmp_path):
    script, store = tmp_path / "script.py", tmp_path / "sweep.sqlite"
    script.write_text(SCRIPT.replace("range(100, 140)", "[1, 2]"))
    first = swept(script, store)
    script.write_text(script.read_text().replace("range(turns)", "range(2 * turns)"))
    second = swept(script, store)
    assert [row["instructions"] for row in first.rows] == [3, 4]
    assert [row["instructions"] for row in second.rows] == [4, 6] and count(store) == 4


@pytest.mark.parametrize("front", ["parser", "tracer"])
@pytest.mark.parametrize(
    "changed", [("import helper", "turns + 1", "turns + 2"), ("from helper import FIRST, more", "= 1", "= 3")]
)
def test_a_store_forgets_what_a_helper_of_another_file_decided(tmp_path, monkeypatch, front, changed):
    how, before, after = changed
    monkeypatch.syspath_prepend(tmp_path)
    script, helper, store = (tmp_path / name for name in ("script.py", "helper.py", "sweep.sqlite"))
    call, first = ("helper.more", "helper.FIRST") if how == "import helper" else ("more", "FIRST")
    text = SCRIPT.replace("range(100, 140)", "[1]").replace("range(turns)", f"range({call}(turns) + {first})")
    script.write_text(f"{how}\n{text}")
    helper.write_text("FIRST = 1\n\ndef more(turns):\n    return turns + 1\n")
    previous = frontends.use(front)
    try:
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        assert swept(script, store).rows == swept(script, store).rows and count(store) == 1
        helper.write_text(helper.read_text().replace(before, after) + "\n# of another length\n")
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        (row,) = swept(script, store).rows
    finally:
        frontends.use(previous)
        sys.modules.pop("helper", None)
    assert row["instructions"] == (6 if how == "import helper" else 7) and count(store) == 2


def test_a_store_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE points (key TEXT)")
    base.commit()
    base.close()
    (tmp_path / "text.sqlite").write_text("not a database " * 100)
    for other in (path, tmp_path / "text.sqlite", tmp_path / "missing" / "store.sqlite"):
        with pytest.raises(NkiError) as refused:
            Store(other)
        assert refused.value.diagnostics[0].code == "NKI-L033"


# --- tables

ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12).map(
    lambda pairs: [
        {
            "k": k,
            "target": "trn2",
            **dict.fromkeys(COLUMNS),
            "state": "ok",
            "sbuf_bytes": sbuf,
            "time_ns": float(time),
        }
        for k, (sbuf, time) in enumerate(pairs)
    ]
)


@given(ROWS)
def test_the_pareto_front_is_what_no_row_beats(rows):
    front = Table(rows, ("k",)).pareto()
    values = [(row["sbuf_bytes"], row["time_ns"]) for row in rows]

    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in values)

    assert {(r["sbuf_bytes"], r["time_ns"]) for r in front} == {a for a in values if not beaten(a)}
    assert len({(r["sbuf_bytes"], r["time_ns"]) for r in front}) == len(front)


@given(ROWS, st.integers(0, 9))
def test_the_best_row_keeps_to_a_condition(rows, most):
    best = Table(rows, ("k",)).best(where=lambda row: row["sbuf_bytes"] <= most)
    allowed = [row["time_ns"] for row in rows if row["sbuf_bytes"] <= most]
    assert best is None if not allowed else best["time_ns"] == min(allowed) and best["sbuf_bytes"] <= most


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(), max_size=3), max_size=3))
def test_points_are_all_combinations(space):
    points = points_of(space)
    assert len(points) == np.prod([len(values) for values in space.values()], initial=1, dtype=int)
    assert all(point[name] in space[name] for point in points for name in space)
    assert points_of(points) == points


def test_a_table_is_written_by_the_ending_of_its_name(tmp_path):
    found = sweep(scaled, {"width": [64, 96, 128]}, {"x": X}, jobs=1)
    for ending in ("csv", "json", "svg"):
        found.write(tmp_path / f"table.{ending}")
    assert json.loads((tmp_path / "table.json").read_text()) == found.rows
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["width"] for row in rows] == ["64", "96", "128"] and rows[1]["code"] == "NKI-L020"
    assert (tmp_path / "table.svg").read_text().count("<title>") == 2
    with pytest.raises(NkiError, match="NKI-L032"):
        found.write(tmp_path / "table.xls")


def test_parquet_holds_the_same_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'nki-sim[parquet]'")
    found = sweep(scaled, {"width": [64, "wide"]}, {"x": X}, jobs=1)
    found.write(tmp_path / "table.parquet")
    rows = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["time_ns"] for row in rows] == [row["time_ns"] for row in found.rows]
    assert [row["width"] for row in rows] == ["64", "wide"]
