"""What refuses a kernel, for tests of what is said."""

from __future__ import annotations

from typing import Any

import pytest

from nki.compiler import specialize
from nki_isa.diagnostics import Diagnostic, NkiError


def refused(kernel: Any, *args: Any, **kwargs: Any) -> list[Diagnostic]:
    with pytest.raises(NkiError) as found:
        specialize(kernel, *args, **kwargs)
    return list(found.value.diagnostics)
