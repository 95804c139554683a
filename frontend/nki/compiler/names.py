"""Names people write that the API does not have, and what to write instead.

Three kinds: names and keywords of older releases, names the published API has and
this project does not model, and misspellings.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nki import levels

REMOVED_SOURCE = "SDK API pages of release 2.26 against the present ones; migration guide"

_SLICE = "write slices, t[0:128, 0:512], or an access pattern, t.ap(pattern=[[stride, count], ...])"
_GRID = "launch the kernel with kernel[2](...) and read nl.program_id(0)"
_ADDRESS = "give nl.ndarray the argument address=(partition, byte)"
_LEAVE = "leave it out"

# (module, name) -> what to write instead; the modules and names of release 2.26 that are gone.
REMOVED: dict[tuple[str, str], str] = {
    ("nki.language", "arange"): _SLICE,
    ("nki.language", "mgrid"): _SLICE,
    ("nki.language", "atomic_rmw"): "call nisa.dma_compute(dst, srcs, reduce_op=nl.add)",
    ("nki.language", "loop_reduce"): (
        "accumulate in a for loop with nisa.tensor_tensor(dst=acc, data1=acc, data2=x, op=nl.add)"
    ),
    ("nki.language", "all_reduce"): "call nki.collectives.all_reduce",
    ("nki.language", "static_cast"): "copy to a tensor of the other data type with nisa.tensor_copy",
    ("nki.language", "finfo"): "write the number, or pass it in from the host",
    ("nki.language", "fp32"): "write the number: float32 reaches from -3.4028235e38 to 3.4028235e38",
    ("nki.language", "spmd_dim"): _GRID,
    ("nki.language", "nc"): _GRID,
    ("nki.isa", "fp32"): "write the number: float32 reaches from -3.4028235e38 to 3.4028235e38",
    ("nki.compiler", "sbuf"): _ADDRESS,
    ("nki.compiler", "psum"): _ADDRESS,
    ("nki.compiler", "multi_buffer"): "keep the buffers in a list and index it with i % n",
    ("nki.compiler", "allocation_scope"): _LEAVE,
    ("nki.compiler", "enable_stack_allocator"): _LEAVE,
    ("nki.compiler", "force_auto_alloc"): _LEAVE,
    ("nki.compiler", "skip_middle_end_transformations"): _LEAVE,
    ("nki.compiler", "no_reorder"): "write with nl.no_reorder():",
    ("nki", "baremetal"): "call the kernel with numpy arrays",
    ("nki", "simulate_kernel"): "write nki.simulate(kernel)(...)",
}

_MIN = "bound the slice instead: t[start:min(start + 128, n)]"
_DST = "leave it out: the data type of dst decides"

# (callee, keyword) -> what to write instead; callee "" stands for every function of nki.isa and nki.language.
REMOVED_KEYWORDS: dict[tuple[str, str], str] = {
    ("", "mask"): _MIN,
    ("", "dtype"): _DST,
    ("memset", "shape"): "allocate with nl.ndarray(shape, dtype, buffer) and call nisa.memset(dst, value)",
    ("iota", "expr"): "write nisa.iota(dst, pattern=[[step, count]], offset=..., channel_multiplier=...)",
    ("affine_select", "pred"): "write pattern=, channel_multiplier=, offset= and cmp_op=",
}

_WRAPPER = "write the nki.isa instructions it stands for, with tensors made by nl.ndarray"
_INSTEAD: dict[tuple[str, str], str] = {
    ("nki.language", "load"): "allocate with nl.ndarray and call nisa.dma_copy(dst=tile, src=x)",
    ("nki.language", "store"): "call nisa.dma_copy(dst=x, src=tile)",
    ("nki.language", "matmul"): "call nisa.nc_matmul(dst, stationary, moving)",
    ("nki.language", "transpose"): "call nisa.nc_transpose(dst, data)",
    ("nki.language", "load_transpose2d"): "call nisa.dma_transpose(dst, src)",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The names of the published API pages, by module.
PUBLIC: dict[str, frozenset[str]] = {
    "nki.language": _words(
        """NKIObject NkiTensor abs abs_max abs_min add affine_range all arctan average bfloat16 bitwise_and
        bitwise_or bitwise_xor bool_ broadcast_to bypass ceil copy cos device_print divide dropout ds
        dynamic_range empty_like equal erf erf_dx exp expand_dims float16 float32 float4_e2m1fn_x4
        float8_e4m3 float8_e4m3fn float8_e4m3fn_x4 float8_e5m2 float8_e5m2_x4 float8_e8m0fnu floor fmod
        fori_loop full gather_flattened gelu gelu_apprx_sigmoid gelu_apprx_sigmoid_dx gelu_apprx_tanh
        gelu_dx greater greater_equal hbm int16 int32 int8 invert is_hbm is_on_chip is_psum is_sbuf
        left_shift less less_equal load load_transpose2d log logical_and logical_not logical_or
        logical_xor matmul max maximum mean min minimum mish mod multiply ndarray negative no_reorder
        not_equal num_programs ones power prelu private_hbm prod program_id program_ndim psum rand
        random_seed reciprocal relu right_shift rms_norm rsqrt sbuf sequential_range shared_constant
        shared_hbm shared_identity_matrix sigmoid sign silu silu_dx sin softmax softplus sqrt square
        static_range store subtract sum tan tanh tfloat32 tile_size transpose trunc uint16 uint32 uint8
        var where while_loop zeros zeros_like"""
    ),
    "nki.isa": _words(
        """NkiInstruction NkiValidationError VirtualRegister activate2 activation activation_reduce
        affine_select bn_aggr bn_stats core_barrier dge_mode dma_compute dma_copy dma_engine
        dma_transpose dropout engine exponential get_nc_sub_version get_nc_version gpsimd_engine iota
        local_gather matmul_perf_mode max8 memset nc_find_index8 nc_match_replace8 nc_matmul
        nc_matmul_mx nc_n_gather nc_stream_shuffle nc_transpose nc_version nonzero_with_count oob_mode
        quantize_mx rand2 rand_get_state rand_set_state range_select reciprocal reduce_cmd
        register_alloc register_load register_move register_store rng scalar_engine scalar_tensor_tensor
        select_reduce sendrecv sequence_bounds set_rng_seed tensor_copy tensor_copy_predicated
        tensor_engine tensor_partition_reduce tensor_reduce tensor_scalar tensor_scalar_cumulative
        tensor_scalar_reduce tensor_tensor tensor_tensor_scan topk unknown_engine vector_engine"""
    ),
    "nki.collectives": _words(
        """ReplicaGroup all_gather all_gather_v all_reduce all_to_all all_to_all_v collective_permute
        collective_permute_implicit collective_permute_implicit_current_processing_rank_id
        collective_permute_implicit_reduce rank_id reduce_scatter"""
    ),
}


def not_modelled(module: str, name: str) -> str | None:
    """What to write instead of a published name that this project lacks; None if it is no such name."""
    if name not in PUBLIC.get(module, ()):
        return None
    return _INSTEAD.get((module, name), _WRAPPER)


def is_known_missing(module: str, name: str) -> bool:
    """Whether the API had or has `name` in `module`, and this project has something to say about it."""
    return (
        (module, name) in REMOVED
        or not_modelled(module, name) is not None
        or levels.refusal(module, name) is not None
    )


def nearest(name: str, names: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The one of `names` that `name` is most likely meant to be; None below a likeness of `cutoff`."""
    candidates = [other for other in names if not other.startswith("__")]
    for other in candidates:
        if other.lower() == name.lower():
            return other
    close = difflib.get_close_matches(name, candidates, 1, cutoff)
    return close[0] if close else None
