"""Stand-in for ``nki.compiler.frontend``, which tests marked ``trace_only`` compile kernels with."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import nki
from nki.compiler.specializer.specialize import specialize_call
from nki_isa.machine.targets import as_target
from tests.upstream.library.simulator import copy_argument


class NKIFrontend:
    """The base of the two front ends the library knows."""


class ParserFrontend(NKIFrontend):
    """Compiles a kernel from its text: every core is specialized, nothing runs."""

    def compile(self, kernel: Any, *, inputs: Mapping[str, Any], target: str, lnc: int, **_: Any) -> Any:
        """The Programs of all cores.

        Raises:
            NkiError: whatever the kernel does wrong.
        """
        launched = nki.jit(kernel)[lnc]
        arguments = {name: copy_argument(value) for name, value in inputs.items()}
        return [
            specialize_call(launched, (), arguments, target=as_target(target), program_id=core)
            for core in range(lnc)
        ]


def module() -> ModuleType:
    """The module to be imported."""
    made = ModuleType("nki.compiler.frontend")
    made.NKIFrontend, made.ParserFrontend = NKIFrontend, ParserFrontend  # type: ignore[attr-defined]
    return made
