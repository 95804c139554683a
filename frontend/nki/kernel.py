"""What ``@nki.jit`` makes of a function."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, overload

from nki import levels
from nki.compiler.config import CompileConfig, SpecializationConfig
from nki.compiler.source.kernel_source import KernelSource, remembered, signature_of
from nki.compiler.specializer import recorder, stacks
from nki.compiler.specializer.schedule import read_schedule
from nki.launch.numbered import number_of
from nki_isa.diagnostics import Span, error


class Kernel(KernelSource):
    """A function compiled for the NeuronCore when it is called with arrays.

    Calling it runs it on the simulated core and returns arrays; ``kernel[n]``
    launches it on `n` cores of one logical core. Inside another kernel a call is
    inlined.

    Attributes:
        number: that which a graph of torch holds in its place.
    """

    def __init__(self, function: FunctionType, grid: int | None = None, **parts: Any):
        super().__init__(function, grid, **parts)
        functools.update_wrapper(self, function)
        self.number = number_of(self)

    def __getitem__(self, grid: Any) -> Kernel:
        """The same kernel launched with `grid` programs: an int, or a tuple of one."""
        count = grid[0] if isinstance(grid, tuple) and len(grid) == 1 else grid
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise error(
                "NKI-L024",
                f"the launch grid of {self.function.__name__} is {grid!r}, not a positive number of cores",
                help=f"write {self.function.__name__}[1](...) or {self.function.__name__}[2](...)",
            )
        return self.having(grid=count)

    @property
    def func(self) -> FunctionType:
        """The function as the user wrote it; the name that the vendor's kernel objects have for it."""
        return self.function

    def with_schedule(self, edges: Any) -> Kernel:
        """The same kernel with dependencies between its instructions beyond those of their data.

        Args:
            edges: a list of pairs ``(consumer, producer)`` or ``(consumer, [producer, ...])`` of the
                names that instructions were given with ``name=``; the consumer runs after each producer.

        Raises:
            NkiError: NKI-L045 for anything else. What the names stand for is checked when the kernel
                is specialized.

        Source: SDK guide "How to Use the NKI Scheduling APIs".
        """
        caller = sys._getframe(1)
        place = Span(caller.f_code.co_filename, caller.f_lineno)
        return self.having(schedule=read_schedule(edges, place))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and torch.compiler.is_compiling():  # torch.compile reads this method
            from nki.launch.torch_graph import call_in_graph  # loads torch

            return call_in_graph(self.number, args, kwargs)
        from nki.launch.call import launch  # the machine is loaded when a kernel first runs

        if recorder.is_recording():
            inline = recorder.current().inline
            if inline is not None:
                return inline(self)(*args, **kwargs)
            if stacks.is_kernel_code(self.function.__code__):  # decorated in this very kernel
                return self.function(*args, **kwargs)
            raise error(
                "NKI-L021",
                f"{self.function.__name__} is a kernel object inside a kernel",
                help="call it by the name it has in its module, so that it is compiled with its caller",
            )
        return launch(self, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """By its name in its module where it has one; else by its function, for cloudpickle."""
        function = self.function
        module = sys.modules.get(function.__module__)
        named = getattr(module, function.__qualname__, None)
        if function.__module__ != "__main__" and isinstance(named, Kernel) and named.function is function:
            return _of_module, (function.__module__, function.__qualname__, self.parts)
        return _of_function, (function, self.parts)

    def __repr__(self) -> str:
        return f"<nki kernel {self.function.__qualname__}{signature_of(self.function)}>"


def _of_module(module: str, name: str, parts: dict[str, Any]) -> Kernel:
    kernel: Kernel = getattr(importlib.import_module(module), name)
    return kernel.having(**parts)


def _of_function(function: FunctionType, parts: dict[str, Any]) -> Kernel:
    return Kernel(remembered(function), **parts)


@overload
def jit(function: Callable[..., Any], **options: Any) -> Kernel: ...
@overload
def jit(function: None = None, *, fn: Callable[..., Any], **options: Any) -> Kernel: ...
@overload
def jit(function: None = None, **options: Any) -> Callable[[Callable[..., Any]], Kernel]: ...


def jit(function: Any = None, **options: Any) -> Any:
    """Decorator that makes a kernel of a function, with or without parentheses.

    Args:
        function: the function, also by its names in the vendor's package, ``fn=`` (``func=`` at API level
            0.2); a kernel is returned as it is.
        compile_config: from API level 0.7 on, a :class:`nki.compiler.CompileConfig`; it steers parts of the
            vendor's compiler that are not modelled.
        specialization_config: from API level 0.7 on, a :class:`nki.compiler.SpecializationConfig`.
        **options: accepted for compatibility (``mode``, ``debug_kernel``, ...); they
            steer the vendor's compiler and change nothing here.

    Raises:
        NkiError: NKI-L023 for what is not a function; NKI-L050 for parameters of another API level; NKI-V154
            for a configuration of another class.
    """
    config = _config(options)
    if "platform_target" in options and not levels.before("0.3"):
        raise error(
            "NKI-L050",
            f"nki.jit has the parameter 'platform_target' up to 0.2; the API level is {levels.current()}",
            help="set the environment variable NEURON_PLATFORM_TARGET_OVERRIDE, or run nki-sim --target",
            notes=levels.taken_before("0.3"),
        )
    for name in ("fn", "func"):
        function = options.pop(name, None) if function is None else function
    if function is None:
        given = dict(zip(("compile_config", "specialization_config"), config))
        return functools.partial(jit, **options, **{name: v for name, v in given.items() if v is not None})
    if isinstance(function, Kernel):
        return function
    return Kernel(remembered(function), config=config)


def _config(options: dict[str, Any]) -> tuple[CompileConfig | None, SpecializationConfig | None]:
    """The two configurations among the options of :func:`jit`, which are taken out."""
    found: list[Any] = []
    for name, kind in (("compile_config", CompileConfig), ("specialization_config", SpecializationConfig)):
        value = options.pop(name, None)
        if value is not None and levels.before("0.7"):
            raise error(
                "NKI-L050",
                f"nki.jit has the parameter {name!r} from 0.7 on; the API level is {levels.current()}",
                help="leave it out",
                notes=(levels.choice("0.7"),),
            )
        if value is not None and not isinstance(value, kind):
            raise error(
                "NKI-V154",
                f"nki.jit: {name} is {value!r}, not a {kind.__name__}",
                help=f"write {name}=nki.compiler.{kind.__name__}(...)",
            )
        found.append(value)
    return found[0], found[1]


@overload
def simulate(kernel: Any) -> Kernel: ...
@overload
def simulate(kernel: Any, *, ranks: int) -> Ranks: ...


def simulate(kernel: Any, *, ranks: int | None = None) -> Kernel | Ranks:
    """`kernel` on the simulator, where ``print`` of a tensor shows its values at that point.

    A debugger that stops in it, by ``breakpoint()`` for example, shows them too, but for what a loop of the
    device is at work on.

    Here every kernel runs on the simulator; without this, ``print`` in a kernel describes a tensor while the
    kernel is compiled, as it does on hardware. Values of a tensor in PSUM are not shown.

    Args:
        ranks: launch it on so many ranks, which meet in the operations of ``nki.collectives``; see
            :class:`Ranks` for how it is called then.

    Raises:
        NkiError: NKI-L023 for what is neither a kernel nor a function; NKI-L024 for a bad number of ranks.
    """
    made: Kernel = jit(kernel)
    made = made.having(prints=True)
    return made if ranks is None else Ranks(made, ranks)


class Ranks:
    """A kernel launched on several ranks at once.

    ``launched[n]`` gives each rank `n` physical cores, as for :class:`Kernel`. Calling it takes the arguments
    of every rank and returns a list with the result of each::

        results = nki.simulate(kernel, ranks=2)([{"x": x0, "w": w}, {"x": x1, "w": w}])

    Attributes:
        kernel: what each rank runs.
        count: the number of ranks.
    """

    def __init__(self, kernel: Kernel, count: int):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise error(
                "NKI-L024",
                f"ranks of {kernel.function.__name__} is {count!r}, not a positive number",
                help="write nki.simulate(kernel, ranks=2)",
            )
        self.kernel = kernel
        self.count = count

    def __getitem__(self, grid: Any) -> Ranks:
        """The same with `grid` physical cores for each rank."""
        return Ranks(self.kernel[grid], self.count)

    def __call__(self, inputs: Any) -> list[Any]:
        """Run all ranks.

        Args:
            inputs: the arguments of each rank: a list of them, or a function of the rank that gives them. A
                dict holds arguments by name, a tuple those in order; anything else is the one argument.

        Returns:
            What the kernel returns, for each rank.

        Raises:
            NkiError: everything wrong with the kernel or its calls; NKI-L024 for another number of arguments
                than ranks; NKI-U012 for collectives among other ranks; NKI-H020 for ranks that wait for
                each other without end.
        """
        from nki.launch.call import launch_ranks

        if callable(inputs):
            inputs = [inputs(rank) for rank in range(self.count)]
        if not isinstance(inputs, (list, tuple)) or len(inputs) != self.count:
            count = len(inputs) if isinstance(inputs, (list, tuple)) else f"a {type(inputs).__name__}"
            raise error(
                "NKI-L024",
                f"{self.kernel.function.__name__} is launched on {self.count} ranks and given arguments for "
                f"{count}",
                help="pass a list with the arguments of each rank, or a function of the rank: "
                'lambda rank: {"x": parts[rank]}',
            )
        calls = [
            ((), one) if isinstance(one, dict) else (one if isinstance(one, tuple) else (one,), {})
            for one in inputs
        ]
        return launch_ranks(self.kernel, calls)

    def __repr__(self) -> str:
        return f"<{self.kernel!r} on {self.count} ranks>"
