"""Element-wise instructions against plain numpy, over random shapes, data types and access patterns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiles import (
    FLOATS,
    INTEGERS,
    NUMERIC,
    PSUM,
    SBUF,
    dst_of,
    fp32,
    plain,
    run,
    same,
    shapes,
    tensor,
    tiles,
    values,
)

from nki_isa.diagnostics import NkiError
from nki_isa.machine.dtypes import DTYPES, cast, integer_range
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.ops.elementwise import memset, reciprocal, tensor_copy, tensor_tensor
from nki_isa.ops.tensor_scalar import scalar_tensor_tensor, tensor_scalar

NUMPY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
BITS = {"bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor}
regions = st.sampled_from([SBUF, PSUM])


def as_stored(expected, dtype):
    with np.errstate(all="ignore"):
        return cast(np.atleast_1d(expected).astype(np.float32), DTYPES[dtype])


# --- tensor_copy, memset


@given(st.data(), shapes(), st.sampled_from([*NUMERIC, "bool"]), regions)
def test_copy_of_equal_dtypes_keeps_bits(data, shape, dtype, region):
    src = data.draw(tiles(shape, dtype, region))
    same(run(tensor_copy(dst_of(shape, dtype), src)), plain(src))


@given(st.data(), shapes(), st.sampled_from(NUMERIC), st.sampled_from(NUMERIC))
def test_copy_converts_through_float32(data, shape, from_dtype, to_dtype):
    src = data.draw(tiles(shape, from_dtype))
    got = run(tensor_copy(dst_of(shape, to_dtype), src))
    if from_dtype == to_dtype:
        same(got, plain(src))
    else:
        same(got, as_stored(fp32(src), to_dtype))


@pytest.mark.parametrize("engine", [Engine.vector, Engine.scalar, Engine.gpsimd])
def test_copy_keeps_the_bits_of_equal_types_and_rounds_others(engine):
    src = tensor(1, 1, dtype="int32", contents=np.array([2**24 + 1], np.int32))
    assert run(tensor_copy(dst_of((1, 1), "int32"), src, engine=engine)) == 2**24 + 1
    assert run(tensor_copy(dst_of((1, 1), "uint32"), src, engine=engine)) == 2**24


def test_copy_reshapes_the_free_dimensions():
    src = tensor(4, 2, 3, contents=np.arange(24, dtype=np.float32))
    same(run(tensor_copy(dst_of((4, 6)), src)), np.arange(24).reshape(4, 6))


@given(shapes(), st.sampled_from(NUMERIC), st.one_of(st.integers(-300, 300), st.floats(-1e4, 1e4, width=32)))
def test_memset(shape, dtype, value):
    if dtype in INTEGERS:
        value = int(np.clip(int(value), *integer_range(DTYPES[dtype])))
    same(run(memset(dst_of(shape, dtype), value)), np.full(shape, as_stored(value, dtype)))


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 2**24 + 1])
def test_memset_of_wide_integers_is_exact(value):
    assert run(memset(dst_of((1, 1), "int32"), value)) == value


def test_only_zeros_are_set_at_the_rate_of_a_reduction():
    """The performance modes of the architecture guide: a 16-bit memset to zero writes 4 elements a cycle."""
    rates = [memset(dst_of((128, 64), "bfloat16"), v, engine="vector").cost(TRN2).rate for v in (0, -1, 1)]
    assert rates == ["vector_narrow_rate", "vector_rate", "vector_rate"]


def test_memset_of_packed_zero():
    assert run(memset(dst_of((1, 2), "float8_e4m3fn_x4"), 0)).tolist() == [[0, 0]]


# --- tensor_tensor


@given(st.data(), shapes(), st.sampled_from(sorted(NUMPY)), *[st.sampled_from(FLOATS)] * 3)
def test_tensor_tensor_floats(data, shape, op, first, second, to):
    data1, data2 = data.draw(tiles(shape, first)), data.draw(tiles(shape, second, PSUM))
    got = run(tensor_tensor(dst_of(shape, to), data1, data2, op))
    same(got, as_stored(NUMPY[op](fp32(data1), fp32(data2)), to))


@given(st.data(), shapes(), st.sampled_from(sorted(NUMPY)), *[st.sampled_from(["int32", "uint32"])] * 2)
def test_tensor_tensor_wide_integers_are_exact_and_wrap(data, shape, op, dtype, to):
    data1, data2 = data.draw(tiles(shape, dtype)), data.draw(tiles(shape, dtype))
    instruction = tensor_tensor(dst_of(shape, to), data1, data2, op)
    assert instruction.on is Engine.gpsimd
    x, y = plain(data1), plain(data2)
    if not op.startswith("logical"):  # on Python's unbounded integers
        x, y = x.astype(object), y.astype(object)
    wrapped = (NUMPY[op](x, y).astype(object) % 2**32).astype(np.uint32)
    same(run(instruction), wrapped.view(DTYPES[to].numpy))


def test_tensor_tensor_wide_integers_on_vector_pass_through_float32():
    one = np.array([2**24 + 1], np.int32)
    data = tensor(1, 1, dtype="int32", contents=one)
    zero = tensor(1, 1, dtype="int32")
    assert run(tensor_tensor(dst_of((1, 1), "int32"), data, zero, "add")) == 2**24 + 1
    assert run(tensor_tensor(dst_of((1, 1), "int32"), data, zero, "add", engine=Engine.vector)) == 2**24


def test_engine_of_wide_integers_in_psum_is_vector():
    data = tensor(1, 1, dtype="int32", region=PSUM)
    assert (
        tensor_tensor(dst_of((1, 1), "int32"), data, tensor(1, 1, dtype="int32"), "add").on is Engine.vector
    )


@given(st.data(), shapes(), st.sampled_from(sorted(BITS)), st.sampled_from(INTEGERS))
def test_tensor_tensor_bits(data, shape, op, dtype):
    data1, data2 = data.draw(tiles(shape, dtype)), data.draw(tiles(shape, dtype))
    instruction = tensor_tensor(dst_of(shape, dtype), data1, data2, op)
    assert instruction.on is Engine.vector
    same(run(instruction), BITS[op](plain(data1), plain(data2)))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_are_logical(dtype):
    width = DTYPES[dtype].bits
    stored = values(dtype, (3, 5), 7)
    data, amount = tensor(3, 5, dtype=dtype, contents=stored), np.full((3, 5), 3)
    amounts = tensor(3, 5, dtype=dtype, contents=amount.astype(stored.dtype))
    unsigned = [int(v) % 2**width for v in stored.ravel()]
    right = run(tensor_tensor(dst_of((3, 5), dtype), data, amounts, "right_shift"))
    left = run(tensor_tensor(dst_of((3, 5), dtype), data, amounts, "left_shift"))
    assert [int(v) % 2**width for v in right.ravel()] == [v >> 3 for v in unsigned]
    assert [int(v) % 2**width for v in left.ravel()] == [(v << 3) % 2**width for v in unsigned]


def test_power_runs_on_gpsimd():
    data1 = tensor(2, 2, contents=np.array([[2, 3], [4, 0.25]], np.float32))
    data2 = tensor(2, 2, contents=np.array([[10, 2], [0.5, -1]], np.float32))
    instruction = tensor_tensor(dst_of((2, 2)), data1, data2, "power")
    assert instruction.on is Engine.gpsimd
    same(run(instruction), [[1024, 9], [2, 4]])


def test_abs_max_keeps_the_sign():
    data1 = tensor(1, 3, contents=np.array([-5, 3, 2], np.float32))
    data2 = tensor(1, 3, contents=np.array([3, -5, -2], np.float32))
    got = run(tensor_tensor(dst_of((1, 3)), data1, data2, "abs_max"), check=TRN3)
    same(got, [[-5, -5, -2]])
    same(run(tensor_tensor(dst_of((1, 3)), data1, data2, "abs_min"), check=TRN3), [[3, 3, -2]])


# --- tensor_scalar


@given(
    st.data(),
    shapes(),
    st.sampled_from(NUMERIC),
    st.sampled_from(FLOATS),
    st.sampled_from(sorted(NUMPY)),
    st.sampled_from([None, *sorted(NUMPY)]),
    st.booleans(),
    st.booleans(),
)
def test_tensor_scalar(data, shape, dtype, to, op0, op1, reverse0, reverse1):
    tile = data.draw(tiles(shape, dtype, data.draw(regions)))
    first = data.draw(st.one_of(st.floats(-4, 4, width=32), tiles((shape[0], 1), "float32")))
    second = data.draw(tiles((shape[0], 1), "float32")) if op1 else None
    got = run(tensor_scalar(dst_of(shape, to), tile, op0, first, reverse0, op1, second, reverse1))

    def scalar(value):
        return (
            np.float32(value)
            if isinstance(value, float)
            else fp32(value).reshape(-1, *[1] * (len(shape) - 1))
        )

    expected = fp32(tile)
    for op, operand, reverse in ((op0, first, reverse0), (op1, second, reverse1)):
        if op is not None:
            arguments = (expected, scalar(operand))
            expected = NUMPY[op](*(arguments[::-1] if reverse else arguments)).astype(np.float32)
    same(got, as_stored(expected, to))


@given(
    st.data(), shapes(), st.sampled_from(INTEGERS), st.sampled_from(sorted(BITS)), st.integers(0, 2**32 - 1)
)
def test_tensor_scalar_bits(data, shape, dtype, op, mask):
    tile = data.draw(tiles(shape, dtype))
    column = data.draw(tiles((shape[0], 1), dtype))
    got = run(tensor_scalar(dst_of(shape, dtype), tile, op, mask, op1="bitwise_xor", operand1=column))
    bits = plain(tile).view(f"u{DTYPES[dtype].itemsize}")
    low = bits.dtype.type(mask % 2 ** DTYPES[dtype].bits)
    other = plain(column).view(bits.dtype).reshape(-1, *[1] * (len(shape) - 1))
    same(got, (BITS[op](bits, low) ^ other).view(DTYPES[dtype].numpy))


def test_tensor_scalar_reverses_shifts():
    tile = tensor(1, 3, dtype="uint8", contents=np.array([1, 2, 3], np.uint8))

    def shifted(**flags):
        dst = dst_of((1, 3), "uint8")
        return run(
            tensor_scalar(dst, tile, "left_shift", 1, op1="right_shift", operand1=64, **flags)
        ).tolist()

    assert shifted(reverse0=True) == [[0, 0, 0]]
    assert shifted(reverse0=True, reverse1=True) == [[64 >> 2, 64 >> 4, 64 >> 8]]
    assert shifted(reverse1=True) == [[64 >> 2, 64 >> 4, 64 >> 6]]


def test_tensor_scalar_invert():
    tile = tensor(1, 2, dtype="uint8", contents=np.array([0, 0xF0], np.uint8))
    assert run(tensor_scalar(dst_of((1, 2), "uint8"), tile, "invert", None)).tolist() == [[255, 15]]


def test_tensor_scalar_rsqrt_runs_on_gpsimd():
    tile = tensor(1, 2, contents=np.array([4, 16], np.float32))
    instruction = tensor_scalar(dst_of((1, 2)), tile, "add", 0.0, op1="rsqrt", operand1=0.0)
    assert instruction.on is Engine.gpsimd
    same(run(instruction), [[0.5, 0.25]])


def test_tensor_scalar_unary():
    tile = tensor(1, 3, contents=np.array([-4, 0, 3], np.float32))
    same(run(tensor_scalar(dst_of((1, 3)), tile, "abs", 0)), [[4, 0, 3]])
    same(run(tensor_scalar(dst_of((1, 3)), tile, "relu", None), check=TRN3), [[0, 0, 3]])
    same(run(tensor_scalar(dst_of((1, 3)), tile, "multiply", 2.0, op1="square"), check=TRN3), [[64, 0, 36]])


# --- scalar_tensor_tensor, reciprocal


@given(
    st.data(),
    shapes(),
    *[st.sampled_from(FLOATS)] * 3,
    *[st.sampled_from(sorted(NUMPY))] * 2,
    *[st.booleans()] * 2,
)
def test_scalar_tensor_tensor(data, shape, dtype, other, to, op0, op1, reverse0, reverse1):
    tile, operand1 = data.draw(tiles(shape, dtype)), data.draw(tiles(shape, other))
    operand0 = data.draw(tiles((shape[0], 1), "float32"))
    got = run(scalar_tensor_tensor(dst_of(shape, to), tile, op0, operand0, op1, operand1, reverse0, reverse1))
    first = (fp32(tile), fp32(operand0).reshape(-1, *[1] * (len(shape) - 1)))
    inner = NUMPY[op0](*(first[::-1] if reverse0 else first)).astype(np.float32)
    second = (inner, fp32(operand1))
    same(got, as_stored(NUMPY[op1](*(second[::-1] if reverse1 else second)), to))


@given(st.data(), shapes(), st.sampled_from(NUMERIC), st.sampled_from(FLOATS))
def test_reciprocal(data, shape, dtype, to):
    tile = data.draw(tiles(shape, dtype))
    with np.errstate(divide="ignore"):
        expected = np.float32(1) / fp32(tile)
    same(run(reciprocal(dst_of(shape, to), tile)), as_stored(expected, to))


# --- costs: published formulas on trn1, public profiles on trn2


def wide(dtype="float32", region=SBUF, n=512):
    return tensor(128, n, dtype=dtype, region=region)


def column():
    return tensor(128, 1)


@pytest.mark.parametrize(
    "instruction, busy, latency",
    [
        (tensor_copy(wide(), wide(region=PSUM)), 602, 690),
        (tensor_copy(wide(), wide()), 332, 419),
        (tensor_copy(wide(), wide(region=PSUM), engine=Engine.scalar), 475, 586),
        (tensor_scalar(wide(), wide(), "multiply", column()), 396, 481),
        (tensor_scalar(wide(n=128), wide(region=PSUM, n=128), "multiply", column()), 268, 350),
        (tensor_tensor(wide(), wide(), wide(region=PSUM), "add"), 602, 687),
    ],
)
def test_costs_measured_on_trn2(instruction, busy, latency):
    cost = instruction.cost(TRN2)
    assert cost.busy == pytest.approx(busy, rel=0.03)
    assert cost.latency == pytest.approx(latency, rel=0.03)


def test_narrow_data_are_faster_on_trn2():
    narrow = tensor_copy(wide("bfloat16"), wide("bfloat16")).cost(TRN2).latency
    assert narrow == pytest.approx(512 / 4 / 0.96 + 150)
    two = tensor_tensor(wide("bfloat16"), wide("bfloat16"), wide("bfloat16"), "add").cost(TRN2).latency
    assert two == pytest.approx(512 / 2 / 0.96 + 150)


def test_trn1_costs_follow_the_published_formulas():
    n, fixed = 4096, 64 / 1.12
    assert tensor_copy(wide(n=n), wide(n=n)).cost(TRN1).busy == pytest.approx(n / 1.12 + fixed)
    assert tensor_tensor(wide(n=n), wide(n=n), wide(n=n), "add").cost(TRN1).busy == pytest.approx(
        2 * n / 1.12 + fixed
    )
    measured = 2.6 * n / 1.12  # a public profile's share; the page says 8 cycles an element
    assert reciprocal(wide(n=n), wide(n=n)).cost(TRN1).busy == pytest.approx(measured + fixed)


def test_packed_data_are_copied_to_their_own_kind_only():
    packed = tensor(128, 8, dtype="float8_e5m2_x4")
    assert tensor_copy(dst_of((128, 8), "float8_e5m2_x4"), packed).check(TRN3) == ()
    with pytest.raises(NkiError, match="packed data are not converted"):
        tensor_copy(dst_of((128, 8), "float8_e4m3fn_x4"), packed).check(TRN3)
