"""Keeps syntax trees of unchanged files between runs, so that they are not parsed again.

One file per text, named after the text and the parser itself, in the user's cache
folder: ``$NKI_SIM_CACHE``, else ``$XDG_CACHE_HOME/nki-sim``, else ``~/.cache/nki-sim``.
Deleting the folder is safe; ``NKI_SIM_CACHE=off`` uses none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import tempfile
from functools import cache
from pathlib import Path

import nki.compiler
from nki.compiler import tree

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
    "tree.py",
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


@cache
def _parser_digest() -> bytes:
    here = Path(next(iter(nki.compiler.__path__)))
    digest = hashlib.sha256()
    for name in _PARSER:
        digest.update((here / name).read_bytes())
    return digest.digest()


def _place(text: str) -> Path | None:
    where = folder()
    if where is None:
        return None
    digest = hashlib.sha256(_parser_digest())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return where / f"{digest.hexdigest()}.tree"


def load(text: str) -> tuple[tree.Module, int] | None:
    """The tree of `text` and its number of tokens, if they were kept."""
    place = _place(text)
    if place is None:
        return None
    try:
        module, tokens = pickle.loads(place.read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError):
        return None  # not kept, or damaged: it is parsed again
    return module, tokens


def keep(text: str, module: tree.Module, tokens: int) -> None:
    """Keep the tree of `text`; where the folder cannot be written, nothing is kept."""
    place = _place(text)
    if place is None:
        return
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(pickle.dumps((module, tokens), pickle.HIGHEST_PROTOCOL))
        os.replace(name, place)
