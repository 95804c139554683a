"""One way to make a Program of another: other storages, other views of them, another order, other engines.

What does not change is shared by both Programs. Instructions that change are copied, with their lines; what
they were asked to run after is the copies of what they ran after before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nki_isa.diagnostics import NkiError, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.enums import Engine
from nki_isa.tensor.storage import Storage
from nki_isa.tensor.tensor import NkiTensor

Change = Callable[[NkiTensor], NkiTensor]
"""The view in the place of another, or that one itself; an index in a view is asked about apart."""


def in_order(program: Program, body: list[Node]) -> Program:
    """`program` with `body`, its nodes in another order; itself where the order is its own."""
    return program if body is program.body else replace(program, body=body)


def on_engine(instruction: Instruction, engine: Engine) -> Instruction:
    """`instruction` as it is on another engine: a copy without a form, that asks for it."""
    made = copy.copy(instruction)
    made.__dict__.update(engine=engine, on=engine, form=None)
    return made


def on_storages(program: Program, storages: list[Storage], change: Change | None = None) -> Program:
    """`program` on other storages.

    Args:
        program: it stays as it is.
        storages: one for each of its storages, that one itself where it stays.
        change: what becomes of a view; by default the same view of the storage in that place.

    Raises:
        NkiError: what `change` raises, at the line of the instruction that has the view.
    """
    moved = {old: new for old, new in zip(program.storages, storages, strict=True) if old is not new}
    change = change or partial(moved_view, moved=moved)
    copied = _Copy()
    body = [copied.node(node, change) for node in program.body]
    copied.keep_order()
    return replace(
        program,
        storages=storages,
        inputs=[_view(view, change) for view in program.inputs],
        outputs=[_view(view, change) for view in program.outputs],
        body=body,
    )


def spliced(
    program: Program,
    storages: list[Storage],
    moved: Mapping[int, Mapping[Storage, Storage]],
    inserted: Mapping[int, Sequence[Instruction]],
) -> Program:
    """`program` with instructions inserted, and with nodes of its body on other storages.

    Args:
        program: it stays as it is; so do its inputs and outputs.
        storages: its own, and those that take their place at some nodes, each of the layout, data type and
            memory of the one it stands for.
        moved: by position in the body, the storages that take the place of others in that node.
        inserted: by position in the body, the instructions that run right before that node.
    """
    copied = _Copy()
    body: list[Node] = []
    for position, node in enumerate(program.body):
        body += inserted.get(position, ())
        there = moved.get(position)
        made = copied.node(node, partial(moved_view, moved=there) if there else _as_it_is)
        if isinstance(made, Instruction) and isinstance(node, Instruction):
            made.form = node.form  # a form says nothing of which storages they are
        body.append(made)
    copied.keep_order()
    return replace(program, storages=storages, body=body)


def moved_view(view: NkiTensor, moved: Mapping[Storage, Storage]) -> NkiTensor:
    """`view` of the storage that `moved` gives in the place of its own, if it gives one."""
    storage = moved.get(view.storage)
    if storage is None:
        return view
    return NkiTensor(view.shape, view.strides, view.offset, view.dtype, storage, view.dynamic)


def with_views(instruction: Instruction, change: Change) -> Instruction:
    """`instruction` with its views changed: a copy without a form, or itself where none changes."""
    values = instruction.__dict__
    changed = {}
    for name in instruction.fields:
        value = values[name]
        new = _changed(value, change)
        if new is not value:
            changed[name] = new
    if not changed:
        return instruction
    made = copy.copy(instruction)
    made.__dict__.update(changed)
    return made


def _changed(value: Any, change: Change) -> Any:
    if isinstance(value, NkiTensor):
        return _view(value, change)
    if isinstance(value, (list, tuple)):
        items = [_changed(item, change) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            return type(value)(items)
    return value


def _view(view: NkiTensor, change: Change) -> NkiTensor:
    made, dynamic = change(view), view.dynamic
    if dynamic is None or not isinstance(dynamic.index, NkiTensor):
        return made
    index = change(dynamic.index)
    if index is dynamic.index:
        return made
    dynamic = replace(dynamic, index=index)
    return NkiTensor(made.shape, made.strides, made.offset, made.dtype, made.storage, dynamic)


def _as_it_is(view: NkiTensor) -> NkiTensor:
    return view


class _Copy:
    """Copies of nodes with their views changed."""

    def __init__(self) -> None:
        self._made: dict[Instruction, Instruction] = {}

    def node(self, node: Node, change: Change) -> Node:
        """The copy of `node`, the node itself if it is an instruction that does not change."""
        if isinstance(node, (Loop, While)):
            return replace(node, body=[self.node(inner, change) for inner in node.body])
        try:
            made = with_views(node, change)
        except NkiError as found:
            raise found.at(span_of(node.stack), node.stack) from None
        if made is node and any(before in self._made for before in node.after):
            made = copy.copy(node)
        if made is not node:
            self._made[node] = made
        return made

    def keep_order(self) -> None:
        """Have the copies run after the copies of what they ran after before."""
        for made in self._made.values():
            made.after = tuple(self._made.get(before, before) for before in made.after)
