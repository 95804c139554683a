"""Names people write that the API does not have, and what to write instead.

Three kinds: names and keywords of older releases, names the published API has and
this project does not model, and misspellings.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from types import ModuleType

from nki import levels
from nki_isa.diagnostics import Diagnostic, NkiError, error
from nki_isa.machine.dtypes import MEANT_DTYPES
from nki_isa.machine.enums import Engine
from nki_isa.tensor.idioms import idiom

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
    ("nki", "baremetal"): "decorate with @nki.jit and call the kernel with arrays",
    ("nki", "benchmark"): "decorate with @nki.jit; nki-sim profile FILE tells the time of each call",
    ("nki", "profile"): "decorate with @nki.jit; nki-sim profile FILE --trace OUT.json writes a timeline",
    ("nki", "trace"): "decorate with @nki.jit",
    ("nki", "simulate_kernel"): "write nki.simulate(kernel)(...) or kernel(...)",
}

#: Those of them that made a kernel of a function.
DECORATORS = frozenset({"jit", "baremetal", "benchmark", "profile", "trace"})

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
    """What to write instead of a published name that this project lacks; None if it is not such a name."""
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


# Names of other packages and of the hardware's engines, and what they are here.
_ELSEWHERE: dict[tuple[str, str], str] = {
    **{("nki.language", name): f"nl.{dtype}" for name, dtype in MEANT_DTYPES.items()},
    ("nki.language", "pi"): "math.pi, with import math at the top of the file",
    ("nki.language", "e"): "math.e, with import math at the top of the file",
    ("nki.language", "inf"): "float('inf')",
    ("nki.language", "nan"): "float('nan')",
    ("nki.language", "dram"): "nl.shared_hbm for what the kernel returns, nl.private_hbm for what it keeps",
    ("nki.language", "hbm_shared"): "nl.shared_hbm",
    ("nki.language", "sizeinbytes"): "x.dtype.itemsize",
    **dict.fromkeys(
        [("nki.language", name) for name in ("empty", "array", "tensor", "Tensor", "alloc", "allocate")],
        "nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)",
    ),
    ("nki.language", "parallel_range"): "range",
    ("nki.isa", "dma_start"): "nisa.dma_copy(dst, src)",
    ("nki.isa", "copy"): "nisa.tensor_copy(dst, src)",
    ("nki.isa", "transpose"): "nisa.nc_transpose(dst, data)",
    ("nki.isa", "matmul"): "nisa.nc_matmul(dst, stationary, moving)",
}


def missing(module: str, name: str, written: str = "") -> Diagnostic:
    """What there is to say of a `name` that `module`, one of nki's, lacks at the level in force.

    Args:
        module: the module, such as ``"nki.language"``.
        name: the name.
        written: how the user wrote it, such as ``"nl.arange"``.

    Returns:
        NKI-L050 for a name of another level, NKI-L015 for one of Beta 1, NKI-U011 for one that is not
        modelled, NKI-L011 for any other.
    """
    told = levels.refusal(module, name)
    if told is not None:
        return told
    written = written or f"{module}.{name}"
    removed, absent = REMOVED.get((module, name)), not_modelled(module, name)
    if removed is not None:
        notes = (f"source: {REMOVED_SOURCE}",)
        return Diagnostic("NKI-L015", f"{written} was removed from the NKI API", help=removed, notes=notes)
    if absent is not None:
        return Diagnostic("NKI-U011", f"{written} is in the NKI API but not modelled here", help=absent)
    prefix = written[: -len(name)] if written.endswith(name) else ""
    home = next((m for m in PUBLIC if m != module and name in PUBLIC[m]), None)
    near = nearest(name, dir(sys.modules[module]))
    hint = f"see the names of {module} in its reference"
    if (module, name) in _ELSEWHERE:
        hint = f"write {_ELSEWHERE[module, name]}"
    elif module == "nki.language" and idiom(name) and nearest(name, dir(sys.modules[module]), 0.9) is None:
        hint = str(idiom(name))
    elif home is not None:
        hint = f"write {_ALIASES[home]}.{name}, with {_import_of(home)}"
    elif near:
        hint = f"write {prefix}{near}"
    return Diagnostic("NKI-L011", f"{written}: {module} has no {name!r}", help=hint)


def attribute_error(module: str, name: str) -> AttributeError:
    """What a module of nki raises for a name it lacks; :func:`explained` says more of it."""
    return AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])


def explained(raised: BaseException) -> NkiError | None:
    """What Python's error about nki, Beta 1's package or the vendor's library means; None for others."""
    if isinstance(raised, AttributeError) and isinstance(raised.obj, ModuleType) and raised.name:
        if raised.obj.__name__ in _OURS:
            return NkiError([missing(raised.obj.__name__, raised.name)])
    elif isinstance(raised, ImportError) and raised.name:
        top = raised.name.partition(".")[0]
        if top == "neuronxcc":
            return NkiError([_BETA1])
        wanted = re.match(r"cannot import name '(\w+)'", str(raised))
        if wanted and raised.name in _OURS:
            return NkiError([missing(raised.name, wanted[1])])
        if top == "nkilib":
            what = f"{raised.name}.{wanted[1]}" if wanted else raised.name
            return error(
                "NKI-U011",
                f"{what} is not in this project's kernel library",
                help="use the vendor's: put the src folder of its checkout into PYTHONPATH and import "
                f"{what.replace('nkilib', 'nkilib_src.nkilib', 1)}; see docs/vendor-library.md",
            )
    return None


_OURS = ("nki", "nki.language", "nki.isa", "nki.collectives", "nki.compiler")
_BETA1 = Diagnostic(
    "NKI-L015",
    "neuronxcc.nki is the namespace of Beta 1",
    help="write import nki, import nki.language as nl, import nki.isa as nisa",
    notes=("source: migration guide 0.3 to 0.4",),
)
_ALIASES = {"nki.language": "nl", "nki.isa": "nisa", "nki.collectives": "ncc"}


def _import_of(module: str) -> str:
    return f"import {module} as {_ALIASES[module]}"


#: The engines as the hardware's guides and profiles call them.
_ENGINES = {
    "pe": "tensor", "tensore": "tensor", "act": "scalar", "activation": "scalar", "scalare": "scalar",
    "dve": "vector", "vectore": "vector", "pool": "gpsimd", "gpsimde": "gpsimd",
    "sp": "sync", "synce": "sync",
}  # fmt: skip


def member(owner: object, name: str) -> str | None:
    """The attribute of a module, class or enumeration that is meant by `name`, which it lacks."""
    if owner is Engine and name.lower() in _ENGINES:
        return _ENGINES[name.lower()]
    return nearest(name, dir(owner))


def nearest(name: str, names: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The one of `names` that `name` is most likely meant to be; None below a likeness of `cutoff`."""
    candidates = [other for other in names if not other.startswith("__")]
    for other in candidates:
        if other.lower() == name.lower():
            return other
    close = difflib.get_close_matches(name, candidates, 1, cutoff)
    return close[0] if close else None
