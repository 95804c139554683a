"""What the tests of a room say of mutants. No file is written.

What stands in a function is changed in place: pytest collects the room once, and every mutant gets a fork of
that session in which the function's code is the mutant's. What an import runs gets a fork that has imported
nothing of ours yet, and imports the mutant.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.mutation.forks import Tell, forked, limit
from tests.mutation.room import OPTIONS, Room

IMPORT = 60.0  # seconds of processor time to import and collect
TEST = 5.0  # the same for a test, beside 3 times what it took when it was recorded
ASLEEP = 1800.0  # seconds, whatever the processor does


@dataclass(frozen=True, eq=False)
class Trial:
    """A file before and after the mutation, its module, and the tests that run through what changes."""

    file: Path
    source: str
    text: str
    module: str
    room: Room
    tests: list[str]
    in_import: bool  # whether an import runs through it, too
    before: str | None = None  # the test that killed it last time

    def order(self, tests: list[str]) -> list[str]:
        """`tests` with that one first."""
        return sorted(tests, key=lambda test: test != self.before)

    def changes(self) -> dict[CodeType, CodeType]:
        """The code of functions that the mutant changes; empty if it changes more."""
        path = str(self.file.absolute())
        before = compile(self.source, path, "exec", dont_inherit=True)
        after = compile(self.text, path, "exec", dont_inherit=True)
        changes = dict(_changes(before, after))
        return {} if None in changes else changes  # type: ignore[return-value]


Said = Callable[[Trial, "str | None"], None]


def run(trials: list[Trial], say: Said) -> None:
    """Says of each trial the test that fails, ``timed out``, or None if the mutant survives."""
    imported: list[Trial] = []

    def said(trial: Trial, by: str | None) -> None:
        if by is None and trial.in_import:
            imported.append(trial)
        else:
            say(trial, by)

    in_place = [trial for trial in trials if trial.tests and trial.changes()]
    for trial in trials:
        if trial not in in_place:
            said(trial, None)
    for folder in {trial.room.folder for trial in in_place}:
        session = _Session([trial for trial in in_place if trial.room.folder == folder])
        forked(
            session.run,
            lambda line, left=session.trials: said(left[json.loads(line)[0]], json.loads(line)[1]),
        )
    for trial in imported:
        order = trial.order(trial.room.all_tests(trial.file))
        say(trial, _verdict(lambda tell, trial=trial, order=order: _import(trial, order, tell)))


def _verdict(tests: Callable[[Tell], int]) -> str | None:
    failed: list[str] = []
    code = forked(tests, failed.append, ASLEEP)
    if code == pytest.ExitCode.INTERNAL_ERROR:
        raise SystemExit("pytest itself failed")  # which says nothing of the mutant
    return "timed out" if code is None else None if not code else (failed or [f"exit code {code}"])[0]


def _changes(before: CodeType, after: CodeType) -> Iterable[tuple[CodeType | None, CodeType]]:
    """The functions that differ, before and after; None for a module or class that itself does."""
    inner = _inner(before, after)
    if inner is None or _itself(before) != _itself(after):
        yield None, after
        return
    for old, new in inner:
        yield from _changed_functions(old, new) if old.co_flags & inspect.CO_OPTIMIZED else _changes(old, new)


def _changed_functions(old: CodeType, new: CodeType) -> Iterable[tuple[CodeType | None, CodeType]]:
    """A function that differs, and those in it: a closure that an import made keeps its own code."""
    if old != new:
        inner = _inner(old, new)
        yield (old if inner is not None and old.co_freevars == new.co_freevars else None), new
        for pair in inner or ():
            yield from _changed_functions(*pair)


def _inner(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The code objects in both, in order; None if there are not as many."""
    both = [[each for each in code.co_consts if inspect.iscode(each)] for code in (old, new)]
    return list(zip(*both)) if len(both[0]) == len(both[1]) else None


def _itself(code: CodeType) -> tuple[object, ...]:
    """What a module or class runs, without the functions in it."""
    constants = [each if not inspect.iscode(each) else each.co_name for each in code.co_consts]
    return code.co_code, repr(constants), code.co_names


class _Session:
    """A session of pytest that tries mutants in forks of itself, and runs no test on its own."""

    def __init__(self, trials: list[Trial]) -> None:
        self.trials = trials
        self.tell: Tell = lambda line: None

    def run(self, tell: Tell) -> int:
        """Tells the number of each trial with its verdict."""
        self.tell = tell
        return int(pytest.main([str(self.trials[0].room.folder), *OPTIONS], plugins=[self]))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        functions: dict[CodeType, list[FunctionType]] = {}
        for each in gc.get_objects():
            if isinstance(each, FunctionType):
                functions.setdefault(each.__code__, []).append(each)
        told = self.tell
        for number, trial in enumerate(self.trials):
            changed = [
                (function, new) for old, new in trial.changes().items() for function in functions.get(old, ())
            ]

            def tests(tell: Tell, trial: Trial = trial, changed: _Changed = changed) -> int:
                self.tell = tell
                for function, new in changed:
                    function.__code__ = new
                order = trial.order(trial.tests)
                for test, following in zip(order, [*order[1:], None]):
                    after = items[following] if following else None
                    limit(TEST + 3 * trial.room.seconds[test])
                    session.config.hook.pytest_runtest_protocol(item=items[test], nextitem=after)
                    if session.testsfailed:
                        return 1
                return 0

            told(json.dumps([number, _verdict(tests)]))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(report.nodeid)


_Changed = list[tuple[FunctionType, CodeType]]


def _import(trial: Trial, order: list[str], tell: Tell) -> int:
    sys.meta_path.insert(0, _Mutated(trial))
    limit(IMPORT)
    return int(
        pytest.main([str(trial.room.folder), "-x", *OPTIONS], plugins=[_Order(order, trial.room, tell)])
    )


class _Mutated(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Imports the mutant in place of its module."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.module, str(trial.file.absolute()))
        self.text = trial.text

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, name: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _Order:
    """Runs tests in this order, then those that have other names under the mutant; tells which fail."""

    def __init__(self, tests: list[str], room: Room, tell: Tell) -> None:
        self.places = {test: place for place, test in enumerate(tests)}
        self.room = room
        self.tell = tell

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.room.failed]
        items.sort(key=lambda item: self.places.get(item.nodeid, len(self.places)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(report.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        limit(TEST + 3 * self.room.seconds.get(nodeid, 0.0))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(f"import of {report.nodeid}")
