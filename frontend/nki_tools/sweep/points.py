"""The points of a sweep: which there are, what is called at each, and what that gives as a row."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from nki import levels, runtime
from nki.compiler.language import frontends
from nki.compiler.language.array_arguments import describe, is_array
from nki.compiler.source import source
from nki.compiler.source.kernel_source import signature_of
from nki.kernel import Kernel
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.targets import as_target, default_target
from nki_sim.report.profile import Profile
from nki_tools.sweep.reach import reach

Point = Mapping[str, Any]
Row = dict[str, Any]
Arguments = Mapping[str, Any] | Callable[[Point], Mapping[str, Any]]

#: Names of a space that say how a kernel is run, where the kernel has no such parameter.
AXES = ("target", "schedule", "cores")

#: What a row says of a point after its values, in this order; None where it is not known.
COLUMNS = (
    "state",
    "time_ns",
    "bound_by",
    "sbuf_bytes",
    "psum_bytes",
    "hbm_bytes",
    "mfu_percent",
    "instructions",
    "code",
    "error",
    "place",
)


def points_of(space: Mapping[str, Iterable[Any]] | Iterable[Point]) -> list[Point]:
    """All points: of lists of values every combination, the last name changing fastest; or those given."""
    if not isinstance(space, Mapping):
        return [dict(point) for point in space]
    values = [list(listed) for listed in space.values()]
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


@dataclass(frozen=True)
class Zeros:
    """What stands for an array: times need none of its data."""

    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Call:
    """What is called at a point: arguments by name, with :class:`Zeros` for arrays, and how it is run."""

    arguments: Mapping[str, Any]
    target: str
    schedule: str = "program"
    cores: int | None = None


def call_at(kernel: Kernel, arguments: Arguments, point: Point) -> Call:
    """The call of `kernel` at `point`: `arguments`, with the values of the point in their places.

    A name of the point is a parameter of the kernel, a part of one (``config.tile``), one of :data:`AXES`, or
    the size of a dimension. A tuple for a parameter that is an array is the shape of another, with
    numbers and names of dimensions.

    Raises:
        NkiError: NKI-L032 for a name that is none of them; NKI-V116 for an unknown target.
    """
    parameters = signature_of(kernel.function).parameters
    called = arguments(point) if callable(arguments) else arguments
    made = {name: _without_data(value, name) for name, value in called.items()}
    axes: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for name, value in point.items():
        head, *fields = name.split(".")
        if head in parameters:
            if fields:
                value = _with(made.get(head, parameters[head].default), fields, value, name)
            elif isinstance(made.get(head), Zeros) and isinstance(value, (tuple, list)):
                value = replace(made[head], shape=tuple(value))
            made[head] = _without_data(value, head)
        elif name in AXES:
            axes[name] = value
        else:
            sizes[name] = value
    used: set[str] = set()
    made = {name: _sized(value, sizes, used) for name, value in made.items()}
    strange = [] if callable(arguments) else sorted(sizes.keys() - used)
    if strange:
        known = ", ".join((*parameters, *(axis for axis in AXES if axis not in parameters)))
        raise error(
            "NKI-L032",
            f"{kernel.function.__name__} has no parameter {strange[0]!r}, and no shape has such a dimension",
            help=f"the names of a sweep are {known}, and those of dimensions",
        )
    target = axes.pop("target", None)
    return Call(made, (default_target() if target is None else as_target(target)).name, **axes)


def _without_data(value: Any, name: str) -> Any:
    """`value` with what stands for arrays in their places."""
    if is_array(value) and not isinstance(value, np.generic):
        _, dtype = describe(value, name)
        return Zeros(tuple(int(n) for n in value.shape), dtype.numpy)
    if type(value) in (list, tuple):
        return type(value)(_without_data(item, name) for item in value)
    if type(value) is dict:
        return {key: _without_data(item, name) for key, item in value.items()}
    return value


def _sized(value: Any, sizes: Mapping[str, Any], used: set[str]) -> Any:
    """`value` with numbers for the names of dimensions; those it has are added to `used`."""
    if not isinstance(value, Zeros):
        return value
    used.update(name for name in value.shape if isinstance(name, str))
    unknown = [name for name in value.shape if isinstance(name, str) and name not in sizes]
    if unknown:
        raise error(
            "NKI-L032",
            f"the shape {'x'.join(map(str, value.shape))} has a dimension {unknown[0]!r} without values",
            help=f"give it values as well: {unknown[0]}=128,256",
        )
    return replace(value, shape=tuple(int(sizes[n] if isinstance(n, str) else n) for n in value.shape))


def _with(holder: Any, fields: Sequence[str], value: Any, name: str) -> Any:
    """A copy of `holder`, a dataclass, named tuple or dict, with a value for one of its fields."""
    if not fields:
        return value
    first, rest = fields[0], fields[1:]
    if isinstance(holder, dict):
        return {**holder, first: _with(holder.get(first), rest, value, name)}
    if hasattr(holder, first):
        changed = {first: _with(getattr(holder, first), rest, value, name)}
        if is_dataclass(holder) and not isinstance(holder, type):
            return replace(holder, **changed)
        if hasattr(holder, "_replace"):
            return holder._replace(**changed)
    raise error(
        "NKI-L032",
        f"{name}: a {type(holder).__name__} has no field {first!r} that can be set",
        help="name a field of a dataclass, a named tuple or a dict",
    )


def filled(value: Any) -> Any:
    """`value` with arrays in the places of :class:`Zeros`."""
    if isinstance(value, Zeros):
        return np.zeros(value.shape, value.dtype)
    if type(value) in (list, tuple):
        return type(value)(map(filled, value))
    if type(value) is dict:
        return {key: filled(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, eq=False)
class Job:
    """What the points of a sweep have in common, as it goes to workers.

    Attributes:
        kernel: what is called.
        level, frontend: in force.
        texts: of the files of the user's that decide it, by name: a worker may have none, or others.
        constants: what else it reads, by name.
    """

    kernel: Kernel
    level: str
    frontend: str
    texts: Mapping[str, str]
    constants: Sequence[tuple[str, Any]]

    @classmethod
    def of(cls, kernel: Kernel) -> Job:
        """The job of sweeping `kernel`, as things are now."""
        texts, constants = reach(kernel)
        return cls(kernel, levels.current(), frontends.current().value, texts, constants)

    def enter(self) -> None:
        """Make this process one that runs its points."""
        if levels.current() != self.level:
            levels.use(self.level)
        frontends.use(self.frontend)
        source.know(self.texts)

    def run(self, call: Call) -> Row:
        """What `call` gives."""
        kernel = self.kernel if call.cores is None else self.kernel[call.cores]
        found: Row = dict.fromkeys(COLUMNS)
        with runtime.session(
            target=as_target(call.target),
            schedule=call.schedule,
            spill=False,  # what is looked for is what is fast, and fits
            data=False,
            timing=True,
            check="none",
        ) as record:
            try:
                kernel(**{name: filled(value) for name, value in call.arguments.items()})
            except NkiError as refused:
                first = refused.diagnostics[0]
                found.update(state="refused", code=first.code, error=first.message)
                found["place"] = str(first.span) if first.span else None
            except Exception as raised:  # the user's own: a row of the table, like every other point
                found.update(state="failed", error=f"{type(raised).__name__}: {raised}")
        for launch in (*record.launches, *(one.placed() for one in record.overfull)):
            found.update(_figures(launch))
        return found


def _figures(launch: runtime.Launch) -> Row:
    """What a row says of a launch: of the core that takes longest, and the most that any of them holds."""
    found: Row = {
        "sbuf_bytes": max(core.placement.sbuf.peak for core in launch.cores),
        "psum_bytes": max(core.placement.psum.peak for core in launch.cores),
        "instructions": sum(1 for core in launch.cores for _ in core.program.walk()),
    }
    timed = [Profile.of(core.timeline) for core in launch.cores if core.timeline is not None]
    if timed:
        longest = max(timed, key=lambda profile: profile.total)
        found.update(
            state="ok",
            time_ns=longest.total,
            bound_by=longest.bounded_by,
            hbm_bytes=sum(profile.hbm_read_bytes + profile.hbm_write_bytes for profile in timed),
            mfu_percent=longest.mfu,
        )
    return found


def plain(value: Any) -> Any:
    """`value` as a table shows it: a number, a text, True, False or None."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (tuple, list)) and all(isinstance(n, (int, str)) for n in value):
        return "x".join(map(str, value))
    return value.name if isinstance(value, enum.Enum) else str(value)
