"""The diagnostic codes: ``docs/errors.md``, their index, and ``docs/errors``, a file per category."""

from __future__ import annotations

import re

from nki_cli.docs.code_pages import pages
from nki_isa.diagnostics.codes import CODES, Category, Code
from nki_tools.snippets import FRAME

_MARK = (
    "<!-- Printed by `python -m nki_cli.docs docs` from nki_cli/docs/codes and "
    "nki_isa/diagnostics/codes.py. -->"
)

#: Whose business each category is.
MEANING = {
    Category.language: "The text of the kernel, or a use of the tools: what the language has and lacks.",
    Category.validation: "One instruction, tensor or view: what the hardware and its API accept.",
    Category.compiler: "What compilers and devices were seen to refuse, with the evidence.",
    Category.memory: "SBUF and PSUM: what fits, and where.",
    Category.hazard: "What only running shows: races, unwritten bytes, indices outside of tensors.",
    Category.numeric: "What the numbers show.",
    Category.unsupported: "Real, and not modelled by this project: refused by name, not guessed.",
    Category.internal: "A mistake of this project, not of the kernel. Please report it.",
}

_HEAD = f"""\
# Errors

{_MARK}

Every finding has a code, your own line, the rule with its numbers, and a remedy. A code never changes its
meaning. Its page says why the rule exists, with a wrong and a right example and the source of the rule;
`nki-sim explain CODE` prints it, and `nki-sim explain CODE --example right` an example as a whole file.

A kernel either runs or is refused with one of these codes. A Python traceback from inside the simulator is
a bug in nki-sim.

{FRAME}
"""


def files() -> dict[str, str]:
    """The text of each file by its path in the folder of documentation."""
    found = {"errors.md": _index()}
    for category in Category:
        own = [page for page in pages().values() if page.row.category is category]
        meaning = f"{MEANING[category]} [All codes](../errors.md)."
        text = [f"# Errors: {category.value}", _MARK, meaning, FRAME]
        text += [page.markdown(docs="../") for page in own]
        found[f"errors/{category.value}.md"] = "\n\n".join(text)
    return found


def _index() -> str:
    parts = [_HEAD]
    for category in Category:
        rows = [row for row in CODES.values() if row.category is category and row.code in pages()]
        table = ["| code | title | rule |", "|---|---|---|"]
        for row in sorted(rows, key=lambda row: row.code):
            table.append(f"| [{row.code}]({place(row)}) | {_cell(row.title)} | {_cell(row.rule)} |")
        parts.append(f"## {category.value.capitalize()}\n\n{MEANING[category]}\n")
        parts.append("\n".join([*table, ""]))
    return "\n".join(parts)


def place(row: Code) -> str:
    """The address of a code's page, from the folder of the documentation."""
    return f"errors/{row.category.value}.md#{_anchor(f'{row.code}: {row.title}')}"


def _anchor(heading: str) -> str:
    """Where GitHub's and most other renderers put a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
