"""moe_cte: mixture of experts over blocks of tokens, for prefill."""

from .bwmm_shard_on_block import BlockShardStrategy
from .moe_cte import (
    MoECTEImplementation,
    MoECTESpec,
    QuantizationConfig,
    ShardOnBlockConfig,
    ShardOnIConfig,
    moe_cte,
)
from .moe_cte_utils import SkipMode

__all__ = [
    "BlockShardStrategy",
    "MoECTEImplementation",
    "MoECTESpec",
    "QuantizationConfig",
    "ShardOnBlockConfig",
    "ShardOnIConfig",
    "SkipMode",
    "moe_cte",
]
