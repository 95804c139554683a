"""What a filled report of a refusal says, as a row of the table of rules.

The form asks for the error text, versions, and a small kernel beside one that is taken
(``.github/ISSUE_TEMPLATE/refusal.md``). A row made of it is a first draft: one place saw it, so it is a note
until more is known.
"""

from __future__ import annotations

import re

from nki_isa.diagnostics import error
from nki_isa.machine.targets import TARGETS, as_target
from nki_isa.rules.rule import Evidence, Rule, Standing, version_of

_HEADING = re.compile(r"^### +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"```(?:python|text)?\n(.*?)```", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

#: The headings of the form, in its order.
FIELDS = (
    "What was refused",
    "The error text",
    "neuronx-cc",
    "Generation",
    "API level",
    "Refused kernel",
    "Kernel that is taken",
    "Documented",
)


def fields_of(text: str) -> dict[str, str]:
    """What stands under each heading of a filled form; comments and fences are taken off.

    Raises:
        NkiError: NKI-L032, a heading is missing or nothing stands under it.
    """
    _, *parts = _HEADING.split(_COMMENT.sub("", text))
    found = {}
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        fence = _FENCE.search(body)
        found[heading] = fence.group(1) if fence else body.strip()
    for name in FIELDS:
        if not found.get(name, "").strip() and name != "Documented":
            help = f"write it under '### {name}'"
            raise error("NKI-L032", f"the report says nothing under {name!r}", help=help)
    return found


def row_of(text: str) -> Rule:
    """The row that a filled form of a refusal makes.

    Raises:
        NkiError: NKI-L032 for a form that is not filled, or versions that are none; NKI-V116 for an unknown
            generation.
    """
    said = fields_of(text)
    name = re.sub(r"[^a-z0-9]+", "-", said["What was refused"].lower()).strip("-")
    compilers = tuple(re.findall(r"\d+(?:\.\d+)+", said["neuronx-cc"]))
    if not compilers:
        help = "write the version that neuronx-cc --version prints, such as 2.27.2878"
        raise error("NKI-L032", f"{said['neuronx-cc']!r} is not a version of neuronx-cc", help=help)
    compilers = tuple(sorted({".".join(v.split(".")[:2]) for v in compilers}, key=version_of))
    targets = tuple(dict.fromkeys(as_target(word).name for word in re.findall(r"\w+", said["Generation"])))
    documented = said.get("Documented", "").strip()
    documented = "" if documented.lower() in ("", "no", "none") else documented
    message = " ".join(said["The error text"].split())
    return Rule(
        name,
        "",
        Standing.error if documented else Standing.note,
        message,
        Evidence(documented, 1, message, targets, compilers),
        wrong=said["Refused kernel"],
        right=said["Kernel that is taken"],
        rule=f"{said['What was refused'].strip().rstrip('.')}.",
        targets=() if set(targets) == set(TARGETS) else targets,
        level=said["API level"].strip(),
    )


__all__ = ["FIELDS", "fields_of", "row_of"]
