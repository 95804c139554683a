"""Tiles for instruction tests: tensors with contents, random views of them, and running one instruction."""

import numpy as np
from hypothesis import strategies as st

from nki_isa.ir.fields import Role
from nki_isa.machine.dtypes import DTYPES, cast
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN2
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

SBUF, PSUM, HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm
FLOATS = ["float32", "bfloat16", "float16", "float8_e4m3", "float8_e5m2"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32"]
NUMERIC = FLOATS + INTEGERS


def tensor(*shape, dtype="float32", region=SBUF, address=None, contents=None):
    """A whole tensor of its own storage."""
    storage = Storage(0, "t", region, shape, DTYPES[dtype], address)
    if contents is not None:
        storage.data = np.ascontiguousarray(contents).tobytes()
    return NkiTensor.whole(storage)


def view(of, shape, strides, offset=0):
    """A view of the storage of `of`."""
    return NkiTensor(tuple(shape), tuple(strides), offset, of.dtype, of.storage, of.dynamic)


def array_of(t, memory):
    """The numpy view of tensor `t` over the bytes `memory` holds for its storage."""
    size = t.dtype.itemsize
    octets = memory[id(t.storage)].view(np.uint8)
    return np.ndarray(t.shape, t.dtype.numpy, octets, t.offset * size, [n * size for n in t.strides])


def contents_of(t):
    """The bytes of the storage: its initial contents, or zeros."""
    octets = t.storage.data or bytes(t.storage.partitions * t.storage.row_bytes)
    return np.frombuffer(octets, np.uint8).copy()


class State:
    """Engine state as execution keeps it."""

    def __init__(self):
        self.target = TRN2
        self.accumulators = {e: np.zeros(128, np.float32) for e in Engine}
        self.rng = {}
        self.arguments = None
        self.silent = False


def run(instruction, state=None, registers=None, check=TRN2):
    """Execute one instruction on the contents of its storages; the stored values of each operand written.

    Returns:
        One array for each written operand that is given, a single array if there is one.
    """
    if check is not None:
        instruction.check(check)
    memory = {}
    for _, value in instruction.operands():
        for t in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(t, NkiTensor) and id(t.storage) not in memory:
                memory[id(t.storage)] = contents_of(t)
    inputs, outputs = [], []
    for name, field in instruction.fields.items():
        value = instruction.__dict__[name]
        if field.role is Role.attribute:
            continue
        if field.role in (Role.write, Role.read_write):
            outputs.append(None if value is None else instruction.destination(value))
        if field.role is not Role.write:
            if isinstance(value, NkiTensor):
                value = array_of(value, memory)
            elif isinstance(value, list):
                value = [array_of(v, memory) for v in value]
            elif isinstance(value, VirtualRegister):
                value = registers[value.index]
            inputs.append(value)
    arguments = ([state or State()] if instruction.stateful else []) + inputs
    results = instruction.compute(*arguments)
    if len(outputs) == 1:
        results = [results]
    found = []
    for t, result in zip(outputs, results, strict=True):
        if t is not None:
            stored = cast(np.asarray(result), t.dtype)
            assert stored.dtype == t.dtype.numpy
            # An instruction reads everything before it writes.
            target = array_of(t, memory)
            target[...] = np.array(stored).reshape(t.shape) if stored.size > 1 else stored.reshape(-1)[0]
            found.append(target.copy())
    return found[0] if len(found) == 1 else found


# --- strategies


def values(dtype, size, seed):
    """`size` stored values of `dtype`, with zeros, negatives and equal neighbours among them."""
    generator = np.random.default_rng(seed)
    row = DTYPES[dtype]
    if row.kind == "float":
        return cast(
            (generator.standard_normal(size) * generator.choice([0, 1, 1, 7], size)).astype(np.float32), row
        )
    if row.kind == "bool":
        return generator.integers(0, 2, size).astype(np.bool_)
    info = np.iinfo(row.numpy)
    small = generator.integers(-5 if info.min < 0 else 0, 6, size)
    wide = generator.integers(info.min, info.max, size, endpoint=True)
    return np.where(generator.random(size) < 0.5, small, wide).astype(row.numpy)


@st.composite
def tiles(draw, shape, dtype, region=SBUF):
    """A tensor of `shape` that is some view of a larger random storage.

    Its free dimensions start anywhere and lie in any order, each with gaps, repeated (stride 0) or, with
    the one after it, as windows that overlap.
    """
    seed = draw(st.integers(0, 2**32 - 1))
    partitions, free = shape[0], shape[1:]
    strides = [0] * len(free)
    length = 1  # elements of a row that the dimensions placed so far reach over
    for k in draw(st.permutations(range(len(free)))):
        kind = draw(st.sampled_from(["next to each other", "with gaps", "repeated", "overlapping"]))
        steps = {"next to each other": length, "with gaps": length + draw(st.integers(1, 3)), "repeated": 0}
        strides[k] = steps.get(kind, draw(st.integers(1, length)))
        length += strides[k] * (free[k] - 1)
    offset = draw(st.integers(0, 2))
    storage_shape = (partitions, offset + length + draw(st.integers(0, 2)))
    whole = tensor(*storage_shape, dtype=dtype, region=region, contents=values(dtype, storage_shape, seed))
    return view(whole, shape, (storage_shape[1], *strides), offset)


_SMALL = st.integers(1, 12)
_DIMS = st.integers(1, 3)
_PARTITIONS = st.sampled_from([1, 2, 31, 32, 64, 128])


def shapes(free=_SMALL, dims=_DIMS):
    """Tile shapes: partitions, then one to three free sizes."""
    return st.builds(lambda p, f: (p, *f), _PARTITIONS, dims.flatmap(lambda d: st.tuples(*[free] * d)))


def plain(t):
    """The contents of a tensor as a numpy array of its shape."""
    return np.array(array_of(t, {id(t.storage): contents_of(t)}))


def fp32(t):
    """The contents of a tensor as float32."""
    return plain(t).astype(np.float32)


def same(got, expected):
    """Equal values, NaN equal to NaN."""
    np.testing.assert_array_equal(got.astype(np.float64), np.asarray(expected).astype(np.float64))


def dst_of(shape, dtype="float32", region=SBUF):
    """An empty destination."""
    return tensor(*shape, dtype=dtype, region=region)


def gathered(of, count=128, dtype="uint32", columns=1):
    """Rows of `of` that run-time indices select."""
    index = tensor(count // columns, columns, dtype=dtype)
    dynamic = DynamicOffset("vector", index, of.strides[0], 0, of.shape[0])
    return NkiTensor((count, *of.shape[1:]), (0, *of.strides[1:]), of.offset, of.dtype, of.storage, dynamic)


def shifted(of):
    """`of` at a run-time offset."""
    dynamic = DynamicOffset("scalar", VirtualRegister(0), of.strides[0], -1, of.shape[0])
    return NkiTensor(of.shape, of.strides, of.offset, of.dtype, of.storage, dynamic)
