"""The base of every instruction, and the registry of all.

An instruction is one class in :mod:`nki_isa.ops`. Its fields state the operands
with their roles, in the order of the public signature; everything else derives
from them: ``nki.isa.<name>``, IR text, liveness, hazards, dependencies, the
reference page, the constraint tests.
"""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from nki_isa.diagnostics import Diagnostic, Frame, NkiError, NkiValidationError, Severity, error
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.ir.fields import REQUIRED, Field, Role
from nki_isa.ir.recording import Recording
from nki_isa.machine.enums import Engine
from nki_isa.tensor.kinds import problem
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.cost import Cost
    from nki_isa.cost.streaming import Mode
    from nki_isa.machine.target import Feature, Target


_UNKNOWN = Engine.unknown  # members of an Enum are found slowly


class Order(enum.Enum):
    """How an instruction reads its sources and writes its destination, so what may lie over what.

    Engines stream: element i of every operand of each partition is read before element i of the destination
    is written. Source: SDK architecture guide (engines process one element per partition and cycle in order
    of the access pattern); no page states the rule.
    """

    streamed = "in order, each element before its result"
    first = "all of the source before the first result"
    any = "in no particular order"
    shuffled = "at positions that are known at run time only"


class Starts(enum.Enum):
    """Whether what an instruction touches could as well start at other partitions.

    Source: the architecture guide ("Cross-Partition Connectivity": the vector, scalar and gpsimd engines
    read at one quadrant or half and write at another). That tensors read together start together is what the
    kernel library keeps to (``core/embeddings/rope``: "base partition alignment").
    """

    fixed = "fixed"  # no: rows of the array, registers or numbers of partitions take part
    lanes = "lanes"  # what it reads at one partition, what it writes at one, which may be another
    free = "free"  # each tensor at any partition: DMA


class Misfit(NamedTuple):
    """A value of a wrong kind: the code of the diagnostic, what is wrong, and what to pass instead."""

    code: str
    message: str
    help: str


class Matrices(Protocol):
    """What an instruction that works in place gets its operands from."""

    def matrix(self, tensor: NkiTensor) -> Callable[[], Any]:
        """What gives the values of `tensor` as a contiguous float32 matrix, whenever it is called."""

    def view(self, tensor: NkiTensor) -> Any:
        """The bytes of `tensor` as an array of its data type, which stays."""

    def room(self, shape: tuple[int, ...]) -> Any:
        """A float32 array for what lasts as long as one instruction."""


I = TypeVar("I", bound="Instruction")

REGISTRY: dict[str, type[Instruction]] = {}

MakeTile = Callable[..., NkiTensor]
"""Makes an operand of a typical call: (shape=(128, 128), dtype="float32", region=sbuf)."""


class Instruction:
    """Base class; see :mod:`nki_isa.ops` for the instructions.

    Class attributes a subclass states:
        engines: the engines that can run it, the default first. DMA instructions
            state ``(Engine.dma,)``.
        needs: the feature of the generations that have it; None if all have.
        constraints: its documented rules, checked in order, all reported.
        observed: rules that compilers and devices were seen to keep, checked after those.
        source: the page that defines it.
        order: the order in which it reads and writes elements; every instruction states it.
        modes: its performance modes on the vector engine.
        assumed: what its cost assumes where none is published; empty elsewhere.
        stateful: True if `compute` takes the engine state as first argument.
        is_free: True if it takes no time and no engine, so that timelines leave it out.
        namespace: the module of the API that has it as a function.
        wide: True if it takes tensors of 64-bit data: moves them, or reads one as a scalar.
        keeps_width: True if a register keeps all of what it computes; else its low 32 bits.
        synchronises: True if it waits for another core; the device runs it, not `compute`.
        padded: operands whose layout leaves parts unused; those keep their bytes and are not inputs.
        starts: whether its on-chip tensors could start at other partitions.
        settles: attributes that `specialize` may change.
        by_element: True if an element of its result follows from those in the same place of the tiles of
            its shape, its other operands and its attributes alone.

    Methods a subclass gives:
        compute: numpy arrays in (one per operand that is read, in field order; a
            missing optional operand is None; an immediate is a float), numpy
            arrays out (one per operand written, in field order, or a single
            array). Values come in as stored; results may be float32: the machine
            casts them to the destination's dtype.
        cost: how long it holds its engine and when its result is visible.
        sample: the arguments of a typical call, tensors made by what it is handed; every instruction
            states one.
    """

    engines: ClassVar[tuple[Engine, ...]] = ()
    needs: ClassVar[Feature | None] = None
    constraints: ClassVar[tuple[Constraint, ...]] = ()
    observed: ClassVar[tuple[Constraint, ...]] = ()
    source: ClassVar[str] = ""
    order: ClassVar[Order]
    modes: ClassVar[tuple[Mode, ...]] = ()
    assumed: ClassVar[str] = ""
    stateful: ClassVar[bool] = False
    is_free: ClassVar[bool] = False
    namespace: ClassVar[str] = "nki.isa"
    wide: ClassVar[bool] = False
    keeps_width: ClassVar[bool] = False
    synchronises: ClassVar[bool] = False
    padded: ClassVar[frozenset[str]] = frozenset()
    starts: ClassVar[Starts] = Starts.fixed
    settles: ClassVar[tuple[str, ...]] = ()
    by_element: ClassVar[bool] = False
    fields: ClassVar[dict[str, Field]] = {}
    parameters: ClassVar[tuple[str, ...]] = ()  # the public fields, in order
    opcode: ClassVar[str] = ""
    stands_for: ClassVar[Any] = None  # the `compute` that `in_place` does the work of, and no other
    signature: ClassVar[inspect.Signature]

    misfits: tuple[Misfit, ...] = ()  # values of a wrong kind, kept as they came
    notes: tuple[str, ...] = ()  # what else there is to say about them
    on: Engine  # the engine that runs this one, decided by `resolve`
    stack: tuple[Frame, ...] = ()  # the user's calls, innermost last
    after: tuple[Instruction, ...] = ()  # those it was asked to run after, beyond what its data say
    form: Any = None  # what it has in common with others: a nki_isa.ir.form.Form, once it is known
    name: str | None

    def __init__(self, *args: Any, **kwargs: Any):
        cls = type(self)
        self.form = None  # the first attribute: a dict that is not empty goes on sharing its keys with others
        values = self.__dict__
        call = _call_of((cls, len(args), *kwargs))
        if args:
            values.update(zip(cls.parameters, args))
        if kwargs:
            values.update(kwargs)
        values.update(call.defaults)
        for name, usual in call.usual:
            if type(values[name]) not in usual:
                self._settle(name, values[name])
        if self.misfits:
            self.on = self.engines[0]
            return
        self.normalise()
        self.on = self.resolve_engine()

    # --- building

    @classmethod
    def bind(cls, count: int, keywords: Iterable[str]) -> _Call:
        """What calls with so many arguments and these keywords share; NKI-L012 if they do not fit."""
        fields = cls.fields
        names = set(cls.parameters[:count])
        problem = None
        if count > len(cls.parameters):
            problem = f"{cls.opcode} takes {len(cls.parameters)} arguments but {count} were given"
        for name in keywords:
            if name not in fields:
                near = difflib.get_close_matches(name, cls.parameters, 1)
                hint = f"write {near[0]}=" if near else f"its parameters are {', '.join(cls.parameters)}"
                raise error("NKI-L012", f"{cls.opcode} has no parameter {name!r}", help=hint)
            if name in names:
                problem = f"{cls.opcode} got {name!r} twice"
            names.add(name)
        defaults = {name: field.default for name, field in fields.items() if name not in names}
        missing = [name for name, default in defaults.items() if default is REQUIRED]
        if missing:
            plural = "s" * (len(missing) > 1)
            problem = f"{cls.opcode}: missing required argument{plural} {', '.join(missing)}"
        if problem:
            raise error("NKI-L012", problem, help=f"its signature is {cls.opcode}{cls.signature}")
        given = [(name, field.usual) for name, field in fields.items() if field.kinds and name in names]
        return _Call(defaults, tuple(given))

    def _settle(self, name: str, value: Any) -> None:
        """Keep `value` of field `name` in the form of its kind, or note that it is of none."""
        field = self.fields[name]
        if value is field.default:
            return
        for kind in field.kinds:
            if kind.fits(value):
                if kind.kept is not None:
                    self.__dict__[name] = kind.kept(value)
                return
        first = field.kinds[0]
        said = first.says and first.says(value)
        if said:
            told = said.diagnostics[0]
            found = Misfit(told.code, f"{name}: {told.message}", told.help or first.help)
        else:
            code = "NKI-V100" if field.is_operand else first.code
            found = Misfit(code, problem(field.kinds, name, value), first.help)
        self.misfits = (*self.misfits, found)

    def normalise(self) -> None:
        """Bring arguments to one form (for example names to operators); may be extended."""

    def resolve_engine(self) -> Engine:
        """The engine it runs on: the one asked for, else the first of `engines`."""
        asked = self.__dict__.get("engine")
        return asked if isinstance(asked, Engine) and asked is not _UNKNOWN else self.engines[0]

    def open_engines(self, target: Target) -> tuple[Engine, ...]:
        """Other engines that a compiler may put it on, by how busy they are; what it computes is the same."""
        return ()

    def specialize(self, recorder: Recording) -> None:
        """Settle what depends on the instructions before this one; called once, when it is emitted."""

    def check(self, target: Target) -> tuple[Diagnostic, ...]:
        """The warnings and notes about it on `target`, which is how rules that are not certain are told.

        Raises:
            NkiValidationError: every constraint it breaks, if there is an error among them.
        """
        if self.misfits:
            notes = (f"source: {self.source}", *self.notes)
            raise NkiValidationError(
                Diagnostic(m.code, f"{self.opcode}: {m.message}", help=m.help, notes=notes)
                for m in self.misfits
            )
        broken: list[Diagnostic] = []
        for tensor in self._views():
            try:
                tensor.check_inside()
            except NkiError as outside:
                broken += outside.diagnostics
        if any(d.code == "NKI-V013" for d in broken):  # constraints are of views with elements
            raise NkiValidationError(broken)
        observed = (c for c in self.observed if c.row is None or c.row.on(target.name))
        for constraint in (*self.constraints, *observed):
            row = constraint.row
            message = constraint.broken(self, target)
            if message is not None:
                broken.append(
                    Diagnostic(
                        constraint.code,
                        f"{self.opcode}: {message}",
                        help=message.help if isinstance(message, Complaint) else constraint.help,
                        notes=(f"rule: {constraint.rule}", f"source: {constraint.source}"),
                        severity=(row and row.standing.severity) or Severity.error,
                        known=row.name if row else None,
                    )
                )
        broken += self._too_wide()
        if any(d.severity is Severity.error for d in broken):
            raise NkiValidationError(broken)
        return tuple(broken)

    def _too_wide(self) -> Iterator[Diagnostic]:
        """NKI-V105 for 64-bit tensors, which engines do not compute with."""
        wide = [tensor for tensor in self._views() if tensor.dtype.bits == 64]
        if wide and not (self.wide and len({tensor.dtype for tensor in self._views()}) == 1):
            yield Diagnostic(
                "NKI-V105",
                f"{self.opcode}: {wide[0]} has elements of 64 bits",
                help="make it int32 (on the host: x.astype(np.int32)); dma_copy moves 64-bit tensors to ones "
                "of their dtype, nisa.scalar_load reads one element",
                notes=(f"source: {self.source}",),
            )

    # --- what it touches

    def _views(self) -> Iterator[NkiTensor]:
        for _, value in self.operands():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, NkiTensor):
                    yield item

    def operands(self) -> Iterable[tuple[Field, Any]]:
        """The fields with a role other than attribute, with their values, None left out."""
        values = self.__dict__
        fields = _operands_of(type(self)).touched
        return [(field, value) for name, field in fields if (value := values[name]) is not None]

    @property
    def reads(self) -> list[NkiTensor]:
        """Every tensor it reads, the index tensors of dynamic views included."""
        form = self.form
        if form is not None and form.reads is not None:
            return list(form.reads(self.__dict__))
        return self.views_read()

    @property
    def writes(self) -> list[NkiTensor]:
        """Every tensor it writes."""
        form = self.form
        if form is not None and form.writes is not None:
            return list(form.writes(self.__dict__))
        return self.views_written()

    def views_read(self) -> list[NkiTensor]:
        """:attr:`reads`, worked out; may be extended."""
        found: list[NkiTensor] = []
        for field, value in self.operands():
            if field.role is Role.reads:
                found.extend(v for v in value if isinstance(v, NkiTensor))
            elif isinstance(value, NkiTensor):
                if field.role is not Role.write:
                    found.append(value)
                if value.dynamic is not None and isinstance(value.dynamic.index, NkiTensor):
                    found.append(value.dynamic.index)
        for tensor in [t for t in found if t.dynamic is not None]:
            index = tensor.dynamic.index if tensor.dynamic is not None else None
            if isinstance(index, NkiTensor) and index not in found:
                found.append(index)
        return found

    def views_written(self) -> list[NkiTensor]:
        """:attr:`writes`, worked out."""
        values = self.__dict__
        operands = [values[name] for name in _operands_of(type(self)).written]
        listed = [item for v in operands for item in (v if isinstance(v, (list, tuple)) else (v,))]
        return [self.destination(v) for v in listed if isinstance(v, NkiTensor)]

    def destination(self, tensor: NkiTensor) -> NkiTensor:
        """The view that results for the operand `tensor` are stored in, where it is another one."""
        return tensor

    @property
    def registers_read(self) -> list[VirtualRegister]:
        """Every register it reads, those in dynamic views included."""
        found: list[VirtualRegister] = []
        for field, value in self.operands():
            for v in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(v, NkiTensor):
                    v = v.dynamic.index if v.dynamic is not None else None
                elif field.role is Role.register_write:
                    continue
                if isinstance(v, VirtualRegister):
                    found.append(v)
        return found

    @property
    def registers_written(self) -> list[VirtualRegister]:
        """Every register it writes."""
        written = (value for field, value in self.operands() if field.role is Role.register_write)
        return [value for value in written if isinstance(value, VirtualRegister)]

    @property
    def uses_engine_state(self) -> bool:
        """True if it depends on, or changes, what its engine keeps between instructions."""
        return self.stateful

    # --- what a subclass gives

    def compute(self, *inputs: Any) -> Any:
        """The numerics: see the class docstring."""
        raise NotImplementedError(f"{self.opcode}.compute")

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        """The arguments of a typical call."""
        raise NotImplementedError(cls.opcode)

    def in_place(self, out: Any, operands: Matrices) -> Callable[[], None] | None:
        """What does what `compute` does, bit for bit, and stores it; None where that is not faster.

        Args:
            out: the bytes of its one destination as an array, which stays.
            operands: gives the values of what it reads.
        """
        return None

    def cost(self, target: Target) -> Cost:
        """How long it holds its engine, and when its result is visible."""
        raise NotImplementedError(f"{self.opcode}.cost")

    def __getstate__(self) -> dict[str, Any]:
        """Without its form: a copy may be changed, and gets one of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "form"}

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={self.__dict__[k]!r}" for k in self.fields)
        return f"{self.opcode}({shown})"


class _Call(NamedTuple):
    """Calls of one class with the same arguments by position and by keyword.

    `defaults` are the values of the other fields; `usual` the given fields that have kinds, each with the
    types whose values are of one.
    """

    defaults: dict[str, Any]
    usual: tuple[tuple[str, frozenset[type]], ...]


@functools.lru_cache(maxsize=4096)
def _call_of(shape: tuple[Any, ...]) -> _Call:
    """What calls have in common, by class, number of arguments and keywords."""
    kind, count, *keywords = shape
    found: _Call = kind.bind(count, keywords)
    return found


class _Operands(NamedTuple):
    """The fields of a class that the machine touches something for, and the names of those it writes."""

    touched: tuple[tuple[str, Field], ...]
    written: tuple[str, ...]


_OPERANDS: dict[type[Instruction], _Operands] = {}


def _operands_of(kind: type[Instruction]) -> _Operands:
    found = _OPERANDS.get(kind)
    if found is None:
        touched = tuple((name, field) for name, field in kind.fields.items() if field.is_operand)
        writing = (Role.write, Role.read_write, Role.writes)
        written = tuple(name for name, field in touched if field.role in writing)
        found = _OPERANDS[kind] = _Operands(touched, written)
    return found


def instruction(cls: type[I]) -> type[I]:
    """Gather the fields of an instruction class and enter it in the registry.

    Fields of the classes it is derived from come first. Every instruction gets a last parameter ``name`` (the
    user's label for it) unless it states one.

    Raises:
        TypeError: it does not state what every instruction must.
    """
    missing = [] if hasattr(cls, "order") else ["order"]
    if cls.sample.__func__ is Instruction.sample.__func__:  # type: ignore[attr-defined]
        missing.append("sample")
    if missing:
        raise TypeError(f"{cls.__name__} does not state {', '.join(missing)}")
    fields: dict[str, Field] = {}
    for owner in reversed(cls.__mro__):
        for key, stated in list(vars(owner).items()):
            if isinstance(stated, Field):
                fields[key] = field = replace(stated, name=key)
                field.settle(owner.__annotations__.get(key, ""))
                if owner is cls:
                    delattr(cls, key)
    if "name" not in fields:
        fields["name"] = Field(Role.attribute, None, str, "name")
        fields["name"].settle("str | None")
    cls.fields = fields
    cls.parameters = tuple(name for name, field in fields.items() if field.public)
    cls.opcode = cls.__name__
    cls.stands_for = cls.compute
    parameter = functools.partial(inspect.Parameter, kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    cls.signature = inspect.Signature([parameter(n, default=fields[n].default) for n in cls.parameters])
    REGISTRY[cls.opcode] = cls
    return cls
