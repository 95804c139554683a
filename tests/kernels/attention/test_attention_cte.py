"""nkilib.core.attention.attention_cte against its numpy reference."""

import ml_dtypes
import numpy as np
import pytest

from nki_isa.diagnostics import NkiError
from nkilib.core.attention.attention_cte import attention_cte
from nkilib.core.attention.attention_cte_plan import Problem, mask_delta, units_of
from nkilib.core.attention.reference import attention_cte_reference
from nkilib.core.attention.registry_row import CTE, cte_inputs

SMALL = {"heads": 1, "queries": 256, "keys": 256, "d": 64}


def call(inputs, lnc=1, target="trn2", **options):
    """The results of kernel and reference; checks on, no finding."""
    sizes = {**SMALL, **inputs}
    arguments = {
        **cte_inputs(np.random.default_rng(0), **sizes),
        **{k: sizes[k] for k in ("tp_q", "tp_k") if k in sizes},
        **options,
    }
    outcome = CTE.run(arguments, lnc, target, check="all", warnings_as_errors=True)
    assert [str(found) for found in outcome.launch.diagnostics] == []
    return outcome.results, CTE.expected(arguments)


def close(inputs, lnc=1, target="trn2", **options):
    results, expected = call(inputs, lnc, target, **options)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(result.astype(np.float32), wanted.astype(np.float32), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "tp_q, tp_k, tp_out",
    [(True, False, False), (False, True, False), (True, True, True), (False, False, True)],
)
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32], ids=["bf16", "fp16", "fp32"])
def test_layouts(dtype, tp_q, tp_k, tp_out):
    sizes = {"queries": 200, "keys": 200, "d": 40, "tp_q": tp_q, "tp_k": tp_k, "dtype": dtype}
    close(sizes, tp_out=tp_out, scale=0.2)


@pytest.mark.parametrize("queries, keys", [(1, 1), (130, 40), (100, 700), (129, 2300)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(queries, keys, causal):
    close({"queries": queries, "keys": keys}, causal_mask=causal)


def test_many_units_keep_one_maximum():
    """A tile of three units, whose largest scores come last."""
    given = cte_inputs(np.random.default_rng(1), 1, 128, 2500, 32)
    given["k"][:, :, 2400:] *= 3
    out = attention_cte(**given, causal_mask=False)
    expected = attention_cte_reference(**given, causal_mask=False)
    np.testing.assert_allclose(out.astype(np.float32), expected.astype(np.float32), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("window", [1, 100, 128, 129, 5000])
def test_windows(window):
    close({"queries": 500, "keys": 500}, sliding_window=window)


@pytest.mark.parametrize(
    "used, window, tp_k", [(0, 0, False), (1, 0, True), (300, 0, True), (0, 90, True), (250, 90, False)]
)
def test_prior_keys(used, window, tp_k):
    """What does not count is NaN and does not matter."""
    close({"prior": 300, "used": used, "tp_k": tp_k, "kv_heads": 1, "heads": 2}, sliding_window=window)


@pytest.mark.parametrize("strided", [False, True], ids=["slices", "strided"])
@pytest.mark.parametrize(
    "rank, window, prior", [(0, 0, 0), (3, 0, 0), (1, 150, 0), (0, 150, 200), (3, 150, 200)]
)
def test_context_parallelism(rank, window, strided, prior):
    sizes = {"keys": 1024, "offset": rank if strided else rank * 256, "prior": prior, "used": prior // 2}
    close(sizes, sliding_window=window, global_cp_deg=4, cp_strided_q_slicing=strided)


def test_strided_queries_see_whole_blocks_behind_them():
    """Tile 1 stands at 128 * 5 and more: the blocks before that need no bounds, whatever their number."""
    close({"queries": 256, "keys": 1280, "offset": 2}, global_cp_deg=5, cp_strided_q_slicing=True)


def test_a_window_of_a_slice_with_keys_last():
    close({"keys": 1024, "offset": 512, "tp_k": True}, sliding_window=60, global_cp_deg=4)


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_statistics(sink, causal):
    """They are exact: a bf16 maximum would be off by up to 0.3."""
    sizes = {"queries": 256, "keys": 1300, "sink": sink, "kv_heads": 2, "heads": 2}
    (_, largest, total), (_, expected, sums) = call(sizes, causal_mask=causal, cache_softmax=True)
    np.testing.assert_allclose(largest, expected, rtol=1e-5)
    np.testing.assert_allclose(total, sums, rtol=5e-3)


def test_statistics_of_another_dtype():
    results, _ = call({"queries": 128, "keys": 128}, cache_softmax=True, softmax_dtype=ml_dtypes.bfloat16)
    assert [r.dtype for r in results] == [ml_dtypes.bfloat16] * 3


def test_a_sink_outweighs_everything():
    (out,), (expected,) = call({"sink": True}, scale=1e-3)
    np.testing.assert_allclose(out.astype(np.float32), expected.astype(np.float32), rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("amplitude", [0.0, 8.0])
def test_scores_of_any_usual_size(amplitude):
    """Scores of thousands: the maximum in 7 bits still keeps exp in range."""
    given = cte_inputs(np.random.default_rng(2), 1, 128, 128, 128)
    given["q"] *= ml_dtypes.bfloat16(amplitude)
    given["k"] *= ml_dtypes.bfloat16(8.0)
    out = attention_cte(**given).astype(np.float32)
    expected = attention_cte_reference(**given).astype(np.float32)
    np.testing.assert_allclose(out, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (2, 1), (3, 3), (6, 2)])
def test_two_programs(heads, kv_heads):
    sizes = {"heads": heads, "kv_heads": kv_heads, "queries": 300, "keys": 300}
    close(sizes, lnc=2)


def test_two_programs_share_statistics():
    close({"queries": 384, "keys": 384}, lnc=2, cache_softmax=True, tp_out=True)


def test_one_tile_for_two_programs():
    close({"queries": 100, "keys": 100}, lnc=2)


def test_trn3():
    close({"queries": 300, "keys": 1100, "sink": True}, target="trn3", causal_mask=False)


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        ({"d": 129}, {}, "d is at most 128, got 129"),
        ({"heads": 33}, {}, "batch_size is at most 32, got 33"),
        ({"heads": 3, "kv_heads": 2}, {}, "batch_size 3 is not a multiple of batch_size_kv 2"),
        ({"queries": 36865}, {}, "seqlen_q is at most 36864, got 36865"),
        ({"keys": 36800, "prior": 65}, {}, "prior included, is at most 36864, got 36865"),
        ({}, {"scale": 0.0}, "scale is positive, got 0.0"),
        ({}, {"scale": 0.5, "sliding_window": 4}, "scale is 1.0 with sliding_window"),
        ({"prior": 10}, {"scale": 0.5}, "scale is 1.0 with .*prefix caching"),
        ({"offset": 0}, {"scale": 0.5, "global_cp_deg": 2}, "scale is 1.0 with .*context parallelism"),
        ({}, {"causal_mask": False, "sliding_window": 4}, "sliding_window needs causal_mask=True"),
        ({}, {"sliding_window": 36865}, "sliding_window is at most 36864, got 36865"),
        ({"offset": 0}, {"causal_mask": False, "global_cp_deg": 2}, "cp_offset.* needs causal_mask=True"),
        ({"offset": 0}, {"global_cp_deg": 33}, "global_cp_deg is 1 to 32, got 33"),
        ({"offset": 0}, {}, "cp_offset and global_cp_deg are given together"),
        ({"queries": 100}, {"cache_softmax": True}, "multiples of 128, got 100"),
        ({}, {"prior_used_len": np.zeros(1, np.int32)}, "given together or not at all"),
        ({}, {"sink": np.zeros((2, 1), np.float32)}, r"sink has shape \(2, 1\), expected \(1, 1\)"),
        ({"dtype": np.int32}, {}, "bfloat16, float16 or float32, got int32"),
    ],
)
def test_refusals(inputs, options, message):
    given = cte_inputs(np.random.default_rng(0), **{**SMALL, **inputs})
    with pytest.raises(NkiError, match=message):
        attention_cte(**given, **options)


def test_shapes_that_do_not_match():
    given = cte_inputs(np.random.default_rng(0), **SMALL)
    with pytest.raises(NkiError, match=r"k has shape \(1, 64, 256\), expected \(1, 256, 64\)"):
        attention_cte(**given, tp_k=True)


class TestUnits:
    """The plan covers what the mask shows, and no block outside of it."""

    @pytest.mark.parametrize("window", [0, 1, 127, 128, 129, 1000])
    @pytest.mark.parametrize("queries, keys", [(1000, 1000), (300, 2100)])
    def test_every_visible_block_once(self, queries, keys, window):
        problem = Problem(queries, keys, 0, 64, True, window, 0, 1, 1.0, False)
        back = np.arange(queries)[:, None] - np.arange(keys)[None, :]
        seen = (back >= 0) & (back < (window or keys))
        for tile in range(-(-queries // 128)):
            units = units_of(problem, tile)
            blocks = [unit.first + i for unit in units for i in range(unit.count)]
            rows = seen[tile * 128 : tile * 128 + 128]
            wanted = [b for b in range(-(-keys // 128)) if rows[:, b * 128 : b * 128 + 128].any()]
            assert blocks == wanted
            assert max(unit.count for unit in units) <= 8
            assert [units[0].opens, units[-1].closes] == [True, True]
            for block in blocks:
                part = rows[:, block * 128 : block * 128 + 128]
                if mask_delta(problem, tile, block) is None:
                    assert part.all()

    def test_bounds_only_where_positions_are_unknown(self):
        problem = Problem(256, 1024, 0, 64, True, 0, 768, 1, 1.0, False)
        assert [unit.bounded for unit in units_of(problem, 0)] == [True]
        problem = Problem(256, 4096, 0, 64, True, 0, 3, 4, 1.0, False)
        assert [unit.bounded for unit in units_of(problem, 1)] == [True]
