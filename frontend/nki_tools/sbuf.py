"""Will a kernel call fit, and who holds SBUF and PSUM when?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nki import runtime
from nki.runtime import CoreRun, Launch
from nki_isa.diagnostics import NkiError
from nki_sim.report.facts import which
from nki_sim.report.html import write_html
from nki_sim.report.terminal import launch_line, memory_tables
from nki_sim.report.usage import memory_report
from nki_tools.launches import as_text, launch_facts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nki.kernel import Kernel
    from nki_isa.machine.target import Target


@dataclass(frozen=True)
class MemoryUse:
    """The memories of a kernel call over program order; as text it is what ``nki-sim sbuf`` prints.

    Attributes:
        launch: what its cores run and where their tensors are; with unlimited memory if it does not fit.
        refused: why it does not fit, or None.
    """

    launch: Launch
    refused: NkiError | None = None

    @property
    def fits(self) -> bool:
        """True if its tensors have room."""
        return self.refused is None

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON."""
        return launch_facts(self.launch, _facts)

    def tables(self) -> list[RenderableType]:
        """The figures as tables for rich."""
        found: list[RenderableType] = []
        for number, core in enumerate(self.launch.cores):
            heading = launch_line(core.program, None, which(number, len(self.launch.cores)))
            found += [heading, "", *memory_tables(core.program, core.placement), ""]
        return found

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with maps of both memories that needs nothing else.

        Raises:
            OSError: `path` cannot be written.
        """
        write_html(path, [self.launch.cores])

    def __str__(self) -> str:
        return as_text(self.tables())


def sbuf(
    kernel: Kernel, *args: Any, target: Target | str | None = None, spill: bool = True, **kwargs: Any
) -> MemoryUse:
    """The memories of ``kernel(*args, **kwargs)``; no arithmetic is done.

    Args:
        target: the generation; that of the environment if it is None.
        spill: False to refuse a kernel that fits SBUF only with spills to HBM.

    Raises:
        NkiError: the kernel is refused for another reason than its memory.
    """
    with runtime.session(target=target, data=False, check="none", spill=spill) as session:
        try:
            kernel(*args, **kwargs)
        except NkiError as refused:
            if not session.overfull:
                raise
            return MemoryUse(session.overfull[-1].placed(), refused)
    return MemoryUse(session.launches[-1])


def _facts(core: CoreRun) -> dict[str, Any]:
    return {"memory": memory_report(core.program, core.placement)}


__all__ = ["MemoryUse", "sbuf"]
