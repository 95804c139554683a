"""``nki.collectives``: operations between ranks.

Everything here can be imported, annotated with and constructed, so that kernels that name it load and
run where they do not communicate. A launch has one rank: calling an operation is refused (NKI-U012).

Source: SDK API page ``nki.collectives``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nki import levels
from nki.language.objects import NKIObject
from nki_isa.diagnostics import error
from nki_isa.kinds import is_whole


@dataclass
class ReplicaGroup(NKIObject):
    """Groups of ranks that take part in a collective.

    Attributes:
        groups: lists of ranks; no rank is in two of them.

    Raises:
        NkiError: NKI-V142 for anything else.
    """

    groups: Any = ()

    def __post_init__(self) -> None:
        lists = (list, tuple, range)
        groups: Any = self.groups if isinstance(self.groups, lists) else [None]
        parts = [group if isinstance(group, lists) else [None] for group in groups]
        ranks: list[Any] = [rank for group in parts for rank in group]
        if any(not is_whole(rank) or rank < 0 for rank in ranks) or len(set(ranks)) != len(ranks):
            raise error(
                "NKI-V142",
                f"ReplicaGroup({self.groups!r}) is not made of lists of ranks with each rank once",
                help="write nki.collectives.ReplicaGroup([[0, 1], [2, 3]])",
            )


_NAME = "name=None"
_QUEUE = ("priority=None", _NAME)
_VECTOR = ("metadata_tensor", "recv_counts_known=False", "has_rdispls=False", *_QUEUE)
_TENSORS = ("srcs", "dsts", "replica_group")

# name -> parameters, those with a default as name=value.
_OPERATIONS: dict[str, tuple[str, ...]] = {
    "all_reduce": (*_TENSORS, "op", *_QUEUE),
    "all_gather": (*_TENSORS, "collective_dim", *_QUEUE),
    "all_gather_v": (*_TENSORS, *_VECTOR),
    "reduce_scatter": (*_TENSORS, "collective_dim", "op", *_QUEUE),
    "all_to_all": (*_TENSORS, "collective_dim", *_QUEUE),
    "all_to_all_v": (*_TENSORS, *_VECTOR),
    "all_gather_v_prepare": (*_TENSORS, *_VECTOR),
    "all_gather_v_trigger": ("prepare_instr", _NAME),
    "all_to_all_v_prepare": (*_TENSORS, *_VECTOR),
    "all_to_all_v_trigger": ("prepare_instr", _NAME),
    "collective_permute": ("srcs", "dsts", "source_target_pairs", *_QUEUE),
    "collective_permute_implicit": (
        "srcs_by_channel",
        "dsts_by_channel",
        "replica_group",
        "channel_ids=(0,)",
        *_QUEUE,
    ),
    "collective_permute_implicit_reduce": (
        "srcs0_by_channel",
        "srcs1_by_channel",
        "dsts_by_channel",
        "replica_group",
        "op",
        "channel_ids=(0,)",
        *_QUEUE,
    ),
    "collective_permute_implicit_current_processing_rank_id": (
        "iteration_id",
        "replica_group",
        "channel_id=0",
        _NAME,
    ),
    "rank_id": (_NAME,),
}

_DEFAULTS: dict[str, Any] = {"None": None, "False": False, "0": 0, "(0,)": (0,)}


def _parameter(text: str) -> inspect.Parameter:
    name, _, default = text.partition("=")
    value = _DEFAULTS[default] if default else inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)


def _operation(name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise error(
            "NKI-U012",
            f"nki.collectives.{name} communicates between ranks, and a launch has one rank",
            help="run the part of the kernel between collectives, and combine the ranks' arrays on the host",
        )

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "Refused (NKI-U012): more than one rank is not modelled."
    refuse.__signature__ = inspect.Signature([_parameter(p) for p in parameters])  # type: ignore[attr-defined]
    return refuse


OPERATIONS = {
    name: levels.leveled(__name__, name, _operation(name, parameters))
    for name, parameters in _OPERATIONS.items()
}
globals().update(OPERATIONS)

__all__ = ["ReplicaGroup", *OPERATIONS]
