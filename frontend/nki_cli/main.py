"""``nki-sim``: the commands, each a function of a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from nki import levels
from nki_cli.commands.check import check
from nki_cli.commands.explain import explain
from nki_cli.commands.ir import ir
from nki_cli.commands.isa import isa
from nki_cli.commands.lsp import lsp
from nki_cli.commands.profile import profile
from nki_cli.commands.run import run
from nki_cli.commands.sbuf import sbuf
from nki_cli.commands.targets import targets
from nki_isa.diagnostics import NkiError

app = typer.Typer(
    name="nki-sim",
    help="Run, check and time AWS Trainium NKI kernels without the hardware.",
    epilog="Exit status: 0 fine, 1 the kernel has errors, 2 wrong use of the command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def common(
    api: Annotated[
        str | None,
        typer.Option(
            "--api",
            metavar="0.2|0.3|0.4|0.5|0.6",
            help="The level of the NKI API that kernels use. Default: $NKI_SIM_API, or the newest.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Options before the command."""
    if api is not None:
        try:
            levels.use(api)
        except NkiError as found:
            told = found.diagnostics[0]
            raise typer.BadParameter(f"{told.message}; {told.help}", param_hint="--api") from None


for command in (run, profile, check, ir, sbuf, isa, explain, targets, lsp):
    app.command()(command)
