"""moe_tkg in the table of kernels."""

import functools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.moe.moe_tkg.moe_tkg import moe_tkg
from nkilib.core.moe.moe_tkg.reference import moe_tkg_reference
from nkilib.core.utils.common_types import ActFnType, ExpertAffinityScaleMode
from nkilib.registry import Example, Row, Tolerance

Arrays = dict[str, np.ndarray[Any, Any]]

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
_POST = {"expert_affinities_scaling_mode": ExpertAffinityScaleMode.POST_SCALE}
_ALL = {"is_all_expert": True}
_SELECTED = {"is_all_expert": False}
_CLAMPS = {
    "gate_clamp_upper_limit": 1.0,
    "up_clamp_upper_limit": 0.75,
    "up_clamp_lower_limit": -1.0,
}
_GPT_OSS = {
    **_POST,
    "activation_fn": ActFnType.Swish,
    "gate_clamp_upper_limit": 7.0,
    "up_clamp_upper_limit": 8.0,
    "up_clamp_lower_limit": -6.0,
}


def _weights(rng: np.random.Generator, shape: tuple[int, ...], size: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Weights whose products of `size` numbers of size 1 are of size 1; of FP8 with their scales."""
    values = rng.standard_normal(shape, np.float32)
    return (values if dtype == FP8 else values / np.sqrt(size)).astype(dtype)


def _inputs(
    rng: np.random.Generator,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    top_k: int,
    ranks: int,
    dtype: Any,
    bias: bool,
    fp8: bool,
    eager: bool,
    options: Mapping[str, Any],
) -> Arrays:
    weights = FP8 if fp8 else dtype
    everywhere = experts * ranks
    arrays: Arrays = {
        "hidden_input": rng.standard_normal((tokens, hidden)).astype(dtype),
        "expert_gate_up_weights": _weights(rng, (experts, hidden, 2, intermediate), hidden, weights),
        "expert_down_weights": _weights(rng, (experts, intermediate, hidden), intermediate, weights),
        "expert_affinities": rng.random((tokens, everywhere), np.float32),
        "expert_index": rng.permuted(np.tile(np.arange(everywhere), (tokens, 1)), axis=1)[:, :top_k].astype(
            np.int32
        ),
    }
    if options["is_all_expert"] and "expert_affinities_scaling_mode" in options:
        arrays["rank_id"] = np.array([[ranks - 1]], np.uint32)
    if bias:
        arrays["expert_gate_up_bias"] = rng.standard_normal((experts, 2, intermediate)).astype(dtype)
        arrays["expert_down_bias"] = rng.standard_normal((experts, hidden)).astype(dtype)
    if fp8:
        up, down = (experts, 2, intermediate), (experts, hidden)
        arrays["expert_gate_up_weights_scale"] = (rng.uniform(0.5, 1.5, up) / hidden**0.5).astype(np.float32)
        arrays["expert_down_weights_scale"] = (rng.uniform(0.5, 1.5, down) / intermediate**0.5).astype(
            np.float32
        )
    if eager:
        arrays["expert_affinities_eager"] = rng.random((tokens, top_k), np.float32)
    return arrays


def _example(
    name: str,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    options: Mapping[str, Any],
    top_k: int = 2,
    ranks: int = 1,
    dtype: Any = BF16,
    bias: bool = False,
    fp8: bool = False,
    eager: bool = False,
    **more: Any,
) -> Example:
    inputs = functools.partial(
        _inputs,
        tokens=tokens,
        hidden=hidden,
        intermediate=intermediate,
        experts=experts,
        top_k=top_k,
        ranks=ranks,
        dtype=dtype,
        bias=bias,
        fp8=fp8,
        eager=eager,
        options=options,
    )
    return Example(name=name, inputs=inputs, options=options, **more)


def _mx_inputs(
    rng: np.random.Generator,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    top_k: int,
    fp4: bool,
    options: Mapping[str, Any],
) -> Arrays:
    """MX weights as words, with biases: values of about one, scaled."""
    rows, tiles = min(intermediate // 4, 128), -(-intermediate // 512)
    up, down = (experts, 128, 2, hidden // 512, intermediate), (experts, rows, tiles, hidden)

    def words(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if fp4:
            return rng.integers(0, 1 << 16, shape, np.uint16)
        values = rng.standard_normal((*shape[:-1], 4 * shape[-1]), np.float32)
        return values.astype(ml_dtypes.float8_e4m3fn).view(np.uint32)

    def scales(shape: tuple[int, ...], size: int) -> np.ndarray[Any, Any]:
        middle = 127 - round(np.log2(size) / 2) - (1 if fp4 else 0)
        shape = (shape[0], shape[1] // 8, *shape[2:])
        return rng.integers(middle - 1, middle + 1, shape).astype(np.uint8)

    arrays = _inputs(rng, tokens, hidden, 4, experts, top_k, 1, BF16, True, False, False, options)
    arrays["expert_gate_up_weights"], arrays["expert_down_weights"] = words(up), words(down)
    arrays["expert_gate_up_weights_scale"] = scales(up, hidden)
    arrays["expert_down_weights_scale"] = scales(down, intermediate)
    bias = rng.standard_normal((experts, rows, 2, tiles, 4), np.float32)
    arrays["expert_gate_up_bias"] = bias.astype(BF16)
    return arrays


def _mx_example(
    name: str,
    tokens: int,
    hidden: int,
    intermediate: int,
    experts: int,
    options: Mapping[str, Any],
    top_k: int = 2,
    fp4: bool = True,
    **more: Any,
) -> Example:
    inputs = functools.partial(
        _mx_inputs,
        tokens=tokens,
        hidden=hidden,
        intermediate=intermediate,
        experts=experts,
        top_k=top_k,
        fp4=fp4,
        options=options,
    )
    return Example(name=name, inputs=inputs, options=options, targets=("trn3",), **more)


_OPTIONS = {
    "hidden_input": "`[T, H]` or `[B, S, H]` in HBM, or `[128, T, H / 128]` in SBUF (all experts on "
    "two cores: each core half of H); bf16 or fp16",
    "expert_gate_up_weights": "`[E_L, H, 2, I]`; bf16, fp16 or float8_e4m3. MX: `[E_L, 128, 2, H / 512, I]` "
    "of float4_e2m1fn_x4 or float8_e4m3fn_x4, or uint16 or uint32 that hold them",
    "expert_down_weights": "`[E_L, I, H]`; MX `[E_L, min(I / 4, 128), ceil(I / 512), H]`",
    "expert_affinities": "fp32 `[T, E]` in HBM; selected experts also take it in SBUF",
    "expert_index": "int32 `[T, K]`, the experts a token has selected",
    "is_all_expert": "True: every expert for every token; False: those each token has selected",
    "rank_id": "`[1, 1]`: expert e here is column `rank * E_L + e` of the affinities; for all "
    "experts with POST_SCALE",
    "expert_gate_up_bias": "`[E_L, 2, I]`; MX `[E_L, min(I / 4, 128), 2, ceil(I / 512), 4]`",
    "expert_down_bias": "`[E_L, H]`",
    "expert_gate_up_weights_scale": "fp32 `[E_L, 2, I]`, FP8 weights; MX uint8 `[E_L, 16, 2, H / 512, I]`",
    "expert_down_weights_scale": "fp32 `[E_L, H]` with FP8 weights; MX uint8, a row for 8 of the weights",
    "hidden_input_scale": "of quantized hidden, with MX weights",
    "gate_up_input_scale": "refused: static quantization is not supported",
    "down_input_scale": "refused: static quantization is not supported",
    "mask_unselected_experts": "all experts: only affinities to those in `expert_index` count",
    "expert_affinities_eager": "fp32 `[T, K]`, selected experts: the affinities themselves",
    "expert_affinities_scaling_mode": "NO_SCALE (every affinity is 1) or POST_SCALE",
    "activation_fn": "SiLU, GELU, GELU_Tanh_Approx or Swish",
    "output_dtype": "of the result; that of hidden by default",
    "gate_clamp_upper_limit": "largest value of the gate projection",
    "gate_clamp_lower_limit": "smallest value of the gate projection",
    "up_clamp_upper_limit": "largest value of the up projection",
    "up_clamp_lower_limit": "smallest value of the up projection",
    "output_in_sbuf": "leave the result in SBUF",
    "is_all_expert_dynamic": "all experts with POST_SCALE, no MX weights: those to which no token has an "
    "affinity are left out at run time; the result is the same",
}

ROWS = (
    Row(
        name="moe_tkg",
        entry=moe_tkg,
        reference=moe_tkg_reference,
        summary="Mixture-of-experts MLP, decoding",
        maths=(
            "`out[t] = sum over e of affinity[t, e] * ((act(clamp(x Wgate_e + b)) * clamp(x Wup_e + b)) "
            "Wdown_e + b)`, over all experts whose weights are here, or over the K that a token has "
            "selected. Sums are fp32; the input of the down projection, times the affinity, is rounded to "
            "the dtype of hidden. Sums with FP8 weights are multiplied by the scale of their column."
        ),
        options=_OPTIONS,
        limits=(
            "T is at most 128; K at most 16.",
            "H is a multiple of 128; of 256 for all experts on two cores.",
        ),
        examples=(
            _example("all", 4, 512, 128, 4, {**_ALL, **_POST}, lnc=(1, 2), about="four experts, four tokens"),
            _example(
                "all-full",
                9,
                768,
                200,
                3,
                {**_ALL, **_POST, **_CLAMPS, "mask_unselected_experts": True},
                ranks=2,
                bias=True,
                lnc=(1, 2),
                about="the second of two ranks; two cores share an odd expert",
            ),
            _example("all-one", 40, 256, 96, 1, {**_ALL}, top_k=1, lnc=(2,), targets=("trn2", "trn3")),
            _example("all-fp8", 6, 512, 64, 2, {**_ALL, **_POST}, bias=True, fp8=True, lnc=(2,)),
            _example(
                "all-dynamic",
                6,
                512,
                64,
                11,
                {**_ALL, **_POST, "mask_unselected_experts": True, "is_all_expert_dynamic": True},
                ranks=2,
                bias=True,
                lnc=(1, 2),
                about="experts without tokens are left out",
            ),
            _example("selected", 4, 512, 128, 8, {**_SELECTED, **_POST}, lnc=(1, 2)),
            _example(
                "selected-full",
                5,
                384,
                200,
                5,
                {**_SELECTED, **_POST, **_CLAMPS, "activation_fn": ActFnType.Swish},
                top_k=3,
                dtype=np.float16,
                bias=True,
                lnc=(1, 2),
            ),
            _example("selected-one-token", 1, 512, 130, 6, {**_SELECTED}, top_k=3, bias=True, lnc=(2,)),
            _example("selected-eager", 3, 256, 64, 4, {**_SELECTED, **_POST}, bias=True, eager=True),
            _example("selected-fp8", 3, 512, 192, 4, {**_SELECTED, **_POST}, bias=True, fp8=True, lnc=(2,)),
            _example(
                "gpt-oss-all",
                32,
                3072,
                384,
                8,
                {**_ALL, **_POST, **_CLAMPS, "activation_fn": ActFnType.Swish},
                top_k=4,
                ranks=16,
                bias=True,
                lnc=(2,),
                about="gpt-oss 120B, 8 experts on each of 16 ranks",
                slow=True,
            ),
            _example(
                "qwen3-235b",
                2,
                4096,
                192,
                16,
                {**_SELECTED, **_POST},
                top_k=8,
                lnc=(2,),
                about="Qwen3 235B-A22B on 8 ranks",
                slow=True,
            ),
        ),
        tolerance=Tolerance(
            rtol=2**-6,
            atol=2**-5,
            reason="the input of the down projection is rounded to bf16 (8 bits), the result once more",
        ),
        page="nki/library/api/moe-tkg",
    ),
    Row(
        name="moe_tkg_mx",
        entry=moe_tkg,
        reference=moe_tkg_reference,
        summary="Mixture-of-experts MLP with MX weights, decoding",
        maths=(
            "As moe_tkg. Hidden and the input of the down projection are quantized to MXFP8: the four values "
            "of an element in 8 neighbouring partitions share a power of two. Row `h = q * (H / 4) + n * 128 "
            "+ p` of H is value q of partition p in contraction n; column `i = n * 512 + c * 128 + p` of I "
            "is value c of partition p in contraction n of the down projection."
        ),
        options=_OPTIONS,
        limits=(
            "NeuronCore-v4. H is a multiple of 512, I of 32.",
            "All experts: T is a multiple of 32. Selected: T at most 128, K divides over the cores.",
        ),
        examples=(
            _mx_example("all", 32, 512, 512, 2, {**_ALL, **_POST, **_CLAMPS}, lnc=(1, 2)),
            _mx_example("all-tail", 160, 1024, 640, 1, {**_ALL}, top_k=1, fp4=False, lnc=(2,)),
            _mx_example("selected", 3, 512, 192, 4, {**_SELECTED, **_POST}, lnc=(1, 2)),
            _mx_example(
                "gpt-oss",
                4,
                3072,
                384,
                16,
                _GPT_OSS | _SELECTED,
                top_k=4,
                lnc=(2,),
                slow=True,
                about="gpt-oss 120B, TP8: the four experts of each token",
            ),
            _mx_example(
                "gpt-oss-all",
                128,
                3072,
                3072,
                1,
                _GPT_OSS | _ALL,
                top_k=1,
                lnc=(2,),
                slow=True,
                about="gpt-oss 120B, one expert on each of 128 ranks",
            ),
            _mx_example(
                "gpt-oss-1024",
                1024,
                3072,
                3072,
                1,
                _GPT_OSS | _ALL,
                top_k=1,
                lnc=(2,),
                slow=True,
                about="the same for 1024 tokens",
            ),
        ),
        tolerance=Tolerance(
            rtol=2**-5,
            atol=2**-4,
            reason="the input of the down projection may round to the next MXFP8 value, which has 4 bits",
        ),
        page="nki/library/api/moe-tkg",
        since="0.6",
    ),
)
