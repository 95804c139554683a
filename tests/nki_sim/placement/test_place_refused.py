"""What placement refuses, and where what does not fit would be."""

from __future__ import annotations

import pytest
from placing import KIB, PSUM, SBUF, Builder, refused

from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.tensor.storage import MemoryRegion
from nki_sim.placement.place import overfull, place


def overflowing() -> Program:
    b = Builder()
    weights = b.tensor(65_536, dtype="bfloat16", name="weights")
    tiles = [b.tensor(4096, dtype="float32", name=f"tile_{k}", line=7) for k in range(8)]
    b.line = 8
    small = [b.tensor(1, dtype="float32") for _ in range(14)]
    for tensor in (weights, *tiles, *small):
        b.write(tensor)
    b.use(*small, *tiles, weights)
    return b.program


def test_overflow_error(snapshot: object) -> None:
    assert refused(overflowing()).diagnostics[0].as_dict() == snapshot


def test_what_does_not_fit_is_placed_beyond_the_end() -> None:
    used = overfull(overflowing(), TRN2).sbuf
    assert used.peak > used.capacity == TRN2.sbuf_usable_bytes
    assert used.high_water >= used.peak
    live = used.live
    for k, one in enumerate(live):
        for other in live[:k]:
            apart = one.last < other.first or other.last < one.first
            assert apart or not one.shares_bytes(other)
    assert used.free_pieces(used.peak_at) == []


def test_a_tensor_larger_than_psum_is_placed_beyond_the_end() -> None:
    b = Builder()
    b.write(b.tensor(20 * KIB, region=PSUM, name="big"))
    used = overfull(b.program, TRN2).psum
    assert (used.peak, used.banks_at(0), int(used.bank_usage().max())) == (20 * KIB, 10, 10)


@pytest.mark.parametrize(("target", "fits"), [(TRN1, False), (TRN2, True), (TRN3, True)])
def test_capacity_is_the_targets(target: Target, fits: bool) -> None:
    b = Builder()
    b.write(b.tensor(200 * KIB))
    if fits:
        assert place(b.program, target).sbuf.peak == 200 * KIB
    else:
        assert refused(b.program, target).diagnostics[0].code == "NKI-M003"


def test_a_tensor_larger_than_the_memory_is_refused_even_unused() -> None:
    b = Builder()
    b.tensor(16 * KIB + 1, region=PSUM, name="big")
    problem = refused(b.program).diagnostics[0]
    assert problem.code == "NKI-M003"
    assert problem.message == (
        "big uint8[128, 16385] takes 16.0 KiB per partition; all of PSUM on trn2 is 16 KiB per partition"
    )


@pytest.mark.parametrize(
    ("region", "partitions", "free", "address", "message"),
    [
        (SBUF, 64, 512, (96, 0), "its partitions 96 to 159 are outside 0 to 127"),
        (SBUF, 128, 512, (0, 208 * KIB - 511), "its bytes 212481 to 212992 are outside the 212992 bytes"),
        (PSUM, 128, 512, (0, 16 * KIB), "its bytes 16384 to 16895 are outside the 16384 bytes"),
        (PSUM, 128, 512, (0, 2049), "byte 2049 is 1 bytes into a bank"),
        (SBUF, 64, 512, (64, 208 * KIB - 512), None),
        (PSUM, 128, 512, (0, 14 * KIB), None),
    ],
)
def test_explicit_addresses_lie_inside_their_memory(
    region: MemoryRegion, partitions: int, free: int, address: tuple[int, int], message: str | None
) -> None:
    b = Builder()
    tensor = b.tensor(free, partitions, region, name="fixed", address=address)
    b.write(tensor)
    if message is None:
        assert place(b.program, TRN2).addresses == {0: address}
    else:
        problem = refused(b.program).diagnostics[0]
        assert problem.code == "NKI-M004"
        assert message in problem.message


def test_bytes_in_pieces_are_said_to_be_so() -> None:
    """Fixed tensors leave two free pieces of 48 KiB each; 64 KiB fit the sum but neither piece."""
    b = Builder()
    fixed = [b.tensor(56 * KIB, address=(0, 0)), b.tensor(56 * KIB, address=(0, 104 * KIB))]
    large = b.tensor(64 * KIB, name="large")
    for tensor in (*fixed, large):
        b.write(tensor)
    b.use(*fixed)
    problem = refused(b.program).diagnostics[0]
    assert problem.code == "NKI-M001"
    assert (
        "176 KiB of 208 KiB per partition are live at once on trn2, but no placement was found"
        in problem.message
    )


@pytest.mark.parametrize(
    ("region", "partitions", "address", "remedy"),
    [
        (SBUF, 64, (96, 0), "start at partition 64 or before"),
        (SBUF, 128, (0, 208 * KIB - 511), "start at byte 212480 or before"),
        (PSUM, 128, (0, 16 * KIB), "start at byte 14336 or before"),
        (PSUM, 128, (0, 4099), "start at a multiple of 2048, such as byte 4096"),
    ],
)
def test_the_address_to_write_is_named(
    region: MemoryRegion, partitions: int, address: tuple[int, int], remedy: str
) -> None:
    b = Builder()
    b.write(b.tensor(512, partitions, region, name="fixed", address=address))
    assert refused(b.program).diagnostics[0].help == remedy
