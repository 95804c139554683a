"""Constraints that compilers were seen to keep: what each finds, and what lies right beside it."""

import pytest
from tiles import PSUM, dst_of, tensor, view

from nki_isa.constraints.observed import PSUM_ALIGNMENT, RESHAPED_ROW, RUN_TIME_OFFSET, bitvec_result
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_isa.ops.matmul import nc_matmul
from nki_isa.rules import dma
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor


def broken(constraint, opcode, **given):
    return constraint.broken(REGISTRY[opcode](**given), TRN2)


def shifted(of, kind):
    index = VirtualRegister(0) if kind == "scalar" else tensor(of.shape[0], 1, dtype="int32")
    return NkiTensor(of.shape, of.strides, 0, of.dtype, of.storage, DynamicOffset(kind, index, 1, 1, 4))


@pytest.mark.parametrize("kind, found", [("scalar", True), ("indirect", False), (None, False)])
@pytest.mark.parametrize("name", ["dst", "src"])
def test_an_engine_takes_no_offset_of_a_register(name, kind, found):
    given = {"dst": tensor(32, 8), "src": tensor(32, 8), "engine": Engine.vector}
    if kind:
        given[name] = shifted(given[name], kind)
    told = broken(RUN_TIME_OFFSET, "tensor_copy", **given)
    assert (told is not None) == found
    assert not found or (told.startswith(f"{name} is at an offset") and "the vector engine" in told)


def test_what_is_in_hbm_may_be_anywhere():
    storage = Storage(1, "h", MemoryRegion.shared_hbm, (32, 8), tensor(1, 1).dtype)
    source = shifted(NkiTensor.whole(storage), "scalar")
    assert broken(RUN_TIME_OFFSET, "dma_copy", dst=tensor(32, 8), src=source) is None


@pytest.mark.parametrize(
    "storage, shape, found",
    [
        ((1, 48), (1, 8, 4), True),  # a part, in more dimensions
        ((1, 48), (1, 8), False),  # a part as it is
        ((1, 48), (1, 12, 4), False),  # all of it
        ((2, 48), (1, 8, 4), False),  # two partitions have a step
        ((1, 6, 8), (1, 3, 8), False),
        ((1, 6, 8), (1, 8), False),  # fewer dimensions
        ((1, 6, 8), (1, 3, 2, 4), True),
    ],
)
def test_a_part_of_a_row_is_not_reshaped(storage, shape, found):
    whole = tensor(*storage)
    strides = [1]
    for size in shape[:0:-1]:
        strides.insert(0, strides[0] * size)
    part = view(whole, shape, strides)
    told = broken(RESHAPED_ROW, "tensor_copy", dst=tensor(*shape), src=part)
    assert (told is not None) == found
    assert not found or ("src [" in told and "reshaped part of t" in told)


@pytest.mark.parametrize(
    "dtype, offset, address, start",
    [
        ("bfloat16", 0, None, None),
        ("bfloat16", 1, None, 2),
        ("bfloat16", 2, None, None),
        ("bfloat16", 3, (0, 2048), 2054),
        ("bfloat16", 4, (0, 2048), None),
        ("bfloat16", 16 + 5, None, 10),  # of the second partition
        ("float32", 1, None, None),
    ],
)
def test_results_of_two_bytes_start_at_a_word(dtype, offset, address, start):
    bank = tensor(8, 16, dtype=dtype, region=PSUM, address=address)
    dst = view(bank, (4, 4), (16, 1), offset)
    product = nc_matmul(dst, tensor(8, 4, dtype="bfloat16"), tensor(8, 4, dtype="bfloat16"), accumulate=False)
    told = PSUM_ALIGNMENT.broken(product, TRN2)
    assert told == (
        start and f"dst starts at byte {start} of its partitions, in the middle of a word of 4 bytes"
    )
    copied = REGISTRY["tensor_copy"](dst=dst, src=tensor(4, 4), engine=Engine.vector)
    assert PSUM_ALIGNMENT.broken(copied, TRN2) is None


@pytest.mark.parametrize(
    "op, dst, data1, data2, width, kind",
    [
        ("bitwise_and", "int32", "int32", "int32", None, None),
        ("bitwise_and", "int32", "int32", "uint32", None, "data2 is uint32 and op is a bitvec operator"),
        (
            "bitwise_and",
            "int32",
            "int16",
            "int32",
            "data1 is int16 and op is bitwise_and: widths differ",
            None,
        ),
        ("add", "int32", "int16", "uint32", None, None),
    ],
)
def test_bits_have_one_data_type(op, dst, data1, data2, width, kind):
    operands = {"data1": tensor(8, 4, dtype=data1), "data2": tensor(8, 4, dtype=data2)}
    made = REGISTRY["tensor_tensor"](dst=dst_of((8, 4), dst), op=op, **operands)
    told = [each.broken(made, TRN2) for each in bitvec_result("op", "dst", "data1", "data2")]
    assert [found and found.partition(", ")[2] for found in told] == [width, kind]


def of_row(opcode, row):
    """The constraint of an instruction whose findings that row is about."""
    return next(each for each in REGISTRY[opcode].observed if each.row is row)


@pytest.mark.parametrize(
    "rows, columns, found", [(32, 32, True), (1, 32, True), (32, 4, True), (33, 32, False), (32, 33, False)]
)
def test_a_stationary_matrix_of_one_small_tile_is_found(rows, columns, found):
    stationary, moving = (tensor(rows, size, dtype="bfloat16") for size in (columns, 64))
    product = nc_matmul(tensor(columns, 64, region=PSUM), stationary, moving, accumulate=False)
    told = [each.broken(product, TRN2) for each in nc_matmul.observed]
    assert any(text and "in one tile of 32 by 32" in text for text in told) == found


@pytest.mark.parametrize(
    "rows, mode, offset, width, found",
    [
        (16, "hwdge", 0, 16, None),
        (16, "hwdge", 1, 32, "block"),
        (16, "hwdge", 16, 32, None),
        (8, "hwdge", 1, 32, None),  # refused by itself
        (8, "unknown", 1, 32, "rows"),
        (8, "unknown", 16, 32, None),
        (8, "swdge", 3, 32, "rows"),
        (16, "unknown", 1, 32, "block"),
    ],
)
def test_transposes_write_where_the_crossbar_does(rows, mode, offset, width, found):
    storage = Storage(1, "h", MemoryRegion.shared_hbm, (rows, 64), tensor(1, 1, dtype="bfloat16").dtype)
    dst = view(tensor(64, width, dtype="bfloat16"), (64, rows), (width, 1), offset)
    modes = REGISTRY["dma_transpose"].fields["dge_mode"].kind
    made = REGISTRY["dma_transpose"](dst=dst, src=NkiTensor.whole(storage), dge_mode=getattr(modes, mode))
    rules = {"block": dma.TRANSPOSE_ALIGNMENT, "rows": dma.TRANSPOSE_ALIGNMENT_ODD}
    told = {name: of_row("dma_transpose", row).broken(made, TRN2) for name, row in rules.items()}
    words = f"dst starts at byte {2 * offset} of its partitions, not at a multiple of 32"
    assert told == {name: words if name == found else None for name in rules}


@pytest.mark.parametrize("step, apart", [(16, None), (32, None), (12, 24), (24, 48)])
@pytest.mark.parametrize("rows, row", [(8, dma.TRANSPOSE_ALIGNMENT), (3, dma.TRANSPOSE_ALIGNMENT_ODD)])
def test_rows_of_a_transpose_are_as_far_apart_as_the_crossbar_writes(rows, row, step, apart):
    """Eight rows of four make blocks of 16; three do not."""
    storage = Storage(1, "h", MemoryRegion.shared_hbm, (rows, 4, 32), tensor(1, 1, dtype="bfloat16").dtype)
    dst = view(tensor(32, 160, dtype="bfloat16"), (32, 4, rows), (160, step, 1))
    made = REGISTRY["dma_transpose"](dst=dst, src=NkiTensor.whole(storage))
    told = of_row("dma_transpose", row).broken(made, TRN2)
    assert told == (apart and f"the rows of dst are {apart} bytes apart, not a multiple of 32")
