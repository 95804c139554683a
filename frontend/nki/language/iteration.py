"""Ranges, slices, loops on the device, and where in the launch a kernel runs."""

from __future__ import annotations

import builtins
import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from nki import levels
from nki.compiler.specializer.recorder import current
from nki.compiler.specializer.scalars import new_scalar
from nki_isa.diagnostics import error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import While
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.kinds import is_whole, is_word, shown
from nki_isa.tensor.storage import NkiScalar, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor, ds

_MIGRATED = "NKI Migration Guides, 0.5 to 0.6, rules for migrated loops"

#: A bound or step of a loop, which the loop checks itself (NKI-V124).
Bound: TypeAlias = Any
#: A function of the loop's variable.
Body: TypeAlias = Callable[..., Any]


def _static(name: str) -> Callable[..., builtins.range]:
    def make(start: Bound, stop: Bound = None, step: Bound = 1) -> builtins.range:
        for place, bound in enumerate((start, stop, step)):
            if isinstance(bound, VirtualRegister):
                raise error(
                    "NKI-L022",
                    f"{name} got a register as a bound; it is unrolled at specialization",
                    help="use nl.fori_loop for bounds known at run time (nl.dynamic_range before level 0.6)",
                )
            if not is_whole(bound) and not (bound is None and place == 1):
                raise error(
                    "NKI-V124",
                    f"a bound of {name} is {bound!r}, not an int",
                    help="divide with // so that it stays an int",
                )
        if step == 0:
            raise error("NKI-V124", f"the step of {name} is 0", help="give a step other than 0")
        return builtins.range(start) if stop is None else builtins.range(start, stop, step)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = "The ints of ``range(start, stop, step)``; the loop over them is unrolled."
    return make


affine_range = _static("affine_range")
sequential_range = _static("sequential_range")
static_range = _static("static_range")


def dynamic_range(start: Bound, stop: Bound = None, step: Bound = 1) -> Iterator[VirtualRegister]:
    """A loop that runs on the device; its variable is a frozen register.

    Args:
        start: first value, or the stop where `stop` is None; an int or a register.
        stop: end, exclusive; an int or a register.
        step: a positive int known at specialization.

    Raises:
        NkiError: NKI-V124 for a step that is not a positive int; NKI-L050 in a kernel that is traced, from
            API level 0.7 on.
    """
    if current().inline is not None and not levels.before("0.7"):
        raise error(
            "NKI-L050",
            f"nl.dynamic_range was removed with 0.7; the API level is {levels.current()}, the kernel traced",
            help="write nl.fori_loop(lower, upper, body), the loop's body a function of its variable",
            notes=(levels.choice("0.6"),),
        )
    if stop is None:
        start, stop = 0, start
    _check_bounds(start, stop, step)
    return current().loop(start, stop, step)


def _check_bounds(start: Any, stop: Any, step: Any) -> None:
    if not is_word(step) or step < 1:
        raise error(
            "NKI-V124",
            f"the step of a dynamic loop is {shown(step)}, not a positive int",
            help="give a constant step of at least 1",
        )
    for bound in (start, stop):
        if isinstance(bound, NkiScalar) and (bound.is_comparison or bound.dtype.bits > 32):
            raise error(
                "NKI-V124",
                f"a dynamic loop's bound is {bound!r}, which is not a count of 32 bits",
                help="load the bound with nisa.scalar_load from an int32 tensor",
            )
        if not is_word(bound) and not isinstance(bound, VirtualRegister):
            raise error(
                "NKI-V124",
                f"a dynamic loop's bound is {shown(bound)}, neither an int nor a register",
                help="load it with nisa.register_load and pass the register",
            )


def fori_loop(lower: Bound, upper: Bound, body_fun: Body, step: Bound = 1) -> None:
    """Run ``body_fun(i)`` on the device for `i` from `lower` to `upper`, exclusive.

    The body gets `i` as a scalar (:class:`nki.isa.NkiScalar`), to compute with; up to level 0.6, and where a
    bound is a register, as a register of its own: what it writes there has no effect on the loop.

    Args:
        lower: first value: an int, a register, or an int32 scalar.
        upper: end, exclusive, as `lower`.
        body_fun: called once, to record the body.
        step: a positive int known at specialization.

    Raises:
        NkiError: NKI-V124 for bounds or steps of other kinds, and for a body that returns a value; NKI-L012
            for a body without a parameter for `i`; NKI-V133 for a tensor of the body that is used outside.
    """
    _check_bounds(lower, upper, step)
    _check_body("fori_loop", body_fun, "i")
    recorder = current()
    plain = any(type(bound) is VirtualRegister for bound in (lower, upper)) or levels.before("0.7")
    variable = None if plain else new_scalar(recorder, DTYPES["int32"])
    start, stop = (bound.register if isinstance(bound, NkiScalar) else bound for bound in (lower, upper))
    register = None if variable is None else variable.register
    for index in recorder.loop(start, stop, step, scoped=True, index=register):
        returned = body_fun(index if variable is None else variable)
    if returned is not None:
        raise error(
            "NKI-V124",
            f"the body of a fori_loop returned {returned!r}; a round of the loop has no result",
            help="leave out the return; keep what the next round needs in a tensor allocated before the loop",
            notes=(f"source: {_MIGRATED}",),
        )


def _check_body(function: str, body: Any, variable: str) -> None:
    """Refuse a loop body that does not take the loop's one variable (NKI-L012)."""
    signature = inspect.signature(body)
    try:
        signature.bind(None)
    except TypeError as problem:
        name = getattr(body, "__name__", "the body")
        raise error(
            "NKI-L012",
            f"nl.{function} calls {name}({variable}), which takes {signature}: {problem}",
            help=f"write `def {name}({variable}):`",
        ) from None


def while_loop(init: Bound, body_fun: Body) -> None:
    """Run `body_fun` on the device while its register is not zero.

    Args:
        init: the condition on entry; it is copied, so it keeps its value.
        body_fun: takes the condition register, returns the register that holds the next one.

    Raises:
        NkiError: NKI-V124 for a condition that is not a register; NKI-V133 as for :func:`fori_loop`.
    """
    recorder = current()
    if not isinstance(init, VirtualRegister) or isinstance(init, NkiScalar):
        raise error(
            "NKI-V124",
            f"the condition of a while_loop is {init!r}, not a register",
            help="write nisa.register_alloc(1), or load it with nisa.register_load",
        )
    _check_body("while_loop", body_fun, "condition")
    condition = recorder.new_register()
    recorder.emit(REGISTRY["register_move"](condition, init))
    region = While(condition)
    recorder.open(region, scoped=True)
    following = body_fun(condition)
    if not isinstance(following, VirtualRegister):
        raise error(
            "NKI-V124",
            f"the body of a while_loop returned {following!r}, not a register",
            help="return the register that holds the next condition",
        )
    if following is not condition:
        recorder.emit(REGISTRY["register_move"](condition, following))
    recorder.close(region)


def program_id(axis: int = 0) -> int:
    """Index of this program in the launch grid."""
    return current().program_id


def num_programs(axes: int = 0) -> int:
    """Number of programs in the launch grid."""
    return current().grid


def program_ndim() -> int:
    """Dimensions of the launch grid: 0 without one, else 1."""
    return 1 if current().grid > 1 else 0


def no_reorder() -> contextlib.AbstractContextManager[None]:
    """Instructions inside the block, in functions it calls too, each run after the one before.

    Loops that run on the device are refused inside (NKI-L044); a block inside such a loop is fine.
    """
    return current().no_reorder()


def device_print(print_prefix: str, tensor: NkiTensor) -> None:
    """Print `tensor`, in SBUF or HBM, on the host's standard output each time the device comes by here.

    Args:
        print_prefix: text before it, known at specialization.
        tensor: what to print.
    """
    current().emit(REGISTRY["device_print"](print_prefix, tensor))


__all__ = [
    "affine_range",
    "device_print",
    "ds",
    "dynamic_range",
    "fori_loop",
    "no_reorder",
    "num_programs",
    "program_id",
    "program_ndim",
    "sequential_range",
    "static_range",
    "while_loop",
]
