"""router_topk in the table of kernels."""

from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.router_topk.layouts import XHBMLayout_T_H__1
from nkilib.core.router_topk.reference import router_topk_reference
from nkilib.core.router_topk.router_topk import router_topk
from nkilib.core.utils.common_types import RouterActFnType
from nkilib.registry import Example, Inputs, Row, Tolerance

BF16 = ml_dtypes.bfloat16
SOFTMAX, SIGMOID = RouterActFnType.SOFTMAX, RouterActFnType.SIGMOID


def _example(
    name: str,
    tokens: int,
    hidden: int,
    experts: int,
    k: int,
    act_fn: RouterActFnType = SOFTMAX,
    dtype: Any = BF16,
    bias: bool = True,
    x_hbm_layout: int = 0,
    lnc: tuple[int, ...] = (1,),
    targets: tuple[str, ...] = ("trn2",),
    slow: bool = False,
    about: str = "",
    **options: Any,
) -> Example:
    def inputs(rng: np.random.Generator) -> Inputs:
        x = rng.uniform(-0.1, 0.1, (tokens, hidden)).astype(dtype)
        return {
            "x": x if x_hbm_layout == XHBMLayout_T_H__1 else np.ascontiguousarray(x.T),
            "w": rng.uniform(-0.1, 0.1, (hidden, experts)).astype(dtype),
            "w_bias": rng.uniform(-0.1, 0.1, (1, experts)).astype(dtype) if bias else None,
            "router_logits": np.zeros((tokens, experts), dtype),
            "expert_affinities": np.zeros((tokens, experts), dtype),
            "expert_index": np.zeros((tokens, k), np.uint32),
        }

    fixed = {"act_fn": act_fn, "k": k, "x_hbm_layout": x_hbm_layout, "x_sb_layout": 0}
    return Example(
        name=name,
        inputs=inputs,
        options={**fixed, **options},
        lnc=lnc,
        targets=targets,
        slow=slow,
        about=about,
    )


ROWS = (
    Row(
        name="router_topk",
        entry=router_topk,
        reference=router_topk_reference,
        summary="Router of a mixture of experts: logits, k experts of each token, affinities",
        maths=(
            "`logits = x w + bias`; `index` holds the k experts of largest logit. Before the choice "
            "(`router_pre_norm`) affinities are softmax or sigmoid of all logits, with `norm_topk_prob` "
            "those of the chosen divided by their sum; else they are softmax over the chosen logits, or "
            "their sigmoid. Where affinities are of the chosen only, the others are 0."
        ),
        options={
            "x": "`[H, T]` or `[T, H]` in HBM, or in SBUF in one of three layouts",
            "w": "`[H, E]` in HBM, of the dtype of `x`",
            "w_bias": "`[1, E]` or `[E]` in HBM, or None",
            "router_logits": "`[T, E]` in HBM; written",
            "expert_affinities": "`[T, E]` in HBM or SBUF; written",
            "expert_index": "`[T, k]` uint32 in HBM or SBUF; written",
            "act_fn": "`RouterActFnType.SOFTMAX` or `SIGMOID`",
            "k": "experts per token, 1 to 8",
            "x_hbm_layout": "0: `[H, T]`, 1: `[T, H]`",
            "x_sb_layout": "0, 1 or 2, for x in SBUF",
            "output_in_sbuf": "affinities and index are in SBUF; T is at most 128",
            "router_pre_norm": "activate before the choice",
            "norm_topk_prob": "with `router_pre_norm`, divide by the sum over the chosen",
            "use_column_tiling": "a hint that changes no result",
            "use_indirect_dma_scatter": "needed for sigmoid; changes no result",
            "return_eager_affi": "also return the affinities of the chosen, `[T, k]`",
            "use_PE_broadcast_w_bias": "the bias goes through the tensor engine",
            "shard_on_tokens": "each of two programs takes half of the tokens",
            "skip_store_expert_index": "do not write `expert_index`",
            "skip_store_router_logits": "do not write `router_logits`",
            "x_input_in_sbuf": "x is in SBUF",
            "expert_affin_in_sb": "affinities are in SBUF",
        },
        limits=(
            "k is at most 8, E at most 512; H is a multiple of 128.",
            "With `use_indirect_dma_scatter` T, or half of it with `shard_on_tokens`, is at most 128 or a "
            "multiple of 128, and affinities are in HBM. Sigmoid needs it.",
            "T is at most 128 for results in SBUF and for `return_eager_affi`.",
        ),
        examples=(
            _example(
                "gpt-oss", 32, 3072, 128, 4, router_pre_norm=False, about="gpt-oss 120B, a step of decoding"
            ),
            _example(
                "qwen3",
                2,
                4096,
                128,
                8,
                bias=False,
                x_hbm_layout=1,
                norm_topk_prob=True,
                lnc=(2,),
                use_indirect_dma_scatter=True,
                about="Qwen3 235B, a step of decoding",
            ),
            _example(
                "llama4",
                2,
                5120,
                16,
                1,
                bias=False,
                x_hbm_layout=1,
                router_pre_norm=False,
                about="Llama 4 Scout",
            ),
            _example(
                "sigmoid",
                130,
                512,
                24,
                3,
                SIGMOID,
                x_hbm_layout=1,
                lnc=(2,),
                shard_on_tokens=True,
                use_indirect_dma_scatter=True,
                targets=("trn2", "trn3"),
                about="half of the tokens on each core",
            ),
            _example("fp32", 300, 256, 40, 8, dtype=np.float32, x_hbm_layout=1, use_PE_broadcast_w_bias=True),
            _example("gpt-oss-prefill", 1024, 3072, 128, 4, router_pre_norm=False, slow=True),
            _example(
                "deepseek-v3",
                128,
                7168,
                256,
                8,
                SIGMOID,
                norm_topk_prob=True,
                use_indirect_dma_scatter=True,
                slow=True,
                about="the shapes of DeepSeek V3",
            ),
        ),
        tolerance=Tolerance(
            rtol=1 / 128, atol=1e-5, reason="logits and affinities are rounded to the dtype of their tensors"
        ),
        page="nki/library/api/router-topk",
    ),
)
