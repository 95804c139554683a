"""The uses that the API page of nki.isa shows, as kernels of our own."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.machine.operators import erf64
from nki_isa.machine.targets import TRN3, as_target

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def stored(tile):
    """`tile` in HBM."""
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def loaded(tensor):
    """`tensor` in SBUF."""
    tile = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=tensor)
    return tile


# --- DMA


@nki.jit
def gather_rows(table, rows):
    count, width = rows.shape[0], table.shape[1]
    picked = nl.ndarray((count, width), dtype=table.dtype, buffer=nl.sbuf)
    chosen = table.ap(pattern=[[width, count], [1, width]], vector_offset=loaded(rows), indirect_dim=0)
    nisa.dma_copy(dst=picked, src=chosen)
    return stored(picked)


@nki.jit
def scatter_rows(values, rows, table):
    count, width = values.shape
    chosen = table.ap(pattern=[[width, count], [1, width]], vector_offset=loaded(rows), indirect_dim=0)
    nisa.dma_copy(dst=chosen, src=loaded(values))
    return table


def test_gather_and_scatter_by_indices():
    table, rows = random(40, 24), RNG.permutation(40)[:16].astype(np.uint32)[:, None]
    picked = gather_rows(table, rows)
    assert np.array_equal(picked, table[rows[:, 0]])
    expected = table.copy()
    expected[rows[:, 0]] = 2 * picked
    assert np.array_equal(scatter_rows(2 * picked, rows, table.copy()), expected)


@nki.jit
def gather_transposed(table, rows):
    count, width = rows.shape[0] * rows.shape[1], table.shape[1]
    turned = nl.ndarray((width, count), dtype=table.dtype, buffer=nl.sbuf)
    nisa.memset(dst=turned, value=0)
    chosen = table.ap(pattern=[[width, count], [1, width]], vector_offset=loaded(rows), indirect_dim=0)
    nisa.dma_transpose(dst=turned, src=chosen, axes=(1, 0))
    return stored(turned)


@pytest.mark.parametrize("columns", [1, 2])
def test_gathering_transposes_take_indices_column_by_column(columns):
    table = random(300, 64).astype(ml_dtypes.bfloat16)
    rows = RNG.integers(0, 300, (128, columns)).astype(np.uint32)
    assert np.array_equal(gather_transposed(table, rows), table[rows.T.reshape(-1)].T)


@nki.jit
def gather_transposed_blocks(table, rows):
    _, one, middle, last = table.shape
    count = 128 * rows.shape[1]
    turned = nl.ndarray((last, one, middle, count), dtype=table.dtype, buffer=nl.sbuf)
    nisa.memset(dst=turned, value=0)
    pattern = [[one * middle * last, count], [middle * last, one], [last, middle], [1, last]]
    nisa.dma_transpose(
        dst=turned,
        src=table.ap(pattern=pattern, vector_offset=loaded(rows), indirect_dim=0),
        axes=(3, 1, 2, 0),
    )
    return stored(turned)


def test_gathering_transposes_of_four_dimensions():
    table = random(150, 1, 3, 32).astype(ml_dtypes.bfloat16)
    rows = RNG.integers(0, 150, (128, 2)).astype(np.uint32)
    expected = table[rows.T.reshape(-1)].transpose(3, 1, 2, 0)
    assert np.array_equal(gather_transposed_blocks(table, rows), expected)


# --- engines


@nki.jit
def tiled_product(a, b):
    depth, rows = a.shape
    total = nl.ndarray((rows, b.shape[1]), dtype=nl.float32, buffer=nl.psum)
    for k in nl.static_range(depth // 128):
        part = nl.ds(128 * k, 128)
        nisa.nc_matmul(
            dst=total, stationary=loaded(a[part, :]), moving=loaded(b[part, :]), accumulate=(k > 0)
        )
    out = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=total)
    return stored(out)


def test_a_product_accumulates_over_tiles_of_its_depth():
    a, b = random(512, 64), random(512, 96)
    np.testing.assert_allclose(tiled_product(a, b), a.T @ b, rtol=1e-4, atol=1e-4)


@nki.jit
def scaled_gelu(x):
    tile = loaded(x)
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activate2(dst=out, op=nl.gelu, data=tile, imm0=3.0, imm1=-0.25, op0=nl.multiply, op1=nl.add)
    return stored(out)


def test_activate2_scales_shifts_and_applies_a_function():
    x = random(128, 40)
    with runtime.session(target=TRN3):
        got = scaled_gelu(x)
    y = 3 * x - np.float32(0.25)
    np.testing.assert_allclose(got, y * 0.5 * (1 + erf64(y / np.sqrt(2.0))), rtol=1e-5, atol=1e-6)


@nki.jit
def nonzero_places(x):
    tile = loaded(x)
    out = nl.ndarray((x.shape[0], x.shape[1] + 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=out, value=0)
    nisa.nonzero_with_count(dst=out, src=tile, index_offset=100, padding_val=-7)
    return stored(out)


def test_nonzero_places_come_first_then_padding_then_their_count():
    x = np.zeros((32, 6), np.int32)
    x[0, [1, 4]], x[16, 0] = 5, -1
    got = nonzero_places(x)
    assert got[0].tolist() == [101, 104, -7, -7, -7, -7, 2]
    assert got[16].tolist() == [100, -7, -7, -7, -7, -7, 1]


@nki.jit
def largest(x):
    src = loaded(x)
    values = nl.ndarray((x.shape[0], 4), dtype=nl.bfloat16, buffer=nl.sbuf)
    places = nl.ndarray((x.shape[0], 4), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.topk(val_dst=values, idx_dst=places, src=src, n=30)
    return stored(values), stored(places)


def test_the_largest_of_a_list_over_16_partitions():
    x = random(32, 2).astype(ml_dtypes.bfloat16)
    values, places = largest(x)
    for group in range(2):
        flat = x[16 * group : 16 * group + 16].T.reshape(-1)[:30].astype(np.float32)
        top = np.sort(flat)[-4:]
        assert sorted(values[16 * group].astype(np.float32)) == top.tolist()
        assert np.array_equal(flat[places[16 * group]], values[16 * group].astype(np.float32))


# --- registers and loops


@nki.jit
def squares(x, repeat):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    count = nisa.register_alloc(repeat)
    for _ in nl.dynamic_range(count):
        tile = nl.load(x[0:128, 0:16])
        nl.store(out[0:128, 0:16], nl.multiply(tile, tile))
    return out


def test_a_register_bounds_a_loop():
    x = random(128, 16)
    assert np.array_equal(squares(x, 2), x * x)


@nki.jit
def halve_while(x):
    tile = loaded(x)
    go_on = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=go_on, value=1)
    condition = nisa.register_alloc()
    nisa.register_load(condition, go_on)
    while condition:
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=0.5)
        nisa.tensor_scalar(dst=go_on, data=tile[0:1, 0:1], op0=nl.greater, operand0=1.0)
        nisa.register_load(condition, go_on)
    return stored(tile)


def test_a_register_ends_a_loop():
    assert halve_while(np.full((4, 4), 40.0, np.float32))[0, 0] == 0.625


@nki.jit
def registers():
    zero, loaded_zero = nisa.register_alloc(0), nisa.register_alloc(None)
    nisa.register_load(loaded_zero, nl.zeros([1, 1], dtype=nl.int32, buffer=nl.sbuf))
    ten, copy = nisa.register_alloc(), nisa.register_alloc()
    nisa.register_move(ten, 10)
    nisa.register_move(copy, ten)
    bound = nisa.register_alloc()
    nisa.register_load(bound, nl.ones([1], dtype=nl.int32, buffer=nl.sbuf))
    out = nl.ndarray((1, 5), dtype=nl.int32, buffer=nl.sbuf)
    filled = (zero, loaded_zero, ten, copy, bound)
    for k in range(len(filled)):
        nisa.register_store(out[0:1, k : k + 1], filled[k])
    return stored(out)


def test_registers_are_set_moved_loaded_and_stored():
    assert registers().tolist() == [[0, 0, 10, 10, 1]]


# --- two cores, and order


@nki.jit
def halves(x):
    whole = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    core, half = nl.program_id(0), x.shape[0] // 2
    part = nl.ds(core * half, half)
    nisa.dma_copy(dst=whole[part, :], src=loaded(x[part, :]))
    nisa.core_barrier(data=whole, cores=(0, 1))
    other = loaded(whole[nl.ds((1 - core) * half, half), :])  # what the other core wrote
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[part, :], src=other)
    return out


def test_a_barrier_shows_the_other_core_s_half():
    x = random(64, 8)
    assert np.array_equal(halves[2](x), np.roll(x, 32, axis=0))


@nki.jit
def exchange(x):
    cores, rank = nl.num_programs(), nl.program_id(0)
    size = x.shape[0] // 2
    mine = loaded(x[nl.ds(rank * size, size), :])
    theirs = nl.ndarray(mine.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.sendrecv(
        src=mine, dst=theirs, send_to_rank=(rank + 1) % cores, recv_from_rank=(rank - 1) % cores, pipe_id=0
    )
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[nl.ds(rank * size, size), :], src=theirs)
    return out


def test_two_cores_exchange_tiles():
    x = random(64, 8)
    assert np.array_equal(exchange[2](x), np.roll(x, 32, axis=0))


@nki.jit
def ordered(x, chained):
    tile = loaded(x)
    a = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    b = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    c = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    first = nisa.tensor_copy(dst=a, src=tile)
    second = nisa.tensor_scalar(dst=b, data=tile, op0=nl.add, operand0=1.0)
    third = nisa.activation(dst=c, op=nl.copy, data=tile)
    if chained:
        third.depends_on(second).depends_on(first)
    else:
        third.depends_on(second, first)
    return stored(a), stored(b), stored(c)


@pytest.mark.parametrize("chained", [False, True])
def test_dependencies_are_given_at_once_or_one_by_one(chained):
    x = random(8, 8)
    with runtime.session() as session:
        a, b, c = ordered(x, chained)
    assert np.array_equal(a, x) and np.array_equal(b, x + 1) and np.array_equal(c, x)
    (third,) = [i for i in session.launches[0].program.walk() if i.opcode == "activation"]
    assert {i.opcode for i in third.after} == {"tensor_copy", "tensor_scalar"}


# --- names that are not instructions


def test_versions_of_the_core():
    @nki.jit
    def kernel(x):
        newer = nisa.get_nc_version() >= nisa.nc_version.gen3
        assert nisa.get_nc_sub_version() == 0
        tile = loaded(x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0 if newer else 2.0)
        return stored(tile)

    for target, added in (("trn1", 2), ("trn2", 1), ("trn3", 1)):
        with runtime.session(target=as_target(target)):
            assert kernel(np.zeros((1, 1), np.float32)) == added


def test_a_broken_rule_is_an_exception_users_can_catch():
    @nki.jit
    def kernel(x):
        tile = loaded(x)
        nisa.tensor_copy(dst=tile[0:2, :], src=tile)
        return stored(tile)

    assert issubclass(nisa.NkiValidationError, Exception)
    with pytest.raises(nisa.NkiValidationError) as found:
        kernel(np.zeros((4, 4), np.float32))
    assert [d.code for d in found.value.diagnostics] == ["NKI-V103"]


@pytest.mark.parametrize("name", ["tensor", "vector", "scalar", "gpsimd", "unknown"])
def test_engines_have_their_old_names(name):
    assert getattr(nisa, f"{name}_engine") is nisa.engine[name]


def test_handles_and_registers_are_classes():
    assert isinstance(nisa.NkiInstruction, type) and isinstance(nisa.VirtualRegister, type)
