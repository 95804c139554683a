"""The pytest plugin of a run.

It puts the stand-ins in place before anything is imported, gives each test a limit of
time, and writes what came of each as JSON lines.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.upstream.library import defects, overlay, ranks, release, standins, tracing

CHECKOUT = Path(os.environ["NKI_LIBRARY"]).resolve()
LIMIT = int(os.environ.get("NKI_LIBRARY_LIMIT", "300"))
RESULTS = os.environ.get("NKI_LIBRARY_RESULTS")
SELECTED = os.environ.get("NKI_LIBRARY_SELECTED") == "1"  # only the rows of library.release
OURS = os.environ.get("NKI_LIBRARY_OURS") == "1"  # our kernels in the place of the library's

sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "src")]
standins.install()
if OURS:
    overlay.install()
defects.repair(CHECKOUT)


class OutOfTime(BaseException):
    """A test ran longer than it may; no except clause of its own shall catch that."""


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> list[pytest.Item] | None:
    if SELECTED and name.startswith("test") and not release.has_function(collector.path, name):
        return []
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SELECTED:
        rows = {row: item for item in reversed(items) if (row := release.row_of(item.path, item.name))}
        items[:] = reversed(rows.values())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    defects.repair_utilities()
    _skip_what_cannot_run()
    return (yield)


@functools.cache
def _skip_what_cannot_run() -> None:
    """Let tests end that want a kernel of ours that we have not; give the others their ranks."""
    from test.utils.test_orchestrator import Orchestrator

    ranks.install()
    execute = Orchestrator.execute

    def checked(self: Any, kernel: Any) -> Any:
        if _trace_only:
            return _trace(kernel)
        if OURS and not overlay.ours(kernel.kernel_func):
            pytest.skip("this project's library has no such kernel")
        return execute(self, kernel)

    Orchestrator.execute = checked


_trace_only = False  # whether the test that runs only compiles its kernel


def _trace(kernel: Any) -> None:
    """Compile the kernel of a test for each core."""
    given = kernel.kernel_input.items()
    tracing.ParserFrontend().compile(
        kernel.kernel_func,
        inputs={name.removesuffix(".must_alias_input"): value for name, value in given},
        target=kernel.compiler_input.platform_target.name.lower(),
        lnc=kernel.compiler_input.logical_nc_config,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    global _trace_only
    _trace_only = item.get_closest_marker("trace_only") is not None

    def end(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"longer than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if call.excinfo is not None and not report.skipped:
        report.sections.append(("reason", _reason(str(call.excinfo.value) or call.excinfo.typename)))
    return report


def _reason(text: str) -> str:
    """The line of an error's text that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    coded = [line for line in lines if re.search(r"\[(NKI-|NCC_)", line)]
    return " | ".join((coded or lines[:1] or ["?"])[:3])[:600]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.outcome == "passed":
        return
    reason = next((text for name, text in report.sections if name == "reason"), "")
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
    _write(report.nodeid, report.outcome, report.duration, reason)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write(report.nodeid, "uncollected", 0.0, _last(str(report.longrepr)))


def _write(test: str, outcome: str, seconds: float, reason: str) -> None:
    if RESULTS and "PYTEST_XDIST_WORKER" not in os.environ:  # the workers' reports come to the controller
        row = {"test": test, "outcome": outcome, "seconds": seconds, "reason": reason}
        with open(RESULTS, "a") as file:
            file.write(json.dumps(row) + "\n")


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E ")]
    return (lines or text.splitlines()[-1:] or ["?"])[-1].lstrip("E ").strip()[:600]
