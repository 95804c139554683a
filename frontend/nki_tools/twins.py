"""How well the gate tells what compilers refuse: precision and recall over twins.

A twin is a pair of kernels that differ in one rule: the wrong one is to be found, the right one is to stay
clean. ``python -m nki_tools.twins`` runs those of the table of rules, ``python -m nki_tools.twins FOLDER``
those of a folder with files ``NAME_bad.py`` and ``NAME_good.py``.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nki import levels, runtime
from nki_isa.diagnostics import Diagnostic, NkiError, Severity
from nki_isa.machine.targets import as_target
from nki_isa.rules import RULES, Standing
from nki_tools.snippets import whole

_TARGET = re.compile(r"\btarget (trn\d)")


@dataclass(frozen=True)
class Twin:
    """A pair of kernels.

    Attributes:
        name: of the rule.
        wrong, right: whole files.
        target: the generation they are for.
        fires: False if the wrong one is to stay clean too: working kernels do it.
        level: the API level they are for; empty: the one in force.
    """

    name: str
    wrong: str
    right: str
    target: str
    fires: bool = True
    level: str = ""


@dataclass(frozen=True)
class Score:
    """What came of twins.

    Attributes:
        missed: names of those whose wrong kernel was not found.
        alarms: names of those of which a kernel that is fine was found.
        found: how many wrong kernels were found.
    """

    missed: tuple[str, ...]
    alarms: tuple[str, ...]
    found: int

    @property
    def precision(self) -> float:
        """The share of the kernels that were found that are wrong."""
        told = self.found + len(self.alarms)
        return self.found / told if told else 1.0

    @property
    def recall(self) -> float:
        """The share of the wrong kernels that were found."""
        wrong = self.found + len(self.missed)
        return self.found / wrong if wrong else 1.0

    def __str__(self) -> str:
        wrong = self.found + len(self.missed)
        lines = [
            f"recall {self.recall:.3f}: {self.found} of {wrong} wrong kernels found",
            f"precision {self.precision:.3f}: {len(self.alarms)} false alarms",
        ]
        lines += [f"missed: {name}" for name in self.missed]
        lines += [f"false alarm: {name}" for name in self.alarms]
        return "\n".join(lines)


def of_rules() -> Iterator[Twin]:
    """The twins of the table."""
    for row in RULES.values():
        if row.wrong:
            target = row.targets[0] if row.targets else "trn2"
            fires = row.standing is not Standing.never
            yield Twin(row.name, whole(row.wrong), whole(row.right), target, fires, row.until)


def of_folder(folder: Path, never: frozenset[str] = frozenset()) -> Iterator[Twin]:
    """The twins of a folder; of those in `never` the wrong one is to stay clean."""
    for wrong in sorted(folder.glob("*_bad.py")):
        name = wrong.name.removesuffix("_bad.py")
        text, right = wrong.read_text(), wrong.with_name(f"{name}_good.py").read_text()
        target = _TARGET.search(text)
        yield Twin(name, text, right, target.group(1) if target else "trn2", name not in never)


@contextlib.contextmanager
def _level(level: str) -> Iterator[None]:
    before = levels.use(level or levels.current())
    try:
        yield
    finally:
        levels.use(before)


def findings(text: str, target: str, level: str = "") -> tuple[Diagnostic, ...]:
    """Everything that is found of a script without running its arithmetic."""
    found: list[Diagnostic] = []
    with (
        _level(level),
        tempfile.TemporaryDirectory() as folder,
        runtime.session(target=as_target(target), data=False, check="all", decide=True) as session,
    ):
        path = Path(folder, "twin.py")
        path.write_text(text)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(path), run_name="__main__")
        except NkiError as refused:
            found += refused.diagnostics
        found += (d for launch in session.launches for d in launch.diagnostics)
    return tuple(found)


#: Findings that are not a verdict about a kernel: names with a successor, traced kernels, work for nothing.
_ASIDE = frozenset({"NKI-L056", "NKI-L057", "NKI-H010"})


def is_told(text: str, target: str, level: str = "") -> bool:
    """True if anything is found of a script that speaks of what compilers refuse."""
    told = (d for d in findings(text, target, level) if d.code not in _ASIDE)
    return any(d.known or d.severity is not Severity.note or d.code.startswith("NKI-H") for d in told)


def score(twins: Iterator[Twin]) -> Score:
    """Run twins."""
    missed, alarms, found = [], [], 0
    for twin in twins:
        told = is_told(twin.wrong, twin.target, twin.level)
        if twin.fires:
            found += told
            missed += [twin.name] * (not told)
        elif told:
            alarms.append(f"{twin.name} (which must not fire)")
        if is_told(twin.right, twin.target, twin.level):
            alarms.append(twin.name)
    return Score(tuple(missed), tuple(alarms), found)


def main(arguments: list[str]) -> int:
    """Print the score of the table, or of a folder; 0 if nothing was missed and nothing was a false alarm."""
    never = frozenset(word.partition("=")[2] for word in arguments if word.startswith("--never="))
    never = frozenset(name for names in never for name in names.split(","))
    folders = [word for word in arguments if not word.startswith("--")]
    twins = of_folder(Path(folders[0]), never) if folders else of_rules()
    result = score(twins)
    print(result)
    return 1 if result.missed or result.alarms else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
