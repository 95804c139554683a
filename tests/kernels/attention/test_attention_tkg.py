"""nkilib.core.attention.attention_tkg against its numpy reference."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki_isa.diagnostics import NkiError
from nkilib.core.attention import attention_tkg as module
from nkilib.core.attention.attention_tkg import attention_tkg
from nkilib.core.attention.attention_tkg_check import check_sizes
from nkilib.core.attention.attention_tkg_kernel import attention_tkg_kernel
from nkilib.core.attention.attention_tkg_utils import (
    AttnTKGConfig,
    is_batch_sharded,
    is_s_prior_sharded,
    resize_cache_block_len_for_attention_tkg_kernel,
    uses_flash_attention,
)
from nkilib.core.attention.registry_row import TKG, tkg_inputs
from nkilib.core.utils.allocator import SbufManager

FP8 = ml_dtypes.float8_e4m3
IN_SBUF = {"qk_in_sb": True}
ROPE = {"use_pos_id": True, "fuse_rope": True}
BLOCKS = {"block_len": 16, "tp_k_prior": True, "strided_mm1": False, "qk_in_sb": True, "out_in_sb": True}


def sizes(bs=2, heads=2, active=3, keys=256, full=384, d=64, **choices):
    return AttnTKGConfig(bs, heads, active, keys, full, d, **choices)


def close(cfg, lnc=1, target="trn2", tolerance=2e-2, **inputs):
    """The kernel computes what the reference does; checks find no error."""
    arguments = tkg_inputs(np.random.default_rng(0), cfg, lnc, **inputs)
    outcome = TKG.run(arguments, lnc, target, check="all")
    expected = TKG.expected(arguments, lnc)
    assert len(outcome.results) == len(expected)
    for result, wanted in zip(outcome.results, expected):
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("tp_k", [False, True])
@pytest.mark.parametrize("pos_id", [False, True])
def test_layouts_of_the_cache(pos_id, tp_k, strided):
    close(sizes(use_pos_id=pos_id, tp_k_prior=tp_k, strided_mm1=strided, **IN_SBUF))


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("in_sbuf", [False, True])
def test_rope(in_sbuf, d, lnc):
    choices = {"qk_in_sb": in_sbuf, "out_in_sb": in_sbuf, "k_out_in_sb": in_sbuf}
    close(sizes(d=d, keys=512, full=512, **ROPE, **choices), lnc=lnc)


def test_rope_at_far_positions():
    """Angles of 19,000 radians: reduced by a 2 pi of one fp32 they would be off by 1e-3 and more."""
    cfg = sizes(bs=1, heads=1, active=1, keys=256, **ROPE)
    arguments = tkg_inputs(np.random.default_rng(0), cfg, dtype=np.float32)
    arguments["inv_freqs"] += 100.0
    _, k_out = attention_tkg_kernel(**arguments)
    _, expected = TKG.reference(**arguments)
    np.testing.assert_allclose(k_out, expected, atol=1e-4)


def test_queries_with_the_head_dimension_first():
    cfg = sizes(**ROPE)
    arguments = tkg_inputs(np.random.default_rng(0), cfg)
    wanted = attention_tkg_kernel(**arguments)
    arguments["q"] = arguments["q"].transpose(0, 3, 1, 2).copy()
    arguments["k_active"] = arguments["k_active"][:, 0].swapaxes(1, 2).copy()
    for result, other in zip(attention_tkg_kernel(**arguments), wanted):
        np.testing.assert_array_equal(result, other)


@pytest.mark.parametrize("lnc", [1, 2])
@pytest.mark.parametrize("choices", [{}, {"use_pos_id": True}], ids=["mask", "positions"])
@pytest.mark.parametrize("keys", [256, 512, 768])
def test_block_cache(keys, choices, lnc):
    """Blocks of 16 are cut into pieces of 2 to 12 keys; with 8 new tokens they end in several partitions."""
    close(sizes(bs=1, active=8, keys=keys, full=keys, **BLOCKS, **choices), lnc=lnc, sink=True)


@pytest.mark.parametrize("tp_k", [False, True])
def test_fp8_cache(tp_k):
    close(sizes(tp_k_prior=tp_k, **IN_SBUF), dtype=FP8, tolerance=3e-2)


def test_fp8_block_cache():
    close(sizes(**BLOCKS), dtype=FP8, tolerance=3e-2)


@pytest.mark.parametrize("tp_k", [False, True])
def test_fp32_keys_stay_fp32(tp_k):
    """Scores of some tens: in bf16 their exponentials would be off by several per cent."""
    cfg = sizes(d=128, tp_k_prior=tp_k, **IN_SBUF)
    arguments = tkg_inputs(np.random.default_rng(0), cfg, dtype=np.float32)
    arguments["q"] *= 3
    (result,), (expected,) = TKG.run(arguments).results, TKG.expected(arguments)
    np.testing.assert_allclose(result, expected, rtol=1e-2, atol=1e-2)


def test_fp32_with_rope():
    close(sizes(tp_k_prior=True, **ROPE), dtype=np.float32)


@pytest.mark.parametrize(
    "bs, heads, keys",
    [(1, 1, 256), (3, 2, 512), (9, 3, 256), (2, 1, 256), (4, 4, 128), (16, 4, 256), (1, 1, 128)],
)
def test_two_cores(bs, heads, keys):
    """Keys shared, or the batch, or, with one sequence and few keys, nothing."""
    close(sizes(bs, heads, 4, keys, keys, out_in_sb=True, **IN_SBUF), lnc=2, sink=True)
    close(sizes(bs, heads, 4, keys, keys, **IN_SBUF), lnc=2)


def test_a_core_whose_keys_are_all_masked():
    cfg = sizes(bs=1, keys=512, full=512, use_pos_id=True, **IN_SBUF)
    arguments = tkg_inputs(np.random.default_rng(0), cfg, 2)
    arguments["rope_pos_ids"][:] = 0.0
    (result,), (expected,) = TKG.run(arguments, 2).results, TKG.expected(arguments, 2)
    np.testing.assert_allclose(result, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("choices", [{}, {"strided_mm1": False}, {"tp_k_prior": True}, {**BLOCKS}], ids=str)
def test_sections(choices):
    """More than 8192 keys of a core, which are worked on one section after the other."""
    cfg = sizes(1, 1, 2, 8192 + 512, 8192 + 512, 64, **{**IN_SBUF, **choices})
    close(cfg, sink=True)


def test_sections_of_two_cores():
    """An odd batch: the cores share the keys, and each works on more than a section of them."""
    close(sizes(1, 2, 1, 16384 + 1024, 16384 + 1024, 64, **IN_SBUF), lnc=2, sink=True)


def test_few_keys():
    close(sizes(keys=100, full=128, use_pos_id=True, **IN_SBUF))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("bs", [24, 26])
def test_many_sequences_share_units(bs, heads):
    """Several sequences lie side by side on the partitions; those of 3 rows leave partitions between them."""
    close(sizes(bs=bs, heads=heads, active=1, keys=256, full=256, **IN_SBUF), lnc=2)


def test_keys_of_a_last_run_that_is_short():
    """5120 keys are a run of 32 and one of 8 in each partition; the new ones are in the latter."""
    close(sizes(bs=1, active=5, keys=5120, full=5120, **IN_SBUF))
    close(sizes(bs=1, active=5, keys=5120, full=5120, use_pos_id=True, **IN_SBUF))


def test_a_sequence_that_sees_nothing():
    """Its result is 0, and no other one is the worse for it."""
    cfg = sizes(bs=4, active=1, **IN_SBUF)
    arguments = tkg_inputs(np.random.default_rng(0), cfg)
    arguments["mask"][:, 1] = 0
    (result,) = TKG.run(arguments).results
    with np.errstate(invalid="ignore"):
        (expected,) = TKG.expected(arguments)
    others = [0, 2, 3]
    np.testing.assert_allclose(result[others], expected[others], rtol=2e-2, atol=2e-2)
    assert not result[1].any()


@pytest.mark.parametrize("tp_k", [False, True])
def test_units_that_follow_each_other(tp_k):
    """40 rows a sequence: two or three sequences fill a unit, each unit works in tiles of its own."""
    close(sizes(bs=5, heads=8, active=5, full=256, tp_k_prior=tp_k, qk_in_sb=True))


@nki.jit
def debugged(q, k_active, v_active, k_prior, v_prior, mask, cfg, room=64 * 1024):
    """attention_tkg with debug tensors, in `room` bytes of SBUF."""
    sbm = SbufManager(0, room)
    sbm.open_scope()
    queries = sbm.alloc_stack(q.shape, dtype=q.dtype, buffer=nl.sbuf)
    keys = sbm.alloc_stack(k_active.shape, dtype=k_active.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=queries, src=q)
    nisa.dma_copy(dst=keys, src=k_active)
    rows = (cfg.bs, cfg.q_head, cfg.s_active)
    out = nl.ndarray((cfg.bs, cfg.q_head, cfg.d_head, cfg.s_active), dtype=nl.float32, buffer=nl.shared_hbm)
    tensors = []
    for shape in ((128, cfg.curr_sprior // 128, *rows), (1, *rows)) * 2:
        tensors.append(nl.ndarray(shape, dtype=nl.float32, buffer=nl.shared_hbm))
    attention_tkg(queries, keys, v_active, k_prior, v_prior, mask, out, cfg, sbm, DBG_TENSORS=tuple(tensors))
    sbm.close_scope()
    return (out, *tensors)


def check_debug_tensors(cfg, given, lnc, room=64 * 1024, *, in_one_section=True):
    names = ("q", "k_active", "v_active", "k_prior", "v_prior", "mask", "cfg")
    results = debugged[lnc](**{name: given[name] for name in names}, room=room)
    result, scores, minimum, weights, total = (np.asarray(x, np.float32) for x in results)
    (expected,) = TKG.expected(given, lnc)
    np.testing.assert_allclose(result, expected, rtol=2e-2, atol=2e-2)
    rows, d, tiles = (cfg.bs, cfg.q_head, cfg.s_active), cfg.d_head, cfg.curr_sprior // 128
    keys = given["k_prior"][:, 0].astype(np.float32)
    keys[..., -cfg.s_active :] = given["k_active"].reshape(d, cfg.bs, cfg.s_active).transpose(1, 0, 2)
    queries = given["q"].astype(np.float32).reshape(d, *rows)
    wanted = np.where(given["mask"] != 0, np.einsum("dbhs,bdk->kbhs", queries, keys), -np.inf)
    # Of a core: with strided_mm1 a partition holds that many neighbours.
    shape = (lnc, 128, tiles // lnc) if cfg.strided_mm1 else (lnc, tiles // lnc, 128)
    order = (1, 0, 2, 3, 4, 5) if cfg.strided_mm1 else (2, 0, 1, 3, 4, 5)
    wanted = wanted.reshape(*shape, *rows).transpose(order).reshape(128, tiles, *rows)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-4)
    largest = wanted.max(axis=(0, 1))
    np.testing.assert_allclose(total[0], np.exp(wanted - largest).sum(axis=(0, 1)), rtol=1e-2)
    if in_one_section:  # else the maximum is that of the sections so far
        np.testing.assert_allclose(minimum[0], -largest, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(weights, np.exp(wanted - largest), atol=1e-2)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("lnc", [1, 2])
def test_debug_tensors(lnc, strided):
    """Scores, minus the maximum, weights and their sums; the result is the same with them."""
    cfg = sizes(keys=512, full=512, qk_in_sb=True, strided_mm1=strided)
    check_debug_tensors(cfg, tkg_inputs(np.random.default_rng(0), cfg, lnc), lnc)


def test_debug_tensors_where_two_slots_take_turns():
    """Weights of a unit leave while the scores of the next but one, in the same tiles, are hidden already."""
    cfg = sizes(bs=3, heads=1, active=2, keys=4096, full=4096, qk_in_sb=True)
    given = tkg_inputs(np.random.default_rng(0), cfg, 2)
    given["mask"][3072:-2, 1:] = 0
    check_debug_tensors(cfg, given, 2, room=24 * 1024, in_one_section=False)


def test_trn3():
    close(sizes(tp_k_prior=True, **ROPE), lnc=2, target="trn3")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bs": 129}, "bs is 1 to 128, got 129"),
        ({"heads": 17}, "q_head is 1 to 16, got 17"),
        ({"active": 9}, "s_active is 1 to 8, got 9"),
        ({"d": 129}, "d_head is 1 to 128, got 129"),
        ({"keys": 512}, "full_sprior = 384, got 512"),
        ({"keys": 200}, "curr_sprior is a multiple of 128 here, got 200"),
        ({"qk_in_sb": False}, "fuse_rope=False needs qk_in_sb=True"),
        ({"bs": 65, "keys": 384, "heads": 1, "active": 2}, "up to one of .* got 65 and 2"),
        ({"block_len": 16, "tp_k_prior": False}, "needs tp_k_prior=True"),
        ({"d": 32, "fuse_rope": True}, "fuse_rope takes d_head 64 or 128, got 32"),
        ({"bs": 64, "fuse_rope": True}, "bs \\* q_head \\* s_active up to 128"),
    ],
)
def test_refusals_of_sizes(change, message):
    cfg = sizes(**{**IN_SBUF, **change})
    arguments = tkg_inputs(np.random.default_rng(0), sizes(**IN_SBUF))
    with pytest.raises(NkiError, match=message):
        attention_tkg_kernel(**{**arguments, "cfg": cfg})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": 0}, "q_head is 1 to 16"),
        ({"active": 0}, "s_active is 1 to 8"),
        ({"d": 0}, "d_head is 1 to 128"),
    ],
)
def test_refusals_of_no_size(change, message):
    """Tensors of such sizes cannot be allocated, so no call comes as far."""
    with pytest.raises(AssertionError, match=f"{message}.*, got 0"):
        check_sizes(sizes(**{**IN_SBUF, **change}), 1)


@pytest.mark.parametrize(
    "choices, change, message",
    [
        (IN_SBUF, {"mask": np.ones((3, 2, 2, 3), np.uint8)}, r"mask has shape \(3, 2, 2, 3\)"),
        (IN_SBUF, {"sink": np.zeros((3, 1), np.float32)}, r"sink has shape \(3, 1\), expected \(2, 1\)"),
        (ROPE, {"inv_freqs": None}, "fuse_rope needs inv_freqs and rope_pos_ids"),
        (ROPE, {"inv_freqs": np.zeros((3, 1), np.float32)}, r"inv_freqs has shape \(3, 1\)"),
        (BLOCKS, {"active_blocks_table": None}, "block_len > 0 needs active_blocks_table"),
        (IN_SBUF, {"v_prior": np.zeros((2, 1, 384, 64), FP8)}, "are all float8_e4m3, or none of them is"),
        (IN_SBUF, {"k_prior": np.zeros((2, 1, 64, 384), ml_dtypes.float8_e5m2)}, "not float8_e5m2"),
        (
            IN_SBUF,
            {"k_prior": np.zeros((1, 1, 64, 384), np.float32)},
            "holds at least bs = 2 sequences, got 1",
        ),
    ],
)
def test_refusals_of_operands(choices, change, message):
    arguments = {**tkg_inputs(np.random.default_rng(0), sizes(**choices)), **change}
    with pytest.raises(NkiError, match=message):
        attention_tkg_kernel(**arguments)


class TestHelpers:
    def test_names_are_where_callers_look_for_them(self):
        for name in ("AttnTKGConfig", "TileConstants", "is_batch_sharded", "uses_flash_attention"):
            assert hasattr(module, name)

    @pytest.mark.parametrize(
        "cfg, batch, keys",
        [
            (sizes(4, 1, 1, 256, 256), False, True),
            (sizes(4, 1, 1, 128, 256), True, False),
            (sizes(32, 8, 1, 256, 256), True, False),
            (sizes(33, 8, 1, 256, 256), False, False),
            (sizes(3, 1, 1, 128, 256), False, False),
        ],
    )
    def test_what_cores_share(self, cfg, batch, keys):
        assert (is_batch_sharded(cfg, 128), is_s_prior_sharded(cfg, 128)) == (batch, keys)

    @pytest.mark.parametrize(
        "blocks, length, cores, expected",
        [(512, 16, 2, (16, 1)), (640, 16, 2, (8, 2)), (192, 16, 2, (4, 4)), (1040, 16, 2, (1, 16))],
    )
    def test_blocks_are_cut(self, blocks, length, cores, expected):
        assert resize_cache_block_len_for_attention_tkg_kernel(blocks, length, cores, 128) == expected

    def test_sections_begin_beyond_8192_keys(self):
        assert [uses_flash_attention(n) for n in (8192, 8193)] == [(False, 8192), (True, 8192)]
