"""Writing a report whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends well; else the old file stays.

    What is not a file, such as a pipe or ``/dev/stdout``, is written as it is.

    Raises:
        OSError: `path` cannot be written.
    """
    given = Path(path)
    if given.exists() and not (given.is_file() or given.is_dir()):
        with given.open("w", encoding="utf-8") as file:
            yield file
        return
    target = Path(os.path.realpath(given))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            yield file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
