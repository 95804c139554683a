"""Source text -> syntax tree, with every syntax error of the text in one run.

The grammar and its parser are read when a text is met that has not been parsed before: see
:mod:`nki.compiler.syntax.parser`.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict

from nki.compiler.syntax import tree_cache
from nki.compiler.syntax.parsed import ParseResult
from nki_sim.process import importing

_REMEMBERED = 256


_results: OrderedDict[tuple[str, str], ParseResult] = OrderedDict()


def parse(text: str, file: str) -> ParseResult:
    """The syntax tree of `text`.

    Never raises for a mistake in the text: each becomes a diagnostic, with codes NKI-L001 to NKI-L008, and
    the statement it is in is left out of the tree. The same text and file give the same result object.

    Args:
        text: Python source text; a byte order mark and any kind of line end are understood.
        file: the name that diagnostics show.
    """
    key = (text, file)
    result = _results.get(key)
    if result is None:
        result = _results[key] = _kept(text, file)
        if len(_results) > _REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread has
                _results.popitem(last=False)
    return result


def _kept(text: str, file: str) -> ParseResult:
    """The result of an earlier run where `file` has one and no mistakes, else of parsing now."""
    if not os.path.isfile(file):
        return _parsed(text, file)
    found = tree_cache.load(text)
    if found is not None:
        return ParseResult(found[0], (), found[1])
    result = _parsed(text, file)
    if result.tree is not None and not result.diagnostics:
        tree_cache.keep(text, result.tree, result.tokens)
    return result


def _parsed(text: str, file: str) -> ParseResult:
    with importing:
        from nki.compiler.syntax.parser import Parse  # only here: a run on unchanged files needs no grammar

    return Parse(text, file).result()
