"""Finished points of sweeps, on disk: a SQLite file that outlives a killed process, and is taken up again.

A row is kept under a key of what decides it: the kernel, the texts of the files and the constants that it
reaches, its arguments, how it was run, the figures of the generation, the versions. Each row is written in a
transaction of its own.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from dataclasses import fields
from pathlib import Path
from typing import Any

import nki
from nki_isa.diagnostics import error
from nki_isa.machine.target import Target
from nki_isa.machine.targets import as_target
from nki_tools.sweep.points import COLUMNS, Call, Job, Row

#: Marks the files as ours, and their layout.
_APPLICATION, _VERSION = 0x6E6B6973, 1


def key_of(job: Job, call: Call) -> str:
    """The key of a point, equal in every process for what gives an equal row."""
    function = job.kernel.function
    what: list[Any] = [nki.__version__, job.level, job.frontend, _figures(call.target), COLUMNS]
    what += [function.__code__.co_filename, function.__qualname__, job.kernel.grid, job.kernel.schedule]
    what += [_code(job), _digest(job.kernel.config), call.schedule, call.cores]
    what += [(name, _digest(value)) for name, value in sorted(call.arguments.items())]
    return _digest(what)


@functools.cache
def _figures(target: str) -> str:
    """A digest of all that is known of a generation."""
    known = [getattr(as_target(target), field.name) for field in fields(Target)]
    return _digest([sorted(map(str, value)) if isinstance(value, frozenset) else value for value in known])


@functools.lru_cache(maxsize=1)
def _code(job: Job) -> str:
    """A digest of the texts and constants that decide a kernel."""
    return _digest([sorted(job.texts.items()), [(name, _digest(value)) for name, value in job.constants]])


def _digest(value: Any) -> str:
    """A digest of content; what cannot be pickled counts by what it shows of itself."""
    import joblib  # takes a while

    try:
        return str(joblib.hash(value))
    except Exception:  # pickling calls code of the user's, which may raise anything
        return str(joblib.hash(repr(value)))


class Store:
    """An open store.

    Args:
        path: the file; made where there is none.

    Raises:
        NkiError: NKI-L033 for a file that cannot be opened or is something else.
    """

    def __init__(self, path: str | Path):
        try:
            self._base = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self._open()
        except (sqlite3.Error, ValueError) as problem:
            help = "name a file that a sweep made, or a new one"
            raise error("NKI-L033", f"{str(path)!r} is not a store of sweeps: {problem}", help=help) from None

    def _open(self) -> None:
        made = self._base.execute("PRAGMA application_id").fetchone()[0]
        empty = not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if not empty and (made, version) != (_APPLICATION, _VERSION):
            raise ValueError("its tables are of another program or version")
        self._base.execute("PRAGMA journal_mode = WAL")  # a commit is atomic and needs no wait for the disk
        self._base.execute("PRAGMA synchronous = NORMAL")
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._base.execute(f"PRAGMA user_version = {_VERSION}")
            self._base.execute("CREATE TABLE IF NOT EXISTS points (key TEXT PRIMARY KEY, row TEXT NOT NULL)")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *raised: object) -> None:
        self._base.close()

    def get(self, key: str) -> Row | None:
        """The row of a finished point."""
        found = self._base.execute("SELECT row FROM points WHERE key = ?", (key,)).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def put(self, key: str, row: Row) -> None:
        """Keep the row of a finished point."""
        self._base.execute("INSERT OR REPLACE INTO points VALUES (?, ?)", (key, json.dumps(row)))
