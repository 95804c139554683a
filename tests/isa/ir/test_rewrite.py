"""Programs made of other Programs."""

from __future__ import annotations

from dataclasses import replace

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import Loop, Program, programs_equal
from nki_isa.ir.rewrite import in_order, on_storages
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.targets import TARGETS
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor


def program() -> Program:
    """A load, in a loop a copy by index that runs after it, and a store."""
    made = Program("p", "trn2", registers=1)
    regions = (MemoryRegion.shared_hbm, MemoryRegion.sbuf, MemoryRegion.sbuf, MemoryRegion.shared_hbm)
    for k, region in enumerate(regions):
        made.storages.append(Storage(k, f"t{k}", region, (128, 64), DTYPES["float32"]))
    x, tile, index, out = map(NkiTensor.whole, made.storages)
    made.inputs, made.outputs = [x], [out]
    load = REGISTRY["dma_copy"](tile, x)
    turn = VirtualRegister(0, True)
    by_turn = DynamicOffset("scalar", turn, 1, -1, 64)
    moved = NkiTensor((128, 1), (64, 1), 0, tile.dtype, tile.storage, by_turn)
    by_index = DynamicOffset("scalar", index[:1, :1], 1, -1, 64)
    copy = REGISTRY["tensor_copy"](NkiTensor((128, 1), (64, 1), 0, tile.dtype, tile.storage, by_index), moved)
    copy.after = (load,)
    made.body = [load, Loop(turn, 0, 4, 1, [copy]), REGISTRY["dma_copy"](out, tile)]
    return made


def test_views_indices_and_edges_go_to_the_new_storages():
    old = program()
    for instruction in old.walk():
        instruction.check(TARGETS["trn2"])
    wide = [replace(s, name=f"{s.name}!") if s.on_chip else s for s in old.storages]
    new = on_storages(old, wide)
    assert programs_equal(old, program())
    load, copy, store = new.walk()
    assert copy.after == (load,)
    assert copy.dst.storage is wide[1] and copy.dst.dynamic.index.storage is wide[2]
    assert new.inputs == old.inputs and store.src.storage is wide[1]
    assert programs_equal(on_storages(new, old.storages), old)


def test_what_does_not_change_is_shared():
    old = program()
    same = on_storages(old, list(old.storages))
    assert [a is b for a, b in zip(same.walk(), old.walk(), strict=True)] == [True] * 3
    assert in_order(old, old.body) is old
    assert list(in_order(old, old.body[::-1]).walk()) == list(old.walk())[::-1]
