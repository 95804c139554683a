"""nkilib.core.router_topk.router_topk: options, layouts in SBUF, results in SBUF, refusals."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target
from nkilib.core.router_topk.reference import router_topk_reference
from nkilib.core.router_topk.router_topk import (
    router_topk,
    router_topk_input_w_load,
    router_topk_input_x_load,
)
from nkilib.core.utils.common_types import RouterActFnType

SOFTMAX, SIGMOID = RouterActFnType.SOFTMAX, RouterActFnType.SIGMOID
BF16 = ml_dtypes.bfloat16
router = nki.jit(router_topk)


@nki.jit
def from_sbuf(
    x, w, w_bias, router_logits, expert_affinities, expert_index, act_fn, k, x_hbm_layout, x_sb_layout
):
    loaded = router_topk_input_x_load(x, x_hbm_layout, x_sb_layout)
    router_topk(
        loaded, w, w_bias, router_logits, expert_affinities, expert_index, act_fn, k, x_hbm_layout,
        x_sb_layout, router_pre_norm=False, x_input_in_sbuf=True,
    )  # fmt: skip
    return router_logits, expert_index, expert_affinities


@nki.jit
def to_sbuf(
    x, w, w_bias, router_logits, expert_affinities, expert_index, act_fn, k, x_hbm_layout, x_sb_layout
):
    tokens, experts = expert_affinities.shape
    affinities = nl.ndarray((tokens, experts), dtype=nl.float32, buffer=nl.sbuf)
    index = nl.ndarray((tokens, k), dtype=nl.uint32, buffer=nl.sbuf)
    _, _, _, eager = router_topk(
        x, w, w_bias, router_logits, affinities, index, act_fn, k, x_hbm_layout, x_sb_layout,
        output_in_sbuf=True, router_pre_norm=False, return_eager_affi=True, shard_on_tokens=True,
        expert_affin_in_sb=True,
    )  # fmt: skip
    chosen = nl.ndarray((tokens, k), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=expert_affinities, src=affinities)
    nisa.dma_copy(dst=expert_index, src=index)
    nisa.dma_copy(dst=chosen, src=eager)
    return router_logits, expert_index, expert_affinities, chosen


@nki.jit
def loads(x, w, hbm_layout, sb_layout):
    x_sb = router_topk_input_x_load(x, hbm_layout, sb_layout)
    w_sb = router_topk_input_w_load(w, sb_layout, "weights")
    x_out = nl.ndarray(x_sb.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    w_out = nl.ndarray(w_sb.shape, dtype=w.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=x_out, src=x_sb)
    nisa.dma_copy(dst=w_out, src=w_sb)
    return x_out, w_out


def arguments(
    tokens=20, hidden=256, experts=24, k=3, hbm_layout=1, act_fn=SOFTMAX, bias=True, dtype=np.float32
):
    rng = np.random.default_rng(tokens + experts + k)
    x = rng.standard_normal((tokens, hidden)).astype(dtype)
    return {
        "x": x if hbm_layout else np.ascontiguousarray(x.T),
        "w": (rng.standard_normal((hidden, experts)) / 16).astype(dtype),
        "w_bias": rng.standard_normal(experts).astype(dtype) if bias else None,
        "router_logits": np.zeros((tokens, experts), np.float32),
        "expert_affinities": np.zeros((tokens, experts), np.float32),
        "expert_index": np.zeros((tokens, k), np.uint32),
        "act_fn": act_fn,
        "k": k,
        "x_hbm_layout": hbm_layout,
        "x_sb_layout": 0,
    }


def expected(given, **options):
    known = {name: given[name] for name in given if name not in ("expert_index", "x_sb_layout")}
    return router_topk_reference(**known, **options)


def same(results, wanted):
    logits, index, affinities = wanted
    np.testing.assert_allclose(results[0], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(results[1], index)
    np.testing.assert_allclose(results[2], affinities, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("act_fn", [SOFTMAX, SIGMOID], ids=str)
@pytest.mark.parametrize("pre, norm", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("k", [1, 5, 8])
def test_pipelines(act_fn, pre, norm, k):
    given = arguments(act_fn=act_fn, k=k)
    options = {"router_pre_norm": pre, "norm_topk_prob": norm}
    same(router(**given, **options, use_indirect_dma_scatter=True), expected(given, **options))


@pytest.mark.parametrize("hbm_layout", [0, 1])
@pytest.mark.parametrize("tokens", [1, 8, 9, 128, 300])
def test_layouts_in_hbm(tokens, hbm_layout):
    given = arguments(tokens, hbm_layout=hbm_layout)
    same(router(**given, router_pre_norm=False), expected(given, router_pre_norm=False))


@pytest.mark.parametrize("sb_layout", [0, 1, 2])
@pytest.mark.parametrize("tokens", [5, 150])
def test_layouts_in_sbuf(tokens, sb_layout):
    given = {**arguments(tokens), "x_sb_layout": sb_layout}
    same(from_sbuf(**given), expected(given, router_pre_norm=False))


@pytest.mark.parametrize("hbm_layout, sb_layout", [(1, 0), (1, 1), (1, 2), (0, 3)])
@pytest.mark.parametrize("tokens", [4, 40])
def test_loads_are_as_documented(tokens, hbm_layout, sb_layout):
    hidden, experts, p = 512, 3, 128
    x = np.arange(tokens * hidden, dtype=np.float32).reshape(tokens, hidden)
    w = np.arange(hidden * experts, dtype=np.float32).reshape(hidden, experts)
    x_sb, w_sb = loads(x if hbm_layout else np.ascontiguousarray(x.T), w, hbm_layout, sb_layout)
    h = np.arange(hidden)
    places = {  # h of [partition, step]
        0: h.reshape(p, -1),
        1: h.reshape(2, p, -1).transpose(1, 0, 2).reshape(p, -1),
        2: h.reshape(-1, p).T,
        3: h.reshape(-1, p).T,
    }[sb_layout]
    order = x[:, places].transpose((1, 2, 0) if sb_layout == 3 else (1, 0, 2))
    np.testing.assert_array_equal(x_sb, order)
    np.testing.assert_array_equal(w_sb, w[places])


@pytest.mark.parametrize("tokens", [1, 7, 128])
def test_results_in_sbuf_are_whole_on_both_cores(tokens):
    given = arguments(tokens)
    logits, index, affinities, chosen = to_sbuf[2](**given)
    wanted = expected(given, router_pre_norm=False)
    same((logits, index, affinities), wanted)
    np.testing.assert_allclose(chosen, np.take_along_axis(wanted[2], index.astype(int), axis=1), rtol=1e-4)


@pytest.mark.parametrize("pre, norm", [(True, False), (True, True)])
@pytest.mark.parametrize("act_fn", [SOFTMAX, SIGMOID], ids=str)
def test_affinities_of_the_chosen(act_fn, pre, norm):
    given = arguments(act_fn=act_fn)
    options = {"router_pre_norm": pre, "norm_topk_prob": norm}

    @nki.jit
    def kernel(x, w, w_bias, router_logits, expert_affinities, expert_index, act_fn, k, pre, norm):
        results = router_topk(
            x, w, w_bias, router_logits, expert_affinities, expert_index, act_fn, k, 1, 0,
            router_pre_norm=pre, norm_topk_prob=norm, use_indirect_dma_scatter=True, return_eager_affi=True,
        )  # fmt: skip
        chosen = nl.ndarray(results[3].shape, dtype=nl.float32, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=chosen, src=results[3])
        return expert_index, chosen

    names = ("x", "w", "w_bias", "router_logits", "expert_affinities", "expert_index", "act_fn", "k")
    index, chosen = kernel(*[given[name] for name in names], pre, norm)
    affinities = expected(given, **options)[2]
    np.testing.assert_allclose(chosen, np.take_along_axis(affinities, index.astype(int), axis=1), rtol=1e-4)


@pytest.mark.parametrize("tokens", [2, 5, 90, 270])
def test_tokens_are_shared_between_two_programs(tokens):
    given = arguments(tokens)
    same(router[2](**given, shard_on_tokens=True), expected(given))


@pytest.mark.parametrize("option", ["use_PE_broadcast_w_bias", "use_column_tiling"])
def test_options_that_change_no_result(option):
    given = arguments(30)
    same(router(**given, **{option: True}), expected(given))


@pytest.mark.parametrize("experts, k", [(3, 2), (8, 8), (512, 8)])
def test_numbers_of_experts(experts, k):
    given = arguments(experts=experts, k=k, bias=False)
    same(router(**given, router_pre_norm=False), expected(given, router_pre_norm=False))


def test_equal_logits_give_k_experts():
    given = {**arguments(k=2), "w": np.zeros((256, 24), np.float32), "w_bias": None}
    _, index, affinities = router(**given, router_pre_norm=False)
    np.testing.assert_array_equal(index, np.tile([0, 1], (20, 1)))
    np.testing.assert_array_equal(affinities, np.tile([0.5, 0.5] + [0] * 22, (20, 1)))


def test_stores_that_are_left_out():
    given = arguments()
    given["router_logits"][:], given["expert_index"][:] = 7, 7
    logits, index, affinities = router(**given, skip_store_router_logits=True, skip_store_expert_index=True)
    assert (logits == 7).all() and (index == 7).all()
    np.testing.assert_allclose(affinities, expected(given)[2], rtol=1e-4, atol=1e-6)


def test_trn3_in_bf16():
    given = arguments(140, dtype=BF16)
    with session(target=as_target("trn3")):
        results = router[2](**given, router_pre_norm=False)
    same(results, expected(given, router_pre_norm=False))


@pytest.mark.parametrize(
    "changes, options, lnc, message",
    [
        ({"k": 9}, {}, 1, "k is 1 to 8, got 9"),
        ({"experts": 513}, {}, 1, "E, the experts of w, is at most 512, got 513"),
        ({"hidden": 200}, {}, 1, "H is a multiple of 128, got 200"),
        ({"act_fn": SIGMOID}, {}, 1, "SIGMOID needs use_indirect_dma_scatter"),
        ({"tokens": 130}, {"use_indirect_dma_scatter": True}, 1, "at most 128 or a multiple of it, got 130"),
        (
            {},
            {"use_indirect_dma_scatter": True, "expert_affin_in_sb": True},
            1,
            "affinities in HBM, not in SBUF",
        ),
        ({}, {"shard_on_tokens": True}, 1, "needs two programs"),
        ({"tokens": 129}, {"output_in_sbuf": True}, 1, "at most 128 for results in SBUF, got 129"),
        ({"tokens": 129}, {"return_eager_affi": True}, 1, "at most 128 for results in SBUF, got 129"),
    ],
)
def test_refusals(changes, options, lnc, message):
    refused(lambda: router[lnc](**arguments(**changes), **options), message)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("w", np.zeros((256, 24), BF16), "x and w have one dtype"),
        ("w", np.zeros((128, 24), np.float32), r"w is \[H, E\] with H = 256"),
        ("w_bias", np.zeros(23, np.float32), r"w_bias is \[E\] or \[1, E\]"),
        ("x_hbm_layout", 2, "x_hbm_layout is 0 or 1, got 2"),
        ("x_sb_layout", 3, "x_sb_layout is 0, 1 or 2, got 3"),
        ("expert_index", np.zeros((20, 4), np.uint32), "expert_index has shape"),
    ],
)
def test_arguments_that_do_not_fit(name, value, message):
    refused(lambda: router(**{**arguments(), name: value}), message)


@pytest.mark.parametrize("hbm_layout, sb_layout", [(0, 0), (0, 1), (0, 2), (1, 3)])
def test_pairs_of_layouts_that_are_not_loaded(hbm_layout, sb_layout):
    x = np.zeros((128, 128), np.float32)
    refused(lambda: loads(x, x, hbm_layout, sb_layout), "hbm_layout and sb_layout are 0 and 3")


def refused(call, message):
    with pytest.raises(NkiError, match=message) as caught:
        call()
    assert "[NCC_INKI016] Kernel validation exception" in str(caught.value)
