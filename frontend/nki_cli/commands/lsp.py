"""``nki-sim lsp``: the language server, on standard input and output."""

from __future__ import annotations

from nki_cli.options import OwnLanguageOption, TargetOption, read_language, read_target
from nki_cli.screen import Screen
from nki_isa.diagnostics import Diagnostic


def lsp(
    language: OwnLanguageOption = None,
    target: TargetOption = None,
) -> None:
    """Serve an editor: errors while typing, pages over names and errors, fixes. See docs/editors.md."""
    screen = Screen.open()
    chosen = read_target(target, screen)
    try:
        from nki_cli.editor.language_server import server
    except ModuleNotFoundError as missing:
        message = f"the language server needs {missing.name}, which is not installed"
        screen.fail([Diagnostic("NKI-L034", message, help="pip install 'nki-sim[lsp]'")])
    server(read_language(language), chosen).start_io()
