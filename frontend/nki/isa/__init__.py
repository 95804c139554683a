"""``nki.isa``: every instruction of the NeuronCore as a function.

Each function is made from its class in :mod:`nki_isa.ops`: the same signature, the
same defaults, the same docstring. Calling it inside a kernel checks the
instruction's constraints and appends it to the Program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki import levels
from nki.compiler.language import names
from nki.compiler.specializer.recorder import current, current_or_none, is_recording
from nki.compiler.specializer.scalars import new_scalar
from nki_isa.diagnostics import NkiError, NkiValidationError, error
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.machine.dtypes import DType, as_dtype
from nki_isa.machine.enums import Engine as engine
from nki_isa.machine.enums import dge_mode, dma_engine, matmul_perf_mode, nc_version, oob_mode, reduce_cmd
from nki_isa.machine.targets import default_target
from nki_isa.tensor.kinds import checked, is_whole, public_function
from nki_isa.tensor.storage import NkiScalar, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

tensor_engine = engine.tensor
vector_engine = engine.vector
scalar_engine = engine.scalar
gpsimd_engine = engine.gpsimd
unknown_engine = engine.unknown


class NkiInstruction:
    """A handle to an instruction of the Program under construction."""

    __slots__ = ("instruction",)

    def __init__(self, instruction: Instruction):
        self.instruction = instruction

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:
        """Make this instruction run after each of `producers`; returns itself.

        Both run in the same device loops, or the producer in fewer of them; instructions that
        need the result of one that moves later move with it.

        Raises:
            NkiError: NKI-V100 for what is not a handle. NKI-L042, a dependency cycle, and
                NKI-L043, one into or out of a device loop, are found when the kernel is complete.
        """
        for producer in producers:
            if not isinstance(producer, _Handle):
                raise error(
                    "NKI-V100",
                    f"depends_on got {producer!r}, which is not an instruction",
                    help="pass what calls of nki.isa return: a = nisa.tensor_copy(...); b.depends_on(a)",
                )
        current().depends_on(self.instruction, tuple(p.instruction for p in producers))
        return self


_Handle = NkiInstruction  # older API levels take the public name out of the module


def get_nc_version() -> nc_version:
    """The generation of the target: gen2 (trn1), gen3 (trn2) or gen4 (trn3).

    Raises:
        NkiError: NKI-V116 outside of a kernel, where the environment names no target there is.

    Source: SDK page nki.isa.get_nc_version.
    """
    target = current().target if is_recording() else default_target()
    return nc_version(target.nc_version)


def get_nc_sub_version() -> int:
    """The silicon revision of the target; this project models the first, 0.

    Source: SDK page nki.isa.get_nc_sub_version.
    """
    return 0


def register_alloc(x: Any = None) -> VirtualRegister:
    """A new 32-bit register.

    Args:
        x: initial value: an int, or a 1x1 SBUF tensor it is loaded from; None leaves it unset.

    Raises:
        NkiError: NKI-V111 for anything else; NKI-L029 outside of a kernel. A tensor is held to the rules of
            register_load.

    Source: SDK page nki.isa.register_alloc.
    """
    recorder = current()
    register = recorder.new_register()
    if isinstance(x, NkiTensor):
        recorder.emit(REGISTRY["register_load"](register, x))
    elif is_whole(x):
        recorder.emit(REGISTRY["register_move"](register, x))
    elif x is not None:
        raise error(
            "NKI-V111",
            f"register_alloc got {x!r}, which is neither an int nor a 1x1 SBUF tensor",
            help="write register_alloc(0), register_alloc(tile) or register_alloc()",
        )
    return register


def _named(dtype: Any) -> DType | None:
    try:
        return as_dtype(dtype)
    except TypeError:
        return None


def _check_dtype(opcode: str, dtype: Any, dst: Any) -> None:
    """Take the ``dtype=`` of older releases, which decides nothing; published kernels pass it.

    A tutorial of the vendor passes one that `dst` does not have, and runs on the device: that is warned of.
    """
    named = _named(dtype)
    if not isinstance(dst, NkiTensor) or dtype is None or named is dst.dtype:
        return
    found = error(
        "NKI-V105",
        f"{opcode}: dtype={dtype!s:.60} differs from dst, which is {dst.dtype}; the argument was removed",
        help="leave dtype= out: the data type of dst decides",
    )
    if named is None:
        raise found
    current().warn(found)


def _built(module: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], level: str) -> Instruction:
    """The instruction that a call at `level` makes."""
    if level == levels.NEWEST:
        return REGISTRY[name](*args, **kwargs)
    opcode, new_args, new_kwargs = levels.translated(module, name, args, kwargs, level)
    new_kwargs = levels.with_members(opcode, new_kwargs, level)
    return REGISTRY[opcode](*new_args, **new_kwargs, **levels.fields_of(opcode, level))


def _accepting(module: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
    """The note that says which older level takes a call that the one in force refuses."""
    for level in levels.older():
        try:
            made = _built(module, name, args, kwargs, level)
            if not made.misfits:
                made.check(current().target)
                return (levels.choice(level),)
        except NkiError:
            continue
    return ()


def entry(cls: type[Instruction]) -> Callable[..., NkiInstruction]:
    """The function of the API that emits an instruction of class `cls`, in the module the class names."""
    module, name = cls.namespace, cls.opcode

    @functools.wraps(cls.compute)
    def emit(*args: Any, **kwargs: Any) -> NkiInstruction:
        if "dtype" in kwargs and "dtype" not in cls.fields:
            _check_dtype(name, kwargs.pop("dtype"), kwargs.get("dst", args[0] if args else None))
        try:
            recorder = current_or_none()
            if recorder is not None and recorder.is_newest:
                like_others = recorder.forms.made(cls, args, kwargs)
                if like_others is not None:
                    return _Handle(recorder.emit(like_others))
            level = levels.current()
            is_newest = level == levels.NEWEST
            made = cls(*args, **kwargs) if is_newest else _built(module, name, args, kwargs, level)
            if made.misfits:
                made.notes = levels.orders(module, name, len(args))
            more = partial(_accepting, module, name, args, kwargs)
            return _Handle(current().emit(made, more, (args, kwargs) if is_newest else None))
        except NkiError as found:
            told = levels.with_orders(module, name, len(args), found)
            notes = _accepting(module, name, args, kwargs)
            raise type(told)(replace(d, notes=(*d.notes, *notes)) for d in told.diagnostics) from None

    emit.__name__ = emit.__qualname__ = cls.opcode
    emit.__doc__ = cls.__doc__
    emit.__module__ = module
    emit.__signature__ = cls.signature  # type: ignore[attr-defined]
    del emit.__wrapped__
    levels.enter(module, name, emit)
    return emit


def scalar_load(src: NkiTensor) -> NkiScalar:
    """The one element of `src` as a scalar of its dtype, to compute with on the device.

    Args:
        src: a 1x1 tensor of int32 or int64 in SBUF or HBM.

    Raises:
        NkiError: NKI-V101, V103, V105 for another tensor.

    Source: SDK page ``nki.isa.scalar_load``.
    """
    scalar = new_scalar(current(), src.dtype)
    current().emit(REGISTRY["scalar_load"](scalar.register, src))
    return scalar


def scalar_store(dst: NkiTensor, value: NkiScalar) -> None:
    """The one element of `dst` = `value`.

    Args:
        dst: a 1x1 tensor in SBUF or HBM, of the dtype of `value`.
        value: a scalar; not an int.

    Raises:
        NkiError: NKI-V153 for another value; NKI-V101, V103, V105 for another tensor.

    Source: SDK page ``nki.isa.scalar_store``.
    """
    if not isinstance(value, NkiScalar) or value.is_comparison:
        raise error(
            "NKI-V153",
            f"nisa.scalar_store: value is {value!r}, which is not a scalar",
            help="write nisa.memset(dst, value) for a constant, nisa.register_store for a register",
        )
    if isinstance(dst, NkiTensor) and dst.dtype != value.dtype:
        raise error(
            "NKI-V153",
            f"nisa.scalar_store: value is {value.dtype} and dst {dst.dtype}; a scalar keeps its width",
            help=f"allocate dst with dtype=nl.{value.dtype}",
        )
    current().emit(REGISTRY["scalar_store"](dst, value.register))


def tensor_copy_dynamic_src(
    dst: NkiTensor, src: NkiTensor, engine: engine = engine.unknown, name: str | None = None
) -> NkiInstruction:
    """``tensor_copy`` of a `src` with a run-time place, as API levels 0.2 and 0.3 spell it."""
    return _Handle(current().emit(REGISTRY["tensor_copy"](dst, src, engine=engine, name=name)))


def tensor_copy_dynamic_dst(
    dst: NkiTensor, src: NkiTensor, engine: engine = engine.unknown, name: str | None = None
) -> NkiInstruction:
    """``tensor_copy`` to a `dst` with a run-time place, as API levels 0.2 and 0.3 spell it."""
    return _Handle(current().emit(REGISTRY["tensor_copy"](dst, src, engine=engine, name=name)))


globals().update(
    {
        name: checked(value, "nisa.")
        for name, value in list(globals().items())
        if public_function(__name__, value)
    }
)
INSTRUCTIONS = {opcode: entry(cls) for opcode, cls in REGISTRY.items() if cls.namespace == __name__}
globals().update(INSTRUCTIONS)


def __getattr__(name: str) -> Any:
    raise names.attribute_error(__name__, name)


__all__ = [
    "NkiInstruction",
    "NkiScalar",
    "NkiValidationError",
    "VirtualRegister",
    "dge_mode",
    "dma_engine",
    "engine",
    "get_nc_sub_version",
    "get_nc_version",
    "gpsimd_engine",
    "matmul_perf_mode",
    "nc_version",
    "oob_mode",
    "reduce_cmd",
    "register_alloc",
    "scalar_engine",
    "scalar_load",
    "scalar_store",
    "tensor_engine",
    "unknown_engine",
    "vector_engine",
    *INSTRUCTIONS,
]
