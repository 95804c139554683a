"""Changes without a name or a parameter, and what is assumed of the newest API level."""

from __future__ import annotations

from collections.abc import Iterator

from nki.levels.table_rows import ISA, LANGUAGE, TILE_SIZE, Notice

_COMPARISONS = "equal not_equal less less_equal greater greater_equal"

#: Not a name, but deprecated as one: a `while` on a register.
WHILE = LANGUAGE, "while"


def _going(name: str, instead: str) -> Iterator[Notice]:
    """A loop of nki.language that 0.6 deprecates."""
    yield Notice(f"nl.{name}", "0.6", "is deprecated (warning)", instead, (LANGUAGE, name), True)


#: What changed without a name or a parameter; not enforced unless it says so.
NOTICES: tuple[Notice, ...] = (
    Notice("TensorView.sizes of the kernel library", "0.2", "became shape, with Neuron 2.28", "view.shape"),
    *(
        Notice(
            f"nisa.{name}",
            "0.3",
            "is deprecated (noted)",
            "nisa.tensor_copy(dst, t.ap(pattern=..., scalar_offset=register))",
            (ISA, name),
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
        "are Python's: one without a default must be given, a value without annotation is not a field; up to "
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

__all__ = ["INFERRED", "NOTICES", "WHILE"]
