"""Reads the text that :mod:`nki_isa.text.printer` writes; every complaint is NKI-L028 with line and column.

A line is one statement, nesting is two spaces deeper, blank lines and lines
that start with ``#`` are skipped. Instructions are built from the registry by
their fields' names, so what an instruction refuses on building (a missing
operand, an operator that does not exist) is refused here with its own code.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import enum
import functools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.diagnostics import Frame, NkiError, Span, error
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.dtypes import DTYPES, DType, as_dtype
from nki_isa.machine.operators import Operator, as_operator
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<ref>[%$@&]\d+)
    | (?P<place>\d+:\d+-\d+:\d+)
    | (?P<number>-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|inf\b))
    | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)
    | (?P<punct>[][(),:=])
    )""",
    re.VERBOSE | re.ASCII,
)

_SECTIONS = ("inputs", "body", "outputs", "sources", "data")
_WORDS = {"None": None, "True": True, "False": False, "inf": math.inf, "nan": math.nan}


@dataclass(slots=True)
class _Line:
    """One statement: its tokens, read from left to right."""

    file: str
    number: int
    text: str
    indent: int
    kinds: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    at: int = 0

    def tokenize(self) -> None:
        text, position, end = self.text, self.indent, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                position += len(text[position:]) - len(text[position:].lstrip())
                self.fail(f"{text[position]!r} is not part of IR text", position)
            kind = match.lastgroup
            self.kinds.append(kind)
            self.words.append(match.group(kind))
            self.columns.append(match.start(kind))
            position = match.end()
        self.kinds.append("end")
        self.words.append("")
        self.columns.append(end)

    def span(self, position: int | None = None) -> Span:
        """The place of character `position`, the next token by default."""
        column = self.columns[min(self.at, len(self.columns) - 1)] if position is None else position
        return Span(self.file, self.number, column + 1)

    def fail(self, message: str, position: int | None = None, help: str | None = None) -> NoReturn:
        raise error("NKI-L028", message, span=self.span(position), help=help)

    def expected(self, what: str) -> NoReturn:
        found = repr(self.words[self.at]) if self.words[self.at] else "the end of the line"
        self.fail(f"expected {what}, found {found}")

    # --- tokens

    @property
    def word(self) -> str:
        """The next token's text, empty at the end."""
        return self.words[self.at]

    @property
    def kind(self) -> str:
        """The next token's kind."""
        return self.kinds[self.at]

    def take(self, kind: str, what: str) -> str:
        if self.kinds[self.at] != kind:
            self.expected(what)
        self.at += 1
        return self.words[self.at - 1]

    def accept(self, word: str) -> bool:
        if self.words[self.at] != word:
            return False
        self.at += 1
        return True

    def expect(self, *words: str) -> None:
        for word in words:
            if self.words[self.at] != word:
                self.expected(repr(word))
            self.at += 1

    def integer(self) -> int:
        word = self.take("number", "an integer")
        try:
            return int(word)
        except ValueError:
            self.at -= 1
            self.expected("an integer")

    def integers(self, opening: str, closing: str) -> tuple[int, ...]:
        """``opening int, int, ... closing``."""
        self.expect(opening)
        found: list[int] = []
        while not self.accept(closing):
            if found:
                self.expect(",")
            found.append(self.integer())
        return tuple(found)

    def reference(self, sign: str, what: str) -> int:
        if self.kinds[self.at] != "ref" or self.words[self.at][0] != sign:
            self.expected(what)
        self.at += 1
        return int(self.words[self.at - 1][1:])

    def string(self) -> str:
        word = self.take("string", "a quoted string")
        try:
            return str(json.loads(word))
        except ValueError:
            self.at -= 1
            self.expected("a quoted string")

    def label(self) -> str:
        """A name, bare or quoted."""
        return self.string() if self.kinds[self.at] == "string" else self.take("name", "a name")

    def finish(self) -> None:
        if self.kinds[self.at] != "end":
            self.expected("the end of the line")


def parse_program(text: str, file: str = "<ir>") -> Program:
    """The Program that `text` prints.

    Args:
        text: what :func:`nki_isa.text.printer.format_program` gives.
        file: the name that diagnostics give to `text`.

    Raises:
        NkiError: NKI-L028, `text` is malformed; or what an instruction refuses on being built.
    """
    return _Parser(text, file).program()


class _Parser:
    def __init__(self, text: str, file: str):
        self._sections: dict[str, tuple[_Line, list[_Line]]] = {}
        self._registers: list[VirtualRegister] = []
        self._stacks: dict[int, tuple[Frame, ...]] = {}
        self._storages: list[Storage] = []
        self._labels: dict[int, Instruction] = {}
        self._split(text, file)

    def _split(self, text: str, file: str) -> None:
        """The lines of each section, by the section's first word."""
        current: list[_Line] | None = None
        last = _Line(file, 1, "", 0)
        for number, content in enumerate(text.splitlines(), 1):
            bare = content.lstrip(" ")
            if not bare.strip() or bare.startswith("#"):
                continue
            last = line = _Line(file, number, content, len(content) - len(bare))
            if line.indent:
                if current is None:
                    line.fail("expected 'program' first", 0)
                current.append(line)
                continue
            word = bare.split(None, 1)[0]
            if (word == "program") != (not self._sections) or word not in ("program", *_SECTIONS):
                wanted = " or ".join(_SECTIONS) if self._sections else "'program' first"
                line.fail(f"expected {wanted}, found {word!r}", 0)
            if word in self._sections:
                line.fail(f"a second section {word!r}", 0)
            current = []
            self._sections[word] = line, current
        for word in ("program", "body"):
            if word not in self._sections:
                last.fail(f"the text has no section {word!r}", len(last.text))

    def program(self) -> Program:
        head, storages = self._sections["program"]
        head.tokenize()
        head.expect("program")
        name = head.label()
        head.expect("target")
        target = head.take("name", "a target")
        head.expect("registers")
        registers = head.integer()
        head.finish()
        self._registers = [VirtualRegister(k) for k in range(registers)]
        for line in self._lines("sources"):
            self._source(line)
        for line in storages:
            line.tokenize()
            self._storage(line)
        for line in self._lines("data"):
            self._data(line)
        inputs, outputs = self._views("inputs"), self._views("outputs")
        return Program(name, target, self._storages, registers, inputs, outputs, self._body())

    def _lines(self, section: str) -> Iterator[_Line]:
        """The lines of a section that has no content beside its name."""
        if section in self._sections:
            head, lines = self._sections[section]
            head.tokenize()
            head.expect(section)
            head.finish()
            for line in lines:
                line.tokenize()
                yield line

    # --- sections

    def _source(self, line: _Line) -> None:
        """``@n function "file" line:column-line:column [from @caller]``."""
        number = line.reference("@", "a source number such as @1")
        function, file = line.label(), line.string()
        place = line.take("place", "a place such as 12:5-12:40")
        caller: tuple[Frame, ...] = ()
        if line.accept("from"):
            caller = self._stack_of(line)
        line.finish()
        self._stacks[number] = (*caller, Frame(function, Span(file, *map(int, re.split("[:-]", place)))))

    def _stack_of(self, line: _Line) -> tuple[Frame, ...]:
        number = line.reference("@", "a source number such as @1")
        if number not in self._stacks:
            line.at -= 1
            line.fail(f"@{number} is not among the sources")
        return self._stacks[number]

    def _stack(self, line: _Line) -> tuple[Frame, ...]:
        """``@n`` and the end of the line, or nothing."""
        stack = self._stack_of(line) if line.kind == "ref" else ()
        line.finish()
        return stack

    def _storage(self, line: _Line) -> None:
        """``%n = kind region dtype[shape] "name" [at (partition, byte)] [@n]``."""
        index = line.reference("%", "a storage such as %0")
        if index != len(self._storages):
            line.at -= 1
            line.fail(f"storages are numbered in order: expected %{len(self._storages)}")
        line.expect("=")
        kind = line.take("name", "a kind such as local or input")
        region = line.take("name", "a memory")
        if region not in MemoryRegion.__members__:
            line.at -= 1
            line.expected(f"a memory ({', '.join(MemoryRegion.__members__)})")
        dtype = self._dtype(line)
        shape = line.integers("[", "]")
        name = line.string()
        address = None
        if line.accept("at"):
            line.expect("(")
            partition = line.integer()
            line.expect(",")
            address = partition, line.integer()
            line.expect(")")
        stack = self._stack(line)
        self._storages.append(Storage(index, name, MemoryRegion[region], shape, dtype, address, kind, stack))

    def _dtype(self, line: _Line) -> DType:
        name = line.take("name", "a data type")
        if name not in DTYPES:
            line.at -= 1
            line.expected("a data type")
        return as_dtype(name)

    def _data(self, line: _Line) -> None:
        """``%n "base64"``."""
        storage = self._storage_of(line)
        try:
            storage.data = base64.b64decode(line.string(), validate=True)
        except binascii.Error:
            line.at -= 1
            line.expected("base64")
        line.finish()

    def _storage_of(self, line: _Line) -> Storage:
        index = line.reference("%", "a tensor such as %0")
        if index >= len(self._storages):
            line.at -= 1
            line.fail(f"there is no storage %{index}")
        return self._storages[index]

    def _register(self, line: _Line) -> VirtualRegister:
        index = line.reference("$", "a register such as $0")
        if index >= len(self._registers):
            line.at -= 1
            line.fail(f"${index} is outside the {len(self._registers)} registers of the program")
        return self._registers[index]

    def _views(self, section: str) -> list[NkiTensor]:
        found: list[NkiTensor] = []
        if section in self._sections:
            line, nested = self._sections[section]
            if nested:
                nested[0].fail(f"{section} stand on one line", nested[0].indent)
            line.tokenize()
            line.expect(section)
            while line.kind != "end":
                if found:
                    line.expect(",")
                found.append(self._view(line))
        return found

    # --- the body

    def _body(self) -> list[Node]:
        body: list[Node] = []
        levels = [body]  # the lists that are open, by depth
        for line in self._lines("body"):
            depth, rest = divmod(line.indent, 2)
            if rest or depth > len(levels):
                line.fail("the indentation fits no loop above", line.indent)
            del levels[depth:]
            node = self._node(line)
            levels[-1].append(node)
            if isinstance(node, Loop | While):
                levels.append(node.body)
        return body

    def _node(self, line: _Line) -> Node:
        if line.accept("loop"):
            index = self._register(line)
            index.frozen = True
            line.expect("=")
            start = self._bound(line)
            line.expect("to")
            stop = self._bound(line)
            line.expect("step")
            step = line.integer()
            return Loop(index, start, stop, step, [], self._stack(line))
        if line.accept("while"):
            condition = self._register(line)
            return While(condition, [], self._stack(line))
        return self._instruction(line)

    def _bound(self, line: _Line) -> int | VirtualRegister:
        return self._register(line) if line.kind == "ref" else line.integer()

    def _instruction(self, line: _Line) -> Instruction:
        opcode = line.take("name", "an instruction")
        cls = REGISTRY.get(opcode)
        if cls is None:
            line.at -= 1
            near = difflib.get_close_matches(opcode, REGISTRY, 1)
            line.fail(f"{opcode} is not an instruction", help=f"write {near[0]}" if near else None)
        values: dict[str, Any] = {}
        while line.kind == "name" and line.words[line.at + 1] == "=":
            name = line.word
            if name not in cls.fields:
                near = difflib.get_close_matches(name, cls.fields, 1)
                line.fail(f"{opcode} has no field {name!r}", help=f"write {near[0]}" if near else None)
            if name in values:
                line.fail(f"{name!r} is given twice")
            line.at += 1
            line.expect("=")
            values[name] = self._value(line, cls.fields[name].kind)
        label = line.reference("&", "a label such as &1") if line.accept("as") else None
        after: list[Instruction] = []
        while line.accept("," if after else "after"):
            after.append(self._labelled(line))
        stack = self._stack(line)
        try:
            instruction = cls(**values)
        except NkiError as problem:
            raise problem.at(Span(line.file, line.number, line.indent + 1)) from None
        instruction.stack, instruction.after = stack, tuple(after)
        if label is not None:
            self._labels[label] = instruction
        return instruction

    def _labelled(self, line: _Line) -> Instruction:
        number = line.reference("&", "a label such as &1")
        if number not in self._labels:
            line.at -= 1
            line.fail(f"no instruction before this one is &{number}")
        return self._labels[number]

    def _value(self, line: _Line, kind: Any) -> Any:
        """A value for a field of `kind`, None where nothing says what it takes."""
        token, word = line.kind, line.word
        if token == "ref":
            return self._register(line) if word[0] == "$" else self._view(line)
        if token == "number":
            line.at += 1
            return int(word) if word.lstrip("-").isdigit() else float(word)
        if token == "string":
            return line.string()
        if word in _BRACKETS:
            line.at += 1
            return self._items(line, word)
        if token != "name":
            line.expected("a value")
        line.at += 1
        if word in _WORDS:
            return _WORDS[word]
        value = _named(word, kind)
        if value is None:
            line.at -= 1
            line.fail(f"{word} is not a value this field takes")
        return value

    def _items(self, line: _Line, opening: str) -> list[Any] | tuple[Any, ...]:
        """The values of a list or tuple, after its opening bracket."""
        items: list[Any] = []
        while not line.accept(_BRACKETS[opening]):
            if items:
                line.expect(",")
            items.append(self._value(line, None))
        return items if opening == "[" else tuple(items)

    def _view(self, line: _Line) -> NkiTensor:
        """``%n`` or ``%n dtype[offset n, stride:count, ..., kind index stride n dim n limit n]``."""
        start = line.at
        storage = self._storage_of(line)
        if line.word != "[" and not (line.kind == "name" and line.words[line.at + 1] == "["):
            return NkiTensor.whole(storage)
        dtype = self._dtype(line) if line.kind == "name" else storage.dtype
        line.expect("[", "offset")
        offset = line.integer()
        strides: list[int] = []
        shape: list[int] = []
        dynamic = None
        while dynamic is None and line.accept(","):
            if line.kind == "name":
                dynamic = self._dynamic(line)
                continue
            strides.append(line.integer())
            line.expect(":")
            shape.append(line.integer())
        line.expect("]")
        low, high = (offset + far for far in reach(shape, strides))
        held = storage.partitions * storage.row_bytes // dtype.itemsize
        if dynamic is None and (low < 0 or high >= held):
            line.at = start
            line.fail(f"the view spans elements {low} to {high} of the {held} of %{storage.index}")
        return NkiTensor(tuple(shape), tuple(strides), offset, dtype, storage, dynamic)

    def _dynamic(self, line: _Line) -> DynamicOffset:
        kind = line.take("name", "a kind of run-time offset")
        index = self._register(line) if line.word.startswith("$") else self._view(line)
        numbers = []
        for word in ("stride", "dim", "limit"):
            line.expect(word)
            numbers.append(line.integer())
        return DynamicOffset(kind, index, *numbers)


_BRACKETS = {"[": "]", "(": ")"}


@functools.cache
def _kinds() -> dict[str, Any]:
    """What a name may be qualified with: ``op``, ``dtype`` and the enumerations that instructions take."""
    taken = {field.kind for cls in REGISTRY.values() for field in cls.fields.values()}
    found = {kind.__name__: kind for kind in taken if isinstance(kind, enum.EnumMeta)}
    return {"op": Operator, "dtype": DType, **found}


def _named(word: str, kind: Any) -> Any:
    """The enumeration member, operator or dtype `word` names, as a value of `kind`; None if there is none."""
    if "." in word:
        family, word = word.split(".")
        kind = _kinds().get(family)
    if kind is DType:
        return DTYPES.get(word)
    if kind is Operator:
        try:
            return as_operator(word)
        except NkiError:
            return None
    return kind.__members__.get(word) if isinstance(kind, enum.EnumMeta) else None
