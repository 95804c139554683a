"""Functions whose parameters, or instructions whose meaning, API levels do not share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nki.levels.chosen import dtype_named
from nki.levels.table_rows import COLLECTIVES, ISA, LANGUAGE, Meaning, OlderForm
from nki_isa.machine.enums import Engine, dma_engine
from nki_isa.tensor.constants import cast_constant
from nki_isa.tensor.kinds import is_whole, require
from nki_isa.tensor.tensor import NkiTensor


def _same(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, given


def _affine_select(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The offset may be left out, as the kernel library of 0.2 does; the newest form requires the rest."""
    return name, {key: value for key, value in given.items() if value is not None}


def _dma_copy(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    operator, unique = given.pop("dst_rmw_op"), given.pop("unique_indices")
    require(name, "bool", unique_indices=unique)
    if operator is None:
        return name, given
    dst, src = given["dst"], given["src"]
    summed = {"srcs": [dst, src], "reduce_op": operator, "unique_indices": unique}
    return "dma_compute", {"dst": dst, **summed, "oob_mode": given["oob_mode"], "name": given["name"]}


def _register_move(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, {"dst": given["dst"], "src": given["imm"]}


def _shared_constant(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    dtype = given.pop("dtype")
    if dtype is not None:
        given["constant"] = cast_constant(given["constant"], dtype_named(dtype))
    return name, given


def _sendrecv(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    by_gpsimd = given.pop("use_gpsimd_dma")
    require(name, "bool", use_gpsimd_dma=by_gpsimd)
    return name, {**given, "dma_engine": dma_engine.gpsimd_dma if by_gpsimd else dma_engine.dma}


def _tensor_reduce(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Axes of the four free ones a tile is padded to, or counted from 1, are its last ones.

    Sources: stub of Neuron 2.28; update guide to 0.3, "Axis Handling Fix"; leanprover/KLR, which takes 1 and
    lists that end with 4.
    """
    axis, data = given["axis"], given["data"]
    rank = data.ndim if isinstance(data, NkiTensor) else 0
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    from_one, to_four = [*range(1, len(axes) + 1)], [*range(5 - len(axes), 5)]
    if all(map(is_whole, axes)) and axes in (from_one, to_four) and len(axes) < rank:
        axis = tuple(range(rank - len(axes), rank))
    return name, {**given, "axis": axis}


def _without_channels(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given.pop("num_channels")
    return name, given


def _default_buffer(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if given["buffer"] is None:
        del given["buffer"]
    return name, given


def _default_engine(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if given["engine"] is Engine.unknown:
        del given["engine"]
    return name, given


def _default_axes(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, {key: 0 if value is None else value for key, value in given.items()}


def _form(
    name: str,
    until: str,
    parameters: str,
    change: str,
    translate: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]] = _same,
    module: str = ISA,
    **instead: str,
) -> OlderForm:
    return OlderForm(module, name, until, parameters, change, instead, translate)


_MATMUL = "dst stationary moving is_stationary_onezero=False is_moving_onezero=False is_transpose=False"
_MX = "dst stationary moving stationary_scale moving_scale tile_position=None tile_size=None name=None"
_REDUCE = "dst data op0 operand0 reduce_op reduce_res reverse0=False"
_PRIORITY = "priority= was added"
_NAME = "name= was added"
_PERMUTE = "collective_permute_implicit_current_processing_rank_id"

FORMS: tuple[OlderForm, ...] = (
    _form(
        "affine_select",
        "0.2",
        "dst pattern offset=0 channel_multiplier=None on_true_tile=None on_false_value=None cmp_op=op:equal "
        "name=None",
        "offset, the third argument, moved behind cmp_op",
        _affine_select,
    ),
    _form(
        "core_barrier",
        "0.2",
        "data cores engine=engine:unknown name=None",
        "the default engine is gpsimd",
        _default_engine,
    ),
    _form(
        "dma_compute",
        "0.2",
        "dst srcs scales reduce_op name=None",
        "scales and reduce_op changed places; scales may be left out; unique_indices= was added",
    ),
    _form(
        "dma_compute",
        "0.3",
        "dst srcs reduce_op scales=None unique_indices=True name=None",
        "oob_mode= was added",
    ),
    _form(
        "dma_copy",
        "0.2",
        "dst src dst_rmw_op=None oob_mode=oob_mode:error dge_mode=dge_mode:unknown unique_indices=True "
        "name=None",
        "dst_rmw_op= and unique_indices= were removed; engine= was added",
        _dma_copy,
        dst_rmw_op="call nisa.dma_compute(dst, [dst, src], reduce_op=...)",
        unique_indices="call nisa.dma_compute(dst, srcs, reduce_op=..., unique_indices=...)",
    ),
    _form(
        "dma_copy",
        "0.3",
        "dst src oob_mode=oob_mode:error dge_mode=dge_mode:unknown engine=engine:unknown name=None",
        f"{_PRIORITY} after src",
    ),
    _form(
        "dma_transpose",
        "0.3",
        "dst src axes=None dge_mode=dge_mode:unknown oob_mode=oob_mode:error name=None",
        f"{_PRIORITY} after axes",
    ),
    _form(
        "exponential",
        "0.2",
        "dst src max_value=0.0 reduce_res=None reduce_cmd=reduce_cmd:idle reduce_init=0.0",
        _NAME,
    ),
    _form(
        "nc_matmul",
        "0.2",
        f"{_MATMUL} tile_position=() tile_size=() perf_mode=matmul_perf_mode:none name=None",
        "accumulate= was added after is_transpose",
    ),
    _form("nc_matmul_mx", "0.2", _MX, "accumulate= was added before name"),
    _form("nonzero_with_count", "0.2", "dst src index_offset=0 padding_val=-1", _NAME),
    _form(
        "rand_get_state",
        "0.4",
        "dst engine=engine:unknown name=None",
        "the default engine is gpsimd",
        _default_engine,
    ),
    _form(
        "rand_set_state",
        "0.4",
        "src_seeds engine=engine:unknown name=None",
        "the default engine is gpsimd",
        _default_engine,
    ),
    _form(
        "register_move",
        "0.2",
        "dst imm",
        "imm became src, which may be a register",
        _register_move,
        imm="write src=",
    ),
    _form(
        "rng", "0.4", "dst engine=engine:unknown name=None", "the default engine is vector", _default_engine
    ),
    _form(
        "sendrecv",
        "0.2",
        "src dst send_to_rank recv_from_rank pipe_id use_gpsimd_dma=False name=None",
        "use_gpsimd_dma= became dma_engine=",
        _sendrecv,
        use_gpsimd_dma="write dma_engine=nisa.dma_engine.gpsimd_dma or nisa.dma_engine.dma",
    ),
    _form(
        "tensor_scalar_cumulative",
        "0.2",
        "dst src op0 op1 imm0 imm1=None reduce_cmd=reduce_cmd:reset_reduce",
        _NAME,
    ),
    _form(
        "tensor_reduce",
        "0.2",
        "dst op data axis negate=False keepdims=False name=None",
        "axis counts the tensor's dimensions; before, 1 was the last, and [1, 2], as [3, 4], the last two",
        _tensor_reduce,
    ),
    _form("tensor_scalar_reduce", "0.3", f"{_REDUCE} name=None", "reduce_cmd= and reduce_init= were added"),
    _form(
        "tensor_scalar_reduce",
        "0.5",
        f"{_REDUCE} reduce_cmd=reduce_cmd:reset_reduce reduce_init=None name=None",
        "reduce_res may be left out; reduce_res_negate= was added",
    ),
    _form(
        "ndarray",
        "0.2",
        "shape dtype buffer=None name='' address=None",
        "the default buffer is nl.sbuf",
        _default_buffer,
        LANGUAGE,
    ),
    _form(
        "zeros",
        "0.2",
        "shape dtype buffer=None name=''",
        "the default buffer is nl.sbuf",
        _default_buffer,
        LANGUAGE,
    ),
    _form("num_programs", "0.2", "axes=None", "the default is axis 0", _default_axes, LANGUAGE),
    _form("program_id", "0.2", "axis", "axis has the default 0", _same, LANGUAGE),
    _form(
        "shared_constant",
        "0.2",
        "constant dtype=None",
        "dtype= was removed",
        _shared_constant,
        LANGUAGE,
        dtype="convert the array first: constant.astype(...)",
    ),
    _form("shared_identity_matrix", "0.2", "n dtype=dtype:uint8", "dst= was added", _same, LANGUAGE),
    _form(
        _PERMUTE,
        "0.2",
        "iteration_id replica_group channel_id=0 num_channels=1",
        "num_channels= was removed",
        _without_channels,
        COLLECTIVES,
        num_channels="leave it out, and pass channel_ids= to the permutation",
    ),
    *(
        _form(name, "0.3", parameters, _PRIORITY, _same, COLLECTIVES)
        for name, parameters in (
            ("all_reduce", "srcs dsts replica_group op"),
            ("all_gather", "srcs dsts replica_group collective_dim"),
            ("reduce_scatter", "srcs dsts replica_group collective_dim op"),
            ("all_to_all", "srcs dsts replica_group collective_dim"),
            ("collective_permute", "srcs dsts source_target_pairs"),
        )
    ),
)

MEANINGS: tuple[Meaning, ...] = (
    Meaning(
        "dma_transpose",
        "0.3",
        {"loose": True},
        "dst has exactly the transposed shape of src, where it could leave out sizes of 1; dge_mode.none, "
        "which the page never allowed and the kernel library at 0.3 passes, is refused",
    ),
    Meaning(
        "memset",
        "0.2",
        {"whole_floats": True},
        "the value for an integer data type is an int, where it could be a float such as 2.0; 0.0 is taken, "
        "since the kernel library of 0.3 writes it",
    ),
    Meaning(
        "quantize_mx",
        "0.5",
        {"sample_conversion": True},
        "scales are twice those of the sample conversion of the OCP standard, which saturates; the pages of "
        "earlier levels refer to the standard alone, and the kernel library's references at 0.2 and 0.3 "
        "compute that conversion",
    ),
)

__all__ = ["FORMS", "MEANINGS"]
