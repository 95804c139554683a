"""What all tests share: how examples are drawn, and how golden texts are compared.

Examples are the same in every run, and have no deadline: the machine that runs them may be busy.

Golden texts are made on Python 3.11 and compared as they are from there on; on 3.10, which knows the line
of a call only, without columns.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import both_front_ends
import pytest
from hypothesis import settings
from syrupy.extensions.amber import AmberSnapshotExtension

from nki import levels
from nki.compiler.language import frontends

settings.register_profile("nki-sim", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("nki-sim")

_SOURCE = re.compile(r"\s*(\d+ )?\|( .*)?|\s*\.{3}")  # lines of source, and the marks under them
_COLUMN = re.compile(r"(\.py:\d+):\d+")


def _coarse(text: str) -> list[str]:
    """`text` with lines for places."""
    return [_COLUMN.sub(r"\1", line) for line in text.split("\n") if not _SOURCE.fullmatch(line)]


class LineExtension(AmberSnapshotExtension):
    """Compares what is left of both texts when columns and the source lines shown are taken out."""

    def matches(self, *, serialized_data: object, snapshot_data: object) -> bool:
        return _coarse(str(serialized_data)) == _coarse(str(snapshot_data))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--both-front-ends",
        action="store_true",
        help="trace every kernel that a test compiles as well: both Programs must be the same",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--both-front-ends"):
        both_front_ends.install()


@pytest.fixture(autouse=True)
def _api(request: pytest.FixtureRequest) -> Iterator[None]:
    """The level of the API that a test is marked with; it and the front end are put back after each test."""
    mark = request.node.get_closest_marker("api")
    level, choice = levels.current(), frontends.current()
    if mark:
        levels.use(mark.args[0])
    yield
    frontends.use(choice)
    if levels.current() != level:
        levels.use(level)


if sys.version_info < (3, 11):

    @pytest.fixture
    def snapshot(snapshot):  # type: ignore[no-untyped-def]
        return snapshot.use_extension(LineExtension)
