"""``nki-sim sweep FILE``: the first call of a kernel again at many points, and which of them are best."""

from __future__ import annotations

import ast
import contextlib
import enum
import itertools
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

import typer
from rich import box, progress
from rich.table import Table as Lines

import nki.isa
import nki.language
from nki.compiler.source.kernel_source import signature_of
from nki.kernel import Kernel
from nki.runtime import Options
from nki_cli.options import ColorOption, TracebackOption
from nki_cli.reports import write_report
from nki_cli.screen import ERRORS, Format, Screen
from nki_cli.script import Prints, run_script
from nki_cli.session import finish, readable
from nki_isa.diagnostics import Diagnostic, NkiError, error
from nki_sim.words import counted, percent, size, time
from nki_tools.sweep import AXES, Table
from nki_tools.sweep import sweep as swept
from nki_tools.sweep.points import Row


class SweepFormat(str, enum.Enum):
    """How a sweep is written to standard output."""

    text = "text"
    json = "json"
    csv = "csv"


def sweep(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A Python script that calls the kernel.", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE,...",
            help="Values of a parameter of the kernel, of a field of one (config.tile), or of a dimension; "
            "start:stop:step is a range. May be given several times: every combination is a point.",
            show_default=False,
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME=128xN,...",
            help="Shapes of an array, of numbers and names of dimensions that --set gives values.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", metavar="trn2,...", help="Generations.", show_default=False)
    ] = "",
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule", metavar="program,compiler", help="Orders of instructions.", show_default=False
        ),
    ] = "",
    cores: Annotated[
        str,
        typer.Option("--cores", metavar="1,2", help="Cores of the launch.", show_default=False),
    ] = "",
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            metavar="NAME",
            help="The kernel. Default: the first that is called and has the parameters of --set and --shape.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="FILE.sqlite",
            help="Keep finished points here, and do not run again those that it has.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Processes. Default: all cores.", show_default=False),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="loky|dask|ray",
            help="Where points run: processes of this machine, or a cluster of Dask or Ray. Default: loky.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Of the scheduler of Dask, or of the head of Ray. Default: one is started here.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="What a best point keeps to, such as 'sbuf_bytes <= 98304 and tiles_m > 2'.",
            show_default=False,
        ),
    ] = None,
    bound: Annotated[
        str | None,
        typer.Option(
            "--bound",
            metavar="NS",
            help="A time that a point cannot undercut, of its values, such as '2 * m * n * k / 667e3': one "
            "above the fastest so far is passed over.",
            show_default=False,
        ),
    ] = None,
    best: Annotated[int, typer.Option("--best", metavar="N", min=0, help="Best points shown.")] = 10,
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write all rows to a file: .csv, .json, .parquet; or .svg, a picture of time against SBUF.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        SweepFormat,
        typer.Option("--format", help="text: the best points, to read; csv and json: all, for programs."),
    ] = SweepFormat.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Time a kernel at many points: arguments, shapes, generations, schedules. Which are best, and why?

    The script runs without arithmetic up to the first call of the kernel; that call is repeated with other
    values. A point that is refused is a row too.
    """
    screen = Screen.open(Format.json if format is SweepFormat.json else Format.text, no_color)
    readable(screen, file)
    try:
        space = _space(settings or (), shapes or (), target, schedule, cores)
        keeps = _expression(where) if where else None
        least = _expression(bound) if bound else None
        called, arguments = _call(screen, file, kernel, space, traceback)
        with _progress(screen) as told, _cluster(backend, cluster):
            found = swept(
                called,
                space,
                arguments,
                store=store,
                jobs=jobs,
                backend=backend,
                bound=least,
                progress=told,
            )
        ranked = found.ranked(keeps)
    except NkiError as problem:
        screen.fail(problem.diagnostics)
    for path in out or ():
        try:
            write_report(screen, path, found.write, counted(len(found), "row"))
        except NkiError as problem:
            screen.fail(problem.diagnostics)
    if format is SweepFormat.csv:
        screen.out.file.write(found.csv())
    elif format is SweepFormat.json:
        screen.json(
            {
                "command": "sweep",
                "file": file,
                "kernel": called.function.__name__,
                "rows": found.rows,
                "best": ranked[:best],
                "pareto": found.pareto(),
            }
        )
    else:
        _show(screen, called.function.__name__, found, ranked[:best])
    if not any(row["state"] == "ok" for row in found.rows):
        raise typer.Exit(ERRORS)


# --- what is asked


def _space(settings: Any, shapes: Any, *axes: str) -> dict[str, list[Any]]:
    """Values by name, in the order of the command line; axes last.

    Raises:
        NkiError: NKI-L032 for what is not NAME=VALUE,... or says nothing to sweep over.
    """
    space: dict[str, list[Any]] = {}
    for option, read, texts in (("--set", _values, settings), ("--shape", _shapes, shapes)):
        for text in texts:
            name, equals, listed = text.partition("=")
            if not (name.strip() and equals and listed.strip()):
                help = f"write {option} {'tile=128,256' if option == '--set' else 'x=128x512,256x512'}"
                raise error("NKI-L032", f"{option} {text!r} is not NAME=VALUE,...", help=help)
            space[name.strip()] = read(listed)
    for name, text in zip(AXES, axes, strict=True):
        if text:
            space[name] = _values(text)
    if not space:
        raise error(
            "NKI-L032",
            "the sweep has nothing to vary",
            help="write --set NAME=VALUE,..., --shape NAME=128x512,... or --target trn2,trn3",
        )
    return space


def _values(text: str) -> list[Any]:
    """``128,256``, ``64:513:64``, ``nl.float32,nl.bfloat16``, ``True``, ``(1, 2)``, words."""
    parts = re.findall(r"(?:\([^)]*\)|\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^,])+", text)
    return list(itertools.chain.from_iterable(_value(part.strip()) for part in parts))


def _value(text: str) -> list[Any]:
    if re.fullmatch(r"-?\d+:-?\d+(:-?\d+)?", text):
        found = range(*map(int, text.split(":"))) if not text.endswith(":0") else range(0)
        if not found:
            raise error("NKI-L032", f"the range {text} is empty", help="write start:stop:step as in range")
        return list(found)
    module, dot, name = text.partition(".")
    holder = {"nl": nki.language, "nisa": nki.isa}.get(module)
    if dot and holder is not None and hasattr(holder, name.partition(".")[0]):
        return [operator.attrgetter(name)(holder)]
    try:
        return [ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return [text]


def _shapes(text: str) -> list[tuple[int | str, ...]]:
    """``128x512,256xN``: tuples of numbers and names."""
    return [
        tuple(int(n) if n.isdecimal() else n for n in shape.strip().split("x")) for shape in text.split(",")
    ]


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}


def _expression(text: str) -> Callable[[Row], Any]:
    """What gives the value of an arithmetic expression or a condition, of the columns of a row.

    Raises:
        NkiError: NKI-L032 for text that is neither; so does what is returned, for an unknown column.
    """

    def refuse(what: str) -> NoReturn:
        help = "write numbers, names of columns, + - * / // %, comparisons, and, or, not"
        raise error("NKI-L032", f"{text!r} {what}", help=help)

    def value(node: ast.AST, row: Row) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return row[node.id] if node.id in row else refuse(f"names {node.id!r}, which no row has")
            case ast.UnaryOp():
                return _OPERATORS[type(node.op)](value(node.operand, row))
            case ast.BinOp():
                return _OPERATORS[type(node.op)](value(node.left, row), value(node.right, row))
            case ast.BoolOp():
                return (all if isinstance(node.op, ast.And) else any)(value(n, row) for n in node.values)
            case ast.Compare():
                sides = [value(side, row) for side in (node.left, *node.comparators)]
                steps = zip(node.ops, itertools.pairwise(sides))
                return all(_OPERATORS[type(op)](*pair) for op, pair in steps)
        return refuse("is not an arithmetic expression or condition")

    try:
        parsed = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        refuse("is not an arithmetic expression or condition")
    known = (ast.Constant, ast.Name, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.expr_context)
    for node in ast.walk(parsed):
        if not isinstance(node, (*known, ast.boolop)) and type(node) not in _OPERATORS:
            refuse("is not an arithmetic expression or condition")

    def evaluate(row: Row) -> Any:
        try:
            return value(parsed, row)
        except (TypeError, ZeroDivisionError) as problem:
            refuse(f"cannot be worked out: {problem}")

    return evaluate


class _Reached(BaseException):
    """The call that is swept was made: the rest of the script does not matter."""


def _call(
    screen: Screen, file: str, name: str | None, space: dict[str, list[Any]], whole_traceback: bool
) -> tuple[Kernel, dict[str, Any]]:
    """The kernel that is swept, and the arguments of its first call by name."""
    sizes = {n for values in space.values() for value in values if isinstance(value, tuple) for n in value}
    wanted = {part.partition(".")[0] for part in space} - set(AXES) - sizes
    called: list[Kernel] = []

    def take(kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parameters = signature_of(kernel.function).parameters.keys()
        called.append(kernel)
        if kernel.function.__name__ == name if name else wanted <= parameters:
            found.append((kernel, dict(signature_of(kernel.function).bind(*args, **kwargs).arguments)))
            raise _Reached

    found: list[tuple[Kernel, dict[str, Any]]] = []
    with contextlib.suppress(_Reached):
        options = Options(data=False, check="none", calls=take)
        outcome = run_script(file, options, prints=Prints.nowhere, whole_traceback=whole_traceback)
        finish(screen, outcome)
    if not found:
        names = ", ".join(dict.fromkeys(kernel.function.__name__ for kernel in called)) or "none"
        what = f"no kernel {name!r}" if name else f"no kernel with a parameter {', '.join(sorted(wanted))}"
        message = f"{file} calls {what}"
        screen.fail([Diagnostic("NKI-L027", message, help=f"the kernels it calls are: {names}")])
    return found[0]


@contextlib.contextmanager
def _cluster(backend: str | None, address: str | None) -> Iterator[None]:
    """The cluster that a backend runs on, for the time of the sweep."""
    if backend == "dask":
        with contextlib.suppress(ImportError):
            from distributed import Client

            with Client(address):
                yield
                return
    elif backend == "ray":
        with contextlib.suppress(ImportError):
            import ray

            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            try:
                yield
            finally:
                ray.shutdown()
            return
    yield


@contextlib.contextmanager
def _progress(screen: Screen) -> Iterator[Callable[[int, int, Row], None]]:
    """A bar with the time that remains, where standard error is a terminal."""
    bar = progress.Progress(
        progress.MofNCompleteColumn(),
        progress.BarColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}"),
        console=screen.err,
        transient=True,
        disable=not screen.err.is_terminal,
    )
    task = bar.add_task("", total=None)
    fastest: list[float] = []

    def told(done: int, total: int, row: Row) -> None:
        if row["time_ns"] is not None:
            fastest[:] = [min([*fastest, row["time_ns"]])]
        said = f"fastest {time(fastest[0])}" if fastest else ""
        bar.update(task, completed=done, total=total, description=said)

    with bar:
        yield told


# --- what is shown


def _show(screen: Screen, kernel: str, found: Table, best: list[Row]) -> None:
    states = Counter(row["state"] for row in found.rows)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    screen.show(f"{kernel}: {counted(len(found), 'point')}, {told}", "")
    front = {id(row) for row in found.pareto()}
    names = [name for name in found.columns if name in found.varying]
    names += ["target"] if "target" not in names else []
    table = Lines(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in (*names, "time", "bound by", "SBUF", "PSUM", "HBM", "MFU", ""):
        table.add_column(name, justify="right" if name in ("time", "SBUF", "PSUM", "HBM", "MFU") else "left")
    for row in best:
        sizes = [size(row[column]) for column in ("sbuf_bytes", "psum_bytes", "hbm_bytes")]
        mark = "Pareto" if id(row) in front else ""
        figures = (time(row["time_ns"]), row["bound_by"], *sizes, percent(row["mfu_percent"] / 100), mark)
        table.add_row(*(str(row[name]) for name in names), *figures)
    if best:
        screen.show(table, "")
    errors = Counter((row["code"] or "", row["error"]) for row in found.rows if row["error"])
    for (code, message), count in errors.most_common():
        screen.show(f"{counted(count, 'point')}: {code}{' ' * bool(code)}{message}")
