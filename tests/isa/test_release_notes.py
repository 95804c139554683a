"""The lines of the NKI release notes that touch what instructions mean, one test each.

A test is named by the version and its subject; what the line says is in our own words.
"""

import ml_dtypes
import numpy as np
import pytest
from breaking import indirect
from tiles import HBM, PSUM, SBUF, State, dst_of, gathered, plain, run, same, shifted, tensor, view

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.constraints.accumulation import resolve
from nki_isa.diagnostics import NkiError, NkiValidationError
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import DTYPES, to_float32
from nki_isa.machine.enums import Engine, dge_mode, matmul_perf_mode, oob_mode, reduce_cmd
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.tensor.storage import VirtualRegister

I = REGISTRY  # instructions by name


def filled(*shape, dtype="float32", region=SBUF, seed=0):
    rng = np.random.default_rng(seed)
    row = DTYPES[dtype]
    values = rng.standard_normal(shape) if row.kind == "float" else rng.integers(0, 100, shape)
    return tensor(*shape, dtype=dtype, region=region, contents=values.astype(row.numpy))


def of(values, dtype="float32", region=SBUF):
    array = np.asarray(values).astype(DTYPES[dtype].numpy)
    return tensor(*array.shape, dtype=dtype, region=region, contents=array)


def refused(instruction, target, *codes):
    with pytest.raises(NkiValidationError) as found:
        instruction.check(target)
    assert {d.code for d in found.value.diagnostics} >= set(codes), str(found.value)


# --- 0.6.0


def test_060_topk_returns_values_and_indices():
    src = filled(16, 8, dtype="bfloat16")
    values, indices = run(I["topk"](dst_of((16, 4), "bfloat16"), dst_of((16, 4), "uint32"), src, n=128))
    flat = plain(src).T.reshape(-1).astype(np.float32)  # element e in partition e % 16, column e // 16
    top = np.argsort(-flat, kind="stable")[:4]
    assert sorted(values[0].astype(np.float32)) == sorted(flat[top])
    assert sorted(indices[0].tolist()) == sorted(top.tolist())


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16])
def test_060_hardware_dma_transpose_takes_fewer_rows_and_columns(rows):
    src = tensor(rows, 16, 48, dtype="bfloat16", region=HBM)
    I["dma_transpose"](tensor(48, 16, rows, dtype="bfloat16"), src, dge_mode=dge_mode.hwdge).check(TRN2)
    wide = tensor(rows, 16, 144, dtype="bfloat16", region=HBM)
    refused(
        I["dma_transpose"](tensor(144, 16, rows, dtype="bfloat16"), wide, dge_mode=dge_mode.hwdge),
        TRN2,
        "NKI-V103",
    )


def test_060_tensor_scalar_reduce_keeps_its_sum_until_a_result_is_asked_for():
    state, parts = State(), [filled(8, 5, seed=k) for k in range(3)]
    call = {"op0": "multiply", "operand0": 2.0, "reduce_op": "add"}
    for k, part in enumerate(parts):
        command = reduce_cmd.reset_reduce if k == 0 else reduce_cmd.reduce
        total = dst_of((8, 1)) if k == 2 else None
        got = run(
            I["tensor_scalar_reduce"](dst_of((8, 5)), part, reduce_cmd=command, reduce_res=total, **call),
            state,
        )
    expected = sum(2 * plain(p).sum(axis=1, keepdims=True) for p in parts)
    np.testing.assert_allclose(got[1], expected, rtol=1e-5)


def test_060_language_copy_keeps_bits_of_equal_types():
    @nki.jit
    def kernel(x):
        tile, out = nl.load(x), nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.copy(tile))
        return out

    x = np.array([[2**24 + 1, -(2**31), 7]], np.int32)
    assert np.array_equal(kernel(x), x)


@pytest.mark.parametrize("opcode", ["tensor_copy", "activation", "iota"])
def test_060_more_than_128_partitions_are_refused(opcode):
    wide = tensor(129, 4)
    call = {
        "tensor_copy": {"dst": wide, "src": wide},
        "activation": {"dst": wide, "op": "exp", "data": wide},
        "iota": {"dst": wide, "pattern": [[1, 4]]},
    }[opcode]
    refused(I[opcode](**call), TRN2, "NKI-V102")


def test_060_floats_become_integers_by_nearest_even_and_saturation():
    values = [[0.5, 1.5, 2.5, -0.5, -1.5, 3e9, -3e9, 127.5, 300.0, np.nan]]
    cases = {
        "int32": [0, 2, 2, 0, -2, 2**31 - 1, -(2**31), 128, 300, 0],
        "int8": [0, 2, 2, 0, -2, 127, -128, 127, 127, 0],
        "uint8": [0, 2, 2, 0, 0, 255, 0, 128, 255, 0],
    }
    for dtype, expected in cases.items():
        assert run(I["tensor_copy"](dst_of((1, 10), dtype), of(values))).tolist() == [expected]


def test_060_match_replace_takes_equal_values_from_the_last():
    data, vals = of([[5, 5, 5, 1]]), of([[5, 5, 9, 9, 9, 9, 9, 9]])
    got, places = run(
        I["nc_match_replace8"](dst_of((1, 4)), data, vals, imm=-1.0, dst_idx=dst_of((1, 8), "uint32"))
    )
    assert got.tolist() == [[-1, -1, 5, 1]]
    assert places[0, :2].tolist() == [1, 0]


def test_060_find_index_of_missing_values_is_all_ones_and_equal_values_advance():
    vals = of([[5, 5, 9, 9, 9, 9, 9, 1]])
    data = of([[5, 1, 5, 5, 0, 0, 0, 0]])
    got = run(I["nc_find_index8"](dst_of((1, 8), "uint32"), data, vals))
    assert got.tolist() == [[0, 2, *[2**32 - 1] * 5, 1]]


def test_060_a_reduction_may_go_to_a_part_of_the_destination():
    whole, data = tensor(4, 8), filled(4, 8)
    reduce_res = view(whole, (4, 1), whole.strides, 3)
    run_on = I["activation"](
        whole, "copy", data, reduce_op="add", reduce_res=reduce_res, reduce_cmd=reduce_cmd.reset_reduce
    )
    _, total = run(run_on)
    np.testing.assert_allclose(total, plain(data).sum(axis=1, keepdims=True), rtol=1e-5)


def test_060_scales_may_be_a_part_of_a_larger_buffer():
    buffer = tensor(32, 6, dtype="uint8", contents=np.full((32, 6), 77, np.uint8))
    src = filled(32, 16, dtype="bfloat16")
    dst = dst_of((32, 4), "float8_e4m3fn_x4")
    codes, scales = run(I["quantize_mx"](dst, src, buffer[:, 1:5]), check=TRN3)
    whole, alone = run(I["quantize_mx"](dst, src, tensor(32, 4, dtype="uint8")), check=TRN3)
    assert np.array_equal(codes, whole) and np.array_equal(scales[:4], alone[:4])
    assert (scales[4:] == 77).all()
    scaled = tensor(32, 6, dtype="uint8", contents=np.pad(np.full((32, 4), 127, np.uint8), ((0, 0), (1, 1))))
    data = tensor(32, 4, dtype="float8_e4m3fn_x4", contents=codes)
    args = dst_of((4, 4), region=PSUM), data, data
    sliced = run(I["nc_matmul_mx"](*args, scaled[:, 1:5], scaled[:, 1:5]), check=TRN3)
    plain_scale = of(np.full((32, 4), 127), "uint8")
    same(sliced, run(I["nc_matmul_mx"](*args, plain_scale, plain_scale), check=TRN3))


def test_060_double_row_contracts_and_does_not_widen():
    a, b = filled(16, 2, 8, dtype="float8_e4m3"), filled(16, 2, 12, dtype="float8_e4m3", seed=1)
    got = run(I["nc_matmul"](dst_of((8, 12), region=PSUM), a, b, perf_mode=matmul_perf_mode.double_row))
    x, y = (plain(t).astype(np.float32).reshape(32, -1) for t in (a, b))
    np.testing.assert_allclose(got, x.T @ y, rtol=1e-5, atol=1e-5)


class _Recorder:
    target = TRN2

    def __init__(self):
        self.multiplied = {}

    def repeats(self, storage):
        return False


def test_060_overlapping_destinations_accumulate():
    recorder, dst = _Recorder(), dst_of((128, 512), region=PSUM)
    found = [resolve(recorder, dst[:, s : s + 256], None) for s in (0, 128, 128)]
    assert found == [False, (((0, 128), (0, 128)),), True]


def test_060_accumulation_that_fails_on_the_card_is_told():
    with pytest.raises(NkiValidationError, match="NKI-V130"):
        resolve(_Recorder(), dst_of((128, 512), region=PSUM), True)


@pytest.mark.parametrize("opcode", ["tensor_copy_predicated", "select_reduce"])
def test_060_operands_of_other_ranks_agree_by_their_free_size(opcode):
    data, mask = filled(4, 24), of(np.arange(96).reshape(4, 2, 3, 4) % 3 == 0, "uint8")
    dst = tensor(4, 2, 3, 4)
    if opcode == "tensor_copy_predicated":
        got, other = run(I[opcode](dst, data, mask)), 0
    else:
        got, other = run(I[opcode](dst, mask, data, -7.0)), -7
    expected = np.where(plain(mask).reshape(4, 24), plain(data), other)
    same(got.reshape(4, 24), expected)


def test_060_selections_take_a_python_float():
    lowest = float(np.finfo(np.float32).min)
    tile = filled(4, 6)
    got = run(I["affine_select"](dst_of((4, 6)), [[-1, 6]], 1, tile, lowest, cmp_op="greater_equal"))
    same(got, np.where(np.tri(4, 6), plain(tile), np.float32(lowest)))
    bounds = of([[0]] * 4), of([[3]] * 4)
    got = run(
        I["range_select"](dst_of((4, 6)), tile, "greater_equal", "less", *bounds, on_false_value=lowest)
    )
    same(got, np.where(np.arange(6) < 3, plain(tile), np.float32(lowest)))


# --- 0.5.0


def test_050_scales_have_a_data_type_of_their_own():
    data = tensor(32, 4, dtype="float8_e5m2_x4")
    for dtype in ("float8_e8m0fnu", "uint8"):
        scale = tensor(32, 4, dtype=dtype)
        I["nc_matmul_mx"](dst_of((4, 4), region=PSUM), data, data, scale, scale).check(TRN3)
        I["quantize_mx"](data, tensor(32, 16, dtype="bfloat16"), scale).check(TRN3)


@pytest.mark.parametrize(
    "opcode", ["tensor_copy", "tensor_tensor", "tensor_scalar", "tensor_reduce", "activation", "exponential"]
)
def test_050_partitions_are_gathered_on_chip_from_trn3_on(opcode):
    tile, place = indirect(tensor(64, 16)), tensor(64, 16)
    call = {
        "tensor_copy": {"dst": place, "src": tile},
        "tensor_tensor": {"dst": place, "data1": tile, "data2": place, "op": "add"},
        "tensor_scalar": {"dst": place, "data": tile, "op0": "add", "operand0": 1.0},
        "tensor_reduce": {"dst": tensor(64, 1), "op": "add", "data": tile, "axis": 1},
        "activation": {"dst": place, "op": "exp", "data": tile},
        "exponential": {"dst": place, "src": tile},
    }[opcode]
    I[opcode](**call).check(TRN3)
    refused(I[opcode](**call), TRN2, "NKI-V108")


def test_050_a_bfloat16_product_has_up_to_8192_columns():
    a = tensor(128, 128, dtype="bfloat16")
    for columns, dtype, legal in (
        (8192, "bfloat16", True), (8193, "bfloat16", False), (4096, "float32", True), (4097, "float32", False)
    ):  # fmt: skip
        b = tensor(128, columns, dtype="bfloat16")
        matmul = I["nc_matmul"](dst_of((128, columns), dtype, PSUM), a, b)
        if legal:
            matmul.check(TRN3)
        else:
            refused(matmul, TRN3, "NKI-V104")


def test_050_transposes_at_a_run_time_offset_may_skip():
    src = shifted(tensor(64, 128, dtype="bfloat16", region=HBM))
    I["dma_transpose"](tensor(128, 64, dtype="bfloat16"), src, oob_mode=oob_mode.skip).check(TRN2)


def test_050_block_scales_leave_room_for_rounding_up():
    values = np.full((32, 4), 1.0)
    values[0, 0] = 1.999
    _, scales = run(
        I["quantize_mx"](
            dst_of((32, 1), "float8_e4m3fn_x4"), of(values, "bfloat16"), dst_of((4, 1), "uint8")
        ),
        check=TRN3,
    )
    assert (
        scales[0, 0] == 127 + 1 - 7
    )  # bfloat16 rounds 1.999 to 2: 2**1 / 2**7, twice the sample algorithm's
    assert scales[1, 0] == 127 + 0 - 7


def test_050_accumulation_onto_bytes_nobody_wrote_is_told():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((8, 8), dtype=nl.float32, buffer=nl.shared_hbm)
        tile = nl.load(x)
        total = nl.ndarray((8, 8), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(total, tile, tile, accumulate=True)
        nl.store(out, nl.copy(total))
        return out

    x = np.ones((8, 8), np.float32)
    with pytest.raises(NkiError, match="NKI-V130") as refused:
        kernel(x)
    (found,) = refused.value.diagnostics
    assert found.labels[0].span.line == found.span.line - 1 and "allocated here" in found.labels[0].message
    with runtime.session(target=TRN3), pytest.raises(NkiError, match="NKI-H002"):
        kernel(x)


def test_050_matmul_operands_have_several_free_dimensions():
    a, b = filled(8, 2, 3), filled(8, 3, 4, 5, seed=1)
    got = run(I["nc_matmul"](dst_of((6, 3, 4, 5), region=PSUM), a, b))
    expected = plain(a).reshape(8, 6).T @ plain(b).reshape(8, 60)
    np.testing.assert_allclose(got.reshape(6, 60), expected, rtol=1e-5, atol=1e-5)


def gather_kernel(opcode):
    @nki.jit
    def kernel(x, rows):
        count = rows.shape[0]
        indices = nl.load(rows)
        source = x.ap([[x.shape[1], count], [1, x.shape[1]]], vector_offset=indices)
        if opcode == "dma_copy":
            tile = nl.ndarray((count, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
            nisa.memset(tile, value=0)
            nisa.dma_copy(tile, source, oob_mode=nisa.oob_mode.skip)
        else:
            tile = nl.full((x.shape[1], count), 3.0, dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_transpose(tile, source, oob_mode=nisa.oob_mode.skip)
        out = nl.ndarray(tile.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, tile)
        return out

    return kernel


def test_050_rows_of_packed_types_out_of_bounds_are_skipped():
    x = np.arange(16 * 4, dtype=np.uint32).reshape(16, 4).view(np.uint8).reshape(16, 16)

    @nki.jit
    def kernel(x, rows):
        packed = x.view(nl.float8_e4m3fn_x4)
        indices = nl.load(rows)
        tile = nl.ndarray((8, 4), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
        nisa.memset(tile, value=0)
        source = packed.ap([[4, 8], [1, 4]], vector_offset=indices)
        nisa.dma_copy(tile, source, oob_mode=nisa.oob_mode.skip)
        out = nl.ndarray((8, 16), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out.view(nl.float8_e4m3fn_x4), tile)
        return out

    rows = np.array([[3], [99], [0], [1], [2], [200], [15], [14]], np.uint32)
    got = kernel(x, rows)
    expected = np.where(rows < 16, x[np.minimum(rows[:, 0], 15)], 0)
    assert np.array_equal(got, expected)


def test_050_a_while_loop_ends():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        left = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.memset(left, value=3)
        turns = nisa.register_alloc(left)
        while turns:
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)
            nisa.tensor_scalar(left, left, nl.subtract, 1.0)
            nisa.register_load(turns, left)
        nl.store(out, tile)
        return out

    assert (kernel(np.zeros((4, 4), np.float32)) == 3).all()


def test_050_gathering_transposes_leave_skipped_columns_as_they_were():
    x = np.arange(32 * 16).reshape(32, 16).astype(ml_dtypes.bfloat16)
    rows = np.arange(16, dtype=np.uint32)[:, None] * 3  # 33, 36, ... are outside
    got = gather_kernel("dma_transpose")(x, rows).astype(np.float32)
    expected = np.where(rows < 32, x[np.minimum(rows[:, 0], 31)].astype(np.float32), 3).T
    assert np.array_equal(got, expected)


def test_050_rsqrt_on_gpsimd_is_exact_to_rounding_and_reads_sbuf():
    data = of([[1e-20, 2.0, 3.0, 1e20]])
    rsqrt = I["tensor_scalar"](dst_of((1, 4)), data, "rsqrt", 0.0)
    assert rsqrt.on is Engine.gpsimd
    same(run(rsqrt), (1 / np.sqrt(plain(data).astype(np.float64))).astype(np.float32))
    refused(I["tensor_scalar"](dst_of((1, 4)), tensor(1, 4, region=PSUM), "rsqrt", 0.0), TRN2, "NKI-V106")


# --- 0.4.0


@pytest.mark.parametrize("op", ["abs_max", "abs_min"])
def test_040_the_larger_and_smaller_magnitude_are_operators_of_trn3(op):
    data = of([[-3.0, 1.0, 0.5]])
    scalar = I["tensor_scalar"](dst_of((1, 3)), data, op, 1.0)
    refused(scalar, TRN2, "NKI-V107")
    kept = [-3, 1, 1] if op == "abs_max" else [1, 1, 0.5]
    same(run(scalar, check=TRN3), [kept])
    I["tensor_scalar_reduce"](dst_of((1, 3)), data, op, 1.0, "add").check(TRN3)


def test_040_activate2_is_a_function_of_two_operators():
    data = filled(4, 6)
    call = I["activate2"](dst_of((4, 6)), "relu", data, 2.0, 1.0, "multiply", "subtract", reverse1=True)
    same(run(call, check=TRN3), np.maximum(1 - 2 * plain(data), 0))
    refused(call, TRN2, "NKI-V108")


@pytest.mark.parametrize("op", ["square", "relu"])
def test_040_square_and_relu_are_operators_of_trn3(op):
    data = filled(4, 6)
    scalar = I["tensor_scalar"](dst_of((4, 6)), data, op, 0.0)
    refused(scalar, TRN2, "NKI-V107")
    x = plain(data)
    same(run(scalar, check=TRN3), x * x if op == "square" else np.maximum(x, 0))


def test_040_prelu_and_bypass_serve_activate2():
    data = of([[-2.0, 4.0]])
    call = I["activate2"](dst_of((1, 2)), "prelu", data, 0.0, 0.0, "bypass", "bypass", relu_param=0.25)
    same(run(call, check=TRN3), [[-0.5, 4.0]])


def test_040_dma_compute_skips_with_indices_only():
    dst, rows = tensor(16, 8, region=HBM), tensor(16, 8)
    scattered = gathered(dst, 16)
    I["dma_compute"](scattered, [scattered, rows], "add", oob_mode=oob_mode.skip).check(TRN2)
    refused(I["dma_compute"](dst, [dst, rows], "add", oob_mode=oob_mode.skip), TRN2, "NKI-V113")


def test_040_matmul_takes_one_kind_of_fp8():
    a, b = tensor(16, 8, dtype="float8_e4m3fn"), tensor(16, 8, dtype="float8_e4m3")
    dst = dst_of((8, 8), region=PSUM)
    I["nc_matmul"](dst, a, a).check(TRN3)
    refused(I["nc_matmul"](dst, a, a), TRN2, "NKI-V105")
    refused(I["nc_matmul"](dst, a, b), TRN3, "NKI-V105")


def test_040_cores_exchange_any_number_of_partitions():
    tile = tensor(7, 8)
    sendrecv = I["sendrecv"](tile, tensor(7, 8), 1, 1, 0)
    sendrecv.check(TRN2)
    refused(sendrecv, TRN1, "NKI-V108")


def test_040_gathering_transposes_have_up_to_128_columns():
    for columns, legal in ((48, True), (128, True), (144, False)):
        src = gathered(tensor(64, columns, dtype="bfloat16", region=HBM), 32)
        transpose = I["dma_transpose"](tensor(columns, 32, dtype="bfloat16"), src)
        if legal:
            transpose.check(TRN2)
        else:
            refused(transpose, TRN2, "NKI-V103")


@pytest.mark.parametrize("name", ["tensor_copy_dynamic_src", "tensor_copy_dynamic_dst"])
def test_040_copies_at_a_run_time_place_are_tensor_copy_of_a_view(name):
    assert name not in REGISTRY and not hasattr(nisa, name)
    I["tensor_copy"](tensor(8, 4), shifted(tensor(8, 4))).check(TRN2)


def test_040_a_dma_transpose_keeps_the_rank():
    src = tensor(64, 1, 1, 128, dtype="bfloat16", region=HBM)
    I["dma_transpose"](tensor(128, 1, 1, 64, dtype="bfloat16"), src).check(TRN2)
    refused(I["dma_transpose"](tensor(128, 1, 64, dtype="bfloat16"), src), TRN2, "NKI-V103")


def test_040_integers_keep_their_bits_where_rows_are_skipped():
    x = (np.arange(64, dtype=np.int32).reshape(16, 4) + 2**24 + 1).astype(np.int32)
    rows = np.array([[3], [99], [0], [1]], np.uint32)
    assert np.array_equal(gather_kernel("dma_copy")(x, rows), np.where(rows < 16, x[rows[:, 0] % 16], 0))


def test_040_a_shuffle_keeps_what_its_mask_leaves_out():
    old, src = filled(32, 4, seed=1), filled(32, 4)
    mask = [*range(31, 0, -1), 255]
    got = run(I["nc_stream_shuffle"](old, src, mask))
    same(got[:31], plain(src)[31:0:-1])
    same(got[31], plain(old)[31])


def test_040_local_gather_writes_a_part_of_a_tensor():
    whole, source = tensor(16, 12), filled(16, 8)
    index = of(np.arange(16).reshape(16, 1) % 8, "uint16")
    part = view(whole, (16, 10), whole.strides, 2)
    call = {"num_elem_per_idx": 1, "num_valid_indices": 10}
    got = run(I["local_gather"](part, source, index, **call))
    same(got, plain(source)[:, np.arange(10) % 8])


def test_040_quantize_gives_ocp_fp8():
    src = of(np.full((32, 4), 448.0), "bfloat16")
    codes, scales = run(
        I["quantize_mx"](dst_of((32, 1), "float8_e4m3fn_x4"), src, dst_of((4, 1), "uint8")), check=TRN3
    )
    same(
        to_float32(codes, DTYPES["float8_e4m3fn_x4"]) * 2.0 ** (int(scales[0, 0]) - 127),
        np.full((32, 4), 448),
    )


def test_040_patterns_take_an_offset_from_a_register():
    got = run(I["iota"](dst_of((2, 3), "int32"), [[1, 3]], VirtualRegister(0), 10), registers=[5])
    assert got.tolist() == [[5, 6, 7], [15, 16, 17]]
    ones = of(np.ones((2, 3)))
    select = I["affine_select"](
        dst_of((2, 3)), [[1, 3]], 0, ones, 0.0, cmp_op="greater_equal", offset=VirtualRegister(0)
    )
    assert run(select, registers=[-2]).tolist() == [[0, 0, 1]] * 2


def test_040_dma_compute_scales_by_one_only():
    a, b = filled(4, 8, region=HBM), filled(4, 8, seed=1)
    same(run(I["dma_compute"](tensor(4, 8), [a, b], "add", scales=(1.0, 1.0))), plain(a) + plain(b))
    refused(I["dma_compute"](tensor(4, 8), [a, b], "add", scales=(0.5, 1.0)), TRN2, "NKI-V111")


def test_040_logical_and_is_a_truth_value():
    a, b = of([[0.0, 2.0, -1.0]]), of([[3.0, 0.5, 0.0]])
    assert run(I["tensor_tensor"](dst_of((1, 3)), a, b, "logical_and")).tolist() == [[0, 1, 0]]


def test_040_the_engine_of_a_transpose_is_the_one_asked_for():
    tile, psum, sbuf = tensor(32, 32), dst_of((32, 32), region=PSUM), dst_of((32, 32))
    assert I["nc_transpose"](psum, tile, engine=Engine.vector).on is Engine.vector
    assert I["nc_transpose"](psum, tile, engine=Engine.tensor).on is Engine.tensor
    assert [I["nc_transpose"](d, tile).on for d in (psum, sbuf)] == [Engine.tensor, Engine.vector]


def test_040_the_variable_of_a_loop_is_a_register_that_is_not_written():
    refused(I["register_move"](VirtualRegister(0, True), 1), TRN2, "NKI-V100")


def test_040_device_print_takes_one_dimension(capsys):
    run(I["device_print"]("v", tensor(4, region=HBM, contents=np.arange(4, dtype=np.float32))))
    assert "float32[4]" in capsys.readouterr().out


def test_040_truth_values_come_back_as_such():
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=nl.bool_, buffer=nl.shared_hbm)
        tile, truth = nl.load(x), nl.ndarray(x.shape, dtype=nl.bool_, buffer=nl.sbuf)
        nisa.tensor_scalar(truth, tile, nl.greater, 0.0)
        nisa.dma_copy(out, truth)
        return out

    got = kernel(np.array([[1.0, -1.0]], np.float32))
    assert got.dtype == np.bool_ and got.tolist() == [[True, False]]


# --- 0.3.0


def test_030_dma_does_not_read_psum():
    refused(I["dma_copy"](tensor(8, 4, region=HBM), tensor(8, 4, region=PSUM)), TRN2, "NKI-V101")


def test_030_hardware_dge_converts_no_types():
    wide, narrow = tensor(8, 4, region=HBM), tensor(8, 4, dtype="bfloat16")
    I["dma_copy"](narrow, wide).check(TRN2)
    refused(I["dma_copy"](narrow, wide, dge_mode=dge_mode.hwdge), TRN2, "NKI-V105")
    I["dma_copy"](narrow.view("uint16"), narrow, dge_mode=dge_mode.none).check(TRN2)


@pytest.mark.parametrize(
    ("opcode", "gone"),
    [
        ("dma_copy", "dst_rmw_op"), ("dma_copy", "unique_indices"), ("sendrecv", "use_gpsimd_dma"),
        ("register_move", "imm"), ("nc_matmul", "psumAccumulateFlag"), ("nc_matmul", "is_moving_zero"),
    ],
)  # fmt: skip
def test_030_parameters_that_are_gone_are_named(opcode, gone):
    with pytest.raises(NkiError, match=f"NKI-L012.*{gone}"):
        I[opcode](**{gone: None})


@pytest.mark.parametrize(
    ("opcode", "signature"),
    [
        ("dma_compute", ("dst", "srcs", "reduce_op", "scales=None", "unique_indices=True")),
        ("affine_select", ("dst", "pattern", "channel_multiplier", "on_true_tile", "on_false_value")),
        ("register_move", ("dst", "src")),
        ("iota", ("dst", "pattern", "offset=0")),
    ],
)
def test_030_parameters_in_their_order(opcode, signature):
    shown = [str(p) for p in I[opcode].signature.parameters.values()]
    assert tuple(shown[: len(signature)]) == signature


def test_030_fills_of_integers_are_integers():
    refused(I["memset"](tensor(8, 4, dtype="int32"), 2.5), TRN2, "NKI-V111")
    I["memset"](tensor(8, 4, dtype="int32"), 2).check(TRN2)
    I["memset"](tensor(8, 4), 2).check(TRN2)


def test_030_fills_of_packed_types_are_zero():
    packed = tensor(8, 4, dtype="float8_e4m3fn_x4")
    I["memset"](packed, 0).check(TRN2)
    refused(I["memset"](packed, 1), TRN2, "NKI-V111")


def test_030_offsets_of_patterns_are_zero_unless_given():
    assert run(I["iota"](dst_of((1, 3), "int32"), [[1, 3]])).tolist() == [[0, 1, 2]]


def test_030_registers_move_to_registers():
    assert I["register_move"](VirtualRegister(0), VirtualRegister(1)).compute(7) == 7


def test_030_members_of_enumerations_are_named():
    refused(I["sendrecv"](tensor(8, 4), tensor(8, 4), 1, 1, 0, dma_engine=0), TRN2, "NKI-V100")
    refused(I["tensor_copy"](tensor(8, 4), tensor(8, 4), engine=5), TRN2, "NKI-V100")
    place, tile = tensor(8, 4, region=HBM), tensor(8, 4)
    refused(I["dma_copy"](place, tile, dge_mode=2), TRN2, "NKI-V100")
    refused(I["dma_copy"](place, tile, oob_mode=1), TRN2, "NKI-V100")
    refused(I["dma_transpose"](tensor(4, 8), tile, dge_mode=2), TRN2, "NKI-V100")


def test_030_barriers_are_on_gpsimd_unless_asked_for():
    assert I["core_barrier"](tensor(8, 4, region=HBM), (0, 1)).on is Engine.gpsimd


def test_030_axes_of_a_reduction_are_those_of_the_tile():
    data = filled(4, 3, 5)
    got = run(I["tensor_reduce"](dst_of((4, 3)), "add", data, axis=2))
    np.testing.assert_allclose(got, plain(data).sum(axis=2), rtol=1e-5)
    refused(I["tensor_reduce"](dst_of((4, 3)), "add", data, axis=1), TRN2)


def test_030_range_select_follows_its_command():
    state, tile = State(), of([[1.0, 9.0, 3.0]])
    bounds = of([[0]]), of([[3]])
    call = {"comp_op0": "greater_equal", "comp_op1": "less", "bound0": bounds[0], "bound1": bounds[1]}
    results = []
    for command, values in ((reduce_cmd.reset_reduce, tile), (reduce_cmd.reduce, of([[2.0, 4.0, 3.0]]))):
        results.append(
            run(
                I["range_select"](
                    dst_of((1, 3)), values, reduce_cmd=command, reduce_res=dst_of((1, 1)), **call
                ),
                state,
            )[1][0, 0]
        )
    assert results == [9, 9]
    refused(I["range_select"](dst_of((1, 3)), tile, on_false_value=0.0, **call), TRN2, "NKI-V111")
