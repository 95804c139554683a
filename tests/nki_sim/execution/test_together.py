"""Equal independent instructions executed as one: the bytes are those of one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PSUM, SBUF, Builder, view
from random_programs import Maker, conflicts, crowded

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler import specialize
from nki_isa.ir.form import Forms
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.operators import OPERATORS
from nki_isa.machine.targets import TRN2
from nki_isa.ops.dma import dma_copy
from nki_isa.ops.elementwise import memset, reciprocal, tensor_copy, tensor_tensor
from nki_isa.ops.tensor_scalar import scalar_tensor_tensor, tensor_scalar
from nki_sim.execution import together
from nki_sim.execution.machine import Machine
from nki_sim.execution.replay import Replay
from nki_sim.observe import Listener
from nki_sim.placement.place import place

#: Float32 patterns that functions may treat differently: zeros, denormals, infinities, NaN with a payload.
_ODD = np.array([0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00123, 0x3F800000], np.uint32)
_COLUMNS = 512
_ARITHMETIC = [name for name, row in OPERATORS.items() if row.is_exact and row.kinds == {"arithmetic"}]


class Watcher(Listener):
    """Notes the order in which it is told of instructions."""

    def __init__(self):
        self.seen = []

    def before(self, core, instruction, registers):
        self.seen.append(instruction)


def formed(program):
    """`program`, its instructions knowing their forms as those of a kernel do."""
    forms = Forms(TRN2)
    for instruction in program.walk():
        forms.of(instruction)
    return program


def machine(program, placement, arrays, *, repeated):
    """A machine after two runs of `program`: from the second on instructions may be brought together."""
    made = Machine(program, placement, repeated=repeated)
    for _ in range(2):
        made.load(arrays)
        with np.errstate(all="ignore"):
            list(made.run())
    return made


@st.composite
def alike(draw):
    """Instructions of few forms on parts of few tiles, some of which lie in the same bytes."""
    b = Builder()
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = random.standard_normal((128, _COLUMNS), np.float32)
    odd = random.random(values.shape) < 0.3
    values.view(np.uint32)[odd] = random.choice(_ODD, int(odd.sum()))
    source, result = b.input(values), b.output(128, _COLUMNS)
    dtypes = [draw(st.sampled_from(["float32", "bfloat16", "int32"])), "float32"]
    tiles = [b.tensor(128, _COLUMNS, dtype=dtypes[k % 2], region=SBUF) for k in range(3)]
    first = b.placement[tiles[0].storage.index]
    tiles.append(b.tensor(128, _COLUMNS, at=(first[0], first[1] + draw(st.sampled_from([0, 64, 512])))))
    tiles.append(b.tensor(128, _COLUMNS, region=PSUM))
    for tile in tiles[:-1]:
        b.emit(dma_copy(tile, source))
    b.emit(tensor_copy(tiles[-1], tiles[1]))
    n = draw(st.sampled_from([1, 4, 16]))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["copy", "memset", "add", "scalar", "both", "reciprocal"]))
        op, other = (draw(st.sampled_from(_ARITHMETIC)) for _ in range(2))
        dst, one, two = (draw(st.sampled_from(tiles)) for _ in range(3))
        if kind == "copy":  # by DMA where one of the two is in HBM
            dst, one = (
                draw(st.sampled_from([tile, given])) for tile, given in ((dst, result), (one, source))
            )
        shift = draw(st.sampled_from([None, 0, 1]))
        starts = [draw(st.integers(0, 64)) for _ in range(3)]
        steps = [draw(st.sampled_from([0, n, n, 2 * n, -n])) for _ in range(3)]
        for turn in range(draw(st.integers(1, 6))):
            x, y, z = (
                view(tile, (128, n), (_COLUMNS, 1), 192 + start + step * turn)
                for tile, start, step in zip((dst, one, two), starts, steps)
            )
            at = (_COLUMNS, 1), 7 + (shift or 0) * turn
            column = 2.0 if shift is None else view(tiles[1], (128, 1), *at)
            if kind == "copy":
                made = (dma_copy if dst is result or one is source else tensor_copy)(x, y)
            elif kind == "memset":
                made = memset(x, 1)
            elif kind == "add":
                made = tensor_tensor(x, y, z, op=op)
            elif kind == "scalar":
                made = tensor_scalar(x, y, op, column, op1=other, operand1=-1.0)
            elif kind == "both":
                made = scalar_tensor_tensor(x, y, op, column, other, z)
            else:
                made = reciprocal(x, y)
            b.program.body.append(made)
    b.emit(dma_copy(result, tiles[1]))
    return b


@settings(max_examples=60, deadline=None)
@given(b=alike())
def test_together_and_one_by_one_leave_the_same_bytes(b):
    formed(b.program)
    one = machine(b.program, b.placement, b.arrays, repeated=False)
    many = machine(b.program, b.placement, b.arrays, repeated=True)
    assert many.executed == one.executed
    for region in ("sbuf", "psum"):
        np.testing.assert_array_equal(*(getattr(m.memory, region)[:, : 24 * _COLUMNS] for m in (many, one)))
    for index, octets in one.memory.hbm.items():
        np.testing.assert_array_equal(many.memory.hbm[index], octets)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_groups_keep_the_order_of_conflicting_pairs_and_hold_none(seed):
    kinds = ("copy", "add", "store", "load", "move", "read", "write", "random")
    program = formed(Maker(seed, kinds=kinds).program)
    places = crowded(program, seed)
    stretch = list(program.walk())
    found = together.groups(stretch, places)
    at = {instruction: k for k, group in enumerate(found) for instruction in group}
    assert set(at) == set(stretch)
    for earlier, later in itertools.combinations(stretch, 2):
        earlier.after = later.after = ()  # what was asked for is about time
        if conflicts(earlier, later, places):
            assert at[earlier] < at[later]
    assert all(len({i.form for i in group}) == 1 for group in found)


@nki.jit
def tiles(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(16):
        part = nl.ds(i * 8, 8)
        tile = nl.ndarray((128, 8), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, part])
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0)
        nisa.dma_copy(dst=out[:, part], src=tile)
    return out


def test_equal_turns_of_a_loop_become_few_steps():
    x = np.ones((128, 128), np.float32)
    program = specialize(tiles, x, target="trn2")
    groups = together.groups(list(program.walk()), place(program, TRN2).addresses)
    assert len(groups) < 10 and sum(map(len, groups)) == 48


def test_one_by_one_where_somebody_looks_on():
    x = np.arange(128 * 128, dtype=np.float32).reshape(128, 128)
    program = specialize(tiles, x, target="trn2")
    placement = place(program, TRN2).addresses
    machine_ = Machine(program, placement, repeated=True)
    machine_.load([x])
    watcher = Watcher()
    machine_.listen((0, [watcher]))
    list(machine_.run())
    assert watcher.seen == list(program.walk())
    machine_.listen((0, []))
    list(machine_.run())
    np.testing.assert_array_equal(machine_.result().outputs[0], x + 1)
    replay = Replay(program, placement)
    for k in range(3):
        result = replay([x + k])
        np.testing.assert_array_equal(result.outputs[0], x + k + 1)
        assert result.instructions == 48


@pytest.mark.parametrize("opcode", sorted(name for name, kind in REGISTRY.items() if kind.by_element))
def test_what_works_by_element_has_one_result_of_its_own_kind(opcode):
    """An instruction by element says all of itself with tiles of one shape: nothing it keeps or counts."""
    kind = REGISTRY[opcode]
    assert not kind.stateful and not kind.synchronises
    assert [field.role.name for field in kind.fields.values()].count("write") == 1


@pytest.mark.parametrize(
    "dst, data, column, runs",
    [(8, 8, 0, [4]), (8, 0, 0, [4]), (16, -8, 0, [4]), (8, 8, 1, [1, 1, 1, 1])],
)
def test_tiles_move_in_equal_steps_and_columns_stand_still(dst, data, column, runs):
    b = Builder()
    to, of, columns = (b.tensor(128, 128) for _ in range(3))
    group = [
        tensor_scalar(
            view(to, (128, 8), (128, 1), dst * k),
            view(of, (128, 8), (128, 1), 64 + data * k),
            "add",
            view(columns, (128, 1), (128, 1), column * k),
        )
        for k in range(4)
    ]
    assert [len(run) for run in together.at_equal_steps(group, b.memory())] == runs
    other = [
        *group[:2],
        tensor_scalar(view(to, (128, 8), (128, 1), 120), group[2].data, "add", group[2].operand0),
    ]
    assert sum(len(run) for run in together.at_equal_steps(other, b.memory())) == 3
