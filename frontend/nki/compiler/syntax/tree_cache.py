"""Keeps syntax trees of unchanged files between runs, so that they are not parsed again.

One file per text, named after the text and the parser itself, in the user's cache
folder: ``$NKI_SIM_CACHE``, else ``$XDG_CACHE_HOME/nki-sim``, else ``~/.cache/nki-sim``.
Deleting the folder is safe; ``NKI_SIM_CACHE=off`` uses none.

A file holds data only (:mod:`nki.compiler.syntax.tree_data`) behind a line with its version and checksum;
one that is damaged, or of another version, is ignored and replaced. The folder is the user's alone: one
that belongs to somebody else, or that others may write to, is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from functools import cache
from pathlib import Path

from nki.compiler.syntax import tree
from nki.compiler.syntax.tree_data import DamagedTree, decode, encode

#: What is kept at most; the oldest files go first.
FILES, BYTES = 2048, 256 << 20
_LARGEST = 64 << 20  # bytes of one file
_MAGIC = b"nki-sim tree 1"
_ENDING = ".tree"
_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")  # where the system has them
_LEFTOVER = ".part"  # of a file that is being written
_ABANDONED = 600.0  # seconds after which a file that is being written is a leftover

# What decides the tree of a text: a change of any of them makes all that is kept stale.
_PARSER = (
    "grammar.lark",
    "llk.py",
    "generate.py",
    "lexer.py",
    "literals.py",
    "build.py",
    "build_expressions.py",
    "parser.py",
    "node.py",
    "symbols.py",
    "tree.py",
    "tree_data.py",
)


def folder() -> Path | None:
    """Where trees are kept, or None if they are not."""
    chosen = os.environ.get("NKI_SIM_CACHE")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "nki-sim"


def is_private(where: Path) -> bool:
    """True for a folder of this user that nobody else may write to."""
    try:
        found = where.stat()
    except (OSError, ValueError):
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    if os.name != "posix":  # a profile's folder is the user's there
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def _parser_digest() -> bytes:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _PARSER:
        digest.update((here / name).read_bytes())
    return digest.digest()


def _name(text: str) -> str:
    digest = hashlib.sha256(_parser_digest())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest() + _ENDING


def load(text: str) -> tuple[tree.Module, int] | None:
    """The tree of `text` and its number of tokens, if they were kept."""
    where = folder()
    if where is None or not is_private(where):
        return None
    found = _read(where / _name(text))
    if found is None:
        return None
    head, _, data = found.partition(b"\n")
    if head != _head(data):
        return None  # damaged, or of another version: it is parsed again
    tokens, _, rows = data.partition(b"\n")
    try:
        return decode(rows.decode("ascii")), int(tokens)
    except (DamagedTree, ValueError):
        return None


def keep(text: str, module: tree.Module, tokens: int) -> None:
    """Keep the tree of `text`; where the folder cannot be written, nothing is kept."""
    where = folder()
    if where is None:
        return
    data = b"%d\n%s" % (tokens, encode(module).encode("ascii"))
    with contextlib.suppress(OSError, ValueError):
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(where) and len(data) < _LARGEST:
            _write(where / _name(text), b"%s\n%s" % (_head(data), data))
            _tidy(where)


def _head(data: bytes) -> bytes:
    return b"%s %s" % (_MAGIC, hashlib.sha256(data).hexdigest().encode())


def _read(place: Path) -> bytes | None:
    """The bytes of a regular file of ordinary size; nothing else is opened for long, or followed."""
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in _FLAGS)
    try:
        with os.fdopen(os.open(place, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                return None
            return file.read(_LARGEST)
    except OSError:
        return None


def _write(place: Path, octets: bytes) -> None:
    """All of it at once: a reader finds the old file or the new one."""
    handle, name = tempfile.mkstemp(suffix=_LEFTOVER, dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(octets)
        os.replace(name, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _tidy(where: Path) -> None:
    """Remove leftovers, and the oldest files where there are too many."""
    kept: list[tuple[float, int, str]] = []
    now = time.time()
    with os.scandir(where) as entries:
        for entry in entries:
            if entry.name.endswith((_ENDING, _LEFTOVER)):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(_ENDING):
                        kept.append((found.st_mtime, found.st_size, entry.path))
                    elif now - found.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
    kept.sort(reverse=True)
    size = 0
    for number, (_, octets, path) in enumerate(kept):
        size += octets
        if number >= FILES or size > BYTES:
            with contextlib.suppress(OSError):
                os.unlink(path)
