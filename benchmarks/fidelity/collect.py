"""Fetches the published kernels that the rows are about: ``python benchmarks/fidelity/collect.py FOLDER``.

They go to FOLDER, outside the project, each as it is at the commit whose tests hold its values. What was
measured on hardware is kept here: ``nki_library.csv`` holds the values recorded beside the tests of
aws-neuron/nki-library, and ``benchmarks/timing_accuracy.py`` rows of the vendor's guides and of public
profiles.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY, COMMIT = "https://github.com/aws-neuron/nki-library", "d2ad3a579498d1888aa8740af97fd325dd5f2740"
OLDER_COMMIT = "181b205a45d08f60d07123d674b35782f72a04bc"
OLDER = frozenset({"layernorm_tkg", "rmsnorm_tkg"})
"""Kernels whose values stand beside the tests of the older commit only; they were written anew since."""


def collect(folder: Path, repository: str = REPOSITORY) -> None:
    """Put the sources of the kernels into `folder`, those of the older commit into a folder of it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        subprocess.run(["git", "clone", "--no-checkout", repository, str(folder)], check=True)
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "checkout", "--detach", "--force", COMMIT], check=True)
    if not (folder / "older").exists():
        subprocess.run([*git, "worktree", "add", "--detach", "older", OLDER_COMMIT], check=True)
    mend(folder / "src/nkilib_src/nkilib/core/mlp/mlp.py")


def home(folder: Path, kernel: str) -> Path:
    """Where `collect` puts the state of the repository that has the values of this kernel."""
    return folder / "older" if kernel in OLDER else folder


def mend(file: Path) -> None:
    """Cut what follows the docstring of `mlp`, the end of which is there twice: no Python reads that."""
    lines = file.read_text().splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines) if line.strip() == '"""']
    try:
        compile("".join(lines), str(file), "exec")
    except SyntaxError as broken:
        first = max(k for k in ends if k < (broken.lineno or 0))
        second = min(k for k in ends if k > first)
        file.write_text("".join(lines[: first + 1] + lines[second + 1 :]))


if __name__ == "__main__":
    collect(Path(sys.argv[1]), *sys.argv[2:])
