"""What to say about a syntax error: by example where the mistake is a frequent one, else what was expected.

An example is a malformed text with what to say about it. Parsing it shows at which place of the grammar, and at
which token, such a mistake surfaces; a mistake that surfaces there gets the same words.
"""

from __future__ import annotations

from nki_isa.diagnostics import Diagnostic

from nki.compiler.generate import Mismatch, Parser
from nki.compiler.lexer import Tokens


def explain(parser: Parser, tokens: Tokens, mismatch: Mismatch) -> Diagnostic:
    """The diagnostic for a mismatch."""
    site = parser.sites[mismatch.site]
    return Diagnostic("NKI-L004", f"expected {sorted(site.expected)} in {site.rule}, found {tokens.types[mismatch.position]}", tokens.span(mismatch.position))
