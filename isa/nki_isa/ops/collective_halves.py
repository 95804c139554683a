"""The halves of collectives whose sizes the data say: what prepares one, and what triggers it.

The preparation reads the metadata into descriptors, a tensor of its own: the metadata may change later;
the trigger moves the data. How much time either takes is not published: a start, and the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nki_isa.constraints.operands import rules
from nki_isa.cost import Cost, links
from nki_isa.cost.links import Groups
from nki_isa.diagnostics import error
from nki_isa.ir.fields import Field, Role, attribute, read
from nki_isa.ir.instruction import MakeTile, instruction
from nki_isa.ir.recording import Recording
from nki_isa.machine.target import Feature, Target
from nki_isa.ops.collective import PAGE, Collective
from nki_isa.ops.collective_v import (
    ALL_TO_ALL_RULES,
    GATHER_RULES,
    OBSERVED,
    VARIABLE_RULES,
    Moving,
    Variable,
    sample_of,
    topology_on,
)
from nki_isa.ops.meeting import Array
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor


def _hidden(role: Role) -> Any:
    """An operand that an instruction has from another one, not from its caller."""
    return Field(role, None, public=False)


class Triggered(Moving):
    """An instruction that moves what another prepared.

    Class attributes a subclass states:
        preparation: the instruction that prepares it.
    """

    preparation: ClassVar[type[Preparation]]

    prepare_instr: NkiTensor = read()
    name: str | None = attribute(str, None)
    srcs: list[NkiTensor] = _hidden(Role.reads)
    dsts: list[NkiTensor] = _hidden(Role.writes)
    replica_group: Groups = attribute(tuple, None, public=False)
    metadata_tensor: NkiTensor = _hidden(Role.write)
    recv_counts_known: bool = attribute(bool, False, public=False)
    has_rdispls: bool = attribute(bool, False, public=False)

    def table(self, sent: Sequence[Array]) -> Array:
        """The metadata of a rank, which the preparation read."""
        return sent[1].astype(np.int64)

    def named(self) -> list[NkiTensor]:
        """All but what the preparation made."""
        return [*self.srcs, *self.writes]

    def views_read(self) -> list[NkiTensor]:
        """Sources and what the preparation made."""
        return [*self.srcs, self.prepare_instr]

    def views_written(self) -> list[NkiTensor]:
        """Destinations, and the row of the metadata that says what came."""
        return [*self.dsts, *self.counted()]

    def specialize(self, recorder: Recording) -> None:
        """Take what was prepared.

        Raises:
            NKI-V155: it was triggered before, or in a device loop that the preparation is not in.
        """
        recorder.trigger(self)
        Collective.specialize(self, recorder)

    def cost(self, target: Target) -> Cost:
        """As all at once, without the start."""
        topology = self.topology(target)
        whole = links.collective(target, topology, self.route(target, topology))
        time = whole.busy - target.collective_start_ns
        return Cost(time, time, "link_hop_ns", whole.rate)


class Preparation(Variable):
    """An instruction that reads the metadata of an exchange, and no data.

    Class attributes a subclass states:
        whole: the name of what does all of it at once.
        trigger: the name of what moves the data.
    """

    whole: ClassVar[str]
    trigger: ClassVar[str]

    srcs: list[NkiTensor] = attribute(list)
    dsts: list[NkiTensor] = attribute(list)
    replica_group: Groups = attribute(tuple)
    metadata_tensor: NkiTensor = read()
    recv_counts_known: bool = attribute(bool, False)
    has_rdispls: bool = attribute(bool, False)
    priority: int | None = attribute(int, None)
    name: str | None = attribute(str, None)
    descriptors: NkiTensor | None = _hidden(Role.write)

    def views_read(self) -> list[NkiTensor]:
        """The rows of the metadata that say what to send."""
        return self.inputs()

    def compute(self, metadata: Array) -> Array:
        """What the trigger needs: all four rows, those that are not given as zeros."""
        given = metadata.reshape(-1, len(self.replica_group[0])).astype(np.uint32)
        made = np.zeros((4, given.shape[1]), np.uint32)
        made[: len(given)] = given
        made[2] = 0
        if self.gathers:
            made[:2] = given[:2, :1]
        return made

    def cost(self, target: Target) -> Cost:
        """A start."""
        return Cost(target.collective_start_ns, target.collective_start_ns, "collective_start_ns")

    def specialize(self, recorder: Recording) -> None:
        """Take the one place there is for a preparation.

        Raises:
            NKI-V155: another one was not triggered. NKI-V108: switches connect the ranks.
        """
        topology = topology_on(self, recorder.target)
        if topology.switched:
            raise error(
                "NKI-V108",
                f"{self.opcode}: the ranks of a {topology.name} are connected by switches",
                help=f"write {self.whole}",
                notes=(f"source: {PAGE} at 0.7",),
            )
        recorder.prepare(self)
        super().specialize(recorder)


# --- instructions


@instruction
class all_to_all_v_prepare(Preparation):
    """Read the metadata of an all_to_all_v, which all_to_all_v_trigger then carries out.

    `srcs` and `dsts` may be filled after it. One trigger follows each preparation, with no other one between.

    Shapes: as all_to_all_v.
    Errors: NKI-V019, V101, V103, V105, V108 with switches, V111, V142, V155.
    Source: SDK API page nki.collectives at 0.7.
    """

    whole = "all_to_all_v"
    trigger = "all_to_all_v_trigger"

    constraints = rules(*VARIABLE_RULES, *ALL_TO_ALL_RULES)
    observed = OBSERVED

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**sample_of(t, 8), "descriptors": t((4, 8), "uint32", MemoryRegion.private_hbm)}


@instruction
class all_gather_v_prepare(Preparation):
    """Read the metadata of an all_gather_v, which all_gather_v_trigger then carries out.

    `srcs` and `dsts` may be filled after it. One trigger follows each preparation, with no other one between.

    Shapes: as all_gather_v.
    Errors: NKI-V019, V101, V103, V105, V108 with switches, V111, V142, V155.
    Source: SDK API page nki.collectives at 0.7.
    """

    whole = "all_gather_v"
    trigger = "all_gather_v_trigger"

    needs = Feature.sizes_by_data
    gathers = True
    constraints = rules(*VARIABLE_RULES, *GATHER_RULES)

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**sample_of(t, 4), "descriptors": t((4, 4), "uint32", MemoryRegion.private_hbm)}


@instruction
class all_to_all_v_trigger(Triggered):
    """Move the data of the all_to_all_v that was prepared.

    Shapes: those of the preparation.
    Errors: NKI-V100, V155; NKI-U012; NKI-H001, H020.
    Source: SDK API page nki.collectives at 0.7.
    """

    preparation = all_to_all_v_prepare

    constraints = rules()

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**sample_of(t, 8), "prepare_instr": t((4, 8), "uint32", MemoryRegion.private_hbm)}


@instruction
class all_gather_v_trigger(Triggered):
    """Move the data of the all_gather_v that was prepared.

    Shapes: those of the preparation.
    Errors: NKI-V100, V155; NKI-U012; NKI-H001, H020.
    Source: SDK API page nki.collectives at 0.7.
    """

    preparation = all_gather_v_prepare

    needs = Feature.sizes_by_data
    gathers = True
    constraints = rules()

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {**sample_of(t, 4), "prepare_instr": t((4, 4), "uint32", MemoryRegion.private_hbm)}
