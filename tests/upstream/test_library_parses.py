"""The language profile `library` takes every kernel file of the vendor's library.

    NKI_LIBRARY=/path/to/nki-library make test-upstream

What is found is a mistake of the file, listed here with its reason, and nothing else. Without a
checkout these tests say so and are skipped.
"""

import os
from pathlib import Path

import pytest

from nki import levels
from nki.compiler.checker.check import check_file
from nki_isa.diagnostics import Severity
from tests.upstream.library.__main__ import level_of

LIBRARY = os.environ.get("NKI_LIBRARY")
PACKAGE = Path(LIBRARY or ".") / "src" / "nkilib_src" / "nkilib"
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not LIBRARY, reason="set NKI_LIBRARY to a checkout of nki-library"),
]

#: Mistakes of published files, (file, code) -> what is wrong; a snapshot has some of them.
MISTAKES = {
    ("core/mlp/mlp.py", "NKI-L004"): "part of a docstring stands after its end",
    ("core/mlp/mlp.py", "NKI-L007"): "part of a docstring stands after its end",
    ("core/mlp/mlp_parameters.py", "NKI-L010"): "math is not imported",
    ("core/mlp/mlp_cte/mlp_cte_projection.py", "NKI-L010"): "names of no local, in a branch not taken",
    ("core/mlp/mlp_cte/mlp_cte_projection.py", "NKI-L012"): "a call lacks an argument, in a branch not taken",
    ("core/mlp/mlp_tkg/mlp_tkg.py", "NKI-L010"): "SbufManager and Logger are not imported",
    ("core/topk/rotational_topk.py", "NKI-L010"): "builtin is not imported",
}


def kernel_files() -> list[str]:
    if not LIBRARY:
        return []
    files = sorted(PACKAGE.rglob("*.py"))
    return [file.relative_to(PACKAGE).as_posix() for file in files if "import nki" in file.read_text()]


def test_there_are_kernel_files():
    assert len(kernel_files()) > 50


@pytest.mark.parametrize("file", kernel_files())
def test_a_kernel_file_has_no_refusal(file, monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE.parents[1]))
    before = levels.use(level_of(Path(LIBRARY)))
    try:
        found = check_file(str(PACKAGE / file), profile="library")
    finally:
        levels.use(before)
    errors = [d for d in found if d.severity is Severity.error]
    places = [Path(d.span.file).relative_to(PACKAGE).as_posix() for d in errors]
    assert [str(d) for d, place in zip(errors, places) if (place, d.code) not in MISTAKES] == []
