"""The pages of the diagnostic codes: why each rule exists, a wrong and a right snippet, the source.

They are written in ``codes/<category>.md``, one section per code:

    ## NKI-V016
    Why the hardware or the language has the rule.
    ```python wrong
    nisa.tensor_copy(dst=tile, src=tile.broadcast(1, 2))
    ```
    ```python right
    ...
    ```
    Source: where the rule is stated.

Title and rule are those of :mod:`nki_isa.diagnostics.codes`. A snippet is Python, or ``shell``: lines that
call ``nki-sim``. ``nki-sim check FILE`` reports the code; words ``key=value`` after wrong or right change
that: ``command=run`` names another command, others are its options (``target=trn1``). Only the codes of
:data:`NOT_TO_PROVOKE` have no snippets.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nki_isa.diagnostics.codes import CODES, Category, Code
from nki_isa.rules import RULES, Rule, Standing
from nki_tools.snippets import is_framed, whole

#: Codes without examples: names the API may gain, what depends on what is installed or on a process that
#: ends, a bug in nki-sim.
NOT_TO_PROVOKE = frozenset({"NKI-U011", "NKI-L034", "NKI-L058", "NKI-I004", "NKI-M008", "NKI-C020"})


class ExampleKind(enum.Enum):
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

    kind: ExampleKind
    language: str
    text: str
    options: dict[str, str]

    @property
    def is_framed(self) -> bool:
        """True for Python that is not a whole file."""
        return self.language == "python" and is_framed(self.text)

    def command(self) -> list[str]:
        """The words after ``nki-sim``, without the file, that show what the snippet is an example of."""
        words = ["--api", self.options["api"]] if "api" in self.options else []
        words.append(self.options.get("command", "check"))
        for name, value in self.options.items():
            words += [] if name in ("command", "api") else [f"--{name}", value]
        return words

    def source(self) -> str:
        """The whole file that Python lines stand in; shell lines as they are."""
        return whole(self.text) if self.language == "python" else self.text


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

    def examples(self, kind: ExampleKind) -> list[Snippet]:
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
        if category is Category.compiler:
            found.update(_seen())
            continue
        file = resources.files("nki_cli") / "docs" / "codes" / f"{category.value}.md"
        for page in parse(file.read_text(encoding="utf-8")):
            if page.row.code in found or page.row.category is not category:
                raise MalformedPage(f"{page.row.code} stands in {category.value}.md or twice")
            found[page.row.code] = page
    return found


def _seen() -> dict[str, Page]:
    """The pages of the codes whose rows are data: what compilers were seen to refuse."""
    rows: dict[str, list[Rule]] = {}
    for row in RULES.values():
        if row.code and CODES[row.code].category is Category.compiler:
            rows.setdefault(row.code, []).append(row)
    return {code: _page_of(CODES[code], found) for code, found in rows.items()}


def _page_of(code: Code, rows: list[Rule]) -> Page:
    why = "\n\n".join(f"{row.reason} This is {CLASSES[row.standing]}." for row in rows)
    source = "; ".join(dict.fromkeys(str(row.evidence) for row in rows))
    wrong = tuple(twin(row, ExampleKind.wrong) for row in rows if row.wrong)
    right: list[Snippet] = []
    for row in rows:
        made = twin(row, ExampleKind.right)
        if row.right and made not in right:
            right.append(made)
    return Page(code, why, (*wrong, *right), source)


#: What a class of rules means, in words.
CLASSES = {
    Standing.error: "an error",
    Standing.seen: "a warning seen at compile: a compiler refused it, and no page of the SDK says so",
    Standing.warning: "a warning: it was seen to go wrong, and public kernels do it",
    Standing.note: "a note: seen once, or against the documentation",
    Standing.never: "no finding: working kernels do it",
}


def twin(row: Rule, kind: ExampleKind) -> Snippet:
    """The wrong or the right twin of a row as a snippet."""
    options = {"target": row.targets[0]} if row.targets and row.targets[0] != "trn2" else {}
    if row.until:
        options["api"] = row.until
    return Snippet(kind, "python", row.wrong if kind is ExampleKind.wrong else row.right, options)


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
    return Snippet(ExampleKind(kind), language, text, dict(word.split("=") for word in options.split()))


def _tight(prose: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", prose).strip()
