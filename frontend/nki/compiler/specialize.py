"""Evaluates a kernel's meta-program on shapes and scalars; what is left is the Program."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from nki_isa.diagnostics import Frame, NkiError, error
from nki_isa.program import Program
from nki_isa.target import Target
from nki_isa.tensor import MemoryRegion, NkiTensor

from nki import arrays
from nki.compiler.check import require
from nki.compiler.importer import Importer
from nki.compiler.recorder import Recorder, enter, stack_of_traceback
from nki.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Specialized:
    """A Program and how its values map to the call that made it.

    Attributes:
        program: the specialized kernel.
        inputs: the caller's arrays, in the order of ``program.inputs``.
        result: what the kernel returned, with an index into ``program.outputs``
            (:class:`Output`) in the place of each tensor.
        diagnostics: warnings met on the way.
    """

    program: Program
    inputs: list[Any]
    result: Any
    diagnostics: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """The place of one output tensor in a kernel's result."""

    index: int


def specialize_call(
    kernel: Kernel,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    target: Target,
    profile: str = "library",
    program_id: int = 0,
) -> Specialized:
    """Specialize `kernel` for one call.

    Raises:
        NkiError: carrying every diagnostic found: syntax and names first, for the
            kernel and all it reaches; then those of specialization.
    """
    require(kernel.function, profile)
    recorder = Recorder(kernel.function.__name__, target, kernel.grid, program_id)
    importer = Importer(Kernel)
    call = _bind(kernel, args, kwargs)
    inputs: list[Any] = []
    values = {name: _argument(recorder, importer, inputs, name, value) for name, value in call.arguments.items()}
    function = importer.bring(kernel.function)
    bound = inspect.BoundArguments(call.signature, values)  # type: ignore[arg-type]
    returned = _evaluate(recorder, function, bound)
    recorder.collector.raise_errors()
    result = _result(recorder, kernel, returned)
    return Specialized(recorder.program, inputs, result, tuple(recorder.collector.diagnostics))


def _bind(kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    signature = inspect.signature(kernel.function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise error(
            "NKI-L012",
            f"{kernel.function.__name__}: {problem}",
            help=f"its signature is {kernel.function.__name__}{signature}",
        ) from None
    bound.apply_defaults()
    return bound


def _argument(recorder: Recorder, importer: Importer, inputs: list[Any], name: str, value: Any) -> Any:
    """The kernel-side value of one argument: arrays become HBM tensors, also inside containers."""
    if arrays.is_array(value):
        shape, dtype = arrays.describe(value, name)
        tensor = recorder.allocate(shape, dtype, MemoryRegion.shared_hbm, name, kind="input")
        recorder.program.inputs.append(tensor)
        inputs.append(value)
        return tensor
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = (_argument(recorder, importer, inputs, f"{name}_{i}", item) for i, item in enumerate(value))
        return type(value)(items)
    if isinstance(value, dict):
        return {k: _argument(recorder, importer, inputs, f"{name}_{k}", item) for k, item in value.items()}
    if arrays.is_unsupported(value):
        raise error(
            "NKI-L024",
            f"argument {name!r} is a {type(value).__module__}.{type(value).__name__}, which is no array or plain value",
            help="pass numpy arrays, numbers, strings, None, or lists, tuples, dicts and NKIObjects of them",
        )
    return importer.bring(value)


def _evaluate(recorder: Recorder, function: Any, bound: inspect.BoundArguments) -> Any:
    try:
        return enter(recorder, function, bound.args, bound.kwargs)
    except NkiError as found:
        stack = stack_of_traceback(found.__traceback__)
        recorder.report(found.at(stack[-1].span if stack else None, stack))
    except AssertionError as failed:
        stack = stack_of_traceback(failed.__traceback__)
        message = str(failed) or "the condition is false for these shapes and values"
        recorder.report(_placed(error("NKI-L020", message), stack))
    except RecursionError as failed:
        _report_exception(recorder, failed, "the kernel's functions call each other without end")
    except Exception as failed:  # whatever the user's meta-code raises is the user's error, told at their line
        _report_exception(recorder, failed, f"{type(failed).__name__}: {failed}")
    return None


def _report_exception(recorder: Recorder, failed: BaseException, message: str) -> None:
    stack = stack_of_traceback(failed.__traceback__)
    last = failed.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    raised_by_kernel = last is not None and bool(stack_of_traceback(last))
    if not stack or not (raised_by_kernel or _is_called_by_kernel(failed)):
        raise failed  # our own mistake: shown whole
    recorder.report(_placed(error("NKI-L021", message), stack))


def _is_called_by_kernel(failed: BaseException) -> bool:
    """True where a built-in or library function the kernel called raised."""
    return isinstance(failed, (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError))


def _placed(found: NkiError, stack: tuple[Frame, ...]) -> NkiError:
    return found.at(stack[-1].span if stack else None, stack)


def _result(recorder: Recorder, kernel: Kernel, value: Any) -> Any:
    """`value` with outputs registered and replaced by their index."""
    if isinstance(value, NkiTensor):
        if not value.buffer.is_hbm:
            raise error(
                "NKI-L025",
                f"{kernel.function.__name__} returns {value!r}, which lives in {value.buffer.value}",
                help="copy it to a tensor made with buffer=nl.shared_hbm and return that one",
                span=_definition_span(kernel),
            )
        recorder.program.outputs.append(value)
        return Output(len(recorder.program.outputs) - 1)
    if isinstance(value, (list, tuple)):
        return type(value)(_result(recorder, kernel, item) for item in value)
    if isinstance(value, dict):
        return {key: _result(recorder, kernel, item) for key, item in value.items()}
    if value is None or isinstance(value, (int, float, str)):
        return value
    raise error(
        "NKI-L025",
        f"{kernel.function.__name__} returns a {type(value).__name__}",
        help="return HBM tensors, or tuples and lists of them",
        span=_definition_span(kernel),
    )


def _definition_span(kernel: Kernel) -> Any:
    from nki_isa.diagnostics import Span

    code = kernel.function.__code__
    return Span(code.co_filename, code.co_firstlineno)
