"""What a reused byte must not lose in loops: every program twice, on memory of its own for each tensor and on
the placed bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from placing import HBM, PSUM, SBUF, Builder, sbuf

from nki_isa.diagnostics import NkiMemoryError
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Loop, Node, Program, While
from nki_isa.machine.dtypes import as_dtype
from nki_isa.machine.enums import oob_mode
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.placement.liveness import liveness
from nki_sim.placement.place import place


@st.composite
def looping(draw: st.DrawFn) -> Program:
    """Small programs of writes and copies of parts of tensors, in loops up to two deep."""
    b = Builder()
    tensors = [b.tensor(8, partitions=2) for _ in range(draw(st.integers(2, 4)))]
    registers = iter(range(8))

    def part() -> NkiTensor:
        tensor = draw(st.sampled_from(tensors))
        piece = draw(st.sampled_from(["whole", "whole", "whole", "left", "right", "row", "run-time"]))
        if piece == "run-time":
            view = tensor[:, 0:4]
            register = VirtualRegister(7)
            view.dynamic = DynamicOffset("scalar", register, 4, -1, 2)
            return view
        return {
            "whole": tensor,
            "left": tensor[:, 0:4],
            "right": tensor[:, 4:8],
            "row": tensor[0:1, :],
        }[piece]

    def fill(body: list[Node], depth: int) -> None:
        for _ in range(draw(st.integers(2, 6))):
            what = draw(
                st.sampled_from(
                    ["write", "write", "read", "read", "loop"] if depth < 2 else ["write", "read"]
                )
            )
            index = next(registers, None) if what == "loop" else None
            if what == "write":
                body.append(REGISTRY["memset"](dst=part(), value=0))
            elif what == "read" or index is None:
                body.append(_read(part()))
            elif draw(st.booleans()):
                body.append(Loop(VirtualRegister(index, True), 0, draw(st.integers(1, 3)), 1))
                fill(body[-1].body, depth + 1)  # type: ignore[union-attr]
            else:
                body.append(While(VirtualRegister(index)))
                fill(body[-1].body, depth + 1)  # type: ignore[union-attr]

    fill(b.program.body, 0)
    return b.program


def _read(tensor: NkiTensor) -> Instruction:
    sink = NkiTensor.whole(Storage(0, "sink", HBM, (1, 1), as_dtype("uint8")))
    return REGISTRY["dma_copy"](dst=sink, src=tensor)


class Stamped:
    """Memory that notes, for each byte, the write that it came from: 0 is none."""

    def __init__(self, addresses: dict[int, int], capacity: int):
        self.bytes = np.zeros((2, capacity), int)
        self.addresses = addresses

    def view(self, tensor: NkiTensor, choice: int) -> np.ndarray:
        offset = tensor.offset % 8 + (0 if tensor.dynamic is None else 4 * choice)
        start = self.addresses[tensor.storage.index] + offset
        return self.bytes[: tensor.shape[0], start : start + tensor.shape[1]]


def lost_values(program: Program, addresses: dict[int, int], capacity: int, turns: list[int]) -> list[str]:
    """Reads that see another write on the placed bytes than they do where every tensor is alone."""
    alone = Stamped({k: 8 * k for k in addresses}, 8 * len(program.storages))
    placed = Stamped(addresses, capacity)
    lost: list[str] = []
    steps = 0

    def run(body: list[Node]) -> None:
        nonlocal steps
        for node in body:
            if isinstance(node, Loop):
                for _ in range(node.stop):  # type: ignore[arg-type]
                    run(node.body)
            elif isinstance(node, While):
                for _ in range(turns[node.condition.index % len(turns)]):
                    run(node.body)
            else:
                steps += 1
                choice = turns[steps % len(turns)] % 2
                for tensor in node.writes:
                    if tensor.storage.region is SBUF:
                        alone.view(tensor, choice)[...] = placed.view(tensor, choice)[...] = steps
                for tensor in node.reads:
                    expected, found = alone.view(tensor, choice), placed.view(tensor, choice)
                    if ((expected != found) & (expected != 0)).any():
                        lost.append(f"{tensor} in step {steps}")

    run(program.body)
    return lost


@settings(max_examples=200, deadline=None)
@given(looping(), st.lists(st.integers(0, 3), min_size=3, max_size=7))
def test_reused_bytes_never_lose_a_value_in_loops(program: Program, turns: list[int]) -> None:
    peak = place(program, TRN2).sbuf.peak
    assume(peak)
    for capacity in range(peak, TRN2.sbuf_usable_bytes, 4):
        try:
            placement = place(program, sbuf(capacity))
            break
        except NkiMemoryError:
            continue
    addresses = {k: byte for k, (_, byte) in placement.addresses.items()}
    assert lost_values(program, addresses, capacity + 8, turns) == []


def loop_of(b: Builder, first: NkiTensor, second: NkiTensor, stop: int | VirtualRegister = 4) -> None:
    """A loop that writes and reads `first`, then `second`."""
    loop = Loop(VirtualRegister(0, True), 0, stop, 1)
    b.program.body.append(loop)
    b.body = loop.body
    for tensor in (first, second):
        b.write(tensor)
        b.use(tensor)
    b.body = b.program.body


def test_tensors_local_to_a_turn_share_bytes() -> None:
    b = Builder()
    first, second = b.tensor(1024), b.tensor(1024)
    loop_of(b, first, second)
    assert place(b.program, TRN2).sbuf.peak == 1024


def test_a_tensor_written_in_two_halves_each_turn_is_local_to_it() -> None:
    b = Builder()
    first, second = b.tensor(1024), b.tensor(1024)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(first[:, 0:512])
    b.write(first[:, 512:1024])
    b.use(first)
    b.write(second)
    b.use(second)
    assert place(b.program, TRN2).sbuf.peak == 1024


@pytest.mark.parametrize("before", [True, False])
def test_an_accumulation_that_a_loop_goes_on_with_is_open_for_all_of_it(before: bool) -> None:
    """The turns add to the same bank: nothing else may be accumulated there between them."""
    b = Builder()
    total, weights, other = b.tensor(2048, region=PSUM), b.tensor(128), b.tensor(4)
    b.write(other)  # position 0
    if before:
        b.matmul(total, weights, False)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(other)
    b.matmul(total, weights, True)
    b.write(other)
    b.use(other)
    b.body = b.program.body
    b.write(other)
    assert liveness(b.program).groups == [(total.storage.index, 1, 1 + before + 3)]


def test_a_value_from_before_a_loop_lives_to_its_end() -> None:
    b = Builder()
    weights, first, second = b.tensor(512), b.tensor(1024), b.tensor(1024)
    b.write(weights)
    loop_of(b, first, second)
    b.body = b.program.body[1].body  # type: ignore[union-attr]
    b.body.insert(0, _read(weights))
    placement = place(b.program, TRN2)
    assert placement.sbuf.peak == 1024 + 512
    holder = next(h for h in placement.sbuf.holders if h.storage is weights.storage)
    assert (holder.first, holder.last) == (0, 5)


def test_a_write_in_a_loop_that_may_not_run_does_not_end_the_old_value() -> None:
    b = Builder()
    state, tile = b.tensor(512), b.tensor(1024)
    b.write(state)
    maybe = While(VirtualRegister(1))
    loop = Loop(VirtualRegister(0, True), 0, 4, 1, [maybe])
    b.program.body.append(loop)
    b.body = maybe.body
    b.write(state)
    b.body = loop.body
    b.use(state)
    b.write(tile)
    b.use(tile)
    assert place(b.program, TRN2).sbuf.peak == 1024 + 512


def test_parts_written_turn_by_turn_live_until_they_are_read_after_the_loop() -> None:
    b = Builder()
    result, tile = b.tensor(1024), b.tensor(256)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.program.body.append(loop)
    b.body = loop.body
    b.write(tile)
    part = result[:, 0:256]
    part.dynamic = DynamicOffset("scalar", VirtualRegister(0, True), 256, -1, 4)
    b.copy(part, tile)
    b.body = b.program.body
    b.use(result)
    assert place(b.program, TRN2).sbuf.peak == 1024 + 256


def test_rows_that_a_gather_may_skip_keep_their_value_from_turn_to_turn() -> None:
    b = Builder()
    tile, index, other = b.tensor(1024), b.tensor(4), b.tensor(1024)
    b.write(tile)
    source = NkiTensor.whole(Storage(0, "source", HBM, (128, 1024), as_dtype("uint8")))
    source.dynamic = DynamicOffset("vector", index, 1024, 0, 128)
    loop = Loop(VirtualRegister(0, True), 0, 4, 1)
    b.body.append(loop)
    b.body = loop.body
    b.body.append(REGISTRY["dma_copy"](dst=tile, src=source, oob_mode=oob_mode.skip))
    b.use(tile)
    b.write(other)
    b.use(other)
    placement = place(b.program, TRN2)
    holder = next(h for h in placement.sbuf.holders if h.storage is tile.storage)
    assert (holder.first, holder.last) == (0, 4)
    assert placement.sbuf.peak == 1024 + 1024 + 4
