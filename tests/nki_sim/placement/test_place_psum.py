"""PSUM: tiles rotate over banks, and an accumulation has a bank to itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from placing import PSUM, Builder, pairs_that_overlap, refused

from nki_isa.diagnostics import Span
from nki_isa.machine.targets import TRN2
from nki_sim.placement.place import place


def test_psum_tiles_rotate_over_the_banks() -> None:
    b = Builder()
    tile = b.tensor(128)
    for _ in range(20):
        out = b.tensor(128, region=PSUM, dtype="float32")
        b.matmul(out, tile, accumulate=False)
        b.copy(tile, out)
    placement = place(b.program, TRN2)
    assert [placement.addresses[k][1] for k in range(1, 21)] == [k % 8 * 2048 for k in range(20)]
    assert placement.psum.peak == 512
    assert placement.report()["psum"]["banks_at_peak"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([4, 400, 512, 1000, 2048, 2052, 4096]), min_size=1, max_size=30))
def test_no_psum_tensor_of_up_to_a_bank_straddles_one(sizes: list[int]) -> None:
    b = Builder()
    tensors = [b.tensor(size, region=PSUM) for size in sizes]
    for before, tensor in zip([tensors[0], *tensors], tensors, strict=False):
        b.write(tensor)
        b.use(before)
    placement = place(b.program, TRN2)
    assert list(pairs_that_overlap(b.program, placement)) == []
    for tensor in tensors:
        byte, size = placement.addresses[tensor.storage.index][1], tensor.storage.row_bytes
        assert byte % 2048 == 0 if size > 2048 else byte // 2048 == (byte + size - 1) // 2048


def accumulating(count: int, free: int = 64) -> Builder:
    """`count` accumulations that are all open at once."""
    b = Builder()
    tile = b.tensor(128)
    outs = [b.tensor(free, region=PSUM, dtype="float32", name=f"acc{k}") for k in range(count)]
    for accumulate in (False, True):
        for out in outs:
            b.matmul(out, tile, accumulate)
    for out in outs:
        b.copy(tile, out)
    return b


def test_small_psum_tensors_share_banks_when_there_are_more_than_eight() -> None:
    b = Builder()
    outs = [b.tensor(64, region=PSUM, dtype="float32") for _ in range(12)]
    for out in outs:
        b.write(out)
    b.use(*outs)
    placement = place(b.program, TRN2)
    assert list(pairs_that_overlap(b.program, placement)) == []


def test_eight_open_accumulations_have_a_bank_each() -> None:
    placement = place(accumulating(8).program, TRN2)
    assert {byte // 2048 for k, (_, byte) in placement.addresses.items() if k} == set(range(8))


def test_nine_open_accumulations_are_refused() -> None:
    problem = refused(accumulating(9).program)
    assert problem.diagnostics[0].code == "NKI-M005"
    assert "into 9 PSUM banks at once; trn2 has 8" in problem.diagnostics[0].message
    assert problem.diagnostics[0].span == Span("kernel.py", 10, 5, 10, 30)


def test_psum_over_capacity_is_refused() -> None:
    problem = refused(accumulating(9, free=512).program)
    assert problem.diagnostics[0].code == "NKI-M002"
    assert (
        "18 KiB per partition are live at once, 16 KiB are available on trn2"
        in problem.diagnostics[0].message
    )
