"""A room of tests: which of them run through a line of the sources, and how long each takes."""

from __future__ import annotations

import ast
import functools
import gc
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

from tests.mutation.forks import forked

OPTIONS = ["-q", "-n0", "-p", "no:cacheprovider", "--no-header", "--no-summary", "-W", "ignore"]


@dataclass
class Room:
    """What one run of the tests of `folder`, unmutated, has shown."""

    folder: Path
    seconds: dict[str, float]  # of processor time, by test
    failed: list[str]  # tests that fail
    contexts: dict[str, dict[int, list[str]]]  # by file and line: beginnings of names of tests

    def tests(self, file: Path, source: str, first: int, last: int) -> tuple[list[str], bool]:
        """Those that run through the statement of these lines, fastest first, and whether an import does."""
        known = self.contexts.get(str(file), {})
        found = {context for line in _statement(source, first, last) for context in known.get(line, ())}
        return self._fastest_first(found - {""}), "" in found

    def all_tests(self, file: Path) -> list[str]:
        """Every test, for what an import runs may show in any: first those that run through `file`."""
        near = self._fastest_first(
            {name for names in self.contexts[str(file)].values() for name in names} - {""}
        )
        return list(dict.fromkeys([*near, *self._fastest_first({""})]))

    def _fastest_first(self, beginnings: set[str]) -> list[str]:
        chosen = [test for test in self.seconds if test.startswith(tuple(beginnings))]
        return sorted(chosen, key=lambda test: self.seconds[test])


def _statement(source: str, first: int, last: int) -> set[int]:
    """The lines of the smallest statement that holds these lines, without the statements inside it."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    around = [_span(node) for node in statements if _span(node).start <= first and last < _span(node).stop]
    smallest = min(around, key=len)
    inner = {
        line
        for node in statements
        if _span(node) != smallest
        and smallest.start <= _span(node).start
        and _span(node).stop <= smallest.stop
        for line in _span(node)
    }
    return (set(smallest) - inner) | set(range(first, last + 1))


def _span(node: ast.stmt) -> range:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return range(first, (node.end_lineno or node.lineno) + 1)


def record(folder: Path, sources: list[Path], kept: Path) -> Room:
    """The room of `folder`: read from `kept`, or else run and written there.

    Tests that fail without a mutation are named and left out.
    """
    if not kept.exists():
        print(f"recording which tests of {folder} run through which lines ...", flush=True)
        forked(lambda tell: _record(folder, sources, kept), print)
    row = json.loads(kept.read_text(encoding="utf-8"))
    for test in row["failed"]:
        print(f"left out, for it fails without a mutation: {test}")
    contexts = {
        file: {int(line): names for line, names in lines.items()} for file, lines in row["contexts"].items()
    }
    return Room(folder, row["seconds"], row["failed"], contexts)


def _record(folder: Path, sources: list[Path], kept: Path) -> int:
    folders = [str(source) for source in sources]
    measured = coverage.Coverage(data_file=None, source=folders, config_file=False)
    recorder = _Recorder(measured)
    measured.start()
    code = pytest.main([str(folder), *OPTIONS], plugins=[recorder])
    measured.stop()
    data, here = measured.get_data(), str(Path.cwd()) + os.sep
    contexts = {file.removeprefix(here): data.contexts_by_lineno(file) for file in data.measured_files()}
    seconds = {test: time for test, time in recorder.seconds.items() if test not in recorder.failed}
    found = {"seconds": seconds, "failed": sorted(recorder.failed), "contexts": contexts}
    kept.write_text(json.dumps(found), encoding="utf-8")
    return int(code)


class _Recorder:
    """Names to coverage the test that runs; what a wide fixture runs belongs to all that may share it.

    Caches are emptied before each test: what it takes from a cache that another filled is its own as well.
    """

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.caches: list[functools._lru_cache_wrapper[object]] = []

    def pytest_collection_finish(self) -> None:
        for each in gc.get_objects():
            if isinstance(each, functools._lru_cache_wrapper) and each.__module__.startswith("nki"):
                self.caches.append(each)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for cache in self.caches:
            cache.cache_clear()
        self.measured.switch_context(item.nodeid)
        start = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - start
        self.measured.switch_context("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
        self.measured.switch_context(test if fixturedef.scope == "function" else fixturedef.baseid)
        try:
            return (yield)
        finally:
            self.measured.switch_context(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
