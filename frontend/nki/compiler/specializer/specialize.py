"""Evaluates a kernel's meta-program on shapes and scalars; what is left is the Program.

The meta-program is compiled from its text (:mod:`nki.compiler.specializer.importer`) or is the user's own
functions (:mod:`nki.compiler.specializer.tracer`); all else here is the same for both.
"""

from __future__ import annotations

import bdb
import contextlib
import difflib
import enum
import functools
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType, MethodType, TracebackType
from typing import Any

import numpy as np

from nki import levels
from nki.compiler.checker import calls
from nki.compiler.checker.check import require
from nki.compiler.language import array_arguments, names
from nki.compiler.source.host_modules import is_host
from nki.compiler.source.kernel_source import KernelSource, signature_of
from nki.compiler.source.source import around, text_of
from nki.compiler.specializer.importer import Importer, Values
from nki.compiler.specializer.purity import Read
from nki.compiler.specializer.recorder import Recorder, recording
from nki.compiler.specializer.stacks import (
    is_kernel_frame,
    loop_around,
    outermost,
    stack_of_traceback,
    statement_at,
    steps,
)
from nki.compiler.specializer.steps import WithoutEnd
from nki.compiler.specializer.tracer import tracing
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import walk
from nki.compiler.syntax.parsed import deep_recursion
from nki.typing import check_shape, mutable_of, shapes_of
from nki_isa.diagnostics import (
    Diagnostic,
    Label,
    NkiError,
    RunTimeValueError,
    Severity,
    Span,
    error,
    interrupted_at,
    span_of,
)
from nki_isa.ir.program import Program
from nki_isa.machine.dtypes import DType
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Target
from nki_isa.rules import memory, programs
from nki_isa.tensor.idioms import idiom
from nki_isa.tensor.storage import MemoryRegion, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.process import no_collection

_OWN_PACKAGES = ("nki", "nki_isa")
_SPEAKING = ("nki.objects",)  # raises what Python would for a class of the user's
_SHOWN_FRAMES = 6  # at either end of a call chain without end

# Arguments that come in as they are, or as the importer brings code in.
_PLAIN = (type(None), bool, int, float, str, enum.Enum, range, slice, type, np.dtype, DType, Operator)
_CODE = (FunctionType, BuiltinFunctionType, MethodType, functools.partial, KernelSource)


@dataclass(frozen=True, slots=True)
class Specialized:
    """A Program and how its values map to the call that made it.

    Attributes:
        program: the specialized kernel.
        inputs: the caller's arrays, in the order of ``program.inputs``.
        result: what the kernel returned, with an index into ``program.outputs``
            (:class:`Output`) in the place of each tensor.
        diagnostics: warnings met on the way.
        reads: what it took from modules, classes and closures.
        kernels: the functions of the kernels that it calls.
        traced: True if Python ran it, so that what else it depends on is not known.
    """

    program: Program
    inputs: list[Any]
    result: Any
    diagnostics: tuple[Any, ...] = ()
    reads: tuple[Read, ...] = ()
    kernels: tuple[FunctionType, ...] = ()
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """The place of one output tensor in a kernel's result."""

    index: int


@no_collection()
def specialize_call(
    kernel: KernelSource,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    target: Target,
    profile: str = "library",
    program_id: int = 0,
) -> Specialized:
    """Specialize `kernel` for one call: from its text, or by tracing it.

    Raises:
        NkiError: carrying every diagnostic found: syntax and names first, for the
            kernel and all it reaches; then those of specialization.
    """
    call: inspect.BoundArguments | None = None
    with contextlib.suppress(NkiError):  # mistakes of the kernel are told before those of its call
        call = bind(kernel, args, kwargs)
    with deep_recursion():
        checked = require(kernel.function, profile, call.arguments.values() if call else ())
    strict = profile == "strict"
    recorder = Recorder(
        kernel.function.__name__, target, kernel.grid, program_id, strict=strict, prints=kernel.prints
    )
    call = call or bind(kernel, args, kwargs)
    for name, shape in shapes_of(kernel.function).items():
        check_shape(kernel.function.__name__, name, shape, call.arguments.get(name))
    importer = Values() if checked.traced else Importer(recorder.steps)
    importer.config, importer.warn = kernel.config, recorder.warn
    arguments = _Arguments(recorder, importer)
    try:
        values = {name: arguments.bring(name, value) for name, value in call.arguments.items()}
    except RecursionError as failed:
        raise error(
            "NKI-L024",
            "an argument is nested too deeply to go through",
            help="pass flat lists, tuples and dicts",
        ) from failed
    _judge_arguments(recorder, kernel, call.arguments)
    with deep_recursion():
        function = importer.bring(kernel.function)
    bound = inspect.BoundArguments(call.signature, values)
    with tracing(recorder, importer) if checked.traced else contextlib.nullcontext():
        returned, cause = _evaluate(recorder, function, bound)
    if arguments.empty is not None and not _asserted(recorder.collector.diagnostics):
        raise arguments.empty
    if cause is None:
        arguments.check_wide()
    if cause is None:
        recorder.finish(kernel.schedule)
        if not recorder.collector.errors:
            _judge_stores(recorder, kernel)
    try:
        if any(map(_is_error, checked.found)) and _reached(cause, recorder.collector.diagnostics):
            raise NkiError(checked.found)
        recorder.collector.raise_errors()
    except NkiError as refused:
        raise refused from cause
    result = _result(recorder, kernel, returned)
    _judge_collectives(recorder)
    recorder.collector.raise_errors()
    warnings = [replace(d, severity=Severity.warning) if _is_error(d) else d for d in checked.found]
    found = dict.fromkeys((*warnings, *recorder.collector.diagnostics))
    reads, kernels = tuple(importer.reads), tuple(importer.kernels)
    return Specialized(
        recorder.program, arguments.inputs, result, tuple(found), reads, kernels, checked.traced
    )


def _asserted(found: Iterable[Diagnostic]) -> bool:
    """True if an assertion of the kernel's own failed."""
    return any(diagnostic.code == "NKI-L020" for diagnostic in found)


def _reached(cause: BaseException | None, found: Iterable[Diagnostic]) -> bool:
    """True if one of the names that do not exist, or of the calls that do not fit, was reached."""
    does_not_fit = any(d.code == "NKI-L012" for d in found)
    of_python = isinstance(cause, (NameError, AttributeError, TypeError))
    return does_not_fit or (of_python and not isinstance(cause, RunTimeValueError))


def _is_error(diagnostic: Diagnostic) -> bool:
    return diagnostic.severity is Severity.error


@functools.lru_cache(256)
def _signature(function: FunctionType) -> tuple[inspect.Signature, tuple[str, ...] | None]:
    """The signature, and the names of its parameters if each takes one positional argument."""
    signature = signature_of(function)
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in signature.parameters.values())
    return signature, tuple(signature.parameters) if plain else None


def bind(kernel: KernelSource, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    """The arguments of a call by parameter, defaults filled in.

    Raises:
        NkiError: NKI-L012 where they do not fit.
    """
    signature, names = _signature(kernel.function)
    if names is not None and len(args) == len(names) and not kwargs:  # 5 times as fast as signature.bind
        return inspect.BoundArguments(signature, dict(zip(names, args)))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as problem:
        raise error(
            "NKI-L012",
            f"{kernel.function.__name__}: {problem}",
            help=f"its signature is {calls.of_python(kernel.function.__name__, kernel.function)}",
        ) from None
    bound.apply_defaults()
    return bound


class _Arguments:
    """Brings the arguments of one call into the kernel.

    Arrays become HBM tensors, also inside containers and objects; the rest is copied.

    Attributes:
        importer: brings in everything that is not an array.
        inputs: the arrays, in the order of ``program.inputs``.
    """

    def __init__(self, recorder: Recorder, importer: Values):
        self.recorder = recorder
        self.importer = importer
        self.inputs = recorder.arrays
        self.empty: NkiError | None = None  # told if the kernel has nothing to say about it
        self._brought: dict[int, tuple[Any, Any]] = {}  # one object stays one; held, for its id

    def bring(self, name: str, value: Any) -> Any:
        """The kernel-side value of the argument, or part of one, that `name` tells.

        Raises:
            NkiError: NKI-L024 for what a kernel cannot take.
        """
        if isinstance(value, np.generic):
            return value.item()
        if array_arguments.is_dtype(value):
            return array_arguments.dtype_of(value, name)
        if isinstance(value, _PLAIN) or is_host_object(value):
            return value
        if array_arguments.is_array(value):
            return self._array(name, value)
        if id(value) in self._brought:
            return self._brought[id(value)][1]
        if self.importer.keeps(value) and not array_arguments.is_unsupported(value):
            return value
        if isinstance(value, list):
            items = self._keep(value, [])
            items.extend(self.bring(f"{name}_{i}", item) for i, item in enumerate(value))
            return items
        if isinstance(value, tuple):
            return self.importer.like(
                value, [self.bring(f"{name}_{i}", item) for i, item in enumerate(value)]
            )
        if isinstance(value, dict):
            table = self._keep(value, {})
            table.update(
                (self.importer.bring(k), self.bring(f"{name}_{k}", item)) for k, item in value.items()
            )
            return table
        if isinstance(value, _CODE):
            return self.importer.bring(value)
        unsupported = array_arguments.is_unsupported(value) or not hasattr(value, "__dict__")
        if unsupported or is_host(type(value).__module__):
            raise _unsupported(name, value)
        copy = self._keep(value, self.importer.blank(value))
        self.importer.fill(copy, value, lambda field, item: self.bring(f"{name}_{field}", item))
        return copy

    def check_wide(self) -> None:
        """Refuse an array of 64-bit integers that the kernel does not read as one (NKI-L024).

        They are what numpy and torch make of whole numbers by default; indices and counts are int32.
        """
        program = self.recorder.program
        wide = [k for k, tensor in enumerate(program.inputs) if tensor.dtype.bits == 64]
        used = {view.storage for i in program.walk() for view in (*i.reads, *i.writes)} if wide else ()
        for k in wide:
            if program.inputs[k].storage not in used:
                raise array_arguments.lacking(program.inputs[k].name, self.inputs[k])

    def _keep(self, value: Any, copy: Any) -> Any:
        self._brought[id(value)] = value, copy
        return copy

    def _array(self, name: str, value: Any) -> NkiTensor:
        shape, dtype = array_arguments.describe(value, name)
        if 0 in shape:
            help = "pass at least one element"
            self.empty = error("NKI-L024", f"argument {name!r} is empty: shape {shape}", help=help)
        tensor = self.recorder.allocate(shape, dtype, MemoryRegion.shared_hbm, name, kind="input")
        self.recorder.program.inputs.append(tensor)
        self.inputs.append(value)
        return tensor


def is_host_object(value: Any) -> bool:
    """True for values of nki's own that are not tensors, such as regions and ``nl.ds``."""
    return type(value).__module__.partition(".")[0] in _OWN_PACKAGES and not isinstance(
        value, (NkiTensor, KernelSource)
    )


def _unsupported(name: str, value: Any) -> NkiError:
    kind = type(value)
    if isinstance(value, NkiTensor):
        what = f"{value!r}, a tensor of another kernel call"
    else:
        what = (
            f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__name__}"
        )
    return error(
        "NKI-L024",
        f"argument {name!r} is {what}, which is not an array or a plain value",
        help="pass numpy arrays, numbers, strings, None, or lists, tuples, dicts and NKIObjects of them",
    )


# --- evaluation


def _evaluate(
    recorder: Recorder, function: Any, bound: inspect.BoundArguments
) -> tuple[Any, BaseException | None]:
    """What the kernel returned, and what ended it if it did not return; its errors are in the recorder."""
    try:
        with recording(recorder):
            return outermost(function, bound.args, bound.kwargs), None
    except bdb.BdbQuit:  # the user left the debugger
        raise
    except KeyboardInterrupt as stopped:
        raise interrupted_at(stopped, stack_of_traceback(stopped.__traceback__)) from None
    except WithoutEnd as found:
        recorder.report(_in_loop(_placed(found, found), found))
        return None, found
    except NkiError as found:
        recorder.report(_placed(found, found))
        return None, found
    except RecursionError as failed:
        message = "the kernel's functions call each other without end"
        recorder.report(
            _placed(error("NKI-L021", message, help="give the recursion a case that ends it"), failed)
        )
        return None, failed
    except Exception as failed:  # whatever the user's meta-code raises is told at the user's line
        inside = _own_function(failed.__traceback__)
        if inside is not None:
            raise _internal(f"{type(failed).__name__}: {failed}", inside, failed) from failed
        told = names.explained(failed)
        if isinstance(failed, AssertionError):
            recorder.report(_failed_assertion(failed))
        elif told is not None:
            recorder.report(_placed(told, failed))
        else:
            message = f"{type(failed).__name__}: {failed}"
            recorder.report(_placed(error("NKI-L021", message, help=_remedy(failed)), failed))
        return None, failed


#: What to write instead, by a part of what Python says.
_REMEDIES = (
    ("'float' object cannot be interpreted as an integer", "divide sizes with //, which keeps whole numbers"),
    ("slice indices must be integers", "divide sizes with //, which keeps whole numbers"),
    ("can only concatenate str", "write an f-string: f'{value}'"),
    ("list index out of range", "print the index and the length: print runs while the kernel is compiled"),
    ("tuple index out of range", "a tensor has x.ndim sizes: the last is x.shape[-1]"),
    ("values to unpack", "write as many names as there are values: x.ndim of a tensor's shape"),
    ("'tuple' object is not callable", "write x.shape[0]"),
    ("'NoneType' object", "it is what a function without return gives: return the value there"),
    ("'int' object is not iterable", "write range(n) to count to n"),
    ("'float' object is not iterable", "write range(n) to count to n, a whole number"),
    ("can't multiply sequence by non-int", "divide sizes with //, which keeps whole numbers"),
    ("'int' object is not callable", "t.size is the number of elements, t.shape[d] the size of a dimension"),
    ("division by zero", "assert before that the divisor is not 0 for the shapes given"),
)


def _remedy(failed: Exception) -> str | None:
    """What to write instead, where what Python says tells."""
    if isinstance(failed, KeyError) and isinstance(failed.args[0], DType):
        return (
            f"write the key as nl.{failed.args[0]}: numpy's is equal to it, but is found under another hash"
        )
    found = next((remedy for said, remedy in _REMEDIES if said in str(failed)), None)
    return found or _attribute_meant(failed)


def _attribute_meant(failed: Exception) -> str | None:
    """The remedy for a misspelt attribute, and for a tensor's of a plain value, such as ``[1].shape``."""
    if not isinstance(failed, AttributeError) or not failed.name:
        return None
    if isinstance(failed.obj, NkiTensor) and idiom(failed.name):
        return idiom(failed.name)
    if isinstance(failed.obj, DType) and failed.name == "name":
        return "write str(t.dtype)"
    known = [name for name in dir(failed.obj) if not name.startswith("_")]
    nearest = difflib.get_close_matches(failed.name, known, 1)
    if nearest:
        return f"write .{nearest[0]}"
    if hasattr(NkiTensor, failed.name):
        kind = type(failed.obj).__name__
        return f"this is of type {kind}, and no tensor: hand the kernel an array, such as np.asarray(...)"
    return None


def _placed(found: NkiError, raised: BaseException, span: Span | None = None) -> NkiError:
    """`found` at the user's line that `raised` came from, or at `span` in it, with the calls to it."""
    stack = stack_of_traceback(raised.__traceback__)
    if not stack:
        return found
    if span is not None:
        stack = (*stack[:-1], replace(stack[-1], span=span))
    if len(stack) <= 2 * _SHOWN_FRAMES + 1:
        return found.at(stack[-1].span, stack)
    left_out = f"{len(stack) - 2 * _SHOWN_FRAMES} calls between them are left out"
    placed = found.at(stack[-1].span, (*stack[:_SHOWN_FRAMES], *stack[-_SHOWN_FRAMES:]))
    return type(placed)(replace(d, notes=(*d.notes, left_out)) for d in placed.diagnostics)


def _in_loop(found: NkiError, raised: BaseException) -> NkiError:
    """`found` with a label at the innermost loop that `raised` came through."""
    around = loop_around(raised.__traceback__)
    if around is None:
        return found
    file, loop = around
    place = (loop.test if isinstance(loop, tree.While) else loop.iter).span(file)
    label = Label(replace(place, column=loop.col_offset + 1, line=loop.lineno), "in this loop")
    return type(found)(replace(d, labels=(*d.labels, label)) for d in found.diagnostics)


def _own_function(traceback: TracebackType | None) -> str | None:
    """The function of this project that the exception was raised in; None if it speaks of the user's code."""
    last = None
    called = ""
    for step in steps(traceback):
        code = step.tb_frame.f_code
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if is_kernel_frame(step.tb_frame) or module in _SPEAKING or code.co_name == "__getattr__":
            last, called = None, ""
        elif module.partition(".")[0] in _OWN_PACKAGES and code is not outermost.__code__:
            called = called or code.co_name
            last = f"{module}.{called}"
    return last


def _internal(message: str, function: str, raised: BaseException) -> NkiError:
    """NKI-I004: something of this project's failed under the user's call."""
    found = error(
        "NKI-I004",
        f"{function} failed with {message}",
        help="check the arguments of this call; please report it, since it should have told what is wrong",
    )
    return _placed(found, raised)


def _failed_assertion(failed: AssertionError) -> NkiError:
    """NKI-L020 at the condition of the ``assert``, with the user's text or else the condition."""
    for step in steps(failed.__traceback__):
        code, line = step.tb_frame.f_code, step.tb_lineno
    statement = statement_at(code, line) if is_kernel_frame(step.tb_frame) else None
    span, condition = None, "the condition"
    if isinstance(statement, tree.Assert):
        span = statement.test.span(code.co_filename)
        if span.line == span.end_line:
            text = text_of(code.co_filename).splitlines()[span.line - 1]
            condition = f"`{text[span.column - 1 : span.end_column - 1]}`"
    message = str(failed) or f"{condition} is false for these shapes and values"
    return _placed(error("NKI-L020", message), failed, span)


# --- results


def _result(recorder: Recorder, kernel: KernelSource, value: Any) -> Any:
    """`value` with outputs registered and replaced by their index."""
    if isinstance(value, NkiTensor):
        if not value.buffer.is_hbm:
            raise error(
                "NKI-L025",
                f"{kernel.function.__name__} returns {value!r}, which lives in {value.buffer.value}",
                help="copy it to a tensor made with buffer=nl.shared_hbm and return that one",
                span=_return_span(kernel),
            )
        recorder.check_result(value.storage)
        if levels.before("0.3"):  # a result was one buffer of all cores then, allocated as nl.hbm too
            recorder.share(value.storage)
        elif value.storage.region is not MemoryRegion.shared_hbm:
            _judge_result(recorder, kernel, value)
        recorder.program.outputs.append(value)
        return Output(len(recorder.program.outputs) - 1)
    if isinstance(value, (list, tuple)):
        items = [_result(recorder, kernel, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _result(recorder, kernel, item) for key, item in value.items()}
    if value is None or isinstance(value, (int, float, str)):
        return value
    what = "a register" if isinstance(value, VirtualRegister) else f"a {type(value).__name__}"
    raise error(
        "NKI-L025",
        f"{kernel.function.__name__} returns {what}",
        help="return HBM tensors, or tuples and lists of them",
        span=_return_span(kernel),
    )


def _judge_arguments(recorder: Recorder, kernel: KernelSource, arguments: dict[str, Any]) -> None:
    """Say which arguments the compiler was seen to refuse, at the kernel's ``def``."""
    span = _heading(kernel)
    for name, value in arguments.items():
        if isinstance(value, list):
            told = f"argument {name!r} of {kernel.function.__name__} is a list, not a tuple"
            recorder.tell(memory.LIST_ARGUMENT, told, help=f"pass a tuple: {name}=(...)", span=span)
    for tensor in recorder.program.inputs:
        if tensor.dtype == "float8_e4m3fn":
            recorder.tell(
                memory.FP8_ARGUMENT,
                f"argument {tensor.name!r} of {kernel.function.__name__} is float8_e4m3fn",
                help="hand over the bytes as int8 and write x.view(nl.float8_e4m3), or pass float8_e4m3",
                span=span,
            )


def _judge_stores(recorder: Recorder, kernel: KernelSource) -> None:
    """Say which arguments that are declared mutable nothing is stored to."""
    names = mutable_of(kernel.function)
    if not names:
        return
    written = {tensor.storage.index for i in recorder.program.walk() for tensor in i.writes}
    for tensor in recorder.program.inputs:
        if tensor.name in names and tensor.storage.index not in written:
            recorder.tell(
                memory.MUTABLE_UNWRITTEN,
                f"nothing is stored to {tensor.name!r}, which {kernel.function.__name__} declares as mutable",
                help="store to it, or annotate it with nt.tensor",
                span=_return_span(kernel),
            )


def _judge_collectives(recorder: Recorder) -> None:
    """Refuse collectives that read or write arguments and results, and preparations that none triggers."""
    if recorder.prepared is not None:
        stack = recorder.prepared[0].stack
        recorder.report(recorder.untriggered().at(span_of(stack), stack))
    results = {tensor.storage for tensor in recorder.program.outputs}
    for instruction in recorder.collectives:
        for tensor in (*instruction.reads, *instruction.writes):
            is_argument = tensor.storage.kind == "input"
            if is_argument or tensor.storage in results:
                recorder.tell(
                    programs.COLLECTIVE_ON_ARGUMENT,
                    f"{instruction.opcode} uses {tensor.name}, which is "
                    f"{'an argument' if is_argument else 'a result'} of the kernel",
                    help="copy it with nisa.dma_copy: to or from a tensor made by "
                    'nl.ndarray(..., buffer=nl.shared_hbm, name="copy")',
                    span=span_of(instruction.stack),
                )


def _judge_result(recorder: Recorder, kernel: KernelSource, value: NkiTensor) -> None:
    """Refuse a result in private HBM, as the compiler does from NKI 0.3 on."""
    recorder.tell(
        memory.PRIVATE_OUTPUT,
        f"{kernel.function.__name__} returns {value!r}, which is allocated with nl.hbm",
        help=f"write buffer=nl.shared_hbm where {value.name} is allocated",
        span=_return_span(kernel),
    )


def _return_span(kernel: KernelSource) -> Span:
    """The kernel's ``return``, or its ``def`` if it has several."""
    code = kernel.function.__code__
    node = around(code, kernel.function.__module__)
    inside = isinstance(node, tree.FunctionDef)
    returns = [n for n in walk(node) if isinstance(n, tree.Return)] if inside else []
    return returns[0].span(code.co_filename) if len(returns) == 1 else _heading(kernel)


def _heading(kernel: KernelSource) -> Span:
    """The place of the kernel's ``def``; of one without source, its first line."""
    code = kernel.function.__code__
    node = around(code, kernel.function.__module__)
    if isinstance(node, tree.FunctionDef):
        return Span(code.co_filename, node.lineno, node.col_offset + 1)
    return Span(code.co_filename, code.co_firstlineno)
