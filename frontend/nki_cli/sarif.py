"""Verdicts as SARIF 2.1.0, which code scanning of GitHub and editors read.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nki
from nki_isa.diagnostics import Severity, Span
from nki_isa.diagnostics.codes import CODES
from nki_sim import words
from nki_tools.gate import Judgement, Reason

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.error: "error", Severity.warning: "warning", Severity.note: "note"}


def log(launches: Iterable[Judgement]) -> dict[str, Any]:
    """The log of one run: a result for each finding of each launch, a rule for each code."""
    pairs = [(launch, reason) for launch in launches for reason in launch.reasons]
    codes = list(dict.fromkeys(reason.finding.code for _, reason in pairs))
    driver = {
        "name": "nki-sim",
        "version": nki.__version__,
        "rules": [
            {"id": code, "name": CODES[code].title, "shortDescription": {"text": CODES[code].rule}}
            for code in codes
        ],
    }
    results = [_result(launch, reason, codes) for launch, reason in pairs]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _result(launch: Judgement, reason: Reason, codes: list[str]) -> dict[str, Any]:
    found = reason.finding
    text = f"{found.message}. {found.help}" if found.help else found.message
    return {
        "ruleId": found.code,
        "ruleIndex": codes.index(found.code),
        "level": _LEVELS[found.severity],
        "message": {"text": text},
        "locations": [_location(found.span)] if found.span else [],
        "properties": {
            "kernel": launch.kernel,
            "verdict": launch.verdict.value,
            "decides": reason.decides,
            "evidence": reason.evidence,
        },
    }


def _location(span: Span) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": words.path(span.file)},
            "region": {
                "startLine": span.line,
                "startColumn": span.column,
                "endLine": span.end_line,
                "endColumn": span.end_column,
            },
        }
    }
