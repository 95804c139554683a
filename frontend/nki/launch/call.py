"""A call of a kernel, from the arguments it is given to the arrays it gives back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from nki import levels
from nki.compiler.source.kernel_source import KernelSource
from nki.compiler.specializer.specialize import Output
from nki.launch import arrays
from nki.launch.cache import Prepared
from nki.launch.prepare import prepare
from nki.launch.run import check_writable, run
from nki.launch.session import current, inside
from nki_isa.diagnostics import Frame, NkiError, Span, error, interrupted_at
from nki_isa.machine.target import Target
from nki_isa.machine.targets import default_target, on_logical_cores

_LOGICAL_CORES = "NEURON_LOGICAL_NC_CONFIG"


def launch(kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `kernel` on these arguments.

    Returns:
        What the kernel returns, with each HBM tensor as an array of its shape and dtype.

    Raises:
        NkiError: everything wrong with the kernel or the call. The caller's arrays
            change only where the kernel writes an input, and only if it ran to its end.
    """
    told = current().options.calls
    if told is not None:
        told(kernel, args, kwargs)
    with _telling(kernel):
        return _launch(kernel, args, kwargs)


def launch_ranks(kernel: KernelSource, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Run `kernel` on several ranks at once; as :func:`launch`, with the arguments of each rank.

    Returns:
        What the kernel returns, for each rank.
    """
    with _telling(kernel):
        kernel, target = _launched(kernel)
        made = [prepare(kernel, args, kwargs, target) for args, kwargs in calls]
        outputs = run(kernel.function.__name__, made, target)
        return [_rebuild(m.specialized[0].result, o) for (m, _), o in zip(made, outputs, strict=True)]


@contextlib.contextmanager
def _telling(kernel: KernelSource) -> Iterator[None]:
    """Keep in the session what refuses a launch of `kernel`; say where it was interrupted."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        place = Span(kernel.function.__code__.co_filename, kernel.function.__code__.co_firstlineno)
        raise interrupted_at(stopped, [Frame(kernel.function.__name__, place)]) from None
    except NkiError as found:
        current().refuse(kernel.function.__name__, found)
        raise


def _launched(kernel: KernelSource) -> tuple[KernelSource, Target]:
    """`kernel` on the cores it is launched on, and the generation in force.

    Raises:
        NkiError: NKI-U001, the generation has fewer cores.
    """
    session = current()
    options = session.options
    target = options.target or default_target()
    kernel, cores = _on_logical_core(kernel, target)
    if session.keep:
        session.reached.add(kernel.function.__code__)
    if kernel.grid > target.logical_cores:
        raise error(
            "NKI-U001",
            f"{kernel.function.__name__} is launched on {kernel.grid} cores; "
            f"a logical core of {target.name} has {target.logical_cores}",
            help=f"launch it with {kernel.function.__name__}[{target.logical_cores}](...)",
        )
    return kernel, on_logical_cores(target, cores)


def _launch(kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kernel, target = _launched(kernel)
    prepared, inputs = prepare(kernel, args, kwargs, target)
    name = kernel.function.__name__
    alone = partial(_run_alone, name, prepared, target)
    traced = arrays.traced_by(inputs)
    if traced == "torch":
        from nki.launch import torch_operator  # loads torch

        outputs = torch_operator.launch(prepared, inputs, alone)
    elif traced == "jax":
        from nki.launch import jax_callback  # loads jax

        check_writable(name, prepared, inputs)
        outputs = jax_callback.launch(prepared, inputs, partial(inside, current(), alone))
    else:
        outputs = alone(inputs)
    return _rebuild(prepared.specialized[0].result, outputs)


def _run_alone(name: str, prepared: Prepared, target: Target, inputs: list[Any]) -> list[Any]:
    """What the kernel gives on the arrays of the one rank."""
    return run(name, [(prepared, inputs)], target)[0]


def _on_logical_core(kernel: KernelSource, target: Target) -> tuple[KernelSource, int]:
    """`kernel` on the cores that ``NEURON_LOGICAL_NC_CONFIG`` says, and how many a logical core has then.

    API levels from 0.7 on ask it; elsewhere the kernel says on how many of the logical core's it runs.

    Raises:
        NkiError: NKI-L032 for another setting than 1 or 2; NKI-U014 where the brackets of the launch differ.
    """
    text = os.environ.get(_LOGICAL_CORES)
    if not text or levels.before("0.7"):
        return kernel, target.logical_cores
    if text not in ("1", "2"):
        raise error(
            "NKI-L032", f"{_LOGICAL_CORES} is {text!r}", help="set it to 1 or 2, the cores of a logical core"
        )
    name = kernel.function.__name__
    if kernel.bracketed and kernel.grid != int(text):
        raise error(
            "NKI-U014",
            f"{name} is launched on {kernel.grid} cores, the graph compiler takes {_LOGICAL_CORES}={text}",
            help=f"write {name}(...), or set {_LOGICAL_CORES}={kernel.grid}",
            notes=("source: SDK page of the error NCC_EVRF066",),
        )
    return kernel.having(grid=int(text)), min(int(text), target.logical_cores)


def _rebuild(result: Any, outputs: list[Any]) -> Any:
    """The kernel's result with arrays in the places of its tensors."""
    if isinstance(result, Output):
        return outputs[result.index]
    if isinstance(result, (list, tuple)):
        return type(result)(_rebuild(item, outputs) for item in result)
    if isinstance(result, dict):
        return {key: _rebuild(item, outputs) for key, item in result.items()}
    return result


__all__ = ["launch", "launch_ranks"]
