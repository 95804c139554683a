"""Tries mutants of `isa/nki_isa` and `nki_sim` on the tests of their rooms: ``python -m tests.mutation``.

A sample, drawn by a seed from all mutants that cosmic-ray makes of both packages. A mutant is killed if a
test of its room (tests/isa, tests/nki_sim) that runs through the mutated statement fails, or does not end.
Survivors that equivalent.toml names, with the reason, change nothing that a test could see; they count as
survivors all the same. The exit code is 1 if fewer than 90 % are killed.

Results are kept in .mutation/: a run that was stopped goes on where it was. After a change of sources or
tests all are tried anew, each first on the test that killed it before.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401  forks share what is imported here
import lark  # noqa: F401
import ml_dtypes  # noqa: F401
import numpy  # noqa: F401
import rich.console  # noqa: F401
import tomllib
import typer  # noqa: F401

from tests.mutation.mutants import Mutant, changed_lines, sample, unspaced
from tests.mutation.room import Room, record
from tests.mutation.trial import Trial, run

ROOMS = {Path("isa/nki_isa"): Path("tests/isa"), Path("nki_sim"): Path("tests/nki_sim")}
KEPT = Path(".mutation")
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
GOAL = 90  # percent


def main() -> int:
    arguments = _arguments()
    start = time.monotonic()
    reasons = _equivalents()
    KEPT.mkdir(exist_ok=True)
    states = {package: _state(tests) for package, tests in ROOMS.items()}
    rooms = {
        package: record(tests, list(ROOMS), KEPT / f"{tests.name}-{states[package]}.json")
        for package, tests in ROOMS.items()
    }
    results = _results()
    drawn = _drawn(arguments.sample, arguments.seed)
    if arguments.survivors:
        drawn = [pair for pair in drawn if results.get(pair[0].name, {}).get("by", "") is None]
    trials: dict[Trial, Mutant] = {}
    for mutant, text in drawn:
        package = next(package for package in ROOMS if mutant.file.is_relative_to(package))
        before = results.get(mutant.name, {})
        if before.get("state") != states[package]:
            trials[_trial(mutant, text, rooms[package], before.get("by"))] = mutant
    with open(KEPT / "results.jsonl", "a", encoding="utf-8") as kept:

        def say(trial: Trial, by: str | None) -> None:
            mutant = trials[trial]
            state = next(states[package] for package, room in rooms.items() if room is trial.room)
            results[mutant.name] = {"name": mutant.name, "by": by, "state": state}
            print(json.dumps(results[mutant.name]), file=kept, flush=True)
            print(f"{by or 'SURVIVES':100} {mutant.file}:{mutant.first} {mutant.operator}", flush=True)

        run(list(trials), say)
    survivors = [(mutant, text) for mutant, text in drawn if results[mutant.name]["by"] is None]
    for mutant, text in sorted(survivors, key=lambda survivor: survivor[0].name):
        print("\n" + "\n".join(_survivor(mutant, text, reasons)))
    killed = len(drawn) - len(survivors)
    share = 100 * killed / len(drawn) if drawn else 100.0
    equivalent = sum(_key(mutant, text) in reasons for mutant, text in survivors)
    print(
        f"\n{killed} of {len(drawn)} mutants killed ({share:.1f} %); {len(survivors)} survive, of these "
        f"{equivalent} equivalent; {len(trials)} tried in {time.monotonic() - start:.0f} s"
    )
    return int(share < GOAL)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=11, help="of the sample (11)")
    parser.add_argument("--survivors", action="store_true", help="only those that survived when last tried")
    return parser.parse_args()


def _trial(mutant: Mutant, text: str, room: Room, by: str | None) -> Trial:
    source = mutant.file.read_text(encoding="utf-8")
    tests, in_import = room.tests(mutant.file, source, mutant.first, mutant.last)
    module = ".".join(mutant.file.with_suffix("").parts).removeprefix("isa.").removesuffix(".__init__")
    return Trial(mutant.file, source, text, module, room, tests, in_import, by)


def _drawn(count: int, seed: int) -> list[tuple[Mutant, str]]:
    """The sample; kept, for drawing it takes a minute."""
    sources = b"".join(file.read_bytes() for package in ROOMS for file in sorted(package.rglob("*.py")))
    kept = KEPT / f"sample-{count}-{seed}-{hashlib.sha256(sources).hexdigest()[:16]}.pickle"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(list(sample(list(ROOMS), count, seed))))
    return pickle.loads(kept.read_bytes())  # type: ignore[no-any-return]


def _state(tests: Path) -> str:
    """What the results of a room hang on, as a hash: the sources of what its tests run, and the tests."""
    digest = hashlib.sha256()
    for folder in (*map(Path, ("isa", "nki_sim", "frontend", "tests/corpus")), tests):
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".lark", ".ambr"):
                digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _results() -> dict[str, dict[str, str | None]]:
    """The last result of each mutant, by its name."""
    file = KEPT / "results.jsonl"
    rows: Iterator[dict[str, str | None]] = iter(())
    if file.exists():
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {str(row["name"]): row for row in rows}


def _equivalents() -> dict[tuple[str, str, str], str]:
    """The reasons of equivalent.toml, by file, line and what it becomes.

    Raises ``SystemExit`` for a row whose line is gone from the file.
    """
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])
    for row in rows:
        if unspaced(row["line"]) not in unspaced(Path(row["file"]).read_text(encoding="utf-8")):
            raise SystemExit(f"equivalent.toml: {row['file']} has no line {row['line']!r}")
    return {(row["file"], unspaced(row["line"]), unspaced(row["becomes"])): row["why"] for row in rows}


def _key(mutant: Mutant, text: str) -> tuple[str, str, str]:
    return str(mutant.file), *changed_lines(mutant.file.read_text(encoding="utf-8"), text)


def _survivor(mutant: Mutant, text: str, reasons: dict[tuple[str, str, str], str]) -> Iterator[str]:
    yield f"{mutant.file}:{mutant.first} in {mutant.definition or 'the module'}: {mutant.operator}"
    before = mutant.file.read_text(encoding="utf-8").splitlines()
    for line in list(difflib.unified_diff(before, text.splitlines(), n=1, lineterm=""))[3:]:
        yield f"    {line}"
    if reason := reasons.get(_key(mutant, text)):
        yield f"  equivalent: {reason}"


if __name__ == "__main__":
    sys.exit(main())
