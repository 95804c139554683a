"""Programs on bytes: order, loops, registers, run-time addresses, aliasing, inputs and outputs, errors."""

import time

import ml_dtypes
import numpy as np
import pytest
from programs import PSUM, Builder, at, columns, rows, view

from nki_isa.diagnostics import Frame, NkiError, NkiInternalError, Span, error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import oob_mode
from nki_isa.ops.dma import dma_compute, dma_copy, dma_transpose
from nki_isa.ops.matmul import nc_matmul
from nki_isa.ops.register import register_load, register_move, register_store
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.tensor import NkiTensor
from nki_sim.cores.device import execute
from nki_sim.execution.machine import Machine
from nki_sim.execution.memory import NANS
from nki_sim.observe import Listener

tensor_copy, tensor_tensor = REGISTRY["tensor_copy"], REGISTRY["tensor_tensor"]
skip = oob_mode.skip


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_a_matmul_from_hbm_to_hbm():
    b = Builder()
    a, w = random(256, 128, dtype=ml_dtypes.bfloat16), random(256, 512, dtype=ml_dtypes.bfloat16, seed=1)
    x, y, out = b.input(a), b.input(w), b.output(128, 512)
    acc, result = b.tensor(128, 512, region=PSUM), b.tensor(128, 512)
    for k in range(2):
        left, right = b.tensor(128, 128, dtype="bfloat16"), b.tensor(128, 512, dtype="bfloat16")
        b.emit(
            dma_copy(left, view(x, (128, 128), (128, 1), k * 128 * 128)),
            dma_copy(right, view(y, (128, 512), (512, 1), k * 128 * 512)),
            nc_matmul(acc, left, right, accumulate=k > 0),
        )
    b.emit(tensor_copy(result, acc), dma_copy(out, result))
    done = b.run()
    expected = a.astype(np.float64).T @ w.astype(np.float64)
    np.testing.assert_allclose(done.outputs[0], expected, rtol=1e-4, atol=1e-4)
    assert done.instructions == 8 and done.updated_inputs == []


# --- inputs and outputs


def test_inputs_are_copied_in_and_updates_reported():
    b = Builder()
    first, second = random(4, 4), random(4, 4, seed=1)
    x, y = b.input(first), b.input(second)
    b.program.outputs.append(view(y, (2, 4), (8, 1)))
    b.emit(dma_copy(y, x))
    before = second.copy()
    done = b.run()
    assert np.array_equal(second, before)
    [(position, updated)] = done.updated_inputs
    assert position == 1 and np.array_equal(updated, first)
    assert np.array_equal(done.outputs[0], first[::2])
    done.outputs[0][...] = 0
    assert updated.any()  # outputs are copies of their own


def test_inputs_that_nothing_writes_are_read_where_they_are():
    b = Builder()
    first, second = random(4, 4), random(4, 8, seed=1)[:, ::2]
    x, y = b.input(first), b.input(second)
    machine = Machine(b.program, {})
    machine.borrow([first, second], ())
    held = [machine.memory.view(tensor) for tensor in (x, y)]
    assert np.shares_memory(held[0], first) and not held[0].flags.writeable and first.flags.writeable
    assert not np.shares_memory(held[1], second) and np.array_equal(held[1], second)  # not in order: a copy


@pytest.mark.parametrize("given", [random(16), random(2, 8), random(4, 4).view(np.int32), random(8, 2).T])
def test_inputs_of_another_shape_or_dtype_are_taken_as_bytes(given):
    b = Builder()
    x, out = b.input(random(4, 4)), b.output(4, 4)
    b.emit(dma_copy(x, x), dma_copy(out, x))  # written, so that it is copied in
    found = execute(b.program, b.placement, [given]).outputs[0]
    assert found.tobytes() == np.ascontiguousarray(given).tobytes()


def test_packed_inputs_are_taken_as_bytes():
    b = Builder("trn3")
    octets = np.arange(64, dtype=np.uint8).reshape(2, 32)
    x = b.input(octets.view(np.uint32), "float8_e5m2_x4")
    b.program.outputs.append(x)
    b.arrays[0] = octets
    assert np.array_equal(b.run().outputs[0].view(np.uint8), octets)


@pytest.mark.parametrize("given", [[], [np.zeros((2, 3), np.float32)]])
def test_wrong_inputs_are_our_mistake(given):
    b = Builder()
    b.input(np.zeros((2, 2), np.float32))
    b.arrays = given
    with pytest.raises(NkiInternalError, match="NKI-I002"):
        b.run()


# --- loops and registers


def test_loop_moves_rows_in_order():
    b = Builder()
    x, out = b.input(random(10, 8)), b.output(10, 8)
    tile = b.tensor(1, 8)

    def body(i):
        b.emit(dma_copy(tile, at(x, i, size=1)), dma_copy(at(out, i, size=1), tile))

    b.loop(9, 1, 3, body)
    done = b.run()
    expected = np.zeros((10, 8), np.float32)
    expected[[1, 4, 7]] = b.arrays[0][[1, 4, 7]]
    assert np.array_equal(done.outputs[0], expected) and done.instructions == 6


def test_nested_loops_with_bounds_in_registers():
    b = Builder()
    bounds, out = b.input(np.array([[2], [5]], np.int32)), b.output(1, 1, dtype="int32")
    start, stop, total = b.register(), b.register(), b.register()
    one, acc = b.input(np.ones((1, 1), np.float32)), b.tensor(1, 1)
    tile = b.tensor(1, 1)
    b.emit(dma_copy(tile, one), dma_copy(acc, one), register_load(start, view(bounds, (1, 1), (1, 1))))
    b.emit(register_load(stop, view(bounds, (1, 1), (1, 1), 1)), register_move(total, -1))
    b.loop(stop, start, 1, lambda i: b.loop(3, body=lambda j: b.emit(tensor_tensor(acc, acc, tile, "add"))))
    b.emit(dma_copy(out, acc))
    assert b.run().outputs[0] == 1 + 3 * 3


def test_a_loop_without_turns_runs_nothing():
    b = Builder()
    out = b.output(1, 1)
    b.loop(0, body=lambda i: b.emit(dma_copy(out, b.input(np.ones((1, 1), np.float32)))))
    assert b.run().outputs[0] == 0


def test_while_ends_when_its_register_is_zero():
    b = Builder()
    x = b.input(np.array([[1, 1, 1, 0, 1]], np.int32))
    out = b.output(1, 5, dtype="int32")
    condition, ones = b.register(), b.tensor(1, 5, dtype="int32")
    count, one = b.tensor(1, 1, dtype="int32"), b.tensor(1, 1, dtype="int32")
    b.emit(dma_copy(ones, x), register_load(condition, view(ones, (1, 1), (5, 1))))
    b.emit(dma_copy(one, view(x, (1, 1), (5, 1))))

    def body():
        b.emit(
            tensor_tensor(count, count, one, "add"),
            dma_copy(view(out, (1, 1), (5, 1)), count),
            register_load(condition, at(ones, count, dim=1, size=1)),
        )

    b.while_(condition, body)
    assert b.run().outputs[0][0, 0] == 3


def test_registers_hold_32_bits():
    b = Builder()
    out = b.output(1, 4, dtype="int32")
    a, c = b.register(), b.register()
    cells = [view(out, (1, 1), (4, 1), k) for k in range(4)]
    wide = indexed(b, [2**31], "uint32")
    b.emit(register_load(a, wide), register_move(c, a), register_store(cells[0], c))
    b.emit(register_move(a, -5), register_store(cells[1], a), register_store(view(out, (1, 1), (4, 1), 2), 7))
    b.emit(register_move(a, 3), register_store(cells[3], a))
    seen = Seen()
    done = b.run(listeners=[seen])
    assert done.outputs[0].tolist() == [[-(2**31), -5, 7, 3]]
    values = [registers[0] for _, registers in seen.begun]
    assert values[2] == -(2**31) and values[-1] == 3


# --- run-time addresses


def indexed(b, values, dtype="int32"):
    """A tile of indices loaded from an input."""
    array = np.array(values, dtype).reshape(len(values), -1)
    tile = b.tensor(*array.shape, dtype=dtype)
    b.emit(dma_copy(tile, b.input(array)))
    return tile


def test_gather_scatter_and_update_in_place():
    b = Builder()
    table, data = random(20, 6), random(4, 6, seed=1)
    x, out = b.input(table), b.output(4, 6)
    index, tile = indexed(b, [3, 0, 19, 7]), b.tensor(4, 6)
    b.emit(dma_copy(tile, rows(x, index)), dma_copy(out, tile), dma_copy(tile, b.input(data)))
    b.emit(dma_compute(rows(x, index), [rows(x, index), tile], "add"))
    done = b.run()
    assert np.array_equal(done.outputs[0], table[[3, 0, 19, 7]])
    expected = table.copy()
    expected[[3, 0, 19, 7]] += data
    [(position, updated)] = done.updated_inputs
    assert position == 0 and np.array_equal(updated, expected)


def test_gather_update_of_a_tile():
    b = Builder()
    table, out = random(20, 6), b.output(4, 6)
    x, index, tile = b.input(table), indexed(b, [3, 0, 19, 7]), b.tensor(4, 6)
    b.emit(dma_copy(tile, view(x, (4, 6), (6, 1))), dma_compute(tile, [tile, rows(x, index)], "add"))
    b.emit(dma_copy(out, tile))
    assert np.array_equal(b.run().outputs[0], table[:4] + table[[3, 0, 19, 7]])


@pytest.mark.parametrize("columns_of_indices", [1, 2])
def test_gathering_transpose(columns_of_indices):
    b = Builder()
    table = random(300, 64, dtype=ml_dtypes.bfloat16)
    count = 128 * columns_of_indices
    order = np.random.default_rng(5).permutation(300)[:count].astype(np.uint32)
    x, out = b.input(table), b.output(64, count, dtype="bfloat16")
    index = indexed(b, order.reshape(columns_of_indices, 128).T, "uint32")
    tile = b.tensor(64, count, dtype="bfloat16")
    b.emit(dma_transpose(tile, rows(x, index), axes=(1, 0)), dma_copy(out, tile))
    assert np.array_equal(b.run().outputs[0], table[order].T)


def test_skipped_rows_keep_what_was_there():
    b = Builder()
    table = random(16, 6)
    x, out, back = b.input(table), b.output(16, 6), b.output(16, 6)
    order = np.array([3, -1, 15, 16] * 4)
    index, tile = indexed(b, order), b.tensor(16, 6)
    b.emit(dma_copy(tile, b.input(np.full((16, 6), 7, np.float32))))
    b.emit(dma_copy(tile, rows(x, index), oob_mode=skip), dma_copy(out, tile))
    b.emit(dma_copy(rows(back, index), tile, oob_mode=skip))
    done = b.run()
    inside = (order >= 0) & (order < 16)
    expected = np.where(inside[:, None], table[np.clip(order, 0, 15)], 7)
    assert np.array_equal(done.outputs[0], expected)
    scattered = np.zeros((16, 6), np.float32)
    scattered[[3, 15]] = table[[3, 15]]
    assert np.array_equal(done.outputs[1], scattered)
    assert [(s.skipped, s.total) for s in done.skipped] == [(8, 16), (8, 16)]
    assert "dma_copy skipped 8 of 16 rows" in str(done.skipped[0])


def test_lines_end_where_the_storage_does():
    """Windows of 4 from element 3 of 20: the last starts 13 further on, whatever the limit says."""
    b = Builder()
    values = np.arange(20, dtype=np.float32).reshape(1, 20)
    x, out, tile = b.input(values), b.output(16, 4), b.tensor(16, 4)
    index = indexed(b, np.arange(16))
    dynamic = DynamicOffset("vector", index, 1, 0, 100)
    windows = NkiTensor((16, 4), (0, 1), 3, x.dtype, x.storage, dynamic)
    b.emit(dma_copy(tile, b.input(np.full((16, 4), 7, np.float32))))
    b.emit(dma_copy(tile, windows, oob_mode=skip), dma_copy(out, tile))
    expected = [values[0, 3 + k : 7 + k] if k <= 13 else [7] * 4 for k in range(16)]
    assert np.array_equal(b.run().outputs[0], expected)


def test_skipped_rows_of_a_transpose_and_of_a_sum():
    b = Builder()
    table = random(40, 8, dtype=ml_dtypes.bfloat16)
    x, out, sums = b.input(table), b.output(8, 16, dtype="bfloat16"), b.output(16, 8, dtype="bfloat16")
    order = np.array([39, 40] * 8)
    index, tile = indexed(b, order, "uint32"), b.tensor(8, 16, dtype="bfloat16")
    total = b.tensor(16, 8, dtype="bfloat16")
    b.emit(dma_transpose(tile, rows(x, index), oob_mode=skip), dma_copy(out, tile))
    b.emit(dma_copy(total, view(x, (16, 8), (8, 1))))
    b.emit(dma_compute(total, [total, rows(x, index)], "add", oob_mode=skip), dma_copy(sums, total))
    moved, summed = b.run().outputs
    inside = order < 40
    assert np.array_equal(moved, np.where(inside, table[39][:, None], 0).astype(table.dtype))
    wide = table.astype(np.float32)
    expected = np.where(inside[:, None], wide[:16] + wide[39], wide[:16])
    assert np.array_equal(summed, expected.astype(table.dtype))


@pytest.mark.parametrize(("start", "moved"), [(0, True), (7, True), (8, False), (-1, False)])
def test_a_skipped_shift_moves_nothing(start, moved):
    b = Builder()
    x, out, register = b.input(random(8, 3)), b.output(8, 3), b.register()
    b.emit(register_move(register, start))
    b.emit(dma_copy(at(out, register, size=1), at(x, register, size=1), oob_mode=skip))
    expected = np.zeros((8, 3), np.float32)
    if moved:
        expected[start] = b.arrays[0][start]
    done = b.run()
    assert np.array_equal(done.outputs[0], expected)
    assert [(s.skipped, s.total) for s in done.skipped] == ([] if moved else [(1, 1)])


def test_tensor_indirection_by_the_engine_that_reads():
    b = Builder("trn3")
    data = random(32, 64, dtype=ml_dtypes.bfloat16)
    eye = np.eye(32, dtype=ml_dtypes.bfloat16)
    out, tile, left = b.output(32, 32), b.tensor(32, 64, dtype="bfloat16"), b.tensor(32, 32, dtype="bfloat16")
    order = np.random.default_rng(3).permutation(64)[:32].astype(np.uint32)
    index = indexed(b, order.reshape(32, 1), "uint32")  # one group of 32 for the tensor engine
    acc, result = b.tensor(32, 32, region=PSUM), b.tensor(32, 32)
    b.emit(dma_copy(tile, b.input(data)), dma_copy(left, b.input(eye)))
    b.emit(nc_matmul(acc, left, columns(tile, index, 32), accumulate=False))
    b.emit(tensor_copy(result, acc), dma_copy(out, result))
    assert np.array_equal(b.run().outputs[0], data[:, order].astype(np.float32))


# --- order of reads and writes


def test_an_instruction_reads_all_before_it_writes():
    b = Builder()
    x, out = b.input(random(4, 16)), b.output(4, 16)
    tile = b.tensor(4, 16)
    b.emit(dma_copy(tile, x))
    b.emit(tensor_copy(view(tile, (4, 15), (16, 1), 1), view(tile, (4, 15), (16, 1))))  # shifted onto itself
    b.emit(dma_copy(out, tile))
    expected = b.arrays[0].copy()
    expected[:, 1:] = b.arrays[0][:, :-1]
    assert np.array_equal(b.run().outputs[0], expected)


def test_a_transpose_onto_itself_in_sbuf():
    b = Builder()
    x, out, tile = b.input(random(16, 16)), b.output(16, 16), b.tensor(16, 16)
    b.emit(dma_copy(tile, x), dma_transpose(tile, tile), dma_copy(out, tile))
    assert np.array_equal(b.run().outputs[0], b.arrays[0].T)


def test_results_are_cast_to_the_destination():
    b = Builder()
    x, out = b.input(np.array([[300.7, -2.5, np.nan]], np.float32)), b.output(1, 3, dtype="int8")
    b.emit(dma_copy(out, x))
    assert b.run().outputs[0].tolist() == [[127, -2, 0]]


def test_uninitialised_memory_is_filled_as_asked():
    b = Builder()
    out, tile = b.output(2, 2), b.tensor(2, 2)
    b.emit(dma_copy(out, tile))
    assert not b.run().outputs[0].any()
    assert np.isnan(b.run(fill=NANS).outputs[0]).all()


# --- listeners and errors


class Seen(Listener):
    """Keeps what begins, and what memory holds when it is over."""

    def __init__(self):
        self.begun, self.left = [], []

    def start(self, cores):
        (self.core,) = cores

    def before(self, core, instruction, registers):
        self.begun.append((instruction.opcode, list(registers)))

    def after(self, core, instruction):
        self.left.append([np.array(self.core.memory.bind(view)) for view in instruction.writes])


def test_listeners_see_every_instruction_before_and_after_it_runs():
    b = Builder()
    x, out = b.input(random(3, 2)), b.output(3, 2)
    b.loop(3, body=lambda i: b.emit(dma_copy(at(out, i, size=1), at(x, i, size=1))))
    seen = Seen()
    b.run(listeners=[seen])
    assert seen.begun == [("dma_copy", [k]) for k in range(3)]
    assert np.array_equal(np.concatenate([row for (row,) in seen.left]), b.arrays[0])


def test_what_every_listener_refuses_at_the_end_is_told_together():
    class Refusing(Listener):
        def finish(self):
            raise error("NKI-H010", "this is wrong")

    b = Builder()
    b.emit(dma_copy(b.output(3, 2), b.input(random(3, 2))))
    with pytest.raises(NkiError) as caught:
        b.run(listeners=[Refusing(), Refusing()])
    assert [d.code for d in caught.value.diagnostics] == ["NKI-H010"] * 2


def placed(instruction, line):
    instruction.stack = (Frame("kernel", Span("k.py", 1)), Frame("helper", Span("k.py", line)))
    return instruction


def test_errors_carry_the_users_stack():
    b = Builder()
    x, out, register = b.input(random(3, 2)), b.output(3, 2), b.register()
    b.emit(placed(register_move(register, 3), 4))
    b.emit(placed(dma_copy(at(out, register, size=1), at(x, register, size=1)), 5))
    with pytest.raises(NkiError) as caught:
        b.run()
    [found] = caught.value.diagnostics
    assert (found.code, found.span.line) == ("NKI-H001", 5)
    assert [frame.function for frame in found.stack] == ["kernel", "helper"]


def test_a_host_error_becomes_an_internal_diagnostic():
    class broken(tensor_copy):
        def compute(self, *inputs):
            raise ValueError("shapes do not match")

    b = Builder()
    b.emit(placed(broken(b.tensor(2, 2), b.tensor(2, 2)), 9))
    with pytest.raises(NkiInternalError, match=r"NKI-I002.*ValueError: shapes do not match") as caught:
        b.run()
    assert caught.value.diagnostics[0].span.line == 9


# --- speed


def fastest(work):
    """The least CPU time of this thread that `work` takes in five runs, in seconds."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


COUNT = 512


@pytest.mark.slow
def test_matmuls_cost_little_more_than_their_products():
    b = Builder()
    x, y = random(128, 128, dtype=ml_dtypes.bfloat16), random(128, 512, dtype=ml_dtypes.bfloat16)
    left, right = b.tensor(128, 128, dtype="bfloat16"), b.tensor(128, 512, dtype="bfloat16")
    acc = b.tensor(128, 512, region=PSUM)
    b.emit(dma_copy(left, b.input(x)), dma_copy(right, b.input(y)))
    for k in range(COUNT):
        b.emit(nc_matmul(acc, left, right, accumulate=k > 0))

    def products():
        total = np.zeros((128, 512), np.float32)
        for _ in range(COUNT):
            total += np.matmul(x.astype(np.float32).T, y.astype(np.float32))

    assert fastest(b.run) < 2 * fastest(products)


@pytest.mark.slow
def test_an_instruction_costs_microseconds_beyond_its_work():
    b, looped = Builder(), Builder()
    for builder in (b, looped):
        tile, source = builder.tensor(128, 128), builder.tensor(128, 128)
        if builder is b:
            b.emit(*(tensor_copy(tile, source) for _ in range(COUNT)))
        else:
            looped.loop(COUNT, body=lambda i, t=tile, s=source: looped.emit(tensor_copy(t, s)))

    def copies():
        target, values = (np.zeros((128, 512), np.float32)[:, :128] for _ in range(2))
        for _ in range(COUNT):
            np.copyto(target, values)

    bare = fastest(copies)
    assert (fastest(b.run) - bare) / COUNT < 30e-6  # planned once, run once; about 10 us when idle
    assert (fastest(looped.run) - bare) / COUNT < 10e-6  # about 2 us when idle
