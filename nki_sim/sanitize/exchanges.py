"""Tensors that an all_to_all receives in while a slower rank still uses what came before.

What a rank sends lands in the others' memories as soon as it enters the collective: the receiving side does
not meet it. So between the last use of what one all_to_all brought and the next one into the same tensor all
ranks of the group must have met, in another collective, after that use.

Source: a public note of all_to_all on inf2 with NKI 0.6, where one pair of buffers for two exchanges gave
wrong sums on 8 ranks and right ones on 2 and 4, and two pairs gave right ones throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nki_isa.diagnostics import Severity
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Node, Program
from nki_isa.ops.collective import Collective, all_to_all
from nki_isa.ops.collective_halves import all_to_all_v_trigger
from nki_isa.ops.collective_v import all_to_all_v
from nki_sim.observe import Core
from nki_sim.sanitize.check import Check, Scene
from nki_sim.sanitize.findings import allocated, done_by, site

_KINDS = all_to_all, all_to_all_v, all_to_all_v_trigger


class Exchanges(Check):
    """Follows the tensors that several exchanges receive in."""

    name = "exchanges"
    finds = "tensors that an all_to_all receives in while other ranks may still use them (NKI-H024)"
    codes = ("NKI-H024",)
    listed = 13

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """Two exchanges into one tensor, or one in a loop."""
        return any(_shared(program) for program in scene.programs)

    def start(self, cores: Sequence[Core]) -> None:
        """Nothing was received yet."""
        self._ranks = [getattr(core.state, "rank", 0) for core in cores]  # there is one without data
        self._followed = [_shared(program) for program in self.scene.programs]
        self._brought: list[dict[int, Instruction]] = [{} for _ in cores]
        self._used: list[dict[int, tuple[Instruction, list[frozenset[int]]]]] = [{} for _ in cores]

    def before(self, core: int, instruction: Instruction, registers: list[int]) -> None:
        """What it uses of what was received; whether ranks have met since."""
        followed, used = self._followed[core], self._used[core]
        if isinstance(instruction, Collective):
            group = frozenset(instruction.group_of(self._ranks[core]))
            received = {t.storage.index for t in instruction.__dict__.get("dsts", ())} & followed
            if isinstance(instruction, _KINDS):
                for index in sorted(received):
                    self._receive(core, instruction, index, group)
            for _, met in used.values():
                met.append(group)
            for index in received:
                used.pop(index, None)
        for tensor in (*instruction.reads, *instruction.writes):
            index = tensor.storage.index
            if index in followed and (not isinstance(instruction, Collective) or index not in received):
                used[index] = instruction, []

    def _receive(self, core: int, instruction: Collective, index: int, group: frozenset[int]) -> None:
        """An exchange into a tensor."""
        before = self._brought[core].get(index)
        self._brought[core][index] = instruction
        use, met = self._used[core].get(index, (None, []))
        if before is None or use is None or len(group) == 1 or any(group <= ranks for ranks in met):
            return
        storage = self.scene.programs[core].storages[index]
        key = "NKI-H024", site(instruction, storage)
        if self.scene.findings.known(key):
            return
        self.scene.findings.add(
            key,
            "NKI-H024",
            f"{instruction.opcode} receives in {storage.name} what a faster rank sends, while a slower one "
            f"may still use what {before.opcode} brought there: its {len(group)} ranks have not met since",
            stack=instruction.stack,
            labels=(*done_by(use, f"{use.opcode} uses it here"), *allocated(storage)),
            help="receive in a tensor of its own, or in two in turn with another collective of these ranks "
            "between",
            notes=("source: a public note; seen to go wrong on 8 ranks, not on 2 and 4",),
            severity=Severity.warning,
        )


def _shared(program: Program) -> frozenset[int]:
    """Indices of storages that more than one exchange receives in."""
    seen: set[int] = set()
    found: set[int] = set()
    for instruction, again in _walk(program.body, False):
        for tensor in instruction.__dict__["dsts"]:
            if again or tensor.storage.index in seen:
                found.add(tensor.storage.index)
            seen.add(tensor.storage.index)
    return frozenset(found)


def _walk(body: list[Node], looping: bool) -> Iterator[tuple[Instruction, bool]]:
    for node in body:
        if isinstance(node, _KINDS):
            yield node, looping
        elif not isinstance(node, Instruction):
            yield from _walk(node.body, True)
