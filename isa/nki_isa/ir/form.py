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
import functools
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter, le
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from nki_isa.diagnostics import Diagnostic
from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_isa.tensor.kinds import KINDS
from nki_isa.tensor.storage import PSUM, Storage, VirtualRegister
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor, signature

if TYPE_CHECKING:
    from nki_isa.cost import Cost
    from nki_isa.machine.target import Target

#: Values that exist once and for all: their identity says everything.
_SINGLE = (enum.Enum, Operator, DType, bool, type(None))
_SINGLE_KINDS = (KINDS["bool"], KINDS["Operator"])

#: Values of calls of which type and value say everything.
_PLAIN = (*_SINGLE, int, float, str, FunctionType)

_EMPTY: tuple[()] = ()

_Getter = Callable[[dict[str, Any]], "tuple[Any, ...]"]
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
        self._limits: tuple[int, ...] | None = None
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

    def holds(self, places: list[int]) -> bool:
        """True if views that start at these elements of a partition stay within it.

        Args:
            places: of each operand that is a tensor with a known address, in the order of the fields.
        """
        if self._limits is None:
            self._limits = limits_of(self.sample, self.sample.fields)
        return all(map(le, places, self._limits))


def _by_name(
    views: list[NkiTensor], named: dict[str, NkiTensor]
) -> tuple[tuple[str, ...] | None, _Getter | None]:
    """The names of `views` among the operands, and what gets them; None where one is not an operand."""
    names: list[str] = []
    for view in views:
        name = next((n for n, value in named.items() if value is view and n not in names), None)
        name = name or next((n for n, value in named.items() if value is view), None)
        if name is None:
            return None, None
        names.append(name)
    return tuple(names), _getter(names)


def limits_of(sample: Instruction, names: Iterable[str]) -> tuple[int, ...]:
    """The last element of a partition (in HBM, of the storage) that each tensor of `names` can start at."""
    found = []
    for name in names:
        value = sample.__dict__[name]
        if type(value) is NkiTensor and value.dynamic is None:
            storage = value.storage
            row = storage.row_bytes // value.dtype.itemsize or 1
            before, after = reach(value.shape, value.strides)
            limit = row * (storage.partitions - value.offset // row) - 1 - after
            if storage.on_chip:
                limit = min(limit, row * value.shape[0] - 1 - after)
            found.append(limit if before == 0 else -1)  # one that steps back is checked by itself
    return tuple(found)


class _Parts(NamedTuple):
    """Fields of an instruction, but its label: what gets those whose values exist once, and the others."""

    singles: _Getter | None
    others: tuple[str, ...]


_CLASSES: dict[type[Instruction], _Parts] = {}  # all fields and the engine


def _class_of(kind: type[Instruction]) -> _Parts:
    found = _CLASSES.get(kind)
    if found is None:
        if REGISTRY.get(kind.opcode) is not kind:
            raise _Unknown  # it may keep facts beside its fields
        found = _CLASSES[kind] = _parts_of(kind, (*kind.fields, "on"))
    return found


@functools.lru_cache(maxsize=4096)
def _call_of(shape: tuple[Any, ...]) -> _Parts:
    """The fields given in a call, by class, number of arguments and keywords."""
    kind, count, *keywords = shape
    return _parts_of(kind, (*kind.parameters[:count], *keywords))


def _parts_of(kind: type[Instruction], names: tuple[str, ...]) -> _Parts:
    singles: list[str] = []
    others: list[str] = []
    for name in names:
        if name == "name":  # a label: no rule reads it
            continue
        field = kind.fields.get(name)
        is_single = field is None or (
            field.role is Role.attribute
            and (
                isinstance(field.kind, enum.EnumMeta)
                or (bool(field.kinds) and all(one in _SINGLE_KINDS for one in field.kinds))
            )
        )
        (singles if is_single else others).append(name)
    return _Parts(_getter(singles) if singles else None, tuple(others))


def _getter(names: Sequence[str]) -> _Getter:
    """What gets the values of these names as a tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        only = names[0]
        return lambda values: (values[only],)
    return lambda values: ()


class _Unknown(Exception):
    """A value of which it is not known what it decides."""


class _Pattern(NamedTuple):
    """What calls have in common whose instructions are of one form.

    Attributes:
        form: that of the instructions.
        settled: what they hold beside the tensors and the name that they are given.
        given: values that the calls are known by; held, for their ids.
        has_name: True if a name is given.
        limits: as of :func:`limits_of`, in the order in which tensors are given.
    """

    form: Form
    settled: dict[str, Any]
    given: tuple[Any, ...]
    has_name: bool
    limits: tuple[int, ...]


class Forms:
    """The forms of one Program.

    Args:
        target: the generation whose rules :meth:`check` asks.
    """

    def __init__(self, target: Target):
        self.target = target
        self._forms: dict[_Key | None, Form] = {}
        self._patterns: dict[_Key | None, _Pattern] = {}
        self._memories: dict[Storage, int] = {}
        self._facts: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def of(self, instruction: Instruction) -> Form:
        """The form of an instruction that is not changed any more, which keeps it."""
        form: Form | None = instruction.__dict__.get("form")
        if form is None:
            key, _ = self._key_of(instruction)
            form = instruction.form = self._intern(key, instruction)
        return form

    def check(self, instruction: Instruction) -> tuple[Diagnostic, ...]:
        """As ``instruction.check(target)``, for each form once; gives the instruction its form.

        A form of which there is something to say below an error says it of each instruction.

        Raises:
            NkiValidationError: its own message; a form that breaks a rule is not kept.
        """
        key, places = self._key_of(instruction)
        form = self._forms.get(key)
        remarks: tuple[Diagnostic, ...] = ()
        if form is None or form.has_remarks or not form.holds(places):
            remarks = instruction.check(self.target)
            form = self._intern(key, instruction)
            form.has_remarks = bool(remarks)
        instruction.form = form
        return remarks

    def made(
        self, kind: type[Instruction], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Instruction | None:
        """What ``kind(*args, **kwargs)`` makes, with its form; None if no such call was kept.

        Args:
            kind: its class.
            args, kwargs: as the user gives them.
        """
        shape = (kind, len(args), *kwargs)
        fields = _call_of(shape)
        given = {**dict(zip(kind.parameters, args)), **kwargs} if args else kwargs
        key, places = self._key(shape, fields, given)
        pattern = self._patterns.get(key)
        if pattern is None or not all(map(le, places, pattern.limits)):
            return None
        if pattern.has_name and type(given["name"]) is not str:
            return None
        instruction = kind.__new__(kind)
        instruction.form = pattern.form
        values = instruction.__dict__
        values.update(given)
        values.update(pattern.settled)
        return instruction

    def keep(self, instruction: Instruction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Have :meth:`made` know calls such as this one, of which :meth:`check` had nothing to say."""
        form: Form = instruction.form
        kind = type(instruction)
        given = {**dict(zip(kind.parameters, args)), **kwargs}
        others = [v for v in given.values() if type(v) is not NkiTensor]
        if form.has_remarks or not form.is_plain or not all(isinstance(v, _PLAIN) for v in others):
            return
        shape = (kind, len(args), *kwargs)
        key, _ = self._key(shape, _call_of(shape), given)
        if key is None:
            return
        own = {"form", "stack", *(name for name in given if name == "name" or type(given[name]) is NkiTensor)}
        settled = {name: value for name, value in instruction.__dict__.items() if name not in own}
        limits = limits_of(instruction, given)
        self._patterns[key] = _Pattern(form, settled, tuple(others), "name" in given, limits)

    def settle(self, instruction: Instruction) -> None:
        """Give an instruction its form anew, as specialization has settled some of its attributes."""
        values = instruction.__dict__
        before: Form = values["form"]
        settled = tuple(map(values.get, instruction.settles))
        form = before.variants.get(settled)
        if form is None:
            key, _ = self._key_of(instruction)
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

    def _key_of(self, instruction: Instruction) -> tuple[_Key | None, list[int]]:
        kind = type(instruction)
        try:
            fields = _CLASSES.get(kind) or _class_of(kind)
        except _Unknown:
            return None, []
        return self._key(kind, fields, instruction.__dict__)

    def _key(self, label: Any, fields: _Parts, values: dict[str, Any]) -> tuple[_Key | None, list[int]]:
        """What a form or a call is found by, None if not known; and where in their partitions views start.

        Args:
            label: what it is known by besides.
            fields: which of the values count.
            values: those of an instruction, or those given to it.
        """
        singles, others = fields
        parts: list[Any] = [label]
        if singles is not None:
            parts += map(id, singles(values))
        shared: dict[Any, int] = {}
        places: list[int] = []
        memories = self._memories
        for name in others:
            value = values[name]
            if type(value) is NkiTensor and value.dynamic is None:
                storage, offset, dtype = value.storage, value.offset, value.dtype
                memory = memories.get(storage)
                if memory is None:
                    memory = self._memory(storage)
                start = low = 0
                if offset:
                    low = offset
                    if offset * dtype.itemsize >= storage.row_bytes:
                        start, low = divmod(offset, storage.row_bytes // dtype.itemsize or 1)
                    if low and storage.region is PSUM:
                        start = -offset  # in which bank, and at which byte of it, matters there
                places.append(low)
                parts += (memory, value.shape, value.strides, start, dtype)
                if storage in shared:
                    parts += (_number(storage, shared), offset - shared[storage])
                else:
                    shared[storage] = offset
            elif value is None or value is True or value is False or value is _EMPTY:
                parts.append(value)
            else:
                try:
                    self._value(value, parts, shared)
                except _Unknown:
                    return None, places
        return tuple(parts), places

    def _value(self, value: Any, parts: list[Any], shared: dict[Any, int]) -> None:
        kind = type(value)
        if kind is NkiTensor:
            self._tensor(value, parts, shared)
        elif isinstance(value, _SINGLE):
            parts.append(id(value))
        elif kind is float:
            parts += (kind, str(value))  # 0.0 and -0.0 are equal, nan is not
        elif kind is int or kind is str:
            parts += (kind, value)
        elif kind is VirtualRegister:
            parts += (kind, value.frozen, _number(value, shared))
        elif kind is list or kind is tuple:
            parts += (kind, len(value))
            for item in value:
                self._value(item, parts, shared)
        else:
            raise _Unknown

    def _tensor(self, tensor: NkiTensor, parts: list[Any], shared: dict[Any, int]) -> None:
        """Of a view in a list or with a run-time address, where all of its place counts."""
        storage = tensor.storage
        parts += (_number(storage, shared), self._memory(storage), tensor.shape, tensor.strides)
        parts += (tensor.offset, id(tensor.dtype))
        dynamic = tensor.dynamic
        if dynamic is not None:
            parts += (dynamic.kind, dynamic.stride, dynamic.dim, dynamic.limit)
            self._value(dynamic.index, parts, shared)

    def _memory(self, storage: Storage) -> int:
        """A number for what rules and costs see of a storage."""
        found = self._memories.get(storage)
        if found is None:
            region, dtype = id(storage.region), id(storage.dtype)  # there is one of each
            facts = (region, storage.shape, dtype, storage.address, storage.kind)
            found = self._memories[storage] = self._facts.setdefault(facts, len(self._facts))
        return found


def _number(thing: Any, shared: dict[Any, int]) -> int:
    """The place of a storage or register among those before it."""
    for k, other in enumerate(shared):
        if other is thing:
            return k
    shared[thing] = 0
    return len(shared) - 1
