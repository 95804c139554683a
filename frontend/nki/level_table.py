"""The table of API levels: the names, parameters and rules that NKI 0.2 to 0.7 do not share.

:mod:`nki.levels` puts a level in force; docs/migration.md is written from the table
(``python -m nki.migration > docs/migration.md``).

Sources: API stubs of Neuron 2.28 to 2.32; SDK "NKI Migration Guides"; release notes of NKI 0.3.0 to 0.6.0;
pages of Neuron 2.33. What 0.7 does that no page seen says stands in :data:`INFERRED`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nki_isa.ir.instruction import Engine
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.enums import dma_engine
from nki_isa.machine.operators import OPERATORS
from nki_isa.tensor.kinds import is_whole, require
from nki_isa.tensor.tensor import NkiTensor

#: The levels, oldest first, with the SDK release that brought each.
LEVELS: dict[str, str] = {
    "0.2": "2.28",
    "0.3": "2.29",
    "0.4": "2.30",
    "0.5": "2.31",
    "0.6": "2.32",
    "0.7": "2.33",
}
NEWEST = "0.7"

#: The place of each level in time.
ORDER = {level: i for i, level in enumerate(LEVELS)}
_LANGUAGE, _ISA, _COLLECTIVES = "nki.language", "nki.isa", "nki.collectives"
_COMPILER = "nki.compiler"
#: Where members of a class are: the name its instances have, or its own.
TILE_SIZE, TENSOR = "nki.language.tile_size", "nki.language.NkiTensor"


@dataclass(frozen=True, slots=True)
class Name:
    """A name that some levels lack.

    Attributes:
        module: where it is, a module or (:data:`TILE_SIZE`, :data:`TENSOR`) a class.
        name: the name.
        since: the first level that has it.
        until: the last level that has it; None if the newest does.
        instead: what to write at levels without it.
    """

    module: str
    name: str
    since: str = "0.2"
    until: str | None = None
    instead: str = ""

    def at(self, level: str) -> bool:
        """True if `level` has it."""
        return ORDER[self.since] <= ORDER[level] <= ORDER[self.until or NEWEST]

    @property
    def levels(self) -> str:
        """At which levels it exists, in words."""
        if self.until is None:
            return f"from {self.since} on"
        return f"at {self.until}" if self.since == self.until else f"from {self.since} to {self.until}"


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters of a function up to a level, where they differ from the newest.

    Attributes:
        module: where the function is.
        name: the function.
        until: the last level with these parameters.
        parameters: in order, those with a default as name=default.
        change: what the next level did.
        instead: keyword of this form -> what to write instead at later levels.
        translate: makes (name, keywords) of the newest form from this form's arguments by name.
    """

    module: str
    name: str
    until: str
    parameters: str
    change: str
    instead: dict[str, str]
    translate: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]

    @property
    def signature(self) -> inspect.Signature:
        """`parameters` as a signature."""
        return _signature(self.parameters)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an instruction does otherwise up to a level, called the same way.

    Attributes:
        name: the instruction, of nki.isa.
        until: the last level that does so.
        fields: those of the instruction's fields, no parameters of the API, that say so.
        change: what the next level did.
    """

    name: str
    until: str
    fields: dict[str, Any]
    change: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A change without a name or a parameter: a deprecation, or a rule that some levels lack.

    Attributes:
        what: what it is about.
        level: the level that brought it.
        change: the change.
        instead: what to write.
        name: (module, name) of a name that is deprecated since, which the checker tells of (NKI-L056).
        going: True where a release has been announced to lack it: then that is a warning, else a note.
    """

    what: str
    level: str
    change: str
    instead: str
    name: tuple[str, str] | None = None
    going: bool = False


# --- names


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
        _LANGUAGE,
        "0.3",
        " ".join(sorted(set(_WRAPPERS.split()) - _OPERATORS_TOO)),
        "write the nki.isa instructions it stands for, with tensors made by nl.ndarray",
    ),
    *_named(_LANGUAGE, "0.3", "is_hbm is_on_chip is_psum is_sbuf", "compare: t.buffer == nl.sbuf"),
    *_named(_LANGUAGE, "0.3", "MemoryRegion NkiTensor", "leave the annotation out"),
    *_named(_LANGUAGE, "0.3", "no_reorder", "leave it out: instructions keep their order here"),
    *_named(_LANGUAGE, "0.4", "abs_max abs_min", "write nl.abs and nl.maximum or nl.minimum"),
    *_named(_LANGUAGE, "0.4", "prelu bypass", "write nisa.tensor_scalar, then nisa.activation"),
    *_named(_LANGUAGE, "0.5", "average", "reduce with nl.add and multiply by 1/n"),
    *_named(_LANGUAGE, "0.5", "float8_e8m0fnu", "write nl.uint8 for the scales of MX tensors"),
    *_named(_LANGUAGE, "0.6", "fori_loop", "write for i in nl.dynamic_range(lower, upper)"),
    *_named(_LANGUAGE, "0.6", "while_loop", "write while register:"),
    *_named(_LANGUAGE, "0.6", "DType", "write str"),
    Name(_LANGUAGE, "par_dim", until="0.2", instead="write the size alone: dimension 0 is the partitions"),
    *_named(_ISA, "0.3", "NkiValidationError VirtualRegister", "leave the annotation out"),
    *_named(_ISA, "0.4", "activate2", "write nisa.tensor_scalar, then nisa.activation"),
    *_named(_ISA, "0.5", "get_nc_sub_version", "write nisa.get_nc_version()"),
    *_named(_ISA, "0.6", "topk", "write nisa.max8 and nisa.nc_match_replace8 in a loop"),
    *_named(_ISA, "0.6", "NkiInstruction", "leave the annotation out"),
    Name(_ISA, "tensor_copy_dynamic_src", until="0.3", instead=_DYNAMIC),
    Name(_ISA, "tensor_copy_dynamic_dst", until="0.3", instead=_DYNAMIC),
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
    *_named(_COLLECTIVES, "0.3", "all_to_all_v", "pad to equal counts and write all_to_all"),
    *_named(_COLLECTIVES, "0.6", "all_gather_v", "pad to equal sizes and write all_gather"),
    *_named(_LANGUAGE, "0.7", "tiles blocks", "index the tensor: t[i * 128 : (i + 1) * 128, :]"),
    *_named(_LANGUAGE, "0.7", "alloc_tiles alloc_blocks", "allocate each tile with nl.ndarray, in a list"),
    *_named(_LANGUAGE, "0.7", "NkiGrid NkiTileGrid NkiBlockGrid", "leave the annotation out"),
    *_named(_LANGUAGE, "0.7", "int64 uint64", "write nl.int32 or nl.uint32"),
    *_named(_ISA, "0.7", "NkiScalar", "leave the annotation out"),
    *_named(_ISA, "0.7", "scalar_load", "write register = nisa.register_alloc(tile)"),
    *_named(_ISA, "0.7", "scalar_store", "write nisa.register_store(dst, register)"),
    *_named(TENSOR, "0.7", "data", "write the tensor itself"),
    *_named(_COMPILER, "0.7", "AddressRotation CompileConfig SpecializationConfig", "leave it out"),
    *_named(_COLLECTIVES, "0.7", "all_to_all_v_prepare all_to_all_v_trigger", "write all_to_all_v"),
    *_named(_COLLECTIVES, "0.7", "all_gather_v_prepare all_gather_v_trigger", "write all_gather_v"),
    Name("nki.tensor", "identity", until="0.2", instead="write nl.shared_identity_matrix(n, dtype)"),
    Name("nki.tensor", "zeros", until="0.2", instead=_HOST_ARRAY),
    Name("nki.tensor", "arange", until="0.2", instead=_HOST_ARRAY),
)


# --- parameters


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
    from nki.language.creation import converted  # that module reads this table

    dtype = given.pop("dtype")
    if dtype is not None:
        given["constant"] = converted(given["constant"], dtype)
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
    module: str = _ISA,
    **instead: str,
) -> Form:
    return Form(module, name, until, parameters, change, instead, translate)


_MATMUL = "dst stationary moving is_stationary_onezero=False is_moving_onezero=False is_transpose=False"
_MX = "dst stationary moving stationary_scale moving_scale tile_position=None tile_size=None name=None"
_REDUCE = "dst data op0 operand0 reduce_op reduce_res reverse0=False"
_PRIORITY = "priority= was added"
_NAME = "name= was added"
_PERMUTE = "collective_permute_implicit_current_processing_rank_id"
_COMPARISONS = "equal not_equal less less_equal greater greater_equal"

FORMS: tuple[Form, ...] = (
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
        _LANGUAGE,
    ),
    _form(
        "zeros",
        "0.2",
        "shape dtype buffer=None name=''",
        "the default buffer is nl.sbuf",
        _default_buffer,
        _LANGUAGE,
    ),
    _form("num_programs", "0.2", "axes=None", "the default is axis 0", _default_axes, _LANGUAGE),
    _form("program_id", "0.2", "axis", "axis has the default 0", _same, _LANGUAGE),
    _form(
        "shared_constant",
        "0.2",
        "constant dtype=None",
        "dtype= was removed",
        _shared_constant,
        _LANGUAGE,
        dtype="convert the array first: constant.astype(...)",
    ),
    _form("shared_identity_matrix", "0.2", "n dtype=dtype:uint8", "dst= was added", _same, _LANGUAGE),
    _form(
        _PERMUTE,
        "0.2",
        "iteration_id replica_group channel_id=0 num_channels=1",
        "num_channels= was removed",
        _without_channels,
        _COLLECTIVES,
        num_channels="leave it out, and pass channel_ids= to the permutation",
    ),
    *(
        _form(name, "0.3", parameters, _PRIORITY, _same, _COLLECTIVES)
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

#: What changed without a name or a parameter; not enforced unless it says so.
#: Not a name, but deprecated as one: a `while` on a register.
WHILE = _LANGUAGE, "while"


def _going(name: str, instead: str) -> Iterator[Notice]:
    """A loop of nki.language that 0.6 deprecates."""
    yield Notice(f"nl.{name}", "0.6", "is deprecated (warning)", instead, (_LANGUAGE, name), True)


NOTICES: tuple[Notice, ...] = (
    Notice("TensorView.sizes of the kernel library", "0.2", "became shape, with Neuron 2.28", "view.shape"),
    *(
        Notice(
            f"nisa.{name}",
            "0.3",
            "is deprecated (noted)",
            "nisa.tensor_copy(dst, t.ap(pattern=..., scalar_offset=register))",
            (_ISA, name),
        )
        for name in ("tensor_copy_dynamic_src", "tensor_copy_dynamic_dst")
    ),
    Notice(
        "names of memories as text",
        "0.3",
        "nl.ndarray(buffer='sbuf') is refused (enforced)",
        "buffer=nl.sbuf",
    ),
    Notice(
        "numbers for enumerations",
        "0.3",
        "are refused (enforced; dge_mode=2 from 0.4 on, since the kernel library of 0.3 passes it)",
        "dge_mode=nisa.dge_mode.hwdge",
    ),
    Notice(
        f"comparisons: {_COMPARISONS}",
        "0.3",
        "the result has the dtype of the first tile, before nl.bool_ (enforced)",
        "dtype=nl.uint8",
    ),
    Notice(
        "nki.jit(platform_target=)", "0.3", "is refused (enforced)", "NEURON_PLATFORM_TARGET_OVERRIDE=trn2"
    ),
    Notice(
        "nisa.iota(offset=)",
        "0.3",
        "is documented with its default 0, which the kernel library of 0.2 relies on",
        "nothing: it may be left out at every level here",
    ),
    Notice("nki.jit(mode=)", "0.3", "is ignored", "leave it out"),
    Notice(
        "nisa.dma_copy from PSUM", "0.3", "is refused, at every level here", "nisa.tensor_copy to SBUF first"
    ),
    Notice("kernel arguments and results", "0.3", "live in shared HBM", "buffer=nl.shared_hbm"),
    Notice("lists as kernel arguments", "0.3", "tuples instead", "stride=(1, 1)"),
    Notice(
        "keyword-only parameters, is, is not", "0.3", "left the language", "== and !=, and no * in signatures"
    ),
    Notice(
        "nl.tile_size.psum_fmax",
        "0.4",
        "is deprecated (noted)",
        "nl.tile_size.psum_bank_fmax",
        (TILE_SIZE, "psum_fmax"),
    ),
    Notice(
        "nl.tile_size.total_available_sbuf_size",
        "0.4",
        "is deprecated (noted)",
        "nl.tile_size.sbuf_fmax_bytes",
        (TILE_SIZE, "total_available_sbuf_size"),
    ),
    Notice("NKI_PRECISE_FP", "0.4", "1 is the default", "NKI_PRECISE_FP=0 for the old behaviour"),
    Notice("NkiTensor.reshape(new_shape=)", "0.5", "became shape=", "t.reshape((128, 64))"),
    Notice(
        "nl.rsqrt of a PSUM tile", "0.5", "is refused, at every level here", "nisa.activation(op=nl.rsqrt)"
    ),
    *_going("affine_range", "range"),
    *_going("sequential_range", "range"),
    *_going("static_range", "range"),
    *_going("dynamic_range", "nl.fori_loop(lower, upper, body)"),
    Notice(
        "nl.fori_loop",
        "0.7",
        "gives its body a scalar (nisa.NkiScalar), unless a bound is a register (enforced)",
        "arithmetic on it as on an int; nisa.scalar_store to write it",
    ),
    Notice(
        "== of objects",
        "0.7",
        "is Python's: identity, unless the class has __eq__ or is a dataclass; up to 0.6 NKIObjects compare "
        "by their fields (enforced)",
        "@dataclass above the class",
    ),
    Notice(
        "fields of a dataclass",
        "0.7",
        "are Python's: one without a default must be given, a value without annotation is no field; up to "
        "0.6 the former is None and the latter one (enforced)",
        "x: int | None = None",
    ),
    Notice(
        "nl.dynamic_range",
        "0.7",
        "is removed: the tracer refuses it (enforced), the parser front end takes it with a warning",
        "nl.fori_loop(lower, upper, body)",
    ),
    Notice(
        "while register",
        "0.7",
        "is removed: the tracer refuses it (enforced), the parser front end takes it with a warning",
        "nl.while_loop(register, body)",
    ),
    Notice(
        "a run-time value in if, while, int(), range()",
        "0.7",
        "is a TypeError (enforced, at every level)",
        "nl.fori_loop, nl.while_loop, or predicated instructions",
    ),
    Notice(
        "the cores of a launch",
        "0.7",
        "come from NEURON_LOGICAL_NC_CONFIG, 1 or 2; kernel[n] that differs from it is refused (enforced), "
        "and kernel[n] is being deprecated",
        "NEURON_LOGICAL_NC_CONFIG=2",
    ),
    Notice(
        "address= of a tensor in HBM",
        "0.7",
        "is (byte,); up to 0.6 tensors in HBM have none (enforced)",
        "address=(4096,)",
    ),
    Notice(
        "nki.jit(compile_config=, specialization_config=)",
        "0.7",
        "were added",
        "nki.compiler.CompileConfig()",
    ),
    Notice(
        "the language of kernels",
        "0.7",
        "is all of Python: kernels outside the constrained language are traced",
        "--frontend parser for the old front end",
    ),
    Notice("while register", "0.6", "is deprecated (warning)", "nl.while_loop(register, body)", WHILE, True),
)


#: What 0.7 does here that no page of it seen so far states: what is assumed, and the test that holds it.
INFERRED: tuple[tuple[str, str], ...] = (
    ("the parser front end still takes the loops that 0.7 removed", "test_loops_that_were_removed"),
    ("a grid counts ceil(extent / tile) cells along a dimension", "test_cells_are_counted_up"),
    ("`.data` of a selection drops the leading dimensions that an int selects", "test_slabs"),
    ("a selection without one access pattern raises NKI-V152 at `.data`", "test_no_one_pattern"),
    ("`is_remainder` is true where a cell of the selection is clamped", "test_remainder"),
    ("a grid is indexed with ints, from the end too, and with slices of step 1", "test_index_rules"),
    ("a grid in SBUF is tiled again with its own tile shape only", "test_tiles_of_a_grid_keep_its_tile"),
    ("alloc_tiles on chip lays the tiles along the free dimension, last coordinate fastest", "test_packed"),
    ("nl.empty_like takes a grid and makes one of its geometry", "test_empty_like"),
    ("a tensor answers `.data` with itself", "test_data_of_a_tensor"),
    ("//, %, << and bool() of a scalar are refused as those of a register", "test_operators_refused"),
    ("a scalar is an operand of instructions where a register is", "test_scalar_as_operand"),
    ("nl.while_loop takes no scalar as its condition", "test_while_takes_no_scalar"),
    ("a traced kernel is traced at each call: nothing is kept between calls", "test_traced_at_each_call"),
    ("an int64 array that a kernel does not read as one is refused", "test_unread_int64"),
    ("an unset NEURON_LOGICAL_NC_CONFIG leaves the cores of a launch to kernel[n]", "test_lnc_unset"),
)


# --- reading the table

_CLASSES: dict[str, Callable[[str], Any]] = {
    "op": lambda name: OPERATORS[name],
    "dtype": lambda name: DTYPES[name],
    "engine": lambda name: Engine[name],
}
_WORDS: dict[str, Any] = {"None": None, "True": True, "False": False, "()": (), "''": ""}


def _signature(parameters: str) -> inspect.Signature:
    made = []
    for part in parameters.split():
        name, has_default, text = part.partition("=")
        default = _default(text) if has_default else inspect.Parameter.empty
        made.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(made)


def _default(text: str) -> Any:
    kind, is_member, name = text.partition(":")
    if is_member:
        import nki_isa.machine.enums

        reader = _CLASSES.get(kind)
        return reader(name) if reader else getattr(nki_isa.machine.enums, kind)[name]
    if text in _WORDS:
        return _WORDS[text]
    return float(text) if "." in text else int(text)
