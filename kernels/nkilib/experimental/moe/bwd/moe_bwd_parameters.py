"""Options of blockwise_mm_bwd. SkipMode and ActFnType are classes of their own, as the API has it."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import nki.language as nl


@dataclass
class SkipMode(nl.NKIObject):
    """Which DMAs may be left out.

    Attributes:
        skip_token: padding positions have id -1; their rows are neither read nor written.
        skip_weight: taken for compatibility; weights are read for every block.
    """

    skip_token: bool = False
    skip_weight: bool = False


class ActFnType(Enum):
    """Activation of the gate."""

    SiLU = 0
    GELU = 1
    GELU_Tanh_Approx = 2
    Swish = 3


class ShardOption(Enum):
    """What the cores share out. Taken for compatibility: columns of I are, whichever is asked for."""

    AUTO = 0
    SHARD_ON_HIDDEN = 1
    SHARD_ON_INTERMEDIATE = 2
    BASELINE_LNC1 = 3


class AffinityOption(Enum):
    """Where the forward pass multiplied affinities. Taken for compatibility: the gradients are the same."""

    AFFINITY_ON_H = 0
    AFFINITY_ON_I = 1


class KernelTypeOption(Enum):
    """Whether blocks of an expert are as many as it has tokens for. DROPLESS covers both."""

    DROPPING = 0
    DROPLESS = 1


@dataclass
class ClampLimits(nl.NKIObject):
    """Limits of the forward pass: linear of up, non_linear of gate; None where there is none."""

    linear_clamp_upper_limit: Any = None
    linear_clamp_lower_limit: Any = None
    non_linear_clamp_upper_limit: Any = None
    non_linear_clamp_lower_limit: Any = None
