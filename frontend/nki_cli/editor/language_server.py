"""The language server: the findings of `nki-sim check --static` in an editor, while one types.

It reads the text of the buffer and runs nothing. Over a finding it shows the page of its code, over a name
of the nki API what `nki-sim isa` knows; findings with a mechanical fix offer it as a code action. Other
files are read as they are saved.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path
from pygls.workspace import PositionCodec

from nki.compiler.checker.check import check_text
from nki_cli.docs.code_pages import pages
from nki_cli.editor.hover import hover
from nki_isa.diagnostics import Diagnostic, Severity, Span
from nki_isa.diagnostics.codes import CODES
from nki_isa.machine.target import Target

_SEVERITIES = {
    Severity.error: types.DiagnosticSeverity.Error,
    Severity.warning: types.DiagnosticSeverity.Warning,
    Severity.note: types.DiagnosticSeverity.Information,
}
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class _Finding:
    """A diagnostic as this project has it, and as the protocol does."""

    own: Diagnostic
    sent: types.Diagnostic


@dataclass(slots=True)
class _Buffer:
    """A text in the editor.

    Attributes:
        uri: its name in the protocol.
        path: its name in the file system.
        text: as it is now.
        codec: how the client counts columns.
        findings: of this text.
    """

    uri: str
    path: str
    text: str
    codec: PositionCodec
    findings: list[_Finding] = field(default_factory=list)
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = _LINE_ENDS.split(self.text)

    def range_of(self, span: Span) -> types.Range:
        """A span of this text in the client's units."""
        start = types.Position(span.line - 1, span.column - 1)
        end = types.Position(span.end_line - 1, span.end_column - 1)
        if max(span.line, span.end_line) > len(self.lines):  # the end of the text
            start = end = types.Position(len(self.lines) - 1, len(self.lines[-1]))
        return self.codec.range_to_client_units(self.lines, types.Range(start, end))

    def place_of(self, position: types.Position) -> tuple[int, int]:
        """The line and column, from 1, of a position."""
        place = self.codec.position_from_client_units(self.lines, position)
        return place.line + 1, place.character + 1


class NkiServer(LanguageServer):
    """The server and the buffers it knows.

    Args:
        profile: the language profile, ``"library"`` or ``"strict"``.
        target: the generation whose figures hover pages show.
    """

    def __init__(self, profile: str, target: Target):
        super().__init__("nki-sim", _version())
        self.profile, self.target = profile, target
        self.buffers: dict[str, _Buffer] = {}

    def refresh(self, uri: str) -> None:
        """Check a buffer and publish what was found."""
        document = self.workspace.get_text_document(uri)
        buffer = _Buffer(uri, document.path, document.source, document.position_codec)
        buffer.findings = [_Finding(d, _converted(d, buffer)) for d in self._check(buffer)]
        self.buffers[uri] = buffer
        self._publish(uri, document.version, [finding.sent for finding in buffer.findings])

    def forget(self, uri: str) -> None:
        """A buffer was closed."""
        self.buffers.pop(uri, None)
        self._publish(uri, None, [])

    def _publish(self, uri: str, version: int | None, found: list[types.Diagnostic]) -> None:
        self.text_document_publish_diagnostics(
            types.PublishDiagnosticsParams(uri=uri, version=version, diagnostics=found)
        )

    def _check(self, buffer: _Buffer) -> list[Diagnostic]:
        if "nki" not in buffer.text:  # no kernel of any release does without this word
            return []
        try:
            return check_text(buffer.text, buffer.path, self.profile)
        except Exception as failed:  # a mistake of ours must not end the server
            self.window_log_message(types.LogMessageParams(types.MessageType.Error, traceback.format_exc()))
            message = f"the check failed with {type(failed).__name__}: {failed}"
            return [Diagnostic("NKI-I004", message, Span(buffer.path, 1))]


def server(profile: str, target: Target) -> NkiServer:
    """A server with its features, ready to start."""
    made = NkiServer(profile, target)
    made.feature(types.TEXT_DOCUMENT_DID_OPEN)(_did_open)
    made.feature(types.TEXT_DOCUMENT_DID_CHANGE)(_did_change)
    made.feature(types.TEXT_DOCUMENT_DID_SAVE)(_did_save)
    made.feature(types.TEXT_DOCUMENT_DID_CLOSE)(_did_close)
    made.feature(types.TEXT_DOCUMENT_HOVER)(_hover)
    kinds = types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    made.feature(types.TEXT_DOCUMENT_CODE_ACTION, kinds)(_code_actions)
    return made


# --- features


def _did_open(ls: NkiServer, params: types.DidOpenTextDocumentParams) -> None:
    ls.refresh(params.text_document.uri)


def _did_change(ls: NkiServer, params: types.DidChangeTextDocumentParams) -> None:
    ls.refresh(params.text_document.uri)


def _did_save(ls: NkiServer, params: types.DidSaveTextDocumentParams) -> None:
    for uri in list(ls.buffers):  # other buffers may import what was saved
        ls.refresh(uri)


def _did_close(ls: NkiServer, params: types.DidCloseTextDocumentParams) -> None:
    ls.forget(params.text_document.uri)


def _hover(ls: NkiServer, params: types.HoverParams) -> types.Hover | None:
    buffer = ls.buffers.get(params.text_document.uri)
    if buffer is None:
        return None
    line, column = buffer.place_of(params.position)
    over = [f for f in buffer.findings if _is_over(f.sent.range, params.position)]
    codes = dict.fromkeys(finding.own.code for finding in over)
    parts = [pages()[code].markdown() for code in codes if code in pages()]
    shown = over[0].sent.range if over else None
    try:
        symbol = hover(buffer.text, buffer.path, line, column, ls.target)
    except RecursionError:  # a text nested too deeply to walk
        symbol = None
    if symbol is not None:
        span, page = symbol
        parts.append(page)
        shown = shown or buffer.range_of(span)
    if not parts:
        return None
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, "\n\n---\n\n".join(parts)), shown)


def _code_actions(ls: NkiServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    buffer = ls.buffers.get(params.text_document.uri)
    found = buffer.findings if buffer else []
    return [
        types.CodeAction(
            title=f"Replace with `{finding.own.fix}`",
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[finding.sent],
            is_preferred=True,
            edit=types.WorkspaceEdit(
                changes={params.text_document.uri: [types.TextEdit(finding.sent.range, finding.own.fix)]}
            ),
        )
        for finding in found
        if finding.own.fix is not None
        and buffer is not None
        and _is_in(finding.own.span, buffer)
        and _is_over(finding.sent.range, params.range.start, params.range.end)
    ]


# --- the protocol's forms


def _converted(diagnostic: Diagnostic, buffer: _Buffer) -> types.Diagnostic:
    """A diagnostic at its place in the buffer; one of another file at the call that leads there."""
    calls = [frame.span for frame in reversed(diagnostic.stack)]
    place = next((span for span in (diagnostic.span, *calls) if _is_in(span, buffer)), None)
    related = [(label.span, label.message) for label in diagnostic.labels]
    if diagnostic.span is not None and place is not diagnostic.span:
        related.insert(0, (diagnostic.span, "the place itself"))
    message = diagnostic.message
    if diagnostic.help:
        message += f"\nhelp: {diagnostic.help}"
    return types.Diagnostic(
        range=buffer.range_of(place or Span(buffer.path, 1)),
        message=message,
        severity=_SEVERITIES[diagnostic.severity],
        code=diagnostic.code,
        source="nki-sim",
        related_information=[_related(span, text, buffer) for span, text in related],
        data={"title": CODES[diagnostic.code].title, "fix": diagnostic.fix},
    )


def _related(span: Span, text: str, buffer: _Buffer) -> types.DiagnosticRelatedInformation:
    if _is_in(span, buffer):
        return types.DiagnosticRelatedInformation(types.Location(buffer.uri, buffer.range_of(span)), text)
    start = types.Position(span.line - 1, span.column - 1)
    uri = from_fs_path(str(Path(span.file).resolve())) or buffer.uri
    return types.DiagnosticRelatedInformation(types.Location(uri, types.Range(start, start)), text)


def _is_in(span: Span | None, buffer: _Buffer) -> bool:
    return span is not None and Path(span.file).resolve() == Path(buffer.path).resolve()


def _is_over(found: types.Range, start: types.Position, end: types.Position | None = None) -> bool:
    """Whether a range touches a place, or another range."""
    return found.start <= (end or start) and start <= found.end


def _version() -> str:
    try:
        return version("nki-sim")
    except PackageNotFoundError:  # run from a source tree
        return "0"
