"""Sweeps: the same kernel at many points, a row of figures for each.

from nki_tools import sweep

found = sweep(matmul, {"tiles_m": [2, 4, 8], "tiles_n": [1, 2], "target": ["trn2", "trn3"]},
              {"lhsT": lhsT, "rhs": rhs}, store="matmul.sqlite")
print(found.best())                     # the row of the fastest point
found.write("matmul.csv")

Points run without data: only shapes and data types of arrays count. They run on the processes of joblib, or
on those of a cluster, by the name of its backend: "dask" or "ray".
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nki.kernel import Kernel
from nki_tools.sweep.points import (
    AXES,
    COLUMNS,
    Arguments,
    Call,
    Job,
    Point,
    Row,
    call_at,
    plain,
    points_of,
)
from nki_tools.sweep.store import Store, key_of
from nki_tools.sweep.table import Table

#: Told after each point: how many are done, of how many, and its row.
Progress = Callable[[int, int, Row], object]


def sweep(
    kernel: Kernel,
    space: Mapping[str, Iterable[Any]] | Iterable[Point],
    arguments: Arguments | None = None,
    *,
    store: str | Path | None = None,
    jobs: int | None = None,
    backend: str | None = None,
    bound: Callable[[Row], float] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Time `kernel` at every point of `space`.

    Args:
        kernel: as it is called, ``kernel`` or ``kernel[2]``.
        space: values by name, of which every combination is a point, the last name changing fastest; or a
            list of points, each a dict. A name is a parameter of the kernel, a field of one
            (``config.tile``), ``target``, ``schedule`` (``"program"``, ``"compiler"``) or ``cores`` where
            the kernel has no such parameter, or a dimension. For a parameter that is an array, a tuple
            is the shape of another of its data type, with numbers and names of dimensions.
        arguments: the other arguments by name, or a function of the point that gives them.
        store: a SQLite file of finished points: what it has is not run again, and what is run is kept in it
            at once.
        jobs: processes; None takes all cores of this machine or cluster, 1 this process alone.
        backend: of joblib: None for processes here, ``"dask"`` for the cluster of the current
            ``distributed.Client``, ``"ray"`` for that of ``ray.init``.
        bound: ns that a point cannot undercut, told its values: one that cannot beat the fastest so far of
            its target is passed over.
        progress: is told of each point.

    Returns:
        A row for each point, in their order, whatever finished first.

    Raises:
        NkiError: NKI-L032 for a name or backend that is unknown, NKI-L033 for a store that is none,
            NKI-L034 for a backend that is not installed, NKI-L058 for workers that ended. What is wrong
            with the kernel at a point is in its row.
    """
    from nki_tools.sweep.backends import results  # joblib takes a while to import

    points = points_of(space)
    calls = [call_at(kernel, arguments or {}, point) for point in points]
    rows: list[Row | None] = [None] * len(points)
    values = [{name: plain(value) for name, value in point.items()} for point in points]
    done = 0
    fastest: dict[str, float] = {}
    taking = threading.Lock()  # points are passed over in the thread that gives them out

    def take(number: int, figures: Row) -> None:
        nonlocal done
        target = calls[number].target
        row = rows[number] = {**values[number], "target": target, **figures}
        with taking:
            done += 1
            if row["time_ns"] is not None:
                fastest[target] = min(row["time_ns"], fastest.get(target, math.inf))
            if progress is not None:
                progress(done, len(points), row)

    def due(waiting: Mapping[str, list[int]]) -> Iterator[tuple[str, Call]]:
        for key, (number, *_) in waiting.items():
            if bound is not None and bound(values[number]) > fastest.get(calls[number].target, math.inf):
                for same in waiting[key]:
                    take(same, {**dict.fromkeys(COLUMNS), "state": "passed over"})
                continue
            yield key, calls[number]

    job = Job.of(kernel)
    with Store(store) if store is not None else contextlib.nullcontext() as kept:
        waiting: dict[str, list[int]] = {}
        for number, call in enumerate(calls):
            waiting.setdefault(key_of(job, call), []).append(number)
        for key in list(waiting):
            figures = kept.get(key) if kept is not None else None
            if figures is not None:
                for number in waiting.pop(key):
                    take(number, figures)
        for key, figures in results(job, due(waiting), jobs, backend):
            if kept is not None:
                kept.put(key, figures)
            for number in waiting[key]:
                take(number, figures)
    return Table([row for row in rows if row is not None], tuple(points[0]) if points else ())


__all__ = ["AXES", "COLUMNS", "Table", "sweep"]
