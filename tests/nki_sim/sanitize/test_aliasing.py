"""Which instructions may write over what they read: it depends on how each reads its sources."""

import pytest
from programs import Builder, view

from nki_isa.ir.instruction import REGISTRY
from nki_sim.sanitize.aliasing import Aliasing
from nki_sim.sanitize.check import Scene


def codes(b):
    """The codes for the instructions of a Program."""
    scene = Scene([b.program], [b.placement], [], frozenset({"aliasing"}))
    Aliasing(scene).start(())
    return [diagnostic.code for diagnostic in scene.findings.diagnostics()]


def found(opcode, dtype, operands):
    """The codes for one instruction; its operands are columns (first, last) of one tile, or of their own."""
    b = Builder()
    tile = b.tensor(128, 512, dtype=dtype)
    given = {
        name: tile[:, slice(*what)] if isinstance(what, tuple) else what(b, tile) for name, what in operands
    }
    b.program.body.append(REGISTRY[opcode](**given))
    return codes(b)


def own(shape, dtype):
    return lambda b, tile: b.tensor(*shape, dtype=dtype)


def bounds(b, tile):
    """A start and an end for each of the first 128 elements of a row, over these elements and those after."""
    return view(tile, (1, 2, 128), (512, 128, 1))


def ids(b, tile):
    return tile[0:1, 0:128]


@pytest.mark.parametrize(
    "opcode, dtype, operands",
    [
        ("max8", "float32", [("dst", (8, 16)), ("src", (0, 128))]),
        (
            "nc_find_index8",
            "uint32",
            [("dst", (8, 16)), ("data", (0, 128)), ("vals", own((128, 8), "uint32"))],
        ),
        ("bn_stats", "float32", [("dst", (8, 14)), ("data", (0, 128))]),
        ("bn_aggr", "float32", [("dst", (64, 66)), ("data", (0, 96))]),
        (
            "topk",
            "bfloat16",
            [
                ("val_dst", (8, 16)),
                ("idx_dst", own((128, 8), "uint32")),
                ("src", (0, 128)),
                ("n", lambda b, t: 2000),
            ],
        ),
        ("sequence_bounds", "float32", [("dst", bounds), ("segment_ids", ids)]),
        ("nonzero_with_count", "int32", [("dst", (1, 130)), ("src", (0, 128))]),
    ],
)
def test_what_looks_at_all_of_its_source_first_may_write_over_it(opcode, dtype, operands):
    assert found(opcode, dtype, operands) == []


def test_what_streams_may_write_behind_what_it_has_read():
    assert found("tensor_copy", "float32", [("dst", (0, 100)), ("src", (28, 128))]) == []
    assert found("tensor_copy", "float32", [("dst", (28, 128)), ("src", (0, 100))]) == ["NKI-H005"]


def test_the_same_elements_under_another_shape_are_in_place():
    b = Builder()
    tile = b.tensor(128, 512)
    b.program.body.append(
        REGISTRY["tensor_copy"](dst=view(tile, (128, 4, 8), (512, 8, 1)), src=tile[:, 0:32])
    )
    assert codes(b) == []


@pytest.mark.parametrize(
    "opcode, dtype, source, others",
    [
        ("nc_n_gather", "float32", "data", [("indices", own((128, 128), "uint32"))]),
        (
            "local_gather",
            "float32",
            "src_buffer",
            [("index", own((128, 8), "uint16")), ("num_elem_per_idx", lambda b, t: 1)],
        ),
        ("dma_transpose", "bfloat16", "src", []),
    ],
)
def test_what_reads_at_any_place_may_not_even_write_in_place(opcode, dtype, source, others):
    assert found(opcode, dtype, [("dst", (0, 128)), (source, (0, 128)), *others]) == ["NKI-H005"]
    assert found(opcode, dtype, [("dst", (0, 128)), (source, (128, 256)), *others]) == []


def test_a_transpose_reads_in_no_order():
    """To write behind what a stream would have read is not enough."""
    assert found("nc_transpose", "float32", [("dst", (0, 32)), ("data", (16, 48))]) == ["NKI-H005"]
    assert found("nc_transpose", "float32", [("dst", (0, 32)), ("data", (64, 96))]) == []


@pytest.mark.parametrize("shift, expected", [(32, ["NKI-H005"]), (0, []), (-32, []), (256, [])])
@pytest.mark.parametrize("by_hand", [True, False])
def test_tensors_at_one_address_by_hand_are_the_same_bytes(by_hand, shift, expected):
    """`dst` lies `shift` bytes behind `src`; tensors without addresses never share bytes that are needed."""
    b = Builder()
    dst, src = (
        b.tensor(128, 32, at=(0, byte), address=(0, byte) if by_hand else None) for byte in (64 + shift, 64)
    )
    b.program.body.append(REGISTRY["tensor_copy"](dst=dst, src=src))
    assert codes(b) == (expected if by_hand else [])


@pytest.mark.parametrize("byte, expected", [(0, []), (2, ["NKI-H005"]), (4, ["NKI-H005"]), (6, [])])
def test_elements_meet_in_any_of_their_bytes(byte, expected):
    """A float32 at bytes 2 to 5, a bfloat16 at `byte`: SBUF takes any address."""
    b = Builder()
    dst = b.tensor(128, 1, at=(0, 2), address=(0, 2))
    src = b.tensor(128, 1, dtype="bfloat16", at=(0, byte), address=(0, byte))
    b.program.body.append(REGISTRY["dma_copy"](dst=dst, src=src))
    assert codes(b) == expected


@pytest.mark.parametrize("low, expected", [(64, []), (63, ["NKI-H005"])])
def test_other_partitions_are_other_bytes(low, expected):
    b = Builder()
    tile = b.tensor(128, 64)
    b.program.body.append(REGISTRY["tensor_copy"](dst=tile[low : low + 64, 1:64], src=tile[0:64, 0:63]))
    assert codes(b) == expected


def test_every_source_of_a_list_counts():
    for last, expected in ((2, ["NKI-H005"]), (0, [])):
        b = Builder()
        tile, other = b.tensor(128, 64), b.tensor(128, 62)
        sources = [other, tile[:, last : last + 62]]
        b.program.body.append(REGISTRY["dma_compute"](dst=tile[:, 0:62], srcs=sources, reduce_op="add"))
        assert codes(b) == expected


@pytest.mark.parametrize(
    "shape, strides, expected",
    [
        ((128, 4, 4), (64, 2, 1), ["NKI-H005"]),  # sliding windows
        ((128, 4, 4), (64, 1, 2), ["NKI-H005"]),
        ((128, 4, 4), (64, 4, 1), []),
        ((128, 4, 4), (64, 1, 4), []),
        ((128, 3, 2), (64, 2, 3), []),  # 0, 2, 4 and 3, 5, 7
        ((128, 4, 2), (64, 2, 6), ["NKI-H005"]),  # 0, 2, 4, 6 and 6, 8, 10, 12
        ((128, 4, 4), (64, 0, 1), []),  # the same row again and again is meant
        ((128, 1, 4), (64, 2, 1), []),
    ],
)
def test_a_destination_that_holds_an_element_twice(shape, strides, expected):
    b = Builder()
    tile = b.tensor(128, 64)
    b.program.body.append(REGISTRY["memset"](dst=view(tile, shape, strides), value=0.0))
    assert codes(b) == expected
