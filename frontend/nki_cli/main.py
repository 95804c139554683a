"""``nki-sim``: the commands, each a function of a module of its own."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import nki
from nki import levels, rendering
from nki.compiler.language import frontends
from nki_cli import commands
from nki_cli.screen import MISUSE
from nki_isa.diagnostics import Diagnostic, NkiError

#: Options under the names they had, which are still taken.
_RENAMED = {"--profile": "--language", "--strict": "--warnings-as-errors"}

_INTERRUPTED = 130  # what a shell reports for a command that SIGINT ended
_READER_LEFT = 141  # what a shell reports for a command that SIGPIPE ended


def _use(name: str, text: str) -> None:
    """Put an option in force that stands before a command or behind it."""
    try:
        _OF_EVERY_COMMAND[name](text)
    except NkiError as found:
        told = found.diagnostics[0]
        raise typer.BadParameter(f"{told.message}; {told.help}", param_hint=name) from None


#: Options that are said before a command, and taken behind it too.
_OF_EVERY_COMMAND: dict[str, Callable[[str], object]] = {"--api": levels.use, "--frontend": frontends.use}


def _taken(args: list[str]) -> list[str]:
    """`args` without the options of every command, which are put in force."""
    left: list[str] = []
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*left, word, *words]
        if name not in _OF_EVERY_COMMAND:
            left.append(word)
            continue
        given = value if equals else next(words, None)
        if given is None:
            raise typer.BadParameter("it needs a value", param_hint=name)
        _use(name, given)
    return left


class _Command(TyperCommand):
    """A command that takes options under older names too, and says which name they have now."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = _taken(args)
        mine = {name for parameter in self.params for name in parameter.opts}
        end = args.index("--") if "--" in args else len(args)
        for place, word in enumerate(args[:end]):
            name, equals, value = word.partition("=")
            now = _RENAMED.get(name)
            if now in mine and name not in mine:
                args[place] = f"{now}{equals}{value}"
                print(f"note: {name} is called {now} now", file=sys.stderr)
        return super().parse_args(ctx, args)


class _Commands(TyperGroup):
    """The commands; a reader that leaves early (``| head``) ends one as it ends other tools."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _told(), _reader():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _told(), _reader():
            return super().invoke(ctx)


@contextlib.contextmanager
def _reader() -> Iterator[None]:
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as ended:
        if not isinstance(ended, BrokenPipeError) and not isinstance(ended.__context__, BrokenPipeError):
            raise  # rich makes a SystemExit of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is written at the end
        raise typer.Exit(_READER_LEFT) from None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What ends a command from outside: Ctrl-C, and an output that cannot be written."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        print(f"interrupted{''.join(f': {part}' for part in stopped.args)}", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise
        found = Diagnostic("NKI-L033", f"the output cannot be written: {problem.strerror}")
        print(rendering.plain([found]), file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
        raise typer.Exit(MISUSE) from None


app = typer.Typer(
    name="nki-sim",
    cls=_Commands,
    help="Run, check and time AWS Trainium NKI kernels without the hardware.",
    epilog="Exit status: 0 fine, 1 the kernel has errors, 2 wrong use of the command, 3 gate cannot tell, "
    "130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"nki-sim {nki.__version__} (NKI API {', '.join(levels.LEVELS)})")
        raise typer.Exit


@app.callback()
def common(
    api: Annotated[
        str | None,
        typer.Option(
            "--api",
            metavar="|".join(levels.LEVELS),
            help="The level of the NKI API that kernels use. Default: $NKI_SIM_API, or the newest.",
            show_default=False,
        ),
    ] = None,
    frontend: Annotated[
        str | None,
        typer.Option(
            "--frontend",
            metavar="|".join(frontends.FrontEnd.__members__),
            help="What compiles kernels: the parser, tracing them in Python, or what each needs. "
            "Default: $NKI_COMPILER_FRONTEND, or auto.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options before the command; --api and --frontend are taken behind it too."""
    for name, text in (("--api", api), ("--frontend", frontend)):
        if text is not None:
            _use(name, text)


for name in commands.NAMES:
    module = importlib.import_module(f"nki_cli.commands.{name}")
    app.command(cls=_Command, context_settings=getattr(module, "CONTEXT", None))(getattr(module, name))
