"""What an editor shows over a name of the nki API, as Markdown: the facts that `nki-sim isa` prints."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from nki.compiler.checker import scope
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import walk
from nki_cli.instruction_facts import as_dict, signature_of, summary_of
from nki_isa.diagnostics import Span
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target

_Named = tree.Name | tree.Attribute | tree.keyword


def hover(text: str, path: str, line: int, column: int, target: Target) -> tuple[Span, str] | None:
    """The name of the nki API at a place of a text, and its page; None where there is none.

    Args:
        text: Python, as it stands in an editor.
        path: where it is saved, for imports.
        line, column: the place, counted from 1.
        target: the generation whose figures are shown.
    """
    names = scope.text_scope(Path(path), text)
    node = _innermost(names.source.module, line, column)
    if node is None:
        return None
    if isinstance(node, tree.keyword):  # the name of an argument: what is called takes it
        call = _call_of(names.source.module, node)
        found = scope.resolve(call.func, names) if call else None
    else:
        found = scope.resolve(node, names)
    page = _page(found.value, target) if isinstance(found, scope.Host) else None
    return (node.span(path), page) if page else None


def _innermost(module: tree.Module, line: int, column: int) -> _Named | None:
    """The smallest chain of names, or the name of an argument, that holds a place."""
    place = (line, column - 1)
    found: _Named | None = None
    for node in walk(module):  # parents come before their parts
        if isinstance(node, (tree.Name, tree.Attribute)):
            end = (node.end_lineno, node.end_col_offset)
        elif isinstance(node, tree.keyword) and node.arg:
            end = (node.lineno, node.col_offset + len(node.arg))
        else:
            continue
        if (node.lineno, node.col_offset) <= place <= end:
            found = node
    return found


def _call_of(module: tree.Module, keyword: tree.keyword) -> tree.Call | None:
    calls = (node for node in walk(module) if isinstance(node, tree.Call))
    return next((call for call in calls if any(k is keyword for k in call.keywords)), None)


def _page(value: Any, target: Target) -> str | None:
    """The page of something of nki's own."""
    if isinstance(value, (DType, Operator)):
        return _code(repr(value))
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    if not scope.is_nki(module):
        return None
    name = getattr(value, "__name__", "")
    if module == "nki.isa" and name in REGISTRY:
        return instruction_page(REGISTRY[name], target)
    text = inspect.getdoc(value) or ""
    if isinstance(value, ModuleType):
        return f"**{name}**\n\n{text}"
    if not callable(value):
        return None
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = ""
    return f"{_code(f'{name}{signature}')}\n\n{text}"


def instruction_page(cls: type[Instruction], target: Target) -> str:
    """Signature, description, engines, rules and cost figures of an instruction."""
    facts = as_dict(cls, target)
    description = facts["description"].removeprefix(summary_of(cls)).strip()
    parts = [
        _code(signature_of(cls)),
        summary_of(cls),
        description,
        f"**Engines**: {', '.join(facts['engines']) or 'none'} · since {facts['since']}",
    ]
    if facts["constraints"]:
        rules = (f"- {rule['code']}: {rule['rule']}" for rule in facts["constraints"])
        parts.append("\n".join(["**Rules**", "", *rules]))
    if facts["figures"]:
        figures = (
            f"- {f['figure']} = {f['value']:.6g} {f['unit']} ({f['evidence']}: {f['source']})"
            for f in facts["figures"]
        )
        heading = f"**Time** on the {cls.engines[0].name} engine of {target.name}"
        parts.append("\n".join([heading, "", *figures]))
    parts.append(f"Source: {facts['source']}")
    return "\n\n".join(part for part in parts if part)


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
