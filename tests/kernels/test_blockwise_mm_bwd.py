"""nkilib.experimental.moe.bwd: the reference against differences, options that change nothing, refusals."""

import dataclasses

import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nkilib.core.moe.moe_cte.reference import blocks_reference
from nkilib.experimental.moe.bwd.blockwise_mm_backward import blockwise_mm_bwd
from nkilib.experimental.moe.bwd.moe_bwd_parameters import (
    ActFnType,
    AffinityOption,
    ClampLimits,
    KernelTypeOption,
    ShardOption,
)
from nkilib.experimental.moe.bwd.reference import blockwise_mm_bwd_reference
from nkilib.experimental.moe.bwd.registry_row import training_step

TINY = {"tokens": 20, "hidden": 8, "intermediate": 6, "experts": 2, "top_k": 2, "block_size": 16}
FORWARD = (
    "hidden_states",
    "expert_affinities_masked",
    "gate_up_proj_weight",
    "down_proj_weight",
    "token_position_to_id",
    "block_to_expert",
)


@pytest.mark.parametrize("activation", ["SiLU", "Swish", "GELU"])
@pytest.mark.parametrize(
    "limits", [ClampLimits(), ClampLimits(0.2, -0.2, 0.25, -0.3)], ids=["free", "clamped"]
)
def test_reference_is_the_slope_of_the_forward_pass(activation, limits):
    """Central differences of sum(g * moe_cte(...)), for some elements of everything it depends on."""
    made = training_step(
        np.random.default_rng(1), **TINY, activation=activation, limits=limits, dtype=np.float64
    )
    step = 1e-6
    found = blockwise_mm_bwd_reference(
        **made, block_size=16, clamp_limits=limits, activation_type=ActFnType[activation]
    )

    def loss(changed):
        result = blocks_reference(
            **{name: made[name] for name in FORWARD} | changed,
            block_size=16,
            activation=activation,
            gate_limits=(limits.non_linear_clamp_lower_limit, limits.non_linear_clamp_upper_limit),
            up_limits=(limits.linear_clamp_lower_limit, limits.linear_clamp_upper_limit),
            padding=20,
        )[0]
        return (result * made["output_hidden_states_grad"]).sum()

    rng, compared = np.random.default_rng(2), 0
    for name, gradient in zip(FORWARD[:4], found, strict=True):
        values = np.asarray(made[name], np.float64)
        places = np.flatnonzero(gradient)
        for place in rng.choice(places, 6, replace=False):
            change = np.zeros(values.size)
            change[place] = step
            change = change.reshape(values.shape)
            slope = (loss({name: values + change}) - loss({name: values - change})) / (2 * step)
            assert gradient.reshape(-1)[place] == pytest.approx(slope, rel=1e-4, abs=1e-7)
            compared += 1
    assert compared == 24


SMALL = {"tokens": 130, "hidden": 128, "intermediate": 64, "experts": 2, "top_k": 1, "block_size": 128}


def arguments(**changed):
    return training_step(np.random.default_rng(0), **SMALL) | {"block_size": 128} | changed


def test_options_that_change_nothing():
    plain = blockwise_mm_bwd[2](**arguments())
    chosen = blockwise_mm_bwd[2](
        **arguments(),
        shard_option=ShardOption.SHARD_ON_INTERMEDIATE,
        affinity_option=AffinityOption.AFFINITY_ON_I,
        kernel_type_option=KernelTypeOption.DROPPING,
        block_tile_size=128,
    )
    for one, other in zip(plain, chosen, strict=True):
        np.testing.assert_array_equal(one, other)


REFUSED = [
    ({"block_size": 64}, "block_size must be 128, 256, 512 or 1024, got 64"),
    ({"activation_type": ActFnType.GELU_Tanh_Approx}, "activation_type must be SiLU, GELU or Swish"),
    ({"output_hidden_states_grad": np.zeros((5, 128), np.float16)}, "output_hidden_states_grad has shape"),
    ({"down_proj_act_checkpoint": np.zeros((5, 128, 128), np.float16)}, "down_proj_act_checkpoint has shape"),
]


@pytest.mark.parametrize("changed, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_refuses(changed, message):
    with pytest.raises(NkiError, match=message):
        blockwise_mm_bwd(**arguments(**changed))


def test_refuses_sizes_that_do_not_divide():
    made = training_step(np.random.default_rng(0), **{**SMALL, "intermediate": 96})
    with pytest.raises(NkiError, match="I of gate_up_proj_weight must be a multiple of 64, got 96"):
        blockwise_mm_bwd[2](**made, block_size=128)
    made = training_step(np.random.default_rng(0), **{**SMALL, "hidden": 48})
    with pytest.raises(NkiError, match="H of hidden_states must be a multiple of 32, got 48"):
        blockwise_mm_bwd(**made, block_size=128)


def test_limits_show_themselves():
    """Test ids of users hold their text."""
    assert repr(ClampLimits(linear_clamp_upper_limit=7)).startswith("ClampLimits(linear_clamp_upper_limit=7")
    assert dataclasses.astuple(ClampLimits()) == (None, None, None, None)
