"""Runs with checks, and what they find."""

import numpy as np

from nki import runtime
from nki_isa.diagnostics import NkiError

X = np.arange(128 * 512, dtype=np.float32).reshape(128, 512)


def found(kernel, *arguments, cores=1, **options):
    """The diagnostics of a run, raised or kept."""
    launched = kernel[cores] if cores > 1 else kernel
    with runtime.session(**{"check": "all", **options}) as session:
        try:
            launched(*arguments)
        except NkiError as refused:
            return list(refused.diagnostics)
    return list(session.launches[0].diagnostics)


def codes(diagnostics):
    """(code, severity) of each."""
    return [(d.code, d.severity.value) for d in diagnostics]
