"""The pages of the diagnostic codes: why each rule exists, a wrong and a right snippet, the source.

They are written in ``pages/<category>.md``, one section per code:

    ## NKI-V016
    Why the hardware or the language has the rule.
    ```python wrong
    nisa.tensor_copy(dst=tile, src=tile.broadcast(1, 2))
    ```
    ```python right
    ...
    ```
    Source: where the rule is stated.

Title and rule are those of :mod:`nki_isa.codes`. A snippet is Python, or ``shell``: lines that call
``nki-sim``. ``nki-sim check FILE`` reports the code; words ``key=value`` after wrong or right change that:
``command=run`` names another command, others are its options (``target=trn1``). Only the codes of
:data:`NOT_TO_PROVOKE` have no snippets.
"""

from __future__ import annotations

import enum
import functools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nki_isa.codes import CODES, Category, Code

#: Codes without examples: names the API may gain, what depends on what is installed, a bug in nki-sim.
NOT_TO_PROVOKE = frozenset({"NKI-U011", "NKI-L034", "NKI-I004", "NKI-M008"})

_IMPORTS = """\
import nki
import nki.isa as nisa
import nki.language as nl
import numpy as np


"""
_KERNEL = """\
@nki.jit
def kernel(x):
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
"""
_END = """\
    result = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=tile)
    return result


kernel(np.ones((128, 512), np.float32))
"""

#: What is to be known about snippets that are no whole files.
FRAME = (
    "Snippets without imports are a kernel body where `x` is the argument, float32[128, 512] in HBM, and "
    "`tile` a copy of it in SBUF, which is returned at the end. Definitions without imports stand after "
    "`import nki`, `nki.isa as nisa`, `nki.language as nl` and `numpy as np`."
)


class Kind(enum.Enum):
    """What a snippet is an example of."""

    wrong = "wrong"
    right = "right"


@dataclass(frozen=True, slots=True)
class Snippet:
    """One example.

    Attributes:
        kind: wrong or right.
        language: ``"python"`` or ``"shell"``.
        text: as the page shows it.
        options: of the command, and the command where it is not ``check``.
    """

    kind: Kind
    language: str
    text: str
    options: dict[str, str]

    @property
    def is_framed(self) -> bool:
        """True for Python that is no whole file."""
        return self.language == "python" and not re.search(r"^(import|from) ", self.text, re.MULTILINE)

    def command(self) -> list[str]:
        """The words after ``nki-sim``, without the file, that show what the snippet is an example of."""
        words = [self.options.get("command", "check")]
        for name, value in self.options.items():
            words += [] if name == "command" else [f"--{name}", value]
        return words

    def source(self) -> str:
        """The whole file that Python lines stand in; shell lines as they are."""
        if not self.is_framed:
            return self.text
        if "nki.jit" in self.text:
            return _IMPORTS + self.text
        return _IMPORTS + _KERNEL + textwrap.indent(self.text, "    ") + _END


@dataclass(frozen=True, slots=True)
class Page:
    """All there is to say about a code.

    Attributes:
        row: its row of the table of codes.
        why: paragraphs of Markdown.
        snippets: in the order of the page.
        source: who states the rule.
    """

    row: Code
    why: str
    snippets: tuple[Snippet, ...]
    source: str

    def examples(self, kind: Kind) -> list[Snippet]:
        """The snippets of one kind."""
        return [snippet for snippet in self.snippets if snippet.kind is kind]

    def markdown(self, docs: str = "") -> str:
        """The page as Markdown; its links are relative to the folder of documentation, which is at `docs`."""
        why = self.why.replace("](", f"]({docs}")
        parts = [f"## {self.row.code}: {self.row.title}", f"**{self.row.rule}**", why]
        for snippet in self.snippets:
            parts.append(f"{heading(snippet)}:")
            parts.append(f"```{snippet.language}\n{snippet.text}```")
        return "\n\n".join([*parts, f"Source: {self.source}", ""])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; snippets as whole files."""
        return {
            "code": self.row.code,
            "category": self.row.category.value,
            "title": self.row.title,
            "rule": self.row.rule,
            "why": self.why,
            "examples": [
                {"kind": s.kind.value, "language": s.language, "text": s.source(), "command": s.command()}
                for s in self.snippets
            ],
            "source": self.source,
        }


def heading(snippet: Snippet) -> str:
    """What stands over a snippet: ``Wrong``, or ``Right (with nki-sim run)``."""
    word = snippet.kind.value.capitalize()
    return f"{word} (with `nki-sim {' '.join(snippet.command())}`)" if snippet.options else word


class MalformedPage(Exception):
    """A file of pages does not have the shape described above."""


@functools.cache
def pages() -> dict[str, Page]:
    """Every page by code, in the order of the files."""
    found: dict[str, Page] = {}
    for category in Category:
        file = resources.files("nki_cli") / "pages" / f"{category.value}.md"
        for page in parse(file.read_text(encoding="utf-8")):
            if page.row.code in found or page.row.category is not category:
                raise MalformedPage(f"{page.row.code} stands in {category.value}.md or twice")
            found[page.row.code] = page
    return found


_SECTION = re.compile(r"^## (\S+)\n", re.MULTILINE)
_FENCE = re.compile(r"^```(python|shell) (wrong|right)((?: \w+=\S+)*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def parse(text: str) -> Iterator[Page]:
    """The pages of one file.

    Raises:
        MalformedPage: a section is not of the shape described above.
    """
    _, *sections = _SECTION.split(text)
    for code, body in zip(sections[::2], sections[1::2], strict=True):
        prose, mark, source = _FENCE.sub("", body).strip().rpartition("\nSource: ")
        if code not in CODES or not mark or not prose.strip() or "```" in prose + source:
            raise MalformedPage(f"the page of {code} has no known code, no text, no source or a bad snippet")
        snippets = tuple(_snippet(*match) for match in _FENCE.findall(body))
        yield Page(CODES[code], _tight(prose), snippets, " ".join(source.split()))


def _snippet(language: str, kind: str, options: str, text: str) -> Snippet:
    return Snippet(Kind(kind), language, text, dict(word.split("=") for word in options.split()))


def _tight(prose: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", prose).strip()
