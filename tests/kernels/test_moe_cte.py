"""nkilib.core.moe.moe_cte: what it refuses, and what its module functions are called with."""

import ml_dtypes
import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nkilib.core.moe.moe_cte import MoECTEImplementation, MoECTESpec, SkipMode, moe_cte
from nkilib.core.moe.moe_cte.bwmm_shard_on_block import BlockShardStrategy, bwmm_shard_on_block
from nkilib.core.moe.moe_cte.bwmm_shard_on_I import (
    blockwise_mm_baseline_shard_intermediate,
    blockwise_mm_shard_intermediate_dropping,
)
from nkilib.core.moe.moe_cte.reference import blocks_reference, rounded_mx, unpacked
from nkilib.core.moe.moe_cte.registry_row import routed
from nkilib.core.utils.common_types import ExpertAffinityScaleMode

BF16 = ml_dtypes.bfloat16
SHARD_ON_I = MoECTESpec(MoECTEImplementation.shard_on_i)


def arguments(tokens=256, hidden=512, intermediate=32, experts=2, block_size=256, **changed):
    rng = np.random.default_rng(0)
    made = routed(rng, tokens, experts, 1, 256)
    made.pop("used")
    made["hidden_states"] = rng.standard_normal((tokens + 1, hidden)).astype(BF16)
    made["hidden_states"][tokens] = 0
    made["gate_up_proj_weight"] = rng.uniform(-0.1, 0.1, (experts, hidden, 2, intermediate)).astype(BF16)
    made["down_proj_weight"] = rng.uniform(-0.1, 0.1, (experts, intermediate, hidden)).astype(BF16)
    return {**made, "block_size": block_size, **changed}


ZEROS = np.zeros
REFUSED = [
    ({"block_size": 128}, {}, "block_size must be a multiple of 256, got 128"),
    ({"hidden": 384}, {}, "H of hidden_states must be a multiple of 512 from 512 to 8192, got 384"),
    ({"intermediate": 24}, {}, "I of gate_up_proj_weight must be a multiple of 16, got 24"),
    ({"block_to_expert": ZEROS(3, np.int32)}, {}, "block_to_expert must name an expert for each of 2 blocks"),
    ({"down_proj_weight": ZEROS((2, 16, 512), BF16)}, {}, r"down_proj_weight has shape \(2, 16, 512\)"),
    ({"down_proj_bias": ZEROS((2, 32), BF16)}, {}, r"down_proj_bias has shape \(2, 32\)"),
    ({"skip_dma": SkipMode(False, True)}, {}, "skip_dma.skip_weight must be False, got True"),
    ({}, {"name": "shard_on_block"}, "shard_on_block: 2 programs are needed, got 1"),
    ({}, {"name": "shard_on_i_hybrid"}, "shard_on_i_hybrid: 2 programs are needed, got 1"),
    ({}, {"name": "shard_on_i_hybrid", "lnc": 2}, r"conditions \[3\] must be given"),
    ({"tokens": 600}, {"name": "shard_on_i_dropping"}, "one block for each of 2 experts, got 4"),
]


@pytest.mark.parametrize("changed, launch, message", REFUSED, ids=[row[-1][:40] for row in REFUSED])
def test_refuses(changed, launch, message):
    spec = MoECTESpec(MoECTEImplementation[launch.get("name", "shard_on_i")])
    with pytest.raises(NkiError, match=message):
        moe_cte[launch.get("lnc", 1)](**arguments(**changed), spec=spec)


def test_module_functions_refuse_too():
    with pytest.raises(NkiError, match="block_sharding_strategy must be PING_PONG"):
        bwmm_shard_on_block[2](**arguments(), block_sharding_strategy=BlockShardStrategy.HI_LO)
    with pytest.raises(NkiError, match="block_size must be a multiple of 256"):
        blockwise_mm_shard_intermediate_dropping[2](**arguments(block_size=128))


def test_module_functions_scale_the_hidden_states_by_default():
    """Unlike moe_cte, whose default multiplies the result."""
    made = arguments()
    result = blockwise_mm_baseline_shard_intermediate(**made)
    expected = blocks_reference(**made, scaling="PRE_SCALE", padding=256)[0]
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=0.03, atol=0.03)
    scaled = blocks_reference(**made, padding=256)[0]
    assert np.abs(expected - scaled).max() > 0.1


@pytest.mark.parametrize("mode", ["NO_SCALE", "PRE_SCALE_DELAYED"])
def test_scaling_modes(mode):
    made = arguments()
    result = moe_cte(**made, spec=SHARD_ON_I, expert_affinities_scaling_mode=ExpertAffinityScaleMode[mode])
    expected = blocks_reference(**made, scaling=mode, padding=256)[0]
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=0.03, atol=0.03)


def test_one_scale_for_all_weights():
    """[1, 1, 2] and [1, 1, 1]: a scale for gate, one for up and one for down."""
    made = arguments()
    for name in ("gate_up_proj_weight", "down_proj_weight"):
        made[name] = (made[name].astype(np.float32) * 100).astype(ml_dtypes.float8_e4m3)
    scales = {
        "gate_up_proj_scale": np.array([[[0.01, 0.012]]], np.float32),
        "down_proj_scale": np.array([[[0.009]]], np.float32),
    }
    post = ExpertAffinityScaleMode.POST_SCALE
    result = blockwise_mm_baseline_shard_intermediate(**made, **scales, expert_affinities_scaling_mode=post)
    expected = blocks_reference(**made, **scales, padding=256)[0]
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=0.03, atol=0.03)


def test_packed_values():
    """Lane w of an element is bits 4 w of it for MXFP4, and a scale of 128 doubles."""
    packed = np.full((8, 1), 0x7_2_F_0, np.uint16)
    numbers = unpacked(packed, np.full((1, 1), 128, np.uint8), "float4_e2m1fn_x4")
    np.testing.assert_array_equal(numbers[3, 0], [0.0, -12.0, 2.0, 12.0])


def test_rounding_to_mx_keeps_what_fits():
    values = np.zeros((1, 32))
    values[0, :4] = [256.0, 1.0, 0.017, -3.25]
    np.testing.assert_array_equal(rounded_mx(values)[0, :4], [256.0, 1.0, 0.015625, -3.25])
