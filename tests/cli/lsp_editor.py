"""An editor for tests: a client of pygls that speaks to `nki-sim lsp` over its protocol."""

import asyncio
import queue
import sys
import threading

from lsprotocol import types
from pygls.lsp.client import LanguageClient

COMMAND = "from nki_cli.main import app; app()"
WAIT = 20  # seconds until a test gives up


class Editor:
    """An editor with one server: sends what a user does, keeps what the server publishes."""

    def __init__(self, *options: str, command: str = COMMAND, first: tuple[str, ...] = ()):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.published: queue.Queue[types.PublishDiagnosticsParams] = queue.Queue()
        self.client = LanguageClient("editor", "1")
        self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda found: self.published.put(found))
        self.client.feature(types.WINDOW_LOG_MESSAGE)(lambda params: None)
        self.wait(self.client.start_io(sys.executable, "-c", command, *first, "lsp", *options))
        parameters = types.InitializeParams(capabilities=types.ClientCapabilities(), root_uri=None)
        self.initialized = self.wait(self.client.initialize_async(parameters))
        self.client.initialized(types.InitializedParams())

    def wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT)

    def close(self) -> None:
        self.wait(self.client.shutdown_async(None))
        self.client.exit(None)
        self.wait(self.client.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def open(self, path, text: str) -> list[types.Diagnostic]:
        item = types.TextDocumentItem(path.as_uri(), "python", 1, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return self.diagnostics(path)

    def change(self, path, *changes, version: int = 2) -> list[types.Diagnostic]:
        document = types.VersionedTextDocumentIdentifier(uri=path.as_uri(), version=version)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, list(changes)))
        return self.diagnostics(path)

    def write(self, path, text: str, version: int = 2) -> list[types.Diagnostic]:
        return self.change(path, types.TextDocumentContentChangeWholeDocument(text), version=version)

    def save(self, path) -> None:
        document = types.TextDocumentIdentifier(path.as_uri())
        self.client.text_document_did_save(types.DidSaveTextDocumentParams(document))

    def shut(self, path) -> list[types.Diagnostic]:
        document = types.TextDocumentIdentifier(path.as_uri())
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(document))
        return self.diagnostics(path)

    def diagnostics(self, path) -> list[types.Diagnostic]:
        """What is published next for a file."""
        while True:
            found = self.published.get(timeout=WAIT)
            if found.uri == path.as_uri():
                return list(found.diagnostics)

    def hover(self, path, line: int, column: int) -> types.Hover | None:
        document, place = types.TextDocumentIdentifier(path.as_uri()), types.Position(line, column)
        return self.wait(self.client.text_document_hover_async(types.HoverParams(document, place)))

    def actions(self, path, where: types.Range) -> list[types.CodeAction]:
        parameters = types.CodeActionParams(
            types.TextDocumentIdentifier(path.as_uri()), where, types.CodeActionContext([])
        )
        return list(self.wait(self.client.text_document_code_action_async(parameters)) or [])
