"""Matmuls against numpy in float64, transposes bit for bit, every rule with a case on each side."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiles import HBM, PSUM, SBUF, State, dst_of, fp32, plain, run, tensor, tiles, values, view

from nki_isa.constraints.accumulation import resolve
from nki_isa.diagnostics import NkiError, NkiValidationError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.enums import Engine, matmul_perf_mode
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.ops.matmul import nc_matmul
from nki_isa.ops.matmul_mx import nc_matmul_mx, scale_rows
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor

NARROW = ["bfloat16", "float16", "float8_e4m3", "float8_e5m2"]
ROW = matmul_perf_mode.double_row
sizes = st.sampled_from([1, 2, 31, 64, 128])


def state_of(target):
    state = State()
    state.target = target
    return state


def operand(*shape, dtype="bfloat16", seed=0, region=SBUF):
    return tensor(*shape, dtype=dtype, region=region, contents=values(dtype, shape, seed))


def psum(*shape, dtype="float32", contents=None):
    return tensor(*shape, dtype=dtype, region=PSUM, contents=contents)


def identity(n, dtype="float32"):
    return tensor(n, n, dtype=dtype, contents=np.eye(n).astype(DTYPES[dtype].numpy))


def matrix(t, rows):
    return plain(t).astype(np.float64).reshape(rows, -1)


def close(got, expected, scale):
    """Within the rounding of float32 sums whose terms add up to `scale`."""
    assert got.shape == expected.shape
    assert np.all(np.abs(got - expected) <= 1e-5 * scale + 1e-30)


# --- products


@given(
    st.data(),
    sizes,
    sizes,
    st.sampled_from([(1,), (7,), (128,), (512,), (4, 32), (2, 3, 5)]),
    st.one_of(
        st.tuples(st.sampled_from(NARROW), st.sampled_from(NARROW)),
        st.tuples(*[st.sampled_from(["float32", "tfloat32"])] * 2),
    ),
    st.booleans(),
)
@settings(max_examples=60)
def test_product(data, k, m, free, types, accumulate):
    stationary, moving = (data.draw(tiles(s, t)) for s, t in zip([(k, m), (k, *free)], types, strict=True))
    old = np.random.default_rng(k).standard_normal((m, *free)).astype(np.float32)
    got = run(nc_matmul(psum(m, *free, contents=old), stationary, moving, accumulate=accumulate))
    a, b = matrix(stationary, k), matrix(moving, k)
    base = old.reshape(m, -1) if accumulate else np.zeros_like(old).reshape(m, -1)
    close(got.reshape(m, -1), base + a.T @ b, np.abs(base) + np.abs(a).T @ np.abs(b))


@given(sizes, sizes, st.integers(1, 512), st.sampled_from(["float8_e4m3", "float8_e5m2"]), st.integers(0, 9))
@settings(max_examples=20)
def test_double_row_contracts_both_halves(k, m, n, dtype, seed):
    stationary = operand(k, 2, m, dtype=dtype, seed=seed)
    moving = operand(k, 2, n, dtype="float8_e5m2", seed=seed + 1)
    got = run(nc_matmul(psum(m, n), stationary, moving, perf_mode="double_row"))
    a, b = plain(stationary).astype(np.float64), plain(moving).astype(np.float64)
    expected = sum(a[:, half].T @ b[:, half] for half in (0, 1))
    close(got, expected, sum(np.abs(a[:, half]).T @ np.abs(b[:, half]) for half in (0, 1)))


def test_bfloat16_destination_rounds_the_sum_once():
    a, b = operand(128, 64, seed=1), operand(128, 300, seed=2)
    old = np.random.default_rng(3).standard_normal((64, 300)).astype(ml_dtypes.bfloat16)
    dst = psum(64, 300, dtype="bfloat16", contents=old)
    got = run(nc_matmul(dst, a, b, accumulate=True), state_of(TRN3), check=TRN3)
    expected = old.astype(np.float64) + matrix(a, 128).T @ matrix(b, 128)
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=2**-8, atol=1e-2)


# --- transposes


@given(sizes, sizes, st.sampled_from(["float32", "bfloat16", "float16"]), st.integers(0, 99))
@settings(max_examples=30)
def test_transpose_moves_bits(k, m, dtype, seed):
    bits = DTYPES[dtype].itemsize * 8
    raw = np.random.default_rng(seed).integers(0, 2**bits, (k, m), dtype=np.uint64).astype(f"u{bits // 8}")
    data = tensor(k, m, dtype=dtype, contents=raw)  # NaN, infinities and denormals among them
    got = run(nc_matmul(psum(m, k, dtype=dtype), data, identity(k, dtype), is_transpose=True))
    assert np.array_equal(got.view(raw.dtype), raw.T)


def test_transpose_follows_a_permutation():
    data, order = operand(64, 32, dtype="float32"), np.random.default_rng(0).permutation(64)
    moving = tensor(64, 64, contents=np.eye(64, dtype=np.float32)[:, order])
    got = run(nc_matmul(psum(32, 64), data, moving, is_transpose=True))
    assert np.array_equal(got, plain(data).T[:, order])


def test_transpose_before_v3_is_a_product():
    raw = np.ones((4, 3), np.float32)
    raw[1, 1] = np.nan
    dst, data = psum(3, 4), tensor(4, 3, contents=raw)
    got = run(nc_matmul(dst, data, identity(4), is_transpose=True), state_of(TRN1), check=TRN1)
    assert np.isnan(got[1]).all() and (got[[0, 2]] == 1).all()


@pytest.mark.parametrize("moving", [np.zeros((4, 4)), np.ones((4, 4)), 2 * np.eye(4)])
def test_transpose_by_something_else_is_refused(moving):
    wrong = tensor(4, 4, contents=moving.astype(np.float32))
    with pytest.raises(NkiError, match="NKI-N001"):
        run(nc_matmul(psum(3, 4), operand(4, 3, dtype="float32"), wrong, is_transpose=True))


# --- MX


def mx_reference(data, dtype, scale):
    """Dequantized values [partitions, columns, 4], by the OCP definition."""
    row = DTYPES[dtype]
    octets = np.ascontiguousarray(data).view(np.uint8).reshape(*data.shape, -1)
    if row.itemsize == 2:
        octets = np.stack([octets & 15, octets >> 4], axis=-1).reshape(*data.shape, 4)
    lanes = octets.astype(np.uint8).view(row.lane_numpy).astype(np.float64)
    exponents = np.empty(data.shape)
    for p in range(data.shape[0]):
        exponents[p] = scale[p // 32 * 32 + p % 32 // 8].astype(np.float64) - 127
    return lanes * 2.0 ** exponents[:, :, None]


@given(
    st.sampled_from([32, 64, 128]),
    st.sampled_from([2, 64, 128]),
    st.sampled_from([1, 33, 512, 1000]),
    st.sampled_from(["float8_e5m2_x4", "float8_e4m3fn_x4", "float4_e2m1fn_x4"]),
    st.sampled_from(["float8_e4m3fn_x4", "float4_e2m1fn_x4"]),
    st.booleans(),
)
@settings(max_examples=20)
def test_mx_product(k, m, n, a_type, b_type, accumulate):
    generator = np.random.default_rng(k + m + n)

    def data(dtype, *shape):
        row = DTYPES[dtype]
        octets = generator.integers(0, 256, (*shape, row.itemsize), dtype=np.uint8)
        if row.itemsize == 4:
            octets &= 0xBB  # no NaN and no infinity
        return octets.view(row.numpy)[..., 0]

    raw_a, raw_b = data(a_type, k, m), data(b_type, k, n)
    scales = [generator.integers(120, 134, (k, c), dtype=np.uint8) for c in (m, n)]
    old = generator.standard_normal((m, n)).astype(np.float32)
    matmul = nc_matmul_mx(
        psum(m, n, contents=old),
        tensor(k, m, dtype=a_type, contents=raw_a),
        tensor(k, n, dtype=b_type, contents=raw_b),
        tensor(k, m, dtype="uint8", contents=scales[0]),
        tensor(k, n, dtype="float8_e8m0fnu", contents=scales[1]),
        accumulate=accumulate,
    )
    got = run(matmul, check=TRN3)
    a, b = mx_reference(raw_a, a_type, scales[0]), mx_reference(raw_b, b_type, scales[1])
    base = old if accumulate else 0 * old
    close(
        got,
        base + np.einsum("kmj,knj->mn", a, b),
        np.abs(base) + np.einsum("kmj,knj->mn", np.abs(a), np.abs(b)),
    )


def test_scale_rows_stay_in_their_quadrant():
    assert scale_rows(64).tolist() == [p // 8 for p in range(32)] + [32 + p // 8 for p in range(32)]


# --- accumulation


class Recorder:
    """What :func:`resolve` asks of a recorder."""

    def __init__(self, target=TRN2, repeating=False):
        self.target, self.repeating, self.warned, self.multiplied = target, repeating, [], {}

    def repeats(self, storage):
        return self.repeating

    def warn(self, found):
        self.warned += [d.code for d in found.diagnostics]


def test_first_matmul_overwrites_and_later_ones_accumulate():
    recorder, dst = Recorder(), psum(128, 512)
    half = view(dst, (128, 256), (512, 1))
    assert [resolve(recorder, d, None) for d in (half, half)] == [False, True]
    assert resolve(recorder, view(dst, (128, 256), (512, 1), 256), None) is False  # the other half
    assert resolve(recorder, dst, None) is True  # all of it was written by now
    assert resolve(recorder, dst, False) is False  # the user starts again
    assert resolve(Recorder(), dst, None) is False  # another kernel


def test_interleaved_tiles_do_not_overlap():
    recorder, dst = Recorder(), psum(128, 512)
    even, odd = (view(dst, (128, 256), (512, 2), start) for start in (0, 1))
    assert [resolve(recorder, d, None) for d in (even, odd, even)] == [False, False, True]


def test_an_overlap_in_part_accumulates_where_it_was_written():
    recorder, dst = Recorder(), psum(128, 512)
    resolve(recorder, dst[:, :256], None)
    assert resolve(recorder, dst[:, 128:384], None) == (((0, 128), (0, 128)),)
    assert resolve(recorder, dst[0:64, 256:512], None) == (((0, 64), (0, 128)),)
    recorder, grid = Recorder(), psum(4, 8, 8)
    resolve(recorder, grid[0:2, 0:4, 0:4], None)
    assert resolve(recorder, grid[:, 2:6, 1:6], None) == (((0, 2), (0, 2), (0, 3)),)


@given(st.data())
def test_what_was_written_before_is_told_element_by_element(data):
    """Any views of a bank, of float32 or of bfloat16, against a mask of its elements."""
    recorder, shape = Recorder(), (8, 4, 6)
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    bank, written = psum(*shape, dtype=dtype), np.zeros(shape, np.bool_)
    for _ in range(data.draw(st.integers(2, 5))):
        key = []
        for size in shape:
            first = data.draw(st.integers(0, size - 1))
            key.append(slice(first, data.draw(st.integers(first + 1, size)), data.draw(st.integers(1, 3))))
        key[0] = slice(key[0].start, key[0].stop)  # partitions next to each other
        part, mask = bank[tuple(key)], written[tuple(key)]
        before = mask.copy()
        told = resolve(recorder, part, None)
        if isinstance(told, bool):
            assert told == before.all() and told == before.any()
        else:
            counts = np.zeros(part.shape, int)
            for box in told:
                counts[tuple(slice(*range_) for range_ in box)] += 1
            np.testing.assert_array_equal(counts, before)
        mask[...] = True


def test_a_run_time_destination_of_a_tensor_written_in_part_is_refused():
    recorder, dst = Recorder(), psum(128, 512)
    resolve(recorder, dst[:, :256], None)
    moving_part = dst.ap([[512, 128], [1, 128]], scalar_offset=VirtualRegister(0), indirect_dim=1)
    with pytest.raises(NkiValidationError, match="NKI-V131"):
        resolve(recorder, moving_part, None)
    assert resolve(recorder, moving_part, False) is False


def test_a_product_overwritten_on_every_turn_of_a_device_loop_is_warned_of():
    recorder, dst = Recorder(repeating=True), psum(128, 512)
    assert resolve(recorder, dst, None) is False and recorder.warned == ["NKI-V132"]
    assert resolve(recorder, dst, None) is True and len(recorder.warned) == 1
    assert resolve(recorder, psum(128, 512), False) is False and len(recorder.warned) == 1


@given(st.data(), st.integers(1, 9), st.integers(0, 99))
def test_overlapping_products_are_the_sum_of_all(data, rows, seed):
    """A convolution by shifted destinations: each element is the sum of the products that cover it."""
    rng, width = np.random.default_rng(seed), 24
    recorder, dst = Recorder(), psum(rows, width, contents=np.full((rows, width), np.nan, np.float32))
    expected = np.full((rows, width), np.nan)
    for _ in range(4):
        start = data.draw(st.integers(0, width - 1))
        n = data.draw(st.integers(1, width - start))
        m = data.draw(st.integers(1, rows))
        a, b = (rng.standard_normal((8, size)).astype(np.float32) for size in (m, n))
        part = dst[0:m, start : start + n]
        matmul = nc_matmul(part, tensor(8, m, contents=a), tensor(8, n, contents=b))
        matmul.specialize(recorder)
        got = run(matmul, check=None)
        old = expected[0:m, start : start + n]
        expected[0:m, start : start + n] = np.where(np.isnan(old), 0, old) + a.T.astype(np.float64) @ b
        np.testing.assert_allclose(got, expected[0:m, start : start + n], rtol=1e-5, atol=1e-5)
        stored = plain(dst)
        stored[0:m, start : start + n] = got
        dst.storage.data = stored.tobytes()


class Operands:
    """What a product in place gets its operands from."""

    def matrix(self, t):
        return lambda: fp32(t).reshape(t.shape[0], -1)

    def room(self, shape):
        return np.empty(shape, np.float32)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_product_in_place_is_the_product(accumulate):
    rng = np.random.default_rng(3)
    a, b = (tensor(16, n, contents=rng.integers(-4, 5, (16, n)).astype(np.float32)) for n in (8, 12))
    product = nc_matmul(psum(8, 12), a, b, accumulate=accumulate)
    wide = np.full((8, 20), 7, np.float32)
    for out in (np.full((8, 12), 7, np.float32), wide[:, 4:16]):
        product.in_place(out, Operands())()
        np.testing.assert_array_equal(out, fp32(a).T @ fp32(b) + 7 * accumulate)
    assert (wide[:, :4] == 7).all() and (wide[:, 16:] == 7).all()


@pytest.mark.parametrize(
    "out, given",
    [
        (np.zeros((8, 12), ml_dtypes.bfloat16), {}),
        (np.zeros((8, 24), np.float32)[:, ::2], {}),
        (np.zeros((12, 8), np.float32).T, {}),
        (np.broadcast_to(np.zeros((1, 12), np.float32), (8, 12)), {}),
        (np.zeros((8, 12), np.float32), {"accumulate": (((0, 8), (0, 4)),)}),
    ],
)
def test_a_product_goes_in_place_where_blas_can_put_it(out, given):
    product = nc_matmul(psum(8, 12), operand(16, 8), operand(16, 12), accumulate=False)
    product.__dict__.update(given)
    assert product.in_place(out, Operands()) is None


def test_accumulate_is_a_truth_value():
    a, b = operand(8, 8), operand(8, 8)
    refused(nc_matmul(psum(8, 8), a, b, accumulate="yes"), TRN2, "NKI-V111")
    assert nc_matmul(psum(8, 8), a, b, accumulate=np.bool_(True)).accumulate is True
    assert nc_matmul(psum(8, 8), a, b, accumulate=0).accumulate is False


def test_accumulation_needs_a_start():
    with pytest.raises(NkiValidationError, match="NKI-V130"):
        resolve(Recorder(), psum(128, 512), True)
    assert resolve(Recorder(TRN3), psum(128, 512), True) is True
    recorder, dst = Recorder(), psum(128, 512)
    assert [resolve(recorder, dst, a) for a in (False, True)] == [False, True]


def test_reads_its_destination_only_to_accumulate():
    first, later = (nc_matmul(psum(8, 8), operand(8, 8), operand(8, 8), accumulate=a) for a in (False, True))
    assert first.dst not in first.reads and later.dst in later.reads
    assert first.writes == [first.dst] and first.on is Engine.tensor


def test_specialize_settles_accumulate():
    recorder, dst = Recorder(), psum(8, 8)
    pair = [nc_matmul(dst, operand(8, 8), operand(8, 8)) for _ in range(2)]
    for matmul in pair:
        matmul.specialize(recorder)
    assert [m.accumulates for m in pair] == [False, True]
    transpose = nc_matmul(dst, operand(8, 8), identity(8, "bfloat16"), is_transpose=True)
    transpose.specialize(recorder)
    assert transpose.accumulates is False


# --- rules


def mm(target, code=None, *, k=128, m=128, n=512, a="bfloat16", b=None, dst=None, **given):
    """Check a matmul of [k, m] and [k, n]; `code` is the rule it breaks, None if it is legal."""
    operands = {
        "dst": dst if dst is not None else psum(m, n),
        "stationary": operand(k, m, dtype=a),
        "moving": operand(k, n, dtype=b or a),
    }
    refused(nc_matmul(**{**operands, **given}), target, code)


def refused(instruction, target, code):
    if code is None:
        instruction.check(target)
        return
    with pytest.raises(NkiValidationError) as caught:
        instruction.check(target)
    assert code in [d.code for d in caught.value.diagnostics], str(caught.value)


def indirect(t, index_dtype="uint32"):
    from nki_isa.tensor.dynamic import DynamicOffset

    index = tensor(t.shape[0], 16, dtype=index_dtype)
    return NkiTensor(
        t.shape, (t.strides[0], 0), 0, t.dtype, t.storage, DynamicOffset("indirect", index, 1, 1, t.shape[1])
    )


FP8 = {"a": "float8_e5m2", "n": 128, "is_transpose": True, "dst": psum(128, 256, dtype="float8_e5m2")}
RULES = [
    # memories
    (None, TRN2, {}),
    ("NKI-V101", TRN2, {"dst": dst_of((128, 512))}),
    ("NKI-V101", TRN2, {"stationary": operand(128, 128, region=PSUM)}),
    ("NKI-V101", TRN2, {"moving": operand(128, 512, region=HBM)}),
    ("NKI-V100", TRN2, {"moving": 3.0}),
    # data types
    ("NKI-V105", TRN2, {"a": "int32"}),
    (None, TRN3, {"a": "float8_e4m3fn"}),
    ("NKI-V105", TRN2, {"a": "float8_e4m3fn"}),
    ("NKI-V105", TRN3, {"a": "float8_e4m3fn", "b": "float8_e4m3"}),
    (None, TRN3, {"a": "float8_e4m3fn", "b": "float8_e5m2"}),
    ("NKI-V105", TRN2, {"a": "float32", "b": "bfloat16"}),
    (None, TRN2, {"a": "float32", "b": "tfloat32"}),
    ("NKI-V105", TRN2, {"dst": psum(128, 512, dtype="bfloat16")}),
    (None, TRN3, {"dst": psum(128, 512, dtype="bfloat16")}),
    # sizes
    ("NKI-V103", TRN2, {"moving": operand(64, 512)}),
    ("NKI-V104", TRN2, {"m": 129, "dst": psum(128, 512)}),
    ("NKI-V104", TRN2, {"n": 513}),
    (None, TRN3, {"n": 4096}),
    ("NKI-V104", TRN3, {"n": 4097}),
    (None, TRN3, {"n": 8192, "dst": psum(128, 8192, dtype="bfloat16")}),
    ("NKI-V104", TRN3, {"n": 8192}),
    ("NKI-V103", TRN2, {"dst": psum(64, 512)}),
    ("NKI-V103", TRN2, {"dst": psum(128, 256)}),
    ("NKI-V102", TRN2, {"k": 128, "tile_position": (0, 0), "tile_size": (64, 128)}),
    # banks
    (None, TRN2, {"n": 256, "dst": view(psum(128, 1024), (128, 256), (1024, 1), 512)}),
    ("NKI-V104", TRN2, {"n": 256, "dst": view(psum(128, 1024), (128, 256), (1024, 1), 384)}),
    (None, TRN3, {"n": 256, "dst": view(psum(128, 1024), (128, 256), (1024, 1), 384)}),
    # tiles of the array
    (None, TRN2, {"k": 32, "m": 32, "tile_position": (96, 32), "tile_size": (32, 32)}),
    ("NKI-V111", TRN1, {"k": 32, "m": 32, "tile_position": (96, 32), "tile_size": (32, 32)}),
    (None, TRN1, {"k": 64, "m": 64, "tile_position": (64, 0), "tile_size": (64, 64)}),
    ("NKI-V111", TRN2, {"k": 32, "tile_position": (16, 0), "tile_size": (32, 128)}),
    ("NKI-V111", TRN2, {"k": 32, "tile_position": (128, 0), "tile_size": (32, 128)}),
    ("NKI-V111", TRN2, {"k": 32, "tile_position": (0, 0)}),
    ("NKI-V111", TRN2, {"k": 32, "tile_position": (0,), "tile_size": (32,)}),
    ("NKI-V104", TRN2, {"k": 64, "tile_position": (0, 0), "tile_size": (64, 64)}),
    # partitions
    ("NKI-V110", TRN2, {"k": 32, "moving": view(operand(128, 512), (32, 512), (512, 1), 512 * 16)}),
    (None, TRN2, {"k": 32, "moving": view(operand(128, 512), (32, 512), (512, 1), 512 * 32)}),
    ("NKI-V115", TRN2, {"k": 32, "moving": view(operand(128, 512), (32, 512), (1024, 1))}),
    # transposes
    (None, TRN2, {"n": 128, "dst": psum(128, 128, dtype="bfloat16"), "is_transpose": True}),
    ("NKI-V105", TRN2, {"n": 128, "is_transpose": True}),
    (None, TRN1, {"n": 128, "is_transpose": True}),
    ("NKI-V113", TRN2, {"a": "float32", "n": 128, "is_transpose": True, "accumulate": True}),
    ("NKI-V114", TRN2, {**FP8, "dst": view(FP8["dst"], (128, 128), (256, 1))}),
    (None, TRN2, {**FP8, "dst": view(FP8["dst"], (128, 128), (256, 2))}),
    # tensor indirection
    (None, TRN3, {"moving": indirect(operand(128, 512))}),
    ("NKI-V108", TRN2, {"moving": indirect(operand(128, 512))}),
    ("NKI-V105", TRN3, {"a": "float32", "moving": indirect(operand(128, 512, dtype="float32"))}),
    (
        "NKI-V113",
        TRN3,
        {
            "n": 128,
            "dst": psum(128, 128, dtype="bfloat16"),
            "moving": indirect(operand(128, 128)),
            "is_transpose": True,
        },
    ),
    (
        "NKI-V113",
        TRN3,
        {"k": 32, "moving": indirect(operand(32, 512)), "tile_position": (32, 0), "tile_size": (32, 128)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "target", "given"), RULES)
def test_rules(code, target, given):
    mm(target, code, **given)


DOUBLE = [
    (None, TRN2, {}),
    ("NKI-V108", TRN1, {}),
    ("NKI-V105", TRN2, {"dtype": "bfloat16"}),
    (None, TRN3, {"dtype": "float8_e4m3fn"}),
    ("NKI-V105", TRN2, {"dtype": "float8_e4m3fn"}),
    ("NKI-V103", TRN2, {"rows": 4}),
    ("NKI-V113", TRN2, {"tile_position": (0, 0), "tile_size": (128, 64)}),
    (None, TRN2, {"k": 64, "tile_position": (64, 0), "tile_size": (64, 128)}),
    ("NKI-V113", TRN2, {"is_transpose": True}),
]


@pytest.mark.parametrize(("code", "target", "given"), DOUBLE)
def test_double_row_rules(code, target, given):
    given = dict(given)
    rows, dtype, k = given.pop("rows", 2), given.pop("dtype", "float8_e5m2"), given.pop("k", 128)
    a, b = operand(k, rows, 64, dtype=dtype), operand(k, rows, 256, dtype=dtype)
    refused(nc_matmul(psum(32 * rows, 128 * rows), a, b, perf_mode=ROW, **given), target, code)


MX = [
    (None, TRN3, {}),
    ("NKI-V108", TRN2, {}),
    ("NKI-V105", TRN3, {"stationary": operand(128, 64)}),
    ("NKI-V105", TRN3, {"moving_scale": tensor(128, 512, dtype="int32")}),
    ("NKI-V105", TRN3, {"dst": psum(64, 512, dtype="float16")}),
    ("NKI-V101", TRN3, {"moving_scale": tensor(128, 512, dtype="uint8", region=PSUM)}),
    ("NKI-V103", TRN3, {"stationary": tensor(48, 64, dtype="float8_e5m2_x4"),
                        "moving": tensor(48, 512, dtype="float8_e5m2_x4")}),
    ("NKI-V103", TRN3, {"stationary": tensor(128, 63, dtype="float8_e5m2_x4"), "dst": psum(63, 512),
                        "stationary_scale": tensor(128, 63, dtype="uint8")}),
    ("NKI-V104", TRN3, {"stationary": tensor(128, 130, dtype="float8_e5m2_x4"),
                        "stationary_scale": tensor(128, 130, dtype="uint8"), "dst": psum(128, 512)}),
    ("NKI-V103", TRN3, {"moving_scale": tensor(96, 512, dtype="uint8")}),
    (None, TRN3, {"moving_scale": tensor(100, 512, dtype="uint8")}),
    ("NKI-V103", TRN3, {"moving_scale": tensor(128, 256, dtype="uint8")}),
    (None, TRN3, {"moving_scale": view(tensor(128, 512, dtype="uint8"), (124, 512), (512, 1), 4 * 512)}),
    ("NKI-V110", TRN3, {"moving_scale": view(tensor(128, 512, dtype="uint8"), (122, 512), (512, 1), 3072)}),
    ("NKI-V111", TRN3, {"tile_position": (0, 0), "tile_size": (128, 64)}),
    ("NKI-V113", TRN3, {"moving": indirect(tensor(128, 512, dtype="float8_e5m2_x4"))}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "target", "given"), MX)
def test_mx_rules(code, target, given):
    operands = {
        "dst": psum(64, 512),
        "stationary": tensor(128, 64, dtype="float8_e5m2_x4"),
        "moving": tensor(128, 512, dtype="float8_e5m2_x4"),
        "stationary_scale": tensor(128, 64, dtype="uint8"),
        "moving_scale": tensor(128, 512, dtype="uint8"),
    }
    refused(nc_matmul_mx(**{**operands, **given}), target, code)


# --- cost


@pytest.mark.parametrize(
    ("given", "columns", "flops"),
    [
        ({}, 512, 2 * 128 * 128 * 512),
        ({"n": 32}, 128, 2 * 128 * 128 * 32),  # never below the least interval
        ({"a": "float32"}, 4 * 512, 2 * 128 * 128 * 512),
        ({"a": "float32", "is_moving_onezero": True}, 2 * 512, 2 * 128 * 128 * 512),
        ({"a": "float32", "n": 128, "is_transpose": True}, 2 * 128, 0),
    ],
)
def test_cost(given, columns, flops):
    given = dict(given)
    a, n = given.pop("a", "bfloat16"), given.pop("n", 512)
    found = nc_matmul(psum(128, n), operand(128, 128, dtype=a), operand(128, n, dtype=a), **given).cost(TRN2)
    assert (found.columns, found.flops, found.rows) == (columns, flops, 128)
    assert found.busy == pytest.approx(columns / 2.4, rel=0.15)


def test_double_row_and_mx_do_more_in_the_same_time():
    plain_cost = nc_matmul(psum(128, 512), operand(128, 128), operand(128, 512)).cost(TRN3)
    fp8 = [operand(128, 2, n, dtype="float8_e5m2") for n in (128, 512)]
    double = nc_matmul(psum(128, 512), *fp8, perf_mode=ROW).cost(TRN3)
    data = [tensor(128, n, dtype="float8_e5m2_x4") for n in (128, 512)]
    scale = [tensor(128, n, dtype="uint8") for n in (128, 512)]
    mx = nc_matmul_mx(psum(128, 512), *data, *scale).cost(TRN3)
    assert double.columns == mx.columns == plain_cost.columns
    assert (double.flops, mx.flops) == (2 * plain_cost.flops, 4 * plain_cost.flops)
