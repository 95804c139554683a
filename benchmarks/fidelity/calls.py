"""The published kernels of the rows in ``nki_library.csv``, called at the recorded shapes.

The kernels are those of aws-neuron/nki-library, fetched by ``collect.py``, which says at which commit; none
of them is part of this project. Each call imports its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32, "nl.float32": np.float32}
Parameters = dict[str, str]
Array = np.ndarray[Any, Any]


FP8 = ml_dtypes.float8_e4m3


def _is(parameters: Parameters, name: str) -> bool:
    return parameters.get(name) == "T"


def _number(parameters: Parameters, name: str, other: int = 0) -> int:
    text = parameters.get(name, "-")
    return other if text == "-" else int(text)


def _zeros(parameters: Parameters) -> Callable[..., Array]:
    dtype = DTYPES[parameters.get("dtype", "bf16")]
    return lambda *shape: np.zeros(shape, dtype)


def attention_cte(p: Parameters) -> tuple[Any, dict[str, Any]]:
    """softmax(Q K) V of a prompt."""
    from nkilib_src.nkilib.core.attention.attention_cte import attention_cte as kernel

    zeros = _zeros(p)
    heads, depth = int(p["bs"]), int(p["d"])
    shared = _number(p, "bs_kv", heads)
    queries = _number(p, "seqlen_q") or _number(p, "q_partial")
    keys = _number(p, "seqlen_kv") or _number(p, "kv")
    tp_q, tp_k = _is(p, "tp_q"), _is(p, "tp_k")
    given: dict[str, Any] = {
        "q": zeros(heads, queries, depth) if tp_q else zeros(heads, depth, queries),
        "k": zeros(shared, keys, depth) if tp_k else zeros(shared, depth, keys),
        "v": zeros(shared, keys, depth),
        "scale": float(p["scale"]),
        "causal_mask": _is(p, "causal") or "cp_rank" in p,
        "tp_q": tp_q,
        "tp_k": tp_k,
        "tp_out": _is(p, "tp_out"),
    }
    prior = _number(p, "prior_len") or _number(p, "kv_prior")
    if prior:
        given["k_prior"] = zeros(shared, prior, depth) if tp_k else zeros(shared, depth, prior)
        given["v_prior"] = zeros(shared, prior, depth)
        given["prior_used_len"] = np.full((1,), _number(p, "prior_used"), np.int32)
    if _is(p, "sink"):
        given["sink"] = np.zeros((heads, 1), np.float32)
    if _number(p, "window"):
        given["sliding_window"] = _number(p, "window")
    if "cp_rank" in p:
        given["cp_offset"] = np.full((1, 1), _number(p, "cp_rank") * queries, np.int32)
        given["global_cp_deg"] = _number(p, "cp_degree")
    return kernel, given


def mlp(p: Parameters) -> tuple[Any, dict[str, Any]]:
    """down(act(gate(x)) up(x)), normalized before."""
    from nkilib_src.nkilib.core.mlp.mlp import mlp as kernel
    from nkilib_src.nkilib.core.utils.common_types import ActFnType, NormType, QuantizationType

    zeros = _zeros(p)
    batch, length, hidden, inner = (int(p[n]) for n in ("batch", "seqlen", "hidden", "intermediate"))
    norm = NormType[p["norm"]]
    skip = _is(p, "skip_gate")
    weights = zeros if p["quant"] == "NONE" else lambda *shape: np.zeros(shape, FP8)
    given: dict[str, Any] = {
        "hidden_tensor": zeros(batch, length, hidden),
        "gate_proj_weights_tensor": weights(hidden, inner),
        "up_proj_weights_tensor": weights(hidden, inner),
        "down_proj_weights_tensor": weights(inner, hidden),
        "normalization_type": norm,
        "activation_fn": ActFnType[p["act"]],
        "skip_gate_proj": skip,
        "store_fused_add_result": _is(p, "store_add"),
        "quantization_type": QuantizationType[p["quant"]],
    }
    if p["quant"] == "STATIC":  # one scale of each, of weights and of what they multiply
        scales = ("gate_w_scale", "up_w_scale", "down_w_scale", "gate_up_in_scale", "down_in_scale")
        given.update({name: np.zeros((128, 1), np.float32) for name in scales})
    if p["quant"] == "ROW":  # a scale of each column
        columns = {"gate": inner, "up": inner, "down": hidden}
        given.update({f"{n}_w_scale": np.zeros((128, size), np.float32) for n, size in columns.items()})
        if "col_tile_gate_up" not in p:  # of prompts: tokens are quantized too, their scale behind them
            given["hidden_tensor"] = np.zeros((batch, length, hidden + 4), FP8)
    if p["norm"] in ("RMS_NORM", "LAYER_NORM"):
        given["normalization_weights_tensor"] = zeros(1, hidden)
    for name, shape in (("gate", inner), ("up", inner), ("down", hidden)):
        if _is(p, f"{name}_bias") and not (skip and name == "gate"):
            given[f"{name}_proj_bias_tensor"] = zeros(1, shape)
    if _is(p, "norm_bias"):
        given["normalization_bias_tensor"] = zeros(1, hidden)
    if _is(p, "fused_add"):
        given["fused_add_tensor"] = zeros(batch, length, hidden)
    if "col_tile_gate_up" in p:
        given["use_tkg_gate_up_proj_column_tiling"] = _is(p, "col_tile_gate_up")
        given["use_tkg_down_proj_column_tiling"] = _is(p, "col_tile_down")
        given["use_tkg_down_proj_optimized_layout"] = _is(p, "down_layout_opt")
    return kernel, given


def qkv_tkg(p: Parameters) -> tuple[Any, dict[str, Any]]:
    """norm(x) times the weights of queries, keys and values, for few tokens."""
    from nkilib_src.nkilib.core.qkv.qkv_tkg import qkv_tkg as kernel
    from nkilib_src.nkilib.core.utils.common_types import NormType, QKVOutputLayout, QuantizationType

    zeros = _zeros(p)
    batch, length, hidden, features = (int(p[n]) for n in ("batch", "seqlen", "hidden", "fused_qkv_dim"))
    given: dict[str, Any] = {
        "hidden": zeros(batch, length, hidden),
        "qkv_w": zeros(hidden, features),
        "d_head": int(p["d_head"]),
        "output_layout": QKVOutputLayout[p["layout"]],
        "norm_type": NormType[p["norm"]],
        "fused_add": _is(p, "fused_add"),
    }
    if p["norm"] != "NO_NORM":
        given["norm_w"] = zeros(1, hidden)
    if _is(p, "fused_add"):
        given["mlp_prev"] = zeros(batch, length, hidden)
        given["attn_prev"] = zeros(batch, length, hidden)
    if _is(p, "qkv_bias"):
        given["qkv_bias"] = zeros(1, features)
    if p["quant"] == "STATIC":
        given["quantization_type"] = QuantizationType.STATIC
        given["qkv_w"] = np.zeros((hidden, features), FP8)
        given["qkv_w_scale"] = np.zeros((128, 3), np.float32)  # of queries, keys and values
        given["qkv_in_scale"] = np.zeros((128, 1), np.float32)
        given["num_kv_heads"], given["num_q_heads"] = 1, features // int(p["d_head"]) - 2
    return kernel, given


def norm_tkg(p: Parameters) -> tuple[Any, dict[str, Any]]:
    """Rows normalized and transposed, for few tokens."""
    from nkilib_src.nkilib.core.subkernels.layernorm_tkg import layernorm_tkg
    from nkilib_src.nkilib.core.subkernels.rmsnorm_tkg import rmsnorm_tkg

    zeros = _zeros(p)
    batch, length, hidden = (int(p[n]) for n in ("batch", "seqlen", "hidden"))
    given: dict[str, Any] = {
        "input": zeros(batch, length, hidden),
        "gamma": zeros(1, hidden),
        "output": zeros(128, batch * length, hidden // 128),
    }
    if "hidden_dim_tp" not in p:
        return layernorm_tkg, given
    given["hidden_dim_tp"] = _is(p, "hidden_dim_tp")
    if _number(p, "hidden_actual"):
        given["hidden_actual"] = _number(p, "hidden_actual")
    return rmsnorm_tkg, given


def rmsnorm_quant(p: Parameters) -> tuple[Any, dict[str, Any]]:
    """Rows normalized and quantized to fp8."""
    from nkilib_src.nkilib.core.rmsnorm.rmsnorm_quant import RmsNormQuantKernelArgs, rmsnorm_quant_kernel
    from nkilib_src.nkilib.core.utils.common_types import NormType, QuantizationType

    zeros = _zeros(p)
    batch, length, hidden = (int(p[n]) for n in ("batch", "seqlen", "hidden"))
    asked = RmsNormQuantKernelArgs(
        lower_bound=float(p["lower_bound"]),
        norm_type=NormType.NO_NORM if _is(p, "quant_only") else NormType.RMS_NORM,
        quantization_type=QuantizationType[p["quant"]],
    )
    given = {"hidden": zeros(batch, length, hidden), "ln_w": zeros(1, hidden), "kargs": asked}
    return rmsnorm_quant_kernel, given


CALLS: dict[str, Callable[[Parameters], tuple[Any, dict[str, Any]]]] = {
    "attention_cte": attention_cte,
    "layernorm_tkg": norm_tkg,
    "mlp_cte": mlp,
    "mlp_tkg": mlp,
    "qkv_tkg": qkv_tkg,
    "rmsnorm_quant": rmsnorm_quant,
    "rmsnorm_tkg": norm_tkg,
}
"""How each kernel is called at the parameters of a row."""
