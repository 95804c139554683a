"""``python -m tests.upstream.library CHECKOUT``: run the library's tests and print what they came to."""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.upstream.library import defects, release

#: API level of a checkout by a folder that only newer ones have.
_LEVELS = (("src/nkilib_src/nkilib/experimental/dynamic_shapes", "0.3"), ("src/nkilib_src", "0.2"))

#: What is said of a test without a reason.
_ENDED = "its process ended: most often the machine has too little memory for it"


@dataclass(frozen=True)
class Row:
    """One test that ran."""

    test: str
    outcome: str
    seconds: float
    reason: str

    @property
    def kernel(self) -> str:
        """The name of its file, which is its kernel's."""
        return Path(self.test.partition("::")[0]).stem.removeprefix("test_")


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 if every test that ran passed, 2 if there is no checkout."""
    options = _options(arguments)
    checkout = options.checkout
    if checkout is None or not (checkout / "src" / "nkilib_src").is_dir():
        given = "none was given" if checkout is None else f"{checkout} is none"
        print(f"skipped: the library's tests need a checkout of github.com/aws-neuron/nki-library; {given}")
        return 0
    missing = [name for name in ("torch", "scipy", "allpairspy") if not _installed(name)]
    if missing:
        print(f"skipped: the library's tests need {', '.join(missing)} (pip install {' '.join(missing)})")
        return 0
    for text in defects.present(checkout):
        print(f"repaired in memory: {text}")
    with tempfile.TemporaryDirectory() as folder:
        rows = _run(checkout.resolve(), options, Path(folder))
    if options.kernels:
        return 0 if _print_kernels(rows) else 1
    _print(rows)
    return 0 if rows and all(row.outcome in ("passed", "skipped") for row in rows) else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream.library", description=__doc__)
    default = os.environ.get("NKI_LIBRARY")
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(default) if default else None)
    parser.add_argument(
        "tests", nargs="*", help="files or folders under test/integration/nkilib; all by default"
    )
    parser.add_argument(
        "--all", action="store_true", help="the default selection, not only tests marked fast"
    )
    parser.add_argument(
        "--kernels", action="store_true", help="one small test for each kernel of the 2.28 release notes"
    )
    parser.add_argument(
        "--ours", action="store_true", help="this project's kernels (nkilib) in the place of the library's"
    )
    parser.add_argument("--large", action="store_true", help="large shapes too")
    parser.add_argument(
        "--platform", default="trn2", choices=["trn2", "trn3"], help="the target (default trn2)"
    )
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="pytest's selection by name")
    parser.add_argument(
        "-n", type=int, default=os.cpu_count(), metavar="N", help="processes (default: one per CPU)"
    )
    parser.add_argument(
        "--limit", type=int, default=300, metavar="SECONDS", help="time for each test (default 300)"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="keep every test's outcome as JSON lines"
    )
    return parser.parse_args(arguments)


def level_of(checkout: Path) -> str:
    """The API level that `checkout` is written for."""
    return next(level for place, level in _LEVELS if (checkout / place).exists())


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _run(checkout: Path, options: argparse.Namespace, folder: Path) -> list[Row]:
    results = folder / "results.jsonl"
    root = checkout / "test" / "integration" / "nkilib"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.upstream.library.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-c", str(checkout / "test" / "pytest.ini"), "--rootdir", str(checkout)]
    command += ["--test-mode", "simulation", "--platform-target", options.platform]
    command += ["--output-directory", str(folder / "out"), "--force-local-cleanup"]
    command += ["-q", "--tb=no", "--show-capture=no", "-n", str(options.n), "--maxfail=1000000"]
    command += [] if options.all or options.kernels else ["-m", "fast"]
    command += ["-k", options.k] if options.k else []
    tests = release.FILES if options.kernels else options.tests
    command += [str(root / name) for name in tests] or [str(root)]
    ours = [str(Path(__file__).parents[3] / name) for name in ("isa", "frontend", "kernels", ".")]
    environment = {
        **os.environ,
        "NKI_LIBRARY": str(checkout),
        "NKI_LIBRARY_LIMIT": str(options.limit),
        "NKI_LIBRARY_RESULTS": str(results),
        "NKI_SIM_API": os.environ.get("NKI_SIM_API") or level_of(checkout),
        "NKI_LIBRARY_SELECTED": "1" if options.kernels else "0",
        "NKI_LIBRARY_OURS": "1" if options.ours else "0",
        "NKILIB_SIMULATION_RUN_ALL": "1" if options.large or options.kernels else "0",
        "PYTHONHASHSEED": "0",  # the processes must collect the same tests
        "PYTHONPATH": os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "PYTHONPYCACHEPREFIX": str(folder / "pycache"),  # the checkout is only read
        "OMP_NUM_THREADS": "1",
    }
    with open(folder / "output", "w+") as output:
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        if not results.exists():
            output.seek(0)
            print(output.read()[-4000:])
            raise SystemExit(ended.returncode or 1)
    text = results.read_text()
    if options.results is not None:
        options.results.write_text(text)
    return [Row(**json.loads(line)) for line in text.splitlines()]


def _print_kernels(rows: list[Row]) -> bool:
    """One line for each kernel; True if all of them passed."""
    ran = {release.row_of(row.test.partition("::")[0], row.test.rpartition("::")[2]): row for row in rows}
    passed = dict.fromkeys(release.KERNELS, True)
    print(f"\n{'kernel':24} {'':11} {'seconds':>7}")
    for selected in release.SELECTED:
        row = ran.get(selected)
        outcome, seconds = (row.outcome, f"{row.seconds:7.1f}") if row else ("not found", f"{'':7}")
        print(f"{selected.kernel:24} {outcome:11} {seconds}  {row.test.rpartition('::')[2] if row else ''}")
        if row and row.reason:
            print(f"{'':24} {row.reason}")
        passed[selected.kernel] &= outcome == "passed"
    print(f"\n{sum(passed.values())} of {len(passed)}")
    return all(passed.values())


def _print(rows: list[Row]) -> None:
    ran = [row for row in rows if row.outcome != "skipped"]
    kernels: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        kernels[row.kernel].append(row)
    print(f"\n{'kernel':40} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>9} {'slowest':>9}")
    for kernel in sorted(kernels):
        group = kernels[kernel]
        count = collections.Counter(row.outcome for row in group)
        failed = len(group) - count["passed"] - count["skipped"]
        times = [row.seconds for row in group]
        counts = f"{count['passed']:7} {failed:7} {count['skipped']:8}"
        print(f"{kernel:40} {counts} {sum(times):9.1f} {max(times):9.1f}")
    failures = [row for row in ran if row.outcome != "passed"]
    for row in failures:
        print(f"\n{row.outcome}: {row.test}\n    {row.reason or _ENDED}")
    times = sorted(row.seconds for row in ran)
    if times:
        print(f"\nmedian {times[len(times) // 2]:.1f} s; the slowest:")
        for row in sorted(ran, key=lambda row: -row.seconds)[:10]:
            print(f"    {row.seconds:7.1f} s  {row.test.partition('::')[2]}")
    print(f"\n{len(ran) - len(failures)} of {len(ran)}")


if __name__ == "__main__":
    sys.exit(main())
