"""Run-time offsets of ``.ap`` on every kind of view, against addresses that the test works out by itself.

A view is followed by doing to the numbers of the elements, as an array of numpy, what is done to the tensor:
the step of a dimension is the difference of two neighbours along it, the start the first number.
"""

from itertools import product

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from programs import SBUF, Builder

from nki_isa.ir.instruction import REGISTRY

dma_copy, register_move, tensor_copy = (
    REGISTRY[name] for name in ("dma_copy", "register_move", "tensor_copy")
)


def sliced(draw, tensor, numbers, first):
    dim = draw(st.integers(first, numbers.ndim - 1))
    start = draw(st.integers(0, numbers.shape[dim] - 1))
    stop = draw(st.integers(start + 1, numbers.shape[dim]))
    key = [slice(None)] * numbers.ndim
    key[dim] = slice(start, stop, draw(st.integers(1, 3)))
    return tensor[tuple(key)], numbers[tuple(key)]


def permuted(draw, tensor, numbers, first):
    order = [*range(first), *draw(st.permutations(range(first, numbers.ndim)))]
    return tensor.permute(order), numbers.transpose(order)


def selected(draw, tensor, numbers, first):
    assume(numbers.ndim > 2)
    dim = draw(st.integers(first, numbers.ndim - 1))
    index = draw(st.integers(0, numbers.shape[dim] - 1))
    return tensor.select(dim, index), numbers.take(index, dim)


def split(draw, tensor, numbers, first):
    dim = draw(st.integers(first, numbers.ndim - 1))
    sizes = [n for n in range(1, numbers.shape[dim] + 1) if numbers.shape[dim] % n == 0]
    outer = draw(st.sampled_from(sizes))
    shape = (*numbers.shape[:dim], outer, numbers.shape[dim] // outer, *numbers.shape[dim + 1 :])
    return tensor.reshape_dim(dim, shape[dim : dim + 2]), numbers.reshape(shape)


def expanded(draw, tensor, numbers, first):
    dim = draw(st.integers(first, numbers.ndim))
    return tensor.expand_dim(dim), np.expand_dims(numbers, dim)


def repeated(draw, tensor, numbers, first):
    dims = [dim for dim in range(first, numbers.ndim) if numbers.shape[dim] == 1]
    assume(dims)
    shape = list(numbers.shape)
    shape[draw(st.sampled_from(dims))] = 3
    dim = next(d for d, (a, b) in enumerate(zip(shape, numbers.shape, strict=True)) if a != b)
    return tensor.broadcast(dim, 3), np.broadcast_to(numbers, shape)


VIEWS = (sliced, permuted, selected, split, expanded, repeated)


@st.composite
def bases(draw, on_chip):
    """A Builder, a view of a tensor of its own, the numbers of its elements, and all there are."""
    b = Builder()
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=3)))
    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    tensor = b.input(numbers)
    if on_chip:
        tile = b.tensor(*shape, dtype="int32", region=SBUF)
        b.emit(dma_copy(tile, tensor))
        tensor = tile
    whole = numbers.size
    for make in draw(st.lists(st.sampled_from(VIEWS), max_size=3)):
        tensor, numbers = make(draw, tensor, numbers, int(on_chip))
    return b, tensor, numbers, whole


def step_of(numbers, dim):
    """Elements from one position of a dimension to the next; 0 where there is only one, at index 0."""
    if numbers.shape[dim] == 1:
        return 0
    first = numbers[(0,) * numbers.ndim]
    return int(numbers[tuple(int(d == dim) for d in range(numbers.ndim))] - first)


def addresses(pattern, start):
    """The elements that a pattern reads, in its shape."""
    shape = [count for _, count in pattern]
    steps = [step for step, _ in pattern]
    flat = [start + sum(i * s for i, s in zip(at, steps, strict=True)) for at in product(*map(range, shape))]
    return np.array(flat).reshape(shape)


def patterns(draw, dims):
    pair = st.tuples(st.integers(-7, 7), st.integers(1, 4))
    return [list(draw(pair)) for _ in range(dims)]


def inside(found, whole):
    return found.min() >= 0 and found.max() < whole


def started(draw, numbers):
    """What `offset` is, and the element it means: the view's own without one."""
    offset = draw(st.none() | st.integers(0, 8))
    return offset, int(numbers[(0,) * numbers.ndim]) if offset is None else offset


def indices(b, values):
    """Indices in SBUF, one to a partition."""
    tile = b.tensor(len(values), 1, dtype="int32", region=SBUF)
    b.emit(dma_copy(tile, b.input(np.array(values, np.int32)[:, None])))
    return tile


def moved(b, view, expected, scattered, whole):
    """Copies through the view, as source or as destination, and compares with the addresses."""
    if scattered:
        values = np.arange(1, expected.size + 1, dtype=np.int32).reshape(expected.shape)
        b.emit(dma_copy(view, b.input(values)))
        wanted = np.arange(whole, dtype=np.int32)
        for address, value in zip(expected.reshape(-1), values.reshape(-1), strict=True):
            wanted[address] = value
        done = b.run()
        result = dict(done.updated_inputs)[0].reshape(-1)
        assert np.array_equal(result, wanted)
        return
    out = b.output(*expected.shape, dtype="int32")
    b.emit(dma_copy(out, view))
    assert np.array_equal(b.run().outputs[0], expected)


def distinct(expected):
    return len(np.unique(expected)) == expected.size


@given(st.data(), bases(on_chip=False), st.booleans(), st.booleans())
def test_scalar_offsets_in_hbm(data, base, in_register, scattered):
    """From a register or a tensor, in any dimension: the index times the step of that dimension."""
    b, tensor, numbers, whole = base
    dim = data.draw(st.integers(0, numbers.ndim - 1))
    step = step_of(numbers, dim)
    index = data.draw(st.integers(0, numbers.shape[dim] - 1))
    pattern = patterns(data.draw, data.draw(st.integers(2, 3)))
    offset, start = started(data.draw, numbers)
    expected = addresses(pattern, start + index * step)
    assume(inside(expected, whole) and inside(addresses(pattern, start), whole))
    assume(not scattered or distinct(expected))
    if in_register:
        where = b.register()
        b.emit(register_move(where, index))
    else:
        where = indices(b, [index])
    view = tensor.ap(pattern, offset, scalar_offset=where, indirect_dim=dim)
    moved(b, view, expected, scattered, whole)


@given(st.data(), bases(on_chip=False), st.booleans())
def test_vector_offsets_in_hbm(data, base, scattered):
    """Row p of the pattern is at index p times the step of the dimension."""
    b, tensor, numbers, whole = base
    dims = [dim for dim in range(numbers.ndim) if np.prod(numbers.shape[:dim]) == 1]
    dim = data.draw(st.sampled_from(dims))
    count = data.draw(st.integers(1, 5))
    chosen = data.draw(st.lists(st.integers(0, numbers.shape[dim] - 1), min_size=count, max_size=count))
    pattern = [[data.draw(st.integers(0, 7)), count], *patterns(data.draw, data.draw(st.integers(1, 2)))]
    offset, start = started(data.draw, numbers)
    rows = [addresses(pattern[1:], start + index * step_of(numbers, dim)) for index in chosen]
    expected = np.stack(rows)
    assume(inside(expected, whole) and inside(addresses(pattern, start), whole))
    assume(not scattered or distinct(expected))
    view = tensor.ap(pattern, offset, vector_offset=indices(b, chosen), indirect_dim=dim)
    moved(b, view, expected, scattered, whole)


@given(st.data(), bases(on_chip=True), st.booleans())
def test_scalar_offsets_on_chip(data, base, in_register):
    """In a free dimension; the first pair steps by whole partitions."""
    b, tensor, numbers, whole = base
    dim = data.draw(st.integers(1, numbers.ndim - 1))
    step = step_of(numbers, dim)
    index = data.draw(st.integers(0, numbers.shape[dim] - 1))
    row = whole // tensor.storage.shape[0]
    first = int(numbers[(0,) * numbers.ndim])
    partitions = data.draw(st.integers(1, numbers.shape[0]))
    pattern = [[row, partitions], *patterns(data.draw, data.draw(st.integers(1, 2)))]
    steps = addresses(pattern[1:], first % row)
    assume(inside(steps, row) and inside(steps + index * step, row))
    if in_register:
        where = b.register()
        b.emit(register_move(where, index))
    else:
        where = indices(b, [index])
    view = tensor.ap(pattern, scalar_offset=where, indirect_dim=dim)
    moved(b, view, addresses(pattern, first + index * step), False, whole)


def test_vector_offsets_along_a_repeated_dimension():
    """Its step is 0, so every index names the same row."""
    b = Builder()
    tensor = b.input(np.arange(4, dtype=np.int32)[None]).broadcast(0, 3)
    view = tensor.ap([[4, 2], [1, 4]], vector_offset=indices(b, [1, 2]), indirect_dim=0)
    moved(b, view, np.array([[0, 1, 2, 3]] * 2), False, 4)
