"""``nki-sim explain CODE``: the page of a diagnostic code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from nki_cli.docs.code_pages import ExampleKind, Page, Snippet, heading, pages, twin
from nki_cli.options import ColorOption, DataFormat, DataFormatOption
from nki_cli.screen import Format, Screen
from nki_isa.diagnostics import Diagnostic
from nki_isa.diagnostics.codes import CODES, Code
from nki_isa.machine.targets import TARGETS
from nki_isa.rules import RULES, Rule
from nki_tools.snippets import FRAME


def explain(
    code: Annotated[
        str,
        typer.Argument(
            metavar="CODE",
            help="For example NKI-V103, V103, or the name of a rule: start-partition.",
            show_default=False,
        ),
    ],
    example: Annotated[
        ExampleKind | None,
        typer.Option(help="Print only this example: a whole file, or shell lines.", show_default=False),
    ] = None,
    format: DataFormatOption = DataFormat.text,
    no_color: ColorOption = False,
) -> None:
    """Explain a code, or a rule of the compiler: meaning, reason, wrong and right examples."""
    screen = Screen.open(Format(format.value), no_color)
    rule = RULES.get(code.strip().lower())
    if rule is not None:
        _explain_rule(screen, rule, example)
        return
    row = find(code)
    if row is None:
        near = difflib.get_close_matches(_spelled(code), CODES, 3)
        near += difflib.get_close_matches(code.strip().lower(), RULES, 3)
        remedy = f"did you mean {', '.join(near)}?" if near else "a code looks like NKI-V103"
        screen.fail([Diagnostic("NKI-L032", f"{code!r} is not a diagnostic code", help=remedy)])
    page = pages()[row.code]
    if example is not None:
        _print_example(screen, page, example)
    elif screen.format is Format.json:
        screen.json(page.as_dict())
    else:
        screen.show(*_layout(page))


def find(code: str) -> Code | None:
    """The row of a code, written with or without ``NKI-``, in any case."""
    return CODES.get(_spelled(code))


def _explain_rule(screen: Screen, rule: Rule, example: ExampleKind | None) -> None:
    """Print a row of the table of rules, or one of its twins."""
    snippets = [made for kind in ExampleKind if (made := twin(rule, kind)).text]
    if example is not None:
        wanted = [snippet for snippet in snippets if snippet.kind is example]
        if not wanted:
            screen.fail([Diagnostic("NKI-L032", f"{rule.name} has no {example.value} example")])
        screen.out.file.write(wanted[0].source())
    elif screen.format is Format.json:
        screen.json(
            {
                "rule": rule.name,
                "code": rule.code or None,
                "class": rule.standing.value,
                "text": rule.sentence,
                "reason": rule.reason,
                "generations": list(rule.targets) or list(TARGETS),
                "evidence": str(rule.evidence),
                "examples": [
                    {"kind": s.kind.value, "text": s.source(), "command": s.command()} for s in snippets
                ],
            }
        )
    else:
        code = f", {rule.code}" if rule.code else ""
        head = Text.assemble((rule.name, "bold"), f" ({rule.standing.value}{code})")
        where = ", ".join(rule.targets) or "all"
        lines: list[RenderableType] = [head, "", rule.sentence, "", *_paragraphs(rule.reason)]
        lines += [f"Generations: {where}", f"Evidence: {rule.evidence}", ""]
        screen.show(*lines, *_shown(snippets))


def _spelled(code: str) -> str:
    short = re.sub(r"^NKI[-_ ]?", "", code.strip().upper())
    return f"NKI-{short}"


def _print_example(screen: Screen, page: Page, kind: ExampleKind) -> None:
    found = page.examples(kind)
    if not found:
        message = f"{page.row.code} has no {kind.value} example: nothing a user writes leads to it"
        screen.fail([Diagnostic("NKI-L032", message)])
    example = found[0]
    if example.language == "python" and example.options:
        screen.out.file.write(f"# nki-sim {' '.join(example.command())} FILE\n")
    screen.out.file.write(example.source())


def _layout(page: Page) -> list[RenderableType]:
    row = page.row
    lines: list[RenderableType] = [
        Text.assemble((row.code, "bold"), f" ({row.category.value}): {row.title}"),
        "",
        row.rule,
        "",
        *_paragraphs(page.why),
    ]
    return [*lines, *_shown(page.snippets), Text(_plain(f"Source: {page.source}"))]


def _shown(snippets: Iterable[Snippet]) -> list[RenderableType]:
    """Examples with their headings, and what is to be known of them."""
    from rich.syntax import Syntax  # slow to import, and only pages need it

    lines: list[RenderableType] = []
    kept = list(snippets)
    for snippet in kept:
        code = Syntax(snippet.text.rstrip("\n"), snippet.language, background_color="default")
        lines += [Text(_plain(heading(snippet)), "bold"), Padding(code, (0, 0, 0, 4)), ""]
    if any(snippet.is_framed for snippet in kept):
        lines += [Text(_plain(FRAME)), ""]
    return lines


def _paragraphs(markdown: str) -> list[RenderableType]:
    return [part for text in markdown.split("\n\n") for part in (Text(_plain(" ".join(text.split()))), "")]


def _plain(markdown: str) -> str:
    """Markdown without its signs: the target of a link stands behind its words."""
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (docs/\2)", markdown).replace("`", "")
