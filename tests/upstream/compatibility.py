"""What of public repositories this project accepts, as docs/compatibility.md.

    python -m tests.upstream.compatibility CHECKOUTS [--tests] [--sdk CHECKOUT ...] > docs/compatibility.md

CHECKOUTS is a folder of Git checkouts, each named ``owner+name``; the files of each are checked as ``nki-sim
check --static --language library`` does, at each API level. ``--tests`` also runs the simulator tests of the
repositories in SUITES (torch is needed, and half an hour), ``--sdk`` the complete kernels of a checkout of
the vendor's documentation. Nothing of a checkout is kept: the page has counts, codes and names.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import NamedTemporaryFile
from xml.etree import ElementTree

from nki import levels
from nki.compiler.checker.check import check_file, kernels_of_file
from nki_cli.docs import errors_pages
from nki_isa.diagnostics import NkiError, Severity
from nki_isa.diagnostics.codes import CODES

_BETA2 = re.compile(r"^\s*(?:import nki\b|from nki\b)", re.MULTILINE)
_BETA1 = re.compile(r"^\s*(?:import neuronxcc\.nki\b|from neuronxcc(?:\.nki\S*)? import )", re.MULTILINE)
_CODE = re.compile(r"NKI-[A-Z]\d{3}")
ROOT = Path(__file__).parents[2]

SUITES = {
    f"trnsci/{name}": (("-m", "nki_simulator", "tests"), {f"{name.upper()}_USE_SIMULATOR": "1"})
    for name in ("trnfft", "trnrand", "trnsolver", "trnsparse", "trntensor")
}
"""The repositories with tests for a simulator: what pytest is given, and what makes them choose it."""

DECIDED = {
    "trnsci/trnsparse": "`accumulate=True` on PSUM that only a memset wrote; defined on trn3 only",
    "trnsci/trnfft": "`accumulate=True` on PSUM that only a memset wrote; defined on trn3 only",
}
"""Why the tests of a suite are refused, where no fault of ours is behind it."""


@dataclass(frozen=True)
class File:
    """A file that defines kernels.

    Attributes:
        kernels: how many.
        beta1: whether it imports ``neuronxcc.nki``.
        level: the newest level that refuses none of them, or None.
        codes: what refuses them at the level with the fewest refusals.
    """

    kernels: int
    beta1: bool
    level: str | None
    codes: Counter[str]


def read(path: Path) -> File | None:
    """What the check of a file's text finds, at the level that takes most of it; None without kernels."""
    text = path.read_text("utf-8", errors="replace")
    beta1 = _BETA1.search(text) is not None
    if not (beta1 or _BETA2.search(text)):
        return None
    try:
        kernels = len(kernels_of_file(str(path)))
    except NkiError:
        return None
    if not kernels:
        return None
    best: Counter[str] | None = None
    for level in reversed(levels.LEVELS):
        before = levels.use(level)
        try:
            found = check_file(str(path), "library")
        finally:
            levels.use(before)
        codes = Counter(d.code for d in found if d.severity is Severity.error)
        if not codes:
            return File(kernels, beta1, level, codes)
        if best is None or codes.total() < best.total():
            best = codes
        if beta1:
            break
    return File(kernels, beta1, None, best or Counter())


def files(checkout: Path) -> Iterator[File]:
    """The files with kernels of a checkout, in order."""
    for path in sorted(checkout.rglob("*.py")):
        inside = path.relative_to(checkout).parts
        if path.is_file() and not any(part.startswith(".") for part in inside):
            found = read(path)
            if found is not None:
                yield found


def commit(checkout: Path) -> str:
    """Commit and date of a checkout."""
    log = ["git", "-C", str(checkout), "log", "-1", "--format=%h, %cs"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()


def run(folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> Counter[str]:
    """How many tests passed, failed and were skipped, and the codes that refused those that failed."""
    path = os.pathsep.join([str(folder), str(ROOT), *filter(None, sys.path)])
    with NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-o", "addopts="]
        subprocess.run(
            [*command, f"--junitxml={report.name}", *arguments],
            cwd=folder,
            # one thread for torch: its threads spin when the machine is busy
            env={"OMP_NUM_THREADS": "1", **os.environ, **environment, "PYTHONPATH": path},
            stdout=sys.stderr,
            check=False,
        )
        told: Counter[str] = Counter()
        for case in ElementTree.parse(report.name).iter("testcase"):
            found = {child.tag: child.get("message", "") for child in case}
            if "failure" in found or "error" in found:
                told["failed"] += 1
                told.update({*_CODE.findall(found.get("failure", found.get("error", "")))})
            else:
                told["skipped" if "skipped" in found else "passed"] += 1
    return told


def codes(counted: Counter[str]) -> str:
    """Codes with links to their pages, the most frequent first."""
    ranked = sorted(counted, key=lambda code: (-counted[code], code))
    return ", ".join(f"[{code}]({errors_pages.place(CODES[code])})" for code in ranked)


def row_of(checkout: Path, with_tests: bool) -> str | None:
    """The row of a repository; None for one without kernels."""
    name = checkout.name.replace("+", "/", 1)
    found = [*files(checkout)]
    new = [file for file in found if not file.beta1]
    old = len(found) - len(new)
    if not found:
        return None
    accepted = [file for file in new if file.level is not None]
    taken = ", ".join(sorted({file.level for file in accepted if file.level}))
    refused: Counter[str] = Counter()
    for file in new:
        if file.level is None:
            refused.update({*file.codes})
    tests = ""
    if with_tests and name in SUITES:
        told = run(checkout, *SUITES[name])
        tests = f"{told.pop('passed', 0)} pass" + (
            f", {told.pop('skipped')} skipped" if told["skipped"] else ""
        )
        failed = told.pop("failed", 0)
        told.pop("skipped", None)
        tests += f", {failed} refused by {codes(told)}: {DECIDED.get(name, '?')}" if failed else ""
    share = f"{len(accepted)} of {len(new)}" if new else ""
    return (
        f"| [{name}](https://github.com/{name}) | {commit(checkout)} | {share} | {taken} | {codes(refused)} "
        f"| {old or ''} | {tests} |"
    )


def documented(checkout: Path) -> str:
    """The row of a version of the vendor's documentation."""
    told = run(
        ROOT,
        ("-m", "upstream", "tests/upstream/test_documented_kernels.py", "tests/upstream/test_tutorials.py"),
        {"NKI_SDK": str(checkout)},
    )
    return f"| {commit(checkout)} | {told['passed']} | {told['failed']} | {told['skipped']} |"


HEAD = """\
# What runs of public repositories

Every file of these repositories that defines a kernel was checked, unmodified, as `nki-sim check --static
--language library` does, at each level of the API; the level given is the newest that takes a file. A check
of the text says that the language and every call fit. Shapes, memory and results are checked where a
repository has tests for a simulator, which were then run. A file that imports `neuronxcc.nki` is of Beta 1,
which no level takes: it is refused with the complete list of what to write instead, and only counted here.

Remade by `python -m tests.upstream.compatibility CHECKOUTS --tests --sdk SDK`, see its head; nothing of the
repositories is in this one. Tried on {today}.

| repository | commit | files accepted | level | refused by | of Beta 1 | its simulator tests |
|---|---|---:|---|---|---:|---|
"""

WHY = """
What the refusals are:

- **NKI-L010 and NKI-L012** are calls that do not fit *this project's* `nkilib`, which follows NKI Library
  2.28: the repositories call helpers of later releases. With the vendor's library on the path
  ([how](vendor-library.md)) its own files are found instead.
- **NKI-L011** is a name that `nki.language` never had, in a branch for a dtype that the repository's tests
  do not take: an error of `check`, a warning of a run that does not reach it.

## The vendor's documentation

Each complete kernel that the pages print is run, at the newest level that takes it, on inputs of ours
against a reference of ours (`NKI_SDK=... make test-upstream`). `tests/upstream/test_documented_kernels.py`
says of each other one why it is not complete: an outline, an undefined name, block dimensions that Beta 2
removed. A kernel that a version prints with a mistake passes when the code stated there refuses it, one of
Beta 1 when it is refused.

| commit of aws-neuron-sdk | tests that pass | fail | skipped: tutorials of Beta 1 |
|---|---:|---:|---:|
"""


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream.compatibility", description=__doc__)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--tests", action="store_true", help="run the simulator tests of the repositories")
    parser.add_argument("--sdk", type=Path, action="append", default=[], help="a checkout of aws-neuron-sdk")
    given = parser.parse_args()
    sys.stdout.write(HEAD.format(today=date.today()))
    for checkout in sorted(given.checkouts.iterdir(), key=lambda path: path.name.lower()):
        row = row_of(checkout, given.tests)
        if row is not None:
            print(row, flush=True)
    sys.stdout.write(WHY)
    for checkout in given.sdk:
        print(documented(checkout), flush=True)


if __name__ == "__main__":
    main()
