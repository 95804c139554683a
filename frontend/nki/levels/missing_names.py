"""The names that some API levels lack."""

from __future__ import annotations

from nki.levels.table_rows import COLLECTIVES, COMPILER, ISA, LANGUAGE, TENSOR, TILE_SIZE, Name
from nki_isa.machine.operators import OPERATORS


def _named(module: str, since: str, names: str, instead: str) -> list[Name]:
    return [Name(module, name, since, instead=instead) for name in names.split()]


_WRAPPERS = """
    all arctan broadcast_to ceil copy cos dropout empty_like erf erf_dx exp expand_dims floor fmod
    full gather_flattened gelu gelu_apprx_tanh gelu_dx load load_transpose2d log matmul max mean min
    mish mod negative ones prod rand random_seed relu rms_norm sigmoid sign silu silu_dx sin softmax
    softplus sqrt square store sum tan tanh transpose trunc var where zeros_like
"""
#: Those of them that name operators: instructions take them at every level.
_OPERATORS_TOO = frozenset(_WRAPPERS.split()) & (OPERATORS.keys() | {"max", "min"})

_PSUM_SIZE = "write nl.tile_size.psum_fmax, elements of fp32 in a bank of 2048 bytes per partition"
_SBUF_SIZE = "write nl.tile_size.total_available_sbuf_size, bytes of one partition"
_VIEW = "write t.ap(pattern=[[stride, count], ...]), a slice, or t.reshape(shape)"
_HOST_ARRAY = "save a numpy array with np.save and give its path to nl.shared_constant"
_DYNAMIC = "write nisa.tensor_copy with a view t.ap(pattern=..., scalar_offset=register)"

NAMES: tuple[Name, ...] = (
    *_named(
        LANGUAGE,
        "0.3",
        " ".join(sorted(set(_WRAPPERS.split()) - _OPERATORS_TOO)),
        "write the nki.isa instructions it stands for, with tensors made by nl.ndarray",
    ),
    *_named(LANGUAGE, "0.3", "is_hbm is_on_chip is_psum is_sbuf", "compare: t.buffer == nl.sbuf"),
    *_named(LANGUAGE, "0.3", "MemoryRegion NkiTensor", "leave the annotation out"),
    *_named(LANGUAGE, "0.3", "no_reorder", "leave it out: instructions keep their order here"),
    *_named(LANGUAGE, "0.4", "abs_max abs_min", "write nl.abs and nl.maximum or nl.minimum"),
    *_named(LANGUAGE, "0.4", "prelu bypass", "write nisa.tensor_scalar, then nisa.activation"),
    *_named(LANGUAGE, "0.5", "average", "reduce with nl.add and multiply by 1/n"),
    *_named(LANGUAGE, "0.5", "float8_e8m0fnu", "write nl.uint8 for the scales of MX tensors"),
    *_named(LANGUAGE, "0.6", "fori_loop", "write for i in nl.dynamic_range(lower, upper)"),
    *_named(LANGUAGE, "0.6", "while_loop", "write while register:"),
    *_named(LANGUAGE, "0.6", "DType", "write str"),
    Name(LANGUAGE, "par_dim", until="0.2", instead="write the size alone: dimension 0 is the partitions"),
    *_named(ISA, "0.3", "NkiValidationError VirtualRegister", "leave the annotation out"),
    *_named(ISA, "0.4", "activate2", "write nisa.tensor_scalar, then nisa.activation"),
    *_named(ISA, "0.5", "get_nc_sub_version", "write nisa.get_nc_version()"),
    *_named(ISA, "0.6", "topk", "write nisa.max8 and nisa.nc_match_replace8 in a loop"),
    *_named(ISA, "0.6", "NkiInstruction", "leave the annotation out"),
    Name(ISA, "tensor_copy_dynamic_src", until="0.3", instead=_DYNAMIC),
    Name(ISA, "tensor_copy_dynamic_dst", until="0.3", instead=_DYNAMIC),
    *_named(TILE_SIZE, "0.4", "psum_bank_fmax psum_bank_fmax_bytes", _PSUM_SIZE),
    *_named(TILE_SIZE, "0.4", "sbuf_size_bytes sbuf_fmax sbuf_fmax_bytes", _SBUF_SIZE),
    *_named(TILE_SIZE, "0.5", "psum_num_banks", "write 8"),
    *_named(
        TENSOR,
        "0.5",
        "slice select permute broadcast expand_dim squeeze_dim reshape_dim flatten_dims rearrange",
        _VIEW,
    ),
    *_named(
        TENSOR,
        "0.5",
        "vector_select indirect",
        "write t.ap(pattern=[[stride, count], ...], vector_offset=index, indirect_dim=0)",
    ),
    *_named(TENSOR, "0.5", "is_contiguous is_indirect", "keep what was sliced or indexed in a variable"),
    *_named(COLLECTIVES, "0.3", "all_to_all_v", "pad to equal counts and write all_to_all"),
    *_named(COLLECTIVES, "0.6", "all_gather_v", "pad to equal sizes and write all_gather"),
    *_named(LANGUAGE, "0.7", "tiles blocks", "index the tensor: t[i * 128 : (i + 1) * 128, :]"),
    *_named(LANGUAGE, "0.7", "alloc_tiles alloc_blocks", "allocate each tile with nl.ndarray, in a list"),
    *_named(LANGUAGE, "0.7", "NkiGrid NkiTileGrid NkiBlockGrid", "leave the annotation out"),
    *_named(LANGUAGE, "0.7", "int64 uint64", "write nl.int32 or nl.uint32"),
    *_named(ISA, "0.7", "NkiScalar", "leave the annotation out"),
    *_named(ISA, "0.7", "scalar_load", "write register = nisa.register_alloc(tile)"),
    *_named(ISA, "0.7", "scalar_store", "write nisa.register_store(dst, register)"),
    *_named(TENSOR, "0.7", "data", "write the tensor itself"),
    *_named(COMPILER, "0.7", "AddressRotation CompileConfig SpecializationConfig", "leave it out"),
    *_named(COLLECTIVES, "0.7", "all_to_all_v_prepare all_to_all_v_trigger", "write all_to_all_v"),
    *_named(COLLECTIVES, "0.7", "all_gather_v_prepare all_gather_v_trigger", "write all_gather_v"),
    Name("nki.tensor", "identity", until="0.2", instead="write nl.shared_identity_matrix(n, dtype)"),
    Name("nki.tensor", "zeros", until="0.2", instead=_HOST_ARRAY),
    Name("nki.tensor", "arange", until="0.2", instead=_HOST_ARRAY),
)

__all__ = ["NAMES"]
