"""nkilib.core.moe.moe_tkg.moe_tkg beyond the examples of its row."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import TRN3
from nki_sim.report.profile import Profile
from nkilib.core.moe import moe_tkg
from nkilib.core.moe.moe_tkg.reference import moe_tkg_reference
from nkilib.core.utils.common_types import ExpertAffinityScaleMode
from nkilib.registry import rows

BF16 = ml_dtypes.bfloat16
POST = ExpertAffinityScaleMode.POST_SCALE
launched = nki.jit(moe_tkg)


def arguments(shape=(2, 256), experts=2, size=64, top_k=1, dtype=BF16, **more):
    """Arguments of a call, of zeros."""
    hidden = shape[-1]
    return {
        "hidden_input": np.zeros(shape, dtype),
        "expert_gate_up_weights": np.zeros((experts, hidden, 2, size), dtype),
        "expert_down_weights": np.zeros((experts, size, hidden), dtype),
        "expert_affinities": np.zeros((shape[0], experts), np.float32),
        "expert_index": np.zeros((shape[0], top_k), np.int32),
        "is_all_expert": True,
        **more,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (129, 256)}, "up to 128 tokens, got 129"),
        ({"shape": (2, 200)}, "H must be a multiple of 128 .* got H = 200 on 1"),
        ({"hidden_input": np.zeros((2, 128), BF16)}, r"hidden_input is \[T, H\] with H = 256"),
        ({"expert_down_weights": np.zeros((2, 32, 256), BF16)}, "expert_down_weights has shape"),
        ({"expert_gate_up_bias": np.zeros((2, 64), BF16)}, "expert_gate_up_bias has shape"),
        ({"expert_down_bias": np.zeros((2, 64), BF16)}, "expert_down_bias has shape"),
        (
            {"expert_affinities_scaling_mode": ExpertAffinityScaleMode.PRE_SCALE},
            "is NO_SCALE or POST_SCALE, got PRE_SCALE",
        ),
        (
            {"expert_affinities_scaling_mode": ExpertAffinityScaleMode.PRE_SCALE_DELAYED},
            "got PRE_SCALE_DELAYED",
        ),
        ({"expert_affinities_scaling_mode": POST}, "need rank_id"),
        (
            {"expert_affinities_eager": np.zeros((2, 1), np.float32)},
            "expert_affinities_eager is for selected",
        ),
        ({"gate_up_input_scale": np.zeros((2, 1), np.float32)}, "static quantization"),
        ({"is_all_expert": False, "is_all_expert_dynamic": True}, "is_all_expert_dynamic is for"),
        ({"is_all_expert": False, "top_k": 17}, "selects up to 16 experts, got K = 17"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(NkiError, match=message):
        launched(**arguments(**change))


def mx(tokens=32, hidden=512, size=512, experts=2, top_k=2, **more):
    """Arguments of a call with MXFP4 weights, of zeros."""
    rows, tiles = min(size // 4, 128), -(-size // 512)
    return {
        **arguments((tokens, hidden), experts, 4, top_k),
        "expert_gate_up_weights": np.zeros((experts, 128, 2, hidden // 512, size), np.uint16),
        "expert_down_weights": np.zeros((experts, rows, tiles, hidden), np.uint16),
        "expert_gate_up_weights_scale": np.zeros((experts, 16, 2, hidden // 512, size), np.uint8),
        "expert_down_weights_scale": np.zeros((experts, rows // 8, tiles, hidden), np.uint8),
        **more,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden": 640}, "H must be a multiple of 512, got 640"),
        ({"size": 48}, "I must be a multiple of 32, got 48"),
        ({"tokens": 40}, "T is a multiple of 32, got 40"),
        ({"expert_down_weights_scale": None}, "MX weights need expert_gate_up_weights_scale and"),
        ({"output_in_sbuf": True}, "output_in_sbuf is not for MX weights"),
        ({"is_all_expert": False, "tokens": 129}, "up to 128 tokens, got 129"),
        ({"is_all_expert": False, "top_k": 3}, "K must divide over the cores, got 3 on 2"),
        (
            {"is_all_expert": False, "experts": 129, "expert_down_bias": np.zeros((129, 512), BF16)},
            "a down bias of up to 128 experts, got 129",
        ),
    ],
)
def test_refuses_in_mx(change, message):
    with session(target=TRN3), pytest.raises(NkiError, match=message):
        launched[2](**mx(**change))


@nki.jit
def quantized_hidden(hidden, gate_up, down, up_scale, down_scale, affinities, index):
    """moe_tkg on hidden that is quantized before, [128, 1, T, 4] of 512 rows."""
    tokens = hidden.shape[2]
    x = nl.ndarray(hidden.shape, dtype=hidden.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=x, src=hidden)
    data = nl.ndarray((128, 1, tokens), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
    scale = nl.ndarray((128, 1, tokens), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.memset(dst=scale, value=127)
    nisa.quantize_mx(
        dst=data.reshape((128, tokens)),
        src=x.reshape((128, tokens * 4)),
        dst_scale=scale.reshape((128, tokens)),
    )
    return moe_tkg(
        data,
        gate_up,
        down,
        affinities,
        index,
        True,
        expert_gate_up_weights_scale=up_scale,
        expert_down_weights_scale=down_scale,
        hidden_input_scale=scale,
        output_dtype=nl.bfloat16,
    )


def test_takes_quantized_hidden():
    """The same result as of hidden that the kernel quantizes itself."""
    given = rows()["moe_tkg_mx"].example("all").arguments()
    plain = {name: given[name] for name in mx()}
    x = plain["hidden_input"]
    turned = np.ascontiguousarray(x.reshape(x.shape[0], 4, -1, 128).transpose(3, 2, 0, 1))
    with session(target=TRN3):
        expected = launched(**plain)
        result = quantized_hidden(
            turned,
            plain["expert_gate_up_weights"],
            plain["expert_down_weights"],
            plain["expert_gate_up_weights_scale"],
            plain["expert_down_weights_scale"],
            plain["expert_affinities"],
            plain["expert_index"],
        )
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


def test_refuses_a_hidden_dimension_two_cores_cannot_share():
    with pytest.raises(NkiError, match="got H = 384 on 2"):
        launched[2](**arguments((2, 384)))


@nki.jit
def in_sbuf(hidden, gate_up, down, affinities, index, rank_id, is_all_expert):
    """moe_tkg between tensors in SBUF; every core stores what it has of the result."""
    tokens, size = hidden.shape
    cores, core = nl.num_programs(0), nl.program_id(0)
    parts = cores if is_all_expert else 1
    part = core if is_all_expert else 0
    blocks = size // 128 // parts
    x = nl.ndarray((128, tokens, blocks), dtype=hidden.dtype, buffer=nl.sbuf)
    columns = nl.ds(part * 128 * blocks, 128 * blocks)
    nisa.dma_copy(dst=x, src=hidden[:, columns].ap([[blocks, 128], [size, tokens], [1, blocks]]))
    given = affinities
    if not is_all_expert:
        given = nl.ndarray(affinities.shape, dtype=affinities.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=given, src=affinities)
    y = moe_tkg(
        x,
        gate_up,
        down,
        given,
        index,
        is_all_expert,
        rank_id=rank_id,
        expert_affinities_scaling_mode=ExpertAffinityScaleMode.POST_SCALE,
        output_in_sbuf=True,
    )
    first, last = 0, tokens
    if not is_all_expert and cores > 1:
        first, last = (0, tokens // 2) if core == 0 else (tokens // 2, tokens)
    result = nl.ndarray(hidden.shape, dtype=y.dtype, buffer=nl.shared_hbm)
    rows = result[nl.ds(first, last - first), columns]
    nisa.dma_copy(
        dst=rows.ap([[blocks, 128], [size, last - first], [1, blocks]]),
        src=y[:, nl.ds(first, last - first), :],
    )
    return result


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("name", ["all", "selected"])
def test_from_sbuf_to_sbuf(lnc, name):
    given = rows()["moe_tkg"].example(name).arguments()
    rank = given.get("rank_id", np.zeros((1, 1), np.uint32))
    result = in_sbuf[lnc](
        given["hidden_input"],
        given["expert_gate_up_weights"],
        given["expert_down_weights"],
        given["expert_affinities"],
        given["expert_index"],
        rank,
        given["is_all_expert"],
    )
    expected = moe_tkg_reference(**given)
    np.testing.assert_allclose(result.astype(np.float32), expected.astype(np.float32), rtol=2**-6, atol=2**-5)


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("is_all_expert", [True, False])
def test_sums_are_exact(lnc, is_all_expert):
    """Small whole numbers and affinities that are powers of two: nothing is rounded before the end."""
    rng = np.random.default_rng(0)
    tokens, hidden, size, experts, top_k = 5, 256, 96, 3, 2
    gate_up = np.zeros((experts, hidden, 2, size), BF16)
    for e in range(experts):
        gate_up[e, rng.integers(0, hidden, size), 1, np.arange(size)] = 1  # each picks an element of x
    given = {
        "hidden_input": rng.integers(-2, 3, (tokens, hidden)).astype(BF16),
        "expert_gate_up_weights": gate_up,
        "expert_down_weights": rng.integers(-2, 3, (experts, size, hidden)).astype(BF16),
        "expert_affinities": 2.0 ** rng.integers(-2, 2, (tokens, experts)).astype(np.float32),
        "expert_index": np.stack([rng.permutation(experts)[:top_k] for _ in range(tokens)]).astype(np.int32),
        "is_all_expert": is_all_expert,
        "rank_id": np.zeros((1, 1), np.uint32),
        "expert_gate_up_bias": np.tile(
            np.array([[[64.0]], [[0.0]]], BF16).reshape(1, 2, 1), (experts, 1, size)
        ),
        "expert_down_bias": rng.integers(-8, 9, (experts, hidden)).astype(BF16),
        "expert_affinities_scaling_mode": POST,
        "gate_clamp_upper_limit": 32.0,  # silu(32) is 32 in fp32
    }
    np.testing.assert_array_equal(launched[lnc](**given), moe_tkg_reference(**given))


def test_what_a_token_did_not_select_does_not_count():
    """With masked affinities all experts give what the selected ones do."""
    given = rows()["moe_tkg"].example("selected").arguments()
    masked = {
        **given,
        "is_all_expert": True,
        "rank_id": np.zeros((1, 1), np.uint32),
        "mask_unselected_experts": True,
        "is_all_expert_dynamic": True,
    }
    np.testing.assert_allclose(
        launched(**masked).astype(np.float32), launched(**given).astype(np.float32), rtol=2**-6, atol=2**-5
    )


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("used", [(), (5,), (0, 3, 4), (0, 1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 6, 8, 9, 10)])
def test_dynamic_does_not_read_experts_without_tokens(lnc, used):
    """Their weights are NaN: 0 times NaN would be seen."""
    row = rows()["moe_tkg"]
    given = row.example("all-dynamic").arguments()
    rng = np.random.default_rng(3)
    affinities = np.zeros_like(given["expert_affinities"])
    for expert in used:
        tokens = rng.permutation(6)[: 1 + expert % 3]
        affinities[tokens, 11 + expert] = rng.uniform(0.1, 1, len(tokens))
    given |= {"expert_affinities": affinities, "mask_unselected_experts": False}
    expected = row.expected(given, lnc)[0].astype(np.float32)
    unused = np.setdiff1d(np.arange(11), used)
    for name in ("expert_gate_up_weights", "expert_down_weights"):
        given[name][unused] = np.nan
    found = launched[lnc](**given).astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2**-6, atol=2**-5)


def test_dynamic_reads_the_weights_of_experts_with_tokens_only():
    given = rows()["moe_tkg"].example("all-dynamic").arguments()
    given["expert_affinities"][:, 11 + 2 :] = 0
    read = []
    for dynamic in (False, True):
        with session(timing=True) as record:
            launched(**{**given, "is_all_expert_dynamic": dynamic})
        read.append(Profile.of(record.launches[-1].timeline).hbm_read_bytes)
    weights = sum(given[name][0].nbytes for name in ("expert_gate_up_weights", "expert_down_weights"))
    assert read[0] - read[1] > 8.5 * weights
