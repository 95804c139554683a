"""The uses that the API page of nki.language shows, as kernels of our own."""

import ml_dtypes
import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import as_target

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def stored(tile):
    """`tile` in HBM."""
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


# --- tiles of one value, and of one value and a number


@nki.jit
def of_filled(function, values, columns=(24, 24, 24)):
    tiles = []
    for i in range(len(values)):
        tiles.append(nl.full((16, columns[i]), values[i], dtype=nl.float32, buffer=nl.sbuf))
    if len(tiles) == 1:
        return stored(function(tiles[0]))
    if len(tiles) == 2:
        return stored(function(tiles[0], tiles[1]))
    return stored(function(tiles[0], tiles[1], tiles[2]))


@nki.jit
def of_filled_and_number(function, value, number):
    return stored(function(nl.full((16, 24), value, dtype=nl.float32, buffer=nl.sbuf), number))


#: name: (the tiles' values, the result's), each use of its page.
FILLED = {
    "add": [((1.5, 4.0), 5.5)],
    "subtract": [((1.5, 4.0), -2.5)],
    "multiply": [((1.5, 4.0), 6.0)],
    "maximum": [((1.5, 4.0), 4.0)],
    "minimum": [((1.5, 4.0), 1.5)],
    "power": [((1.5, 2.0), 2.25)],
    "abs": [((-2.5,), 2.5)],
    "square": [((-2.5,), 6.25)],
    "exp": [((0.0,), 1.0)],
    "log": [((1.0,), 0.0)],
    "sqrt": [((6.25,), 2.5)],
    "rsqrt": [((0.25,), 2.0)],
    "reciprocal": [((8.0,), 0.125)],
    "sin": [((0.0,), 0.0)],
    "cos": [((0.0,), 1.0)],
    "tan": [((0.0,), 0.0)],
    "arctan": [((0.0,), 0.0)],
    "ceil": [((1.1,), 2.0), ((-1.9,), -1.0)],
    "floor": [((1.9,), 1.0), ((-1.1,), -2.0)],
    "trunc": [((1.9,), 1.0), ((-1.9,), -1.0)],
    "negative": [((2.5,), -2.5), ((-2.5,), 2.5)],
    "sign": [((-2.5,), -1.0)],
    "softmax": [((3.0,), 1 / 24)],
    "where": [((1.0, 7.0, 2.0), 7.0), ((0.0, 7.0, 2.0), 2.0)],
}
WITH_NUMBER = {
    "add": (1.5, 4.0, 5.5),
    "subtract": (1.5, 4.0, -2.5),
    "multiply": (1.5, 4.0, 6.0),
    "maximum": (1.5, 4.0, 4.0),
    "minimum": (1.5, 4.0, 1.5),
}


@pytest.mark.parametrize(
    "name, values, result", [(n, *use) for n, uses in FILLED.items() for use in uses], ids=str
)
def test_tiles_of_one_value(name, values, result):
    np.testing.assert_array_equal(of_filled(getattr(nl, name), values), np.full((16, 24), result, np.float32))


@pytest.mark.parametrize("name", WITH_NUMBER)
def test_a_tile_and_a_number(name):
    value, number, result = WITH_NUMBER[name]
    got = of_filled_and_number(getattr(nl, name), value, number)
    np.testing.assert_array_equal(got, np.full((16, 24), result, np.float32))


def test_abs_in_another_dtype():
    @nki.jit
    def kernel():
        return stored(nl.abs(nl.full((16, 24), -2.5, dtype=nl.float32), dtype=nl.float16))

    got = kernel()
    assert got.dtype == np.float16 and (got == 2.5).all()


@pytest.mark.parametrize(
    "name, wide, column, result",
    [
        ("abs_max", -7.0, 2.0, -7.0),
        ("abs_max", 2.0, -2.0, -2.0),  # of equal sizes the second
        ("abs_min", 7.0, -2.0, -2.0),
        ("abs_min", 2.0, -2.0, -2.0),
    ],
)
def test_a_tile_and_one_value_per_partition(name, wide, column, result):
    with runtime.session(target=as_target("trn3")):
        got = of_filled(getattr(nl, name), (wide, column), (24, 1))
    np.testing.assert_array_equal(got, np.full((16, 24), result, np.float32))
    with pytest.raises(NkiError, match="NeuronCore-v4; the target trn2"):
        of_filled(getattr(nl, name), (wide, column), (24, 1))


def test_rms_norm_of_equal_values_is_the_weights():
    @nki.jit
    def kernel():
        x, w = nl.full((16, 24), 4.0, dtype=nl.float32), nl.full((16, 24), 0.5, dtype=nl.float32)
        return stored(nl.rms_norm(x, w, axis=1, n=24))

    np.testing.assert_allclose(kernel(), 0.5, rtol=1e-6)


# --- through the tensor engine


@nki.jit
def product(x, y):
    return stored(nl.copy(nl.matmul(nl.load(x), nl.load(y), transpose_x=True)))


def test_copy_brings_a_product_from_psum_to_sbuf():
    x, y = random(64, 32), random(64, 40)
    np.testing.assert_allclose(product(x, y), x.T @ y, rtol=1e-4, atol=1e-4)


@nki.jit
def with_identity(x):
    identity = nl.shared_identity_matrix(n=64, dtype=nl.float32)
    turned = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=turned, src=nl.transpose(identity))
    same = nl.ndarray((64, 40), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=same, src=nl.matmul(identity, nl.load(x), transpose_x=True))
    return stored(identity), stored(turned), stored(same)


def test_the_identity_stays_what_it_is_and_leaves_what_it_is_multiplied_with():
    x = random(64, 40)
    identity, turned, same = with_identity(x)
    np.testing.assert_array_equal(identity, np.eye(64))
    np.testing.assert_array_equal(turned, identity)
    np.testing.assert_array_equal(same, x)


# --- random numbers


@nki.jit
def drawn():
    seed = nl.full((1, 1), 7, dtype=nl.int32, buffer=nl.sbuf)
    nl.random_seed(seed)
    first = nl.rand((32, 64), dtype=nl.float32)
    more = nl.rand((32, 64), dtype=nl.float32)
    nl.random_seed(seed)
    again = nl.rand((32, 64), dtype=nl.float32)
    return stored(first), stored(more), stored(again)


def test_a_seed_gives_its_numbers_again():
    first, more, again = drawn()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, more) and first.min() >= 0 and first.max() < 1


# --- order, loops


def test_instructions_of_a_block_keep_their_order():
    @nki.jit
    def kernel():
        with nl.no_reorder():
            a, b = nl.full((16, 24), 1.5, dtype=nl.float32), nl.full((16, 24), 4.0, dtype=nl.float32)
            c = nl.add(a, b)
        return stored(c)

    with runtime.session() as session:
        assert (kernel() == 5.5).all()
    first, second, third, _ = session.launches[0].program.walk()
    assert second.after == (first,) and third.after == (second,)


@nki.jit
def gathered(data, places):
    return stored(nl.gather_flattened(nl.load(data), nl.load(places)))


def test_elements_of_each_partition_by_their_numbers():
    data, places = random(16, 48), RNG.integers(0, 48, (16, 20)).astype(np.uint32)
    np.testing.assert_array_equal(gathered(data, places), np.take_along_axis(data, places.astype(int), 1))


@nki.jit
def squares(x, over):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in over(x.shape[1] // 16):
        part = nl.ds(i * 16, 16)
        tile = nl.load(x[:, part])
        nl.store(out[:, part], nl.multiply(tile, tile))
    return out


@pytest.mark.parametrize("name", ["affine_range", "sequential_range", "static_range"])
def test_tiles_one_after_the_other(name):
    x = random(16, 64)
    with runtime.session() as session:
        np.testing.assert_array_equal(squares(x, getattr(nl, name)), x * x)
    assert sum(i.opcode == "dma_copy" for i in session.launches[0].program.walk()) == 8  # unrolled


@pytest.mark.api("0.6")
def test_a_loop_that_runs_on_the_device():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for _ in nl.dynamic_range(1):
            tile = nl.load(x)
            nl.store(out, nl.multiply(tile, tile))
        return out

    x = random(16, 64)
    np.testing.assert_array_equal(kernel(x), x * x)


@nki.jit
def first_elements(x, count):
    """The first `count` elements of a row, 0 after them."""
    on_chip = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=on_chip, src=count)
    bound = nisa.register_alloc()
    nisa.register_load(bound, on_chip)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=nl.zeros(x.shape, dtype=x.dtype, buffer=nl.sbuf))
    one = nl.ndarray((1, 1), dtype=x.dtype, buffer=nl.sbuf)

    def body(i):
        nisa.dma_copy(dst=one, src=x.ap([[1, 1], [1, 1]], scalar_offset=i, indirect_dim=1))
        nisa.dma_copy(dst=out.ap([[1, 1], [1, 1]], scalar_offset=i, indirect_dim=1), src=one)

    nl.fori_loop(0, bound, body)
    return out


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_fori_loop_has_a_bound_known_at_run_time(count):
    x = random(1, 8)
    np.testing.assert_array_equal(
        first_elements(x, np.array([[count]], np.int32)), np.where(np.arange(8) < count, x, 0)
    )


@nki.jit
def repeated_sum(x, count):
    value, total = nl.load(x), nl.zeros((1, 1), dtype=nl.float32, buffer=nl.sbuf)
    left, one = nl.load(count), nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(dst=one, value=1)
    flag = nisa.register_alloc()
    nisa.register_load(flag, left)

    def body(register):
        nisa.tensor_tensor(dst=total, data1=total, data2=value, op=nl.add)
        nisa.tensor_tensor(dst=left, data1=left, data2=one, op=nl.subtract)
        nisa.register_load(register, left)
        return register

    nl.while_loop(flag, body)
    return stored(total)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_while_loop_goes_on_while_its_register_is_not_zero(count):
    got = repeated_sum(np.full((1, 1), 1.25, np.float32), np.array([[count]], np.int32))
    assert got[0, 0] == 1.25 * count


# --- views


def view_of(t, kind):
    if kind == "slice of a dimension":
        return t[:, 0:4]
    elif kind == "step":
        return t[:, 0:8:2]
    elif kind == "last selected":
        return t[..., 0]
    elif kind == "partitions from a place":
        return t[nl.ds(32, 8), :]
    elif kind == "permute":
        return t.permute((0, 2, 1))
    elif kind == "broadcast":
        return t.broadcast(1, 5)
    elif kind == "expand_dim":
        return t.expand_dim(1)
    elif kind == "squeeze_dim":
        return t.squeeze_dim(1)
    elif kind == "reshape_dim":
        return t.reshape_dim(1, (3, 4))
    elif kind == "reshape_dim, a size left out":
        return t.reshape_dim(1, (3, -1))
    elif kind == "flatten_dims":
        return t.flatten_dims(1, 2)
    elif kind == "reshape, merged":
        return t.reshape((8, 24))
    elif kind == "reshape, split":
        return t.reshape((8, 2, 12))
    elif kind == "rearrange":
        return t.rearrange(("p", ("a", "b")), ("p", "b", "a"), {"a": 3})
    elif kind == "slice":
        return t.slice(1, 2, 10, 1)
    elif kind == "slice, a step":
        return t.slice(1, 0, 12, 3)
    elif kind == "select":
        return t.select(1, 3)
    elif kind == "ap":
        return t.ap(pattern=[[12, 8], [1, 12]])
    elif kind == "bytes":
        return t.view(nl.uint8)
    elif kind == "another type":
        return t.view(nl.int32)
    elif kind == "numbers of bytes":
        return t.view(nl.uint8).view(nl.float32)


@nki.jit
def viewed(x, kind):
    return stored(nl.copy(view_of(nl.load(x), kind)))


#: The shape that is viewed, and numpy's view of it.
VIEWS = {
    "slice of a dimension": ((8, 12), lambda x: x[:, 0:4]),
    "step": ((8, 12), lambda x: x[:, 0:8:2]),
    "last selected": ((8, 4, 12), lambda x: x[..., 0]),
    "partitions from a place": ((64, 12), lambda x: x[32:40]),
    "permute": ((8, 4, 6), lambda x: x.transpose(0, 2, 1)),
    "broadcast": ((8, 1, 6), lambda x: np.repeat(x, 5, 1)),
    "expand_dim": ((8, 6), lambda x: x[:, None]),
    "squeeze_dim": ((8, 1, 6), lambda x: x[:, 0]),
    "reshape_dim": ((8, 12), lambda x: x.reshape(8, 3, 4)),
    "reshape_dim, a size left out": ((8, 12), lambda x: x.reshape(8, 3, 4)),
    "flatten_dims": ((8, 2, 3, 4), lambda x: x.reshape(8, 6, 4)),
    "reshape, merged": ((8, 4, 6), lambda x: x.reshape(8, 24)),
    "reshape, split": ((8, 4, 6), lambda x: x.reshape(8, 2, 12)),
    "rearrange": ((8, 12), lambda x: x.reshape(8, 3, 4).transpose(0, 2, 1)),
    "slice": ((8, 12), lambda x: x[:, 2:10]),
    "slice, a step": ((8, 12), lambda x: x[:, ::3]),
    "select": ((8, 5, 6), lambda x: x[:, 3]),
    "ap": ((8, 12), lambda x: x),
    "bytes": ((8, 12), lambda x: x.view(np.uint8)),
    "another type": ((8, 12), lambda x: x.view(np.int32)),
    "numbers of bytes": ((8, 12), lambda x: x),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_views_hold_the_elements_they_name(kind):
    shape, expected = VIEWS[kind]
    x = random(*shape)
    np.testing.assert_array_equal(viewed(x, kind), expected(x))


@nki.jit
def picked(table, place, rows):
    index = nl.load(place)
    whole = nl.ndarray(table.shape[1:], dtype=table.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=whole, src=table.select(0, index))
    each = nl.ndarray((16, table.shape[1], table.shape[2]), dtype=table.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=each, src=table.vector_select(0, nl.load(rows)))
    return stored(whole), stored(each)


def test_selection_by_what_is_known_at_run_time():
    table, rows = random(20, 8, 6), RNG.integers(0, 20, (16, 1)).astype(np.int32)
    whole, each = picked(table, np.array([[13]], np.int32), rows)
    np.testing.assert_array_equal(whole, table[13])
    np.testing.assert_array_equal(each, table[rows[:, 0]])


@nki.jit
def half_words(x, place):
    """bfloat16 words of a float32 tile, from a column (of float32) that a register gives."""
    register = nisa.register_alloc()
    nisa.register_load(register, nl.load(place))
    tile = nl.load(x)
    words = tile.ap(pattern=[[24, 8], [1, 4]], dtype=nl.bfloat16, scalar_offset=register, indirect_dim=1)
    out = nl.ndarray((8, 4), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=words)
    return stored(out)


def test_a_pattern_with_an_offset_and_a_dtype_of_its_own():
    x = random(8, 12)
    got = half_words(x, np.array([[6]], np.int32))
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got.view(np.uint16), x.view(np.uint16)[:, 12:16])


# --- a tensor of one element


@pytest.mark.parametrize("make", [nl.ones, nl.zeros, nl.ndarray])
def test_one_element_on_chip_may_be_given_as_one_size(make):
    @nki.jit
    def kernel():
        bound = make([1], dtype=nl.int32, buffer=nl.sbuf)
        return bound.shape

    assert kernel() == (1, 1)


def test_other_shapes_of_one_size_are_refused_on_chip():
    @nki.jit
    def kernel():
        nl.ones([4], dtype=nl.int32, buffer=nl.sbuf)

    with pytest.raises(NkiError, match=r"NKI-V120.*write shape \(4, 1\)"):
        kernel()


# --- memory regions, sizes


@pytest.mark.parametrize(
    "region, hbm, on_chip, sbuf, psum",
    [
        ("sbuf", False, True, True, False),
        ("psum", False, True, False, True),
        ("private_hbm", True, False, False, False),
        ("shared_hbm", True, False, False, False),
        ("hbm", True, False, False, False),
    ],
)
def test_predicates_of_memories(region, hbm, on_chip, sbuf, psum):
    @nki.jit
    def kernel(buffer):
        t = nl.ndarray((4, 4), dtype=nl.float32, buffer=buffer)
        return nl.is_hbm(t.buffer), nl.is_on_chip(t.buffer), nl.is_sbuf(t.buffer), nl.is_psum(t.buffer)

    assert kernel(getattr(nl, region)) == (hbm, on_chip, sbuf, psum)
    assert nl.hbm is nl.private_hbm


@pytest.mark.parametrize("target, sbuf_kib", [("trn1", 192), ("trn2", 224), ("trn3", 256)])
def test_sizes_of_tiles(target, sbuf_kib):
    @nki.jit
    def kernel():
        t = nl.tile_size
        return (
            (t.pmax, t.psum_bank_fmax, t.psum_bank_fmax_bytes, t.psum_num_banks),
            (t.gemm_stationary_fmax, t.gemm_moving_fmax, t.bn_stats_fmax),
            (t.psum_min_align, t.sbuf_min_align),
            (t.sbuf_size_bytes, t.sbuf_fmax_bytes <= sbuf_kib << 10, t.sbuf_fmax * 4 - t.sbuf_fmax_bytes),
        )

    with runtime.session(target=as_target(target)):
        got = kernel()
    assert got == ((128, 512, 2048, 8), (128, 512, 512), (4, 1), (128 * sbuf_kib << 10, True, 0))
