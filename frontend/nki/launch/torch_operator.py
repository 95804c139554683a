"""A kernel call as one operator of torch, for ``torch.compile``, ``torch.export`` and tracing.

Tracers call a kernel with tensors that have a shape and no data. Its Program is made from the shapes; what
the graph gets is one call of ``nki_sim::launch``, or of ``nki_sim::launch_into`` where the kernel writes
arguments, which runs the kernel when the graph runs.

Imported only where torch is: by a traced call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nki.compiler.language.array_arguments import is_torch
from nki.launch import arrays
from nki.launch.cache import Prepared


@dataclass(frozen=True)
class _Form:
    """One form of call of one kernel.

    Attributes:
        run: takes the arrays in the kernel's order and gives those it returns.
        prepared: its Program.
    """

    run: Callable[[list[Any]], list[Any]]
    prepared: Prepared


_forms: dict[int, _Form] = {}


@torch.library.custom_op("nki_sim::launch", mutates_args=(), device_types="cpu")
def _launch(inputs: list[torch.Tensor], form: int) -> list[torch.Tensor]:
    return _forms[form].run(inputs)


@_launch.register_fake
def _shapes(inputs: list[torch.Tensor], form: int) -> list[torch.Tensor]:
    return _empty(_forms[form].prepared, inputs[0].device)


@torch.library.custom_op("nki_sim::launch_into", mutates_args={"written"}, device_types="cpu")
def _launch_into(written: list[torch.Tensor], read: list[torch.Tensor], form: int) -> None:
    """`written`: the inputs that the kernel writes, then its outputs."""
    kept = _forms[form]
    program, places = kept.prepared.programs[0], kept.prepared.written
    given, rest = dict(zip(places, written)), iter(read)
    inputs = [given[i] if i in given else next(rest) for i in range(len(program.inputs))]
    for output, value in zip(written[len(places) :], kept.run(inputs)):
        output.copy_(value)


@_launch_into.register_fake
def _nothing(written: list[torch.Tensor], read: list[torch.Tensor], form: int) -> None:
    return None


def _empty(prepared: Prepared, device: Any) -> list[torch.Tensor]:
    outputs = prepared.programs[0].outputs
    return [torch.empty(t.shape, dtype=arrays.torch_dtype(t.dtype), device=device) for t in outputs]


def launch(prepared: Prepared, inputs: list[Any], run: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The arrays a kernel returns, as results of an operator.

    A kernel that writes arguments gets tensors for its results as well: what an operator both writes
    and returns cannot be told to the compiler.

    Args:
        prepared: the kernel, specialized for the shapes of `inputs`.
        inputs: its arrays, those without data among them.
        run: runs it on arrays with data.
    """
    number = id(prepared)
    _forms[number] = _Form(run, prepared)  # holds `prepared`, so that its id stays its own
    tensors = [value if is_torch(value) else torch.from_numpy(value) for value in inputs]
    if not prepared.written:
        return list(_launch(tensors, number))
    outputs = _empty(prepared, tensors[0].device)
    written = [tensors[i] for i in prepared.written]
    _launch_into(
        [*written, *outputs], [t for i, t in enumerate(tensors) if i not in prepared.written], number
    )
    return outputs


__all__ = ["launch"]
