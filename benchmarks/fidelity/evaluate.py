"""Simulates the rows beside what was measured: ``python benchmarks/fidelity/evaluate.py FOLDER``.

FOLDER is what ``collect.py`` fetched; without it the rows of fetched kernels keep the results they have.
Each row runs in both orders of instructions, data-free; ``results.csv`` gets a line for each, those that
did not run with the reason. What a row gave is kept in ``FOLDER/evaluated.csv`` for as long as the
simulator's sources do not change, what was compiled in ``FOLDER/compiled`` for as long as those that
compile do not. Nothing is fitted here: that is what ``fit.py`` does, on rows marked ``fit``.
"""

from __future__ import annotations

import argparse
import contextlib
import copyreg
import csv
import functools
import hashlib
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
os.environ.setdefault("NKI_SIM_API", "0.2")  # the level the kernels were written for
sys.path[:0] = [str(HERE), str(HERE.parent)]

import nki  # noqa: E402
import nki_isa  # noqa: E402
import nki_sim  # noqa: E402
from nki import runtime  # noqa: E402
from nki_isa.diagnostics import NkiError  # noqa: E402
from nki_isa.ir.program import Program  # noqa: E402
from nki_isa.machine.operators import Operator, as_operator  # noqa: E402
from nki_isa.machine.target import Target  # noqa: E402
from nki_isa.machine.targets import TRN2, on_logical_cores  # noqa: E402
from nki_sim import placement  # noqa: E402
from nki_sim.cores.core_times import simulate_all  # noqa: E402
from nki_sim.schedule.compiler import scheduled  # noqa: E402

ORDERS = ("program", "compiler")
FIELDS = ("group", "row", "generation", "use", "measured", "unit", *ORDERS, "instructions", "remark")
NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6}

Times = dict[str, Any]  # of each order, and instructions


@dataclass(frozen=True)
class Row:
    """One measurement, and how it is simulated.

    Attributes:
        group, name: where it stands in docs/fidelity.md.
        generation: it was measured on.
        use: ``"fit"`` if figures of the machine were set with it, else ``"check"``.
        measured: the value, in `unit`.
        made_by: files of ``benchmarks`` that decide what is simulated.
        times: gives what each order of instructions takes, in `unit`.
        same: rows with the same one are simulated once; None for one of its own.
    """

    group: str
    name: str
    generation: str
    use: str
    measured: float
    unit: str
    made_by: tuple[str, ...]
    times: Callable[[], Times]
    same: tuple[str, ...] | None = None


Compiled = list[
    tuple[list[Program], list[Any]]
]  # of each launch: the Program of each core, and its placement


def compiled(kernel: Any, given: Mapping[str, Any], cores: int, machine: Target) -> Compiled:
    """What a call of `kernel` launches, compiled and placed; nothing runs."""
    jitted = nki.jit(getattr(kernel, "function", kernel))
    with runtime.session(data=False, check="none", target=machine) as seen:
        (jitted[cores] if cores > 1 else jitted)(**given)
    return [
        ([core.program for core in launch.cores], [core.placement for core in launch.cores])
        for launch in seen.launches
    ]


def timed(launches: Compiled, machine: Target, unit: str) -> Times:
    """What launches take on the slowest core of each, start-up and wind-down included."""
    found: Times = {"instructions": sum(1 for programs, _ in launches for _ in programs[0].walk())}
    for order in ORDERS:
        spent = 0.0
        for programs, placements in launches:
            ordered = programs
            if order == "compiler":
                pairs = zip(programs, placements, strict=True)
                ordered = [scheduled(one, machine, placed, cores=len(programs)) for one, placed in pairs]
            spent += max(line.total for line in simulate_all(ordered, placements, target=machine))
        found[order] = spent / NANOSECONDS[unit]
    return found


copyreg.pickle(Operator, lambda operator: (as_operator, (operator.name,)))


def kept_compiled(path: Path, make: Callable[[], Compiled]) -> Compiled:
    """What `path` holds, or what `make` gives, which is put there: compiling takes longer than timing."""
    if path.exists():
        with path.open("rb") as file:
            found: Compiled = pickle.load(file)
        return found
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")  # a run that is interrupted leaves no half of a file
    with part.open("wb") as file:
        pickle.dump(found, file)
    part.replace(path)
    return found


# --- the rows, by where they come from


@contextlib.contextmanager
def imports_from(sources: Path, package: str) -> Iterator[None]:
    """`package` is imported from this folder, whatever another folder gave before and is to give after."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == package]

    others = {name: sys.modules.pop(name) for name in loaded()}
    sys.path.insert(0, str(sources))
    try:
        yield
    finally:
        sys.path.remove(str(sources))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(others)


def library_rows(folder: Path) -> Iterator[Row]:
    """The rows of ``nki_library.csv``: kernels that ``collect.py`` fetches into `folder`."""
    import calls
    import collect
    import fit

    fits = fit.of_whole_kernels()

    def times(name: str, text: str) -> Times:
        parameters = dict(part.split("=", 1) for part in text.split(";"))

        home = collect.home(folder, name)
        cores = int(parameters.get("lnc", 2))  # of a logical core, and of the launch
        machine = on_logical_cores(TRN2, cores)

        def make() -> Compiled:
            with imports_from(home / "src", "nkilib_src"):
                kernel, given = calls.CALLS[name](parameters)
                return compiled(kernel, given, cores, machine)

        digest = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:16]
        return timed(kept_compiled(home / "compiled" / compiler() / f"{digest}.pickle", make), machine, "us")

    with (HERE / "nki_library.csv").open() as file:
        published = sorted(csv.DictReader(file), key=lambda row: float(row["microseconds"]))
    for row in published:
        name = f"{row['list']} L{row['line']}"
        yield Row(
            group=row["kernel"],
            name=name,
            generation="trn2",
            use="fit" if name in fits else "check",
            measured=float(row["microseconds"]),
            unit="us",
            made_by=("fidelity/calls.py",),
            times=functools.partial(times, row["kernel"], row["parameters"]),
            same=(row["kernel"], row["parameters"]),
        )


_STREAMS = "streams.py", "timing_accuracy.py", "timing_kernels.py", "compiled_attention.py"


def public_rows() -> Iterator[Row]:
    """The rows of ``benchmarks/timing_accuracy.py``: guides of the vendor and public profiles."""
    import timing_accuracy

    def times(row: timing_accuracy.Row) -> Times:
        found: Times = {}
        for order in ORDERS:
            with timing_accuracy.in_order(order):
                found[order] = row.simulated()
        return found

    for row in timing_accuracy.ROWS:
        group = timing_accuracy.group_of(row)
        found = functools.partial(times, row)
        yield Row(group, row.name, row.target, row.use, row.measured, row.unit, _STREAMS, found)


BENCHMARK = 6500.0
"""ns that ``nki.benchmark`` counts less than the profiler: the median of the eight kernels that have both."""


def rewritten_rows() -> Iterator[Row]:
    """The rows of ``rewritten.csv``: kernels before Beta 2, rewritten by us (``rewritten.py``).

    Its column `counts` says what the time is of: ``profiler`` (start-up and wind-down included),
    ``benchmark`` (``nki.benchmark``, summed over the launches) or ``window`` (from the first instruction to
    the last).
    """
    import compiled_attention
    import fit
    import rewritten
    import timing_accuracy
    import timing_kernels

    fits = fit.of_whole_kernels()

    def blocked(k: int, m: int, n: int) -> Program:
        return timing_kernels.matmul("trn2", "float32", "blocked", k, m, n)

    kernels = {"attention": compiled_attention.attention, "matmul_blocked": blocked}

    def times(row: Mapping[str, str]) -> Times:
        parts = [part.split("=", 1) for part in row["parameters"].split(";") if part]
        kernel = kernels.get(row["kernel"]) or getattr(rewritten, row["kernel"])
        made = kernel(**{name: _value(text) for name, text in parts})
        programs = made if isinstance(made, list) else [made]
        found: Times = {"instructions": sum(1 for program in programs for _ in program.walk())}
        for order in ORDERS:
            with timing_accuracy.in_order(order):
                timelines = [timing_accuracy.run(program) for program in programs]
            spent = sum(line.duration if row["counts"] == "window" else line.total for line in timelines)
            spent -= BENCHMARK * len(programs) if row["counts"] == "benchmark" else 0.0
            found[order] = spent / NANOSECONDS[row["unit"]]
        return found

    with (HERE / "rewritten.csv").open() as file:
        for row in csv.DictReader(file):
            yield Row(
                row["group"],
                row["row"],
                row["generation"],
                "fit" if row["row"] in fits else "check",
                float(row["measured"]),
                row["unit"],
                (*_STREAMS, "fidelity/rewritten.py"),
                functools.partial(times, row),
            )


def _value(text: str) -> int | str | bool:
    return int(text) if text.isdigit() else {"True": True, "False": False}.get(text, text)


# --- running them


def _sources(*modules: ModuleType) -> Iterator[Path]:
    """Those of packages, in order."""
    for module in modules:
        yield from sorted(Path(module.__file__ or "").parent.rglob("*.py"))


def _digest(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in files:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


@functools.cache
def compiler() -> str:
    """A name of the sources that what is compiled depends on."""
    apart = {"cost", "targets", "text"}  # they say what it costs and how it is written
    return _digest(path for path in _sources(nki_isa, placement, nki) if not apart & {*path.parts})


@functools.cache
def model(made_by: tuple[str, ...]) -> str:
    """A name of the simulator's sources, and of these files."""
    apart = {"report", "sanitize"}  # they do not make a time
    sources = (path for path in _sources(nki_isa, nki_sim, nki) if not apart & {*path.parts})
    return _digest([*sources, *(HERE.parent / name for name in made_by)])


class Kept:
    """What rows gave before, in a file of the folder; rows of other sources of the simulator are not read."""

    def __init__(self, path: Path | None):
        self.path, self.rows = path, dict[tuple[str, str, str], Times]()
        if path is not None and path.exists():
            with path.open() as file:
                for row in csv.DictReader(file):
                    self.rows[row.pop("model"), row.pop("group"), row.pop("row")] = row

    def get(self, row: Row) -> Times | None:
        """What it gave, if it ran."""
        return self.rows.get((model(row.made_by), row.group, row.name))

    def put(self, row: Row, times: Times) -> None:
        """Keep this, and write it down at once."""
        key = {"model": model(row.made_by), "group": row.group, "row": row.name}
        self.rows[key["model"], row.group, row.name] = times
        if self.path is not None:
            new = not self.path.exists()
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, (*key, *ORDERS, "instructions", "remark"), restval="")
                if new:
                    writer.writeheader()
                writer.writerow({**key, **times})


def evaluate(rows: Iterable[Row], kept: Kept, limit: float) -> Iterator[Times]:
    """The lines of these rows; after `limit` seconds only those that are known."""
    began = time.monotonic()
    known: dict[tuple[str, ...], Times] = {}
    for row in rows:
        times = kept.get(row) or (known.get(row.same) if row.same else None)
        if times is None:
            if time.monotonic() - began > limit:
                continue
            started = time.monotonic()
            try:
                times = row.times()
            except NkiError as refused:
                first = refused.diagnostics[0]
                times = {"remark": f"{first.code}: {first.message}".replace("\n", " ")[:160]}
            kept.put(row, times)
            print(f"{row.name}: {row.measured} {times} ({time.monotonic() - started:.1f} s)", flush=True)
        if row.same:
            known[row.same] = times
        yield {
            "group": row.group,
            "row": row.name,
            "generation": row.generation,
            "use": row.use,
            "measured": row.measured,
            "unit": row.unit,
            **times,
        }


def main() -> None:
    """Evaluate and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--groups", default="", help="only these, separated by commas")
    parser.add_argument("--rows", default="", help="only rows with this in their names")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no row after so many")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = [*rewritten_rows(), *public_rows()]
    if asked.folder is not None:
        rows = [*library_rows(asked.folder), *rows]
    groups = {group for group in asked.groups.split(",") if group}
    defined = {(row.group, row.name) for row in rows} if asked.folder is not None else None
    rows = [row for row in rows if (not groups or row.group in groups) and asked.rows in row.name]
    found = list(evaluate(rows, Kept(asked.folder and asked.folder / "evaluated.csv"), asked.seconds))
    names = {(row["group"], row["row"]) for row in found}
    results: list[Times] = list(found)
    if (HERE / "results.csv").exists():
        with (HERE / "results.csv").open() as file:
            for row in csv.DictReader(file):
                key = row["group"], row["row"]
                if key not in names and (defined is None or key in defined):
                    results.append(row)
    with (HERE / "results.csv").open("w", newline="\n") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n", restval="")
        writer.writeheader()
        for row in sorted(results, key=lambda row: (row["group"], float(row["measured"]), row["row"])):
            writer.writerow({k: _plain(v) for k, v in row.items()})


def _plain(value: Any) -> str:
    try:
        return f"{float(value):.3f}" if not isinstance(value, int) and "." in str(value) else str(value)
    except ValueError:
        return str(value)


if __name__ == "__main__":
    main()
