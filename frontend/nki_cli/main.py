"""``nki-sim``: the commands, each a function of a module of its own."""

from __future__ import annotations

import typer

from nki_cli.commands.check import check
from nki_cli.commands.explain import explain
from nki_cli.commands.ir import ir
from nki_cli.commands.isa import isa
from nki_cli.commands.lsp import lsp
from nki_cli.commands.profile import profile
from nki_cli.commands.run import run
from nki_cli.commands.sbuf import sbuf
from nki_cli.commands.targets import targets

app = typer.Typer(
    name="nki-sim",
    help="Run, check and time AWS Trainium NKI kernels without the hardware.",
    epilog="Exit status: 0 fine, 1 the kernel has errors, 2 wrong use of the command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (run, profile, check, ir, sbuf, isa, explain, targets, lsp):
    app.command()(command)
