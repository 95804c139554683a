"""Forms: what repeats in an unrolled program, worked out once.

The form of an instruction is its class, engine and attributes, and for each operand its layout, data type,
memory, the partition it starts at and which other operands share its storage. What an instruction is beyond
its form are the storages of its operands, where in them they lie, and the line it comes from. Whether it is
legal, what it costs, what it touches and what it computes are facts of the form.

:class:`Forms` interns the forms of one Program. Placement, dependencies, timing, execution and checks ask an
instruction for what it touches and get the answer of its form.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_isa.tensor.kinds import KINDS
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor, signature

if TYPE_CHECKING:
    from nki_isa.cost import Cost
    from nki_isa.machine.target import Target

#: Values that exist once and for all: their identity says everything.
_SINGLE = (enum.Enum, Operator, DType, bool, type(None))
_SINGLE_KINDS = (KINDS["bool"], KINDS["Operator"])

_EMPTY: tuple[()] = ()

_Views = Callable[[dict[str, Any]], "tuple[NkiTensor, ...]"]
_Key = tuple[Any, ...]


class Form:
    """What the instructions of one form have in common.

    Attributes:
        sample: one of them; what is asked of it holds for all.
        reads, writes: the tensors an instruction of this form reads and writes, from its operands by name and
            in the order of :attr:`Instruction.reads`; None where one of them is not an operand as it was
            given: an index, an item of a list, a part of a destination.
        read_names, written_names: the names of these operands, or None.
        is_given: True if all it touches are operands as they were given: `reads` and `writes` are there.
        is_plain: True if no address is known at run time only.
        updates: names of operands that are read and then written in place.
        has_registers: True if it may name registers.
        has_remarks: True if there are warnings or notes about it.
        variants: forms that differ in the attributes that specialization settles, by these.
    """

    __slots__ = (
        "_cost",
        "_limits",
        "has_registers",
        "has_remarks",
        "is_given",
        "is_plain",
        "read_names",
        "reads",
        "sample",
        "updates",
        "variants",
        "writes",
        "written_names",
    )

    def __init__(self, sample: Instruction):
        self.sample = sample
        self.variants: dict[Any, Form] = {}
        self.has_remarks = False
        self._cost: tuple[Target, Cost] | None = None
        self._limits: dict[str, int] | None = None
        values = sample.__dict__
        read, written = sample.views_read(), sample.views_written()
        named = {name: value for name, value in values.items() if type(value) is NkiTensor}
        self.read_names, self.reads = _by_name(read, named)
        self.written_names, self.writes = _by_name(written, named)
        self.is_given = self.reads is not None and self.writes is not None
        views = {signature(named[name]) for name in self.written_names or ()}
        self.updates = frozenset(n for n in self.read_names or () if signature(named[n]) in views)
        self.is_plain = all(view.dynamic is None for view in (*read, *written))
        self.has_registers = bool(sample.registers_read or sample.registers_written)

    def cost(self, target: Target) -> Cost:
        """As :meth:`Instruction.cost` of each of them."""
        if self._cost is None or self._cost[0] is not target:
            self._cost = target, self.sample.cost(target)
        return self._cost[1]

    def holds(self, places: list[tuple[str, int]]) -> bool:
        """True if views that start at these elements of a partition stay within it.

        Args:
            places: operand and element, of operands that do not start at the first.
        """
        if self._limits is None:
            self._limits = _limits(self.sample)
        limits = self._limits
        return all([place <= limits[name] for name, place in places])


def _by_name(
    views: list[NkiTensor], named: dict[str, NkiTensor]
) -> tuple[tuple[str, ...] | None, _Views | None]:
    """The names of `views` among the operands, and what gets them; None where one is not an operand."""
    names: list[str] = []
    for view in views:
        name = next((n for n, value in named.items() if value is view and n not in names), None)
        name = name or next((n for n, value in named.items() if value is view), None)
        if name is None:
            return None, None
        names.append(name)
    if len(names) > 1:
        return tuple(names), itemgetter(*names)
    if names:
        only = names[0]
        return (only,), lambda values: (values[only],)
    return (), lambda values: ()


def _limits(sample: Instruction) -> dict[str, int]:
    """By operand, the last element of a partition (in HBM, of the storage) that its view can start at."""
    found = {}
    for name, value in sample.__dict__.items():
        if type(value) is NkiTensor:
            storage = value.storage
            row = storage.row_bytes // value.dtype.itemsize or 1
            before, after = reach(value.shape, value.strides)
            limit = row * (storage.partitions - value.offset // row) - 1 - after
            if storage.on_chip:
                limit = min(limit, row * value.shape[0] - 1 - after)
            found[name] = limit if before == 0 else -1  # one that steps back is checked by itself
    return found


class _Class(NamedTuple):
    """The fields of an instruction class but its label: those whose values exist once, and the others."""

    singles: Callable[[dict[str, Any]], Any]
    others: tuple[str, ...]


_CLASSES: dict[type[Instruction], _Class] = {}


def _class_of(kind: type[Instruction]) -> _Class:
    found = _CLASSES.get(kind)
    if found is None:
        if REGISTRY.get(kind.opcode) is not kind:
            raise _Unknown  # it may keep facts beside its fields
        singles: list[str] = []
        others: list[str] = []
        for name, field in kind.fields.items():
            if name == "name":  # a label: no rule reads it
                continue
            is_single = field.role is Role.attribute and (
                isinstance(field.kind, enum.EnumMeta)
                or (bool(field.kinds) and all(one in _SINGLE_KINDS for one in field.kinds))
            )
            (singles if is_single else others).append(name)
        singles += ["on"] * (1 if singles else 2)  # the engine; at least two, and so always a tuple
        found = _CLASSES[kind] = _Class(itemgetter(*singles), tuple(others))
    return found


class _Unknown(Exception):
    """A value of which it is not known what it decides."""


class Forms:
    """The forms of one Program.

    Args:
        target: the generation whose rules :meth:`check` asks.
    """

    def __init__(self, target: Target):
        self.target = target
        self._forms: dict[_Key | None, Form] = {}
        self._memories: dict[Storage, int] = {}
        self._facts: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def of(self, instruction: Instruction) -> Form:
        """The form of an instruction that is not changed any more, which keeps it."""
        form: Form | None = instruction.__dict__.get("form")
        if form is None:
            key, _ = self._key(instruction)
            form = instruction.form = self._intern(key, instruction)
        return form

    def check(self, instruction: Instruction) -> tuple[Diagnostic, ...]:
        """As ``instruction.check(target)``, for each form once; gives the instruction its form.

        A form of which there is something to say below an error says it of each instruction.

        Raises:
            NkiValidationError: its own message; a form that breaks a rule is not kept.
        """
        key, places = self._key(instruction)
        form = self._forms.get(key)
        remarks: tuple[Diagnostic, ...] = ()
        if form is None or form.has_remarks or (places and not form.holds(places)):
            remarks = instruction.check(self.target)
            form = self._intern(key, instruction)
            form.has_remarks = bool(remarks)
        instruction.form = form
        return remarks

    def settle(self, instruction: Instruction) -> None:
        """Give an instruction its form anew, as specialization has settled some of its attributes."""
        values = instruction.__dict__
        before: Form = values["form"]
        settled = tuple([values[name] for name in instruction.settles])
        form = before.variants.get(settled)
        if form is None:
            key, _ = self._key(instruction)
            form = self._intern(key, instruction)
            if all(type(value) is bool for value in settled):
                before.variants[settled] = form
        instruction.form = form

    def _intern(self, key: _Key | None, instruction: Instruction) -> Form:
        form = self._forms.get(key)
        if form is None:
            form = Form(instruction)
            if key is not None:
                self._forms[key] = form
        return form

    # --- keys

    def _key(self, instruction: Instruction) -> tuple[_Key | None, list[tuple[str, int]]]:
        """What a form is found by, None if that is not known; and where in their partitions views start."""
        kind = type(instruction)
        try:
            singles, others = _CLASSES.get(kind) or _class_of(kind)
        except _Unknown:
            return None, []
        values = instruction.__dict__
        parts: list[Any] = [kind]
        parts += map(id, singles(values))
        storages: list[Any] = []
        offsets: list[int] = []
        places: list[tuple[str, int]] = []
        memories = self._memories
        for name in others:
            value = values[name]
            if type(value) is NkiTensor and value.dynamic is None:
                storage, offset = value.storage, value.offset
                memory = memories.get(storage)
                if memory is None:
                    memory = self._memory(storage)
                dtype = value.dtype
                if offset:
                    start, low = divmod(offset, storage.row_bytes // dtype.itemsize or 1)
                    if low:
                        places.append((name, low))
                        if storage.region is MemoryRegion.psum:
                            start = -offset  # in which bank, and at which byte of it, matters there
                else:
                    start = 0
                if storage in storages:
                    first = storages.index(storage)
                    parts += (
                        first,
                        memory,
                        value.shape,
                        value.strides,
                        start,
                        id(dtype),
                        offset - offsets[first],
                    )
                else:
                    parts += (memory, value.shape, value.strides, start, id(dtype))
                storages.append(storage)
                offsets.append(offset)
            elif value is None or value is True or value is False or value is _EMPTY:
                parts.append(value)
            else:
                try:
                    self._value(value, parts, storages, offsets)
                except _Unknown:
                    return None, places
        return tuple(parts), places

    def _value(self, value: Any, parts: list[Any], storages: list[Any], offsets: list[int]) -> None:
        kind = type(value)
        if kind is NkiTensor:
            self._tensor(value, parts, storages, offsets)
        elif isinstance(value, _SINGLE):
            parts.append(id(value))
        elif kind is float:
            parts += (kind, str(value))  # 0.0 and -0.0 are equal, nan is not
        elif kind is int or kind is str:
            parts += (kind, value)
        elif kind is VirtualRegister:
            parts += (kind, value.frozen, _shared(value, storages, offsets))
        elif kind is list or kind is tuple:
            parts += (kind, len(value))
            for item in value:
                self._value(item, parts, storages, offsets)
        else:
            raise _Unknown

    def _tensor(self, tensor: NkiTensor, parts: list[Any], storages: list[Any], offsets: list[int]) -> None:
        """Of a view in a list or with a run-time address, where all of its place counts."""
        storage = tensor.storage
        parts += (_shared(storage, storages, offsets), self._memory(storage), tensor.shape, tensor.strides)
        parts += (tensor.offset, id(tensor.dtype))
        dynamic = tensor.dynamic
        if dynamic is not None:
            parts += (dynamic.kind, dynamic.stride, dynamic.dim, dynamic.limit)
            self._value(dynamic.index, parts, storages, offsets)

    def _memory(self, storage: Storage) -> int:
        """A number for what rules and costs see of a storage."""
        found = self._memories.get(storage)
        if found is None:
            region, dtype = id(storage.region), id(storage.dtype)  # there is one of each
            facts = (region, storage.shape, dtype, storage.address, storage.kind)
            found = self._memories[storage] = self._facts.setdefault(facts, len(self._facts))
        return found


def _shared(thing: Any, things: list[Any], offsets: list[int]) -> int:
    """The place of a storage or register among those before it."""
    for k, other in enumerate(things):
        if other is thing:
            return k
    things.append(thing)
    offsets.append(0)
    return len(things) - 1
