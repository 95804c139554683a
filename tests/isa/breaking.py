"""Ways to break the constraints of an instruction: one legal call each, and one case or more per rule."""

import dataclasses

from tiles import HBM, PSUM, SBUF, tensor, view

from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine, reduce_cmd
from nki_isa.machine.targets import TRN1, TRN2, TRN3
from nki_isa.tensor.dynamic import DynamicOffset
from nki_isa.tensor.tensor import NkiTensor

A, C = (64, 16), (64, 1)


def t(shape=A, dtype="float32", region=SBUF):
    return tensor(*shape, dtype=dtype, region=region)


def indirect(of, address=None):
    """`of` as an indirect view; its index starts at partition `address`."""
    index = tensor(*C, dtype="uint32", address=None if address is None else (address, 0))
    return NkiTensor(
        of.shape, of.strides, of.offset, of.dtype, of.storage, DynamicOffset("indirect", index, 1, 0, 64)
    )


@dataclasses.dataclass
class Case:
    """A call that differs from the legal one by `changes`, and the code and words it must give."""

    code: str
    words: str
    changes: dict
    target: object = TRN2


LEGAL = {
    "tensor_copy": lambda: {"dst": t(), "src": t()},
    "memset": lambda: {"dst": t(), "value": 1.5},
    "tensor_tensor": lambda: {"dst": t(), "data1": t(), "data2": t(), "op": "add"},
    "tensor_scalar": lambda: {
        "dst": t(), "data": t(), "op0": "multiply", "operand0": t(C), "op1": "add", "operand1": 1.0,
    },
    "scalar_tensor_tensor": lambda: {
        "dst": t(), "data": t(), "op0": "multiply", "operand0": t(C), "op1": "add", "operand1": t(),
    },
    "reciprocal": lambda: {"dst": t(), "data": t()},
    "activation": lambda: {
        "dst": t(), "op": "exp", "data": t(), "bias": t(C), "scale": t(C), "reduce_op": "add",
        "reduce_res": t(C), "reduce_cmd": reduce_cmd.reset_reduce,
    },
    "activation_reduce": lambda: {
        "dst": t(), "op": "exp", "data": t(), "bias": t(C), "scale": t(C), "reduce_op": "add",
        "reduce_res": t(C),
    },
    "tensor_reduce": lambda: {"dst": t(C), "op": "add", "data": t(), "axis": 1},
    "tensor_partition_reduce": lambda: {"dst": t((1, 16)), "op": "add", "data": t()},
    "tensor_tensor_scan": lambda: {
        "dst": t(), "data0": t(), "data1": t(), "initial": t(C), "op0": "multiply", "op1": "add",
    },
    "bn_stats": lambda: {"dst": t((64, 6)), "data": t()},
    "bn_aggr": lambda: {"dst": t((64, 2)), "data": t((64, 12))},
    "iota": lambda: {"dst": t(), "pattern": [[1, 16]]},
    "affine_select": lambda: {
        "dst": t(), "pattern": [[1, 16]], "channel_multiplier": 1, "on_true_tile": t(), "on_false_value": 0.0,
    },
    "nc_transpose": lambda: {"dst": t((16, 64), region=PSUM), "data": t()},
    "tensor_copy_predicated": lambda: {"dst": t(), "src": t(), "predicate": t(dtype="uint8")},
    "select_reduce": lambda: {
        "dst": t(), "predicate": t(dtype="uint8"), "on_true": t(), "on_false": t(C), "reduce_res": t(C),
        "reduce_cmd": reduce_cmd.reset_reduce,
    },
    "range_select": lambda: {
        "dst": t(), "on_true_tile": t(), "comp_op0": "greater_equal", "comp_op1": "less", "bound0": t(C),
        "bound1": t(C), "reduce_res": t(C),
    },
    "tensor_scalar_reduce": lambda: {
        "dst": t(), "data": t(), "op0": "add", "operand0": t(C), "reduce_op": "add", "reduce_res": t(C),
        "reduce_cmd": reduce_cmd.load_reduce, "reduce_init": t(C),
    },
    "tensor_scalar_cumulative": lambda: {
        "dst": t(), "src": t(), "op0": "add", "op1": "add", "imm0": t(C), "imm1": t(C),
        "reduce_cmd": reduce_cmd.load_reduce,
    },
    "exponential": lambda: {
        "dst": t(), "src": t(), "max_value": t(C), "reduce_res": t(C), "reduce_cmd": reduce_cmd.load_reduce,
        "reduce_init": t(C),
    },
    "activate2": lambda: {
        "dst": t(), "op": "prelu", "data": t(), "imm0": t(C), "imm1": t(C), "op0": "multiply", "op1": "add",
        "relu_param": t(C), "reduce_op": "maximum", "reduce_res": t(C), "reduce_cmd": reduce_cmd.reduce,
    },
    "max8": lambda: {"dst": t((64, 8)), "src": t()},
    "nc_find_index8": lambda: {"dst": t((64, 8), "uint32"), "data": t(), "vals": t((64, 8))},
    "nc_match_replace8": lambda: {
        "dst": t(), "data": t(), "vals": t((64, 8)), "imm": -1.0, "dst_idx": t((64, 8), "uint32"),
    },
    "nonzero_with_count": lambda: {"dst": t((64, 17), "int32"), "src": t()},
    "sequence_bounds": lambda: {"dst": t((1, 2, 16)), "segment_ids": t((1, 16))},
    "topk": lambda: {
        "val_dst": t((64, 8), "bfloat16"), "idx_dst": t((64, 8), "uint32"), "src": t(dtype="bfloat16"),
        "n": 250,
    },
    "nc_stream_shuffle": lambda: {"dst": t(), "src": t(), "shuffle_mask": [*range(31), 255]},
    "nc_n_gather": lambda: {"dst": t((64, 8)), "data": t(), "indices": t((64, 8), "uint32")},
    "local_gather": lambda: {
        "dst": t((64, 60)), "src_buffer": t(), "index": t((64, 2), "uint16"), "num_elem_per_idx": 2,
        "num_valid_indices": 30,
    },
    "quantize_mx": lambda: {
        "dst": t((64, 4), "float8_e4m3fn_x4"), "src": t(dtype="bfloat16"), "dst_scale": t((64, 4), "uint8"),
    },
    "rng": lambda: {"dst": t(dtype="uint16")},
    "rand2": lambda: {"dst": t(), "min": t(C), "max": 1.0},
    "rand_set_state": lambda: {"src_seeds": t((64, 6), "uint32")},
    "rand_get_state": lambda: {"dst": t((64, 6), "uint32")},
    "set_rng_seed": lambda: {"src_seeds": t((1, 1), "uint32")},
    "dropout": lambda: {"dst": t(), "data": t(), "prob": t(C)},
}  # fmt: skip

_TENSOR_SCALAR = (
    Case("NKI-V106", "gpsimd", {"engine": Engine.gpsimd}),
    Case("NKI-V106", "since NeuronCore-v3", {"engine": Engine.scalar}, TRN1),
    Case("NKI-V106", "op0 add and op1 add", {"op0": "add", "engine": Engine.scalar}),
    Case("NKI-V106", "engine is sync", {"engine": Engine.sync}),
    Case("NKI-V107", "op0 is exp, of kind activation", {"op0": "exp"}),
    Case("NKI-V107", "op1 is exp, of kind activation", {"op1": "exp"}),
    Case("NKI-V107", "square, which exists since NeuronCore-v4", {"op0": "square", "operand0": 0}),
    Case("NKI-V113", "op1 is bitwise_and (bitvec)", {"op1": "bitwise_and", "operand1": 1}),
    Case("NKI-V113", "operand1 is given and op1 is None", {"op1": None}),
    Case(
        "NKI-V113",
        "an operand is an indirect view, data is int32",
        {"dst": t(dtype="int32"), "data": indirect(t(dtype="int32"))},
        TRN3,
    ),
    Case(
        "NKI-V105", "dst is float32 and op0 is bitwise_or", {"op0": "bitwise_or", "operand0": 1, "op1": None}
    ),
    Case("NKI-V109", "operand0 [64, 16] has 16 elements per partition", {"operand0": t()}),
    Case("NKI-V109", "operand0 has 32 partitions, data has 64", {"operand0": t((32, 1))}),
    Case("NKI-V109", "operand1 is in HBM", {"operand1": t(C, region=HBM)}),
    Case("NKI-V109", "operand0 is bfloat16", {"operand0": t(C, "bfloat16")}),
    Case("NKI-V109", "operand1 is int32", {"operand1": t(C, "int32")}),
    Case("NKI-V109", "operand0 is 1.5", {"op0": "bitwise_or", "operand0": 1.5}),
    Case("NKI-V109", "op0 is abs, which takes one argument", {"op0": "abs", "operand0": 2.0}),
    Case("NKI-V109", "op1 is add, which takes two arguments", {"operand1": None}),
    Case("NKI-V106", "op0 is bitwise_or, a bitvec", {"op0": "bitwise_or", "engine": Engine.scalar}),
)
_ACTIVATION = (
    Case("NKI-V107", "op is add, of kind arithmetic", {"op": "add"}),
    Case("NKI-V109", "scale is bfloat16", {"scale": t(C, "bfloat16")}),
    Case("NKI-V109", "bias has 32 partitions", {"bias": t((32, 1))}),
    Case("NKI-V105", "bias is tfloat32", {"bias": t(C, "tfloat32")}),
    Case("NKI-V109", "bias is the number 1.0", {"bias": 1.0}, TRN1),
    Case("NKI-V113", "op is reciprocal and bias is given", {"op": "reciprocal"}, TRN1),
    Case("NKI-V103", "reduce_res has 32 partitions", {"reduce_res": t((32, 1))}),
    Case("NKI-V103", "reduce_res [64, 2] has 2 elements", {"reduce_res": t((64, 2))}),
    Case("NKI-V107", "reduce_op is maximum", {"reduce_op": "maximum"}),
)
_PATTERN = (
    Case("NKI-V111", "pattern is 5", {"pattern": 5}),
    Case("NKI-V111", "list of 1 to 4 pairs", {"pattern": [[1, 1]] * 4 + [[1, 16]]}),
    Case("NKI-V111", "count must be at least 1", {"pattern": [[1, 0]]}),
    Case("NKI-V111", "pattern[0][0] is 1.5", {"pattern": [[1.5, 16]]}),
    Case("NKI-V111", "32-bit int", {"channel_multiplier": 2**31}),
    Case("NKI-V103", "it must have 8", {"pattern": [[1, 8]]}),
)

CASES = {
    "tensor_copy": (
        Case("NKI-V103", "src has 32 partitions", {"src": t((32, 16))}),
        Case("NKI-V103", "16 elements per partition, dst", {"dst": t((64, 8))}),
        Case("NKI-V106", "since NeuronCore-v3", {"engine": Engine.scalar}, TRN1),
        Case("NKI-V105", "packed data are not converted", {"src": t(dtype="float8_e5m2_x4")}),
        Case("NKI-V106", "gpsimd and src is in PSUM", {"engine": Engine.gpsimd, "src": t(region=PSUM)}),
        Case("NKI-V106", "tensor, it runs on vector", {"engine": Engine.tensor}),
    ),
    "memset": (
        Case("NKI-V111", "value is 'a'", {"value": "a"}),
        Case("NKI-V111", "value is 1.5 and dst is int32, it must be an int", {"dst": t(dtype="int32")}),
        Case("NKI-V111", "value is 2.0 and dst is int32", {"dst": t(dtype="int32"), "value": 2.0}),
        Case("NKI-V111", "dst is uint8, which holds 0 to 255", {"dst": t(dtype="uint8"), "value": 256}),
        Case("NKI-V111", "int16, which holds -32768 to", {"dst": t(dtype="int16"), "value": -32769}),
        Case("NKI-V111", "packed data types can only be set to 0", {"dst": t(dtype="float8_e5m2_x4")}),
    ),
    "tensor_tensor": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "data2 [64, 8] has 8", {"data2": t((64, 8))}),
        Case("NKI-V101", "both in PSUM", {"data1": t(region=PSUM), "data2": t(region=PSUM)}),
        Case("NKI-V107", "op is exp", {"op": "exp"}),
        Case("NKI-V107", "takes one argument", {"op": "abs"}),
        Case("NKI-V107", "abs_max, which exists since NeuronCore-v4", {"op": "abs_max"}),
        Case("NKI-V105", "dst is float32 and op is bitwise_and", {"op": "bitwise_and"}),
        Case("NKI-V106", "op is bitwise_and", {"op": "bitwise_and", "engine": Engine.gpsimd}),
        Case("NKI-V106", "op is power", {"op": "power", "engine": Engine.vector}),
        Case("NKI-V106", "gpsimd cannot access", {"op": "power", "data1": t(region=PSUM)}),
    ),
    "tensor_scalar": _TENSOR_SCALAR,
    "scalar_tensor_tensor": (
        Case("NKI-V103", "operand1 has 32 partitions", {"operand1": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V101", "both in PSUM", {"data": t(region=PSUM), "operand1": t(region=PSUM)}),
        Case("NKI-V107", "op0 is bitwise_and", {"op0": "bitwise_and"}),
        Case("NKI-V107", "op1 is exp", {"op1": "exp"}),
        Case("NKI-V109", "operand0 [64, 16]", {"operand0": t()}),
        Case("NKI-V109", "op0 is abs, which takes one argument", {"op0": "abs"}),
    ),
    "reciprocal": (
        Case("NKI-V112", "steps 40000 elements", {"dst": t((64, 4, 40000), "uint8")[:, :, 0:4]}),
        Case("NKI-V112", "has 70000 elements", {"dst": t((64, 70000), "uint8")}),
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
    ),
    "activation": (
        *_ACTIVATION,
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V111", "reduce_cmd is load_reduce", {"reduce_cmd": reduce_cmd.load_reduce}),
        Case("NKI-V113", "reduce_cmd is reset_reduce and reduce_op is None", {"reduce_op": None}),
        Case("NKI-V100", "reduce_cmd is int 3", {"reduce_cmd": 3}),
    ),
    "activation_reduce": (
        *_ACTIVATION,
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
    ),
    "tensor_reduce": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 1))}),
        Case("NKI-V107", "op is exp", {"op": "exp"}),
        Case("NKI-V107", "equal, which is not a legal reduction", {"op": "equal"}),
        Case("NKI-V105", "op is bitwise_and", {"op": "bitwise_and"}),
        Case("NKI-V111", "axis is (0,) for data of 2 dimensions; it must end at 1", {"axis": 0}),
        Case("NKI-V111", "axis is (1,) for data of 3", {"data": t((64, 4, 4)), "axis": 1, "dst": t((64, 4))}),
        Case("NKI-V111", "axis is None", {"axis": None}),
        Case("NKI-V103", "dst [64, 2] has 2", {"dst": t((64, 2))}),
        Case("NKI-V113", "negate is True", {"op": "bitwise_and", "negate": True}),
    ),
    "tensor_partition_reduce": (
        Case("NKI-V102", "dst has 2 partitions", {"dst": t((2, 16))}),
        Case("NKI-V103", "dst [1, 8] has 8", {"dst": t((1, 8))}),
        Case("NKI-V107", "op is multiply", {"op": "multiply"}),
        Case("NKI-V105", "op is bitwise_or", {"op": "bitwise_or"}),
    ),
    "tensor_tensor_scan": (
        Case("NKI-V103", "data1 has 32 partitions", {"data1": t((32, 16))}),
        Case("NKI-V103", "data1 [64, 8] has 8", {"data1": t((64, 8))}),
        Case("NKI-V101", "both in PSUM", {"data0": t(region=PSUM), "data1": t(region=PSUM)}),
        Case("NKI-V107", "op0 is bitwise_and", {"op0": "bitwise_and"}),
        Case("NKI-V107", "op1 is abs", {"op1": "abs"}),
        Case("NKI-V109", "initial [64, 16]", {"initial": t()}),
    ),
    "bn_stats": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 6))}),
        Case("NKI-V103", "dst [64, 2] has 2", {"dst": t((64, 2))}),
        Case("NKI-V104", "data has 513 elements per partition, at most 512", {"data": t((64, 513))}),
    ),
    "bn_aggr": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 2))}),
        Case("NKI-V103", "dst [64, 6] has 6", {"dst": t((64, 6))}),
        Case("NKI-V103", "data has 16 elements per partition, it must have a multiple of 3", {"data": t()}),
    ),
    "iota": (*_PATTERN, Case("NKI-V101", "dst is in PSUM", {"dst": t(region=PSUM)})),
    "affine_select": (
        *_PATTERN,
        Case("NKI-V101", "on_true_tile is in PSUM", {"on_true_tile": t(region=PSUM)}),
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V111", "on_false_value is None", {"on_false_value": None}),
        Case("NKI-V107", "cmp_op is add", {"cmp_op": "add"}),
    ),
    "nc_transpose": (
        Case("NKI-V105", "dst is bfloat16, data is float32", {"dst": t((16, 64), "bfloat16", PSUM)}),
        Case("NKI-V103", "the transpose of data [64, 16] is [16, 64]", {"dst": t((64, 16), region=PSUM)}),
        Case("NKI-V104", "data is 64 by 16; the vector engine takes 32", {"dst": t((16, 64))}),
        Case("NKI-V114", "strides [1], results of fp8 are pairs", {
            "data": t(dtype="float8_e4m3"), "dst": t((16, 64), "float8_e4m3", PSUM),
        }),
        Case("NKI-V101", "data is in PSUM", {"data": t(region=PSUM), "engine": Engine.tensor}),
        Case("NKI-V101", "dst is not in PSUM", {"dst": t((16, 64)), "engine": Engine.tensor}),
        Case("NKI-V106", "engine is scalar", {"engine": Engine.scalar}),
    ),
    "tensor_copy_predicated": (
        Case("NKI-V103", "src has 32 partitions", {"src": t((32, 16))}),
        Case("NKI-V103", "predicate [64, 8] has 8", {"predicate": t((64, 8), "uint8")}),
        Case("NKI-V101", "both in PSUM", {"src": t(region=PSUM), "predicate": t(A, "uint8", PSUM)}),
        Case("NKI-V105", "predicate is int8", {"predicate": t(dtype="int8")}),
        Case("NKI-V105", "src is bfloat16, dst is float32", {"src": t(dtype="bfloat16")}),
        Case("NKI-V100", "src is None", {"src": None}),
        Case("NKI-V105", "src is the number 1.0", {"dst": t(dtype="float8_e5m2_x4"), "src": 1.0}),
    ),
    "select_reduce": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V101", "both in PSUM", {"on_true": t(region=PSUM), "predicate": t(A, "uint8", PSUM)}),
        Case("NKI-V105", "predicate is uint32", {"predicate": t(dtype="uint32")}),
        Case("NKI-V105", "on_true is int32", {"on_true": t(dtype="int32")}),
        Case("NKI-V109", "on_false [64, 16]", {"on_false": t()}),
        Case("NKI-V103", "reduce_res has 32 partitions", {"reduce_res": t((32, 1))}),
        Case("NKI-V103", "reduce_res [64, 2] has 2", {"reduce_res": t((64, 2))}),
        Case("NKI-V105", "reduce_res is int32", {"reduce_res": t(C, "int32")}),
        Case("NKI-V111", "reduce_cmd is load_reduce", {"reduce_cmd": reduce_cmd.load_reduce}),
        Case("NKI-V107", "reduce_op is add", {"reduce_op": "add"}),
    ),
    "range_select": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V103", "bound1 has 32 partitions", {"bound1": t((32, 1))}),
        Case("NKI-V103", "bound0 [64, 16] has 16", {"bound0": t()}),
        Case("NKI-V103", "bound1 [64, 16] has 16", {"bound1": t()}),
        Case("NKI-V103", "reduce_res [64, 2] has 2", {"reduce_res": t((64, 2))}),
        Case("NKI-V105", "on_true_tile is int32", {"on_true_tile": t(dtype="int32")}),
        Case("NKI-V105", "bound0 is bfloat16", {"bound0": t(C, "bfloat16")}),
        Case("NKI-V105", "bound1 is int32", {"bound1": t(C, "int32")}),
        Case("NKI-V107", "comp_op0 is not_equal", {"comp_op0": "not_equal"}),
        Case("NKI-V107", "comp_op1 is add", {"comp_op1": "add"}),
        Case("NKI-V107", "reduce_op is minimum", {"reduce_op": "minimum"}),
        Case("NKI-V111", "reduce_cmd is load_reduce", {"reduce_cmd": reduce_cmd.load_reduce}),
        Case("NKI-V111", "on_false_value is 0.0", {"on_false_value": 0.0}),
        Case("NKI-V111", "range_start is 1.5", {"range_start": 1.5}),
        Case("NKI-V111", "from 16777210 to 16777225", {"range_start": 2**24 - 6}),
        Case("NKI-V108", "since NeuronCore-v3", {}, TRN1),
    ),
    "tensor_scalar_reduce": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V103", "reduce_res has 32 partitions", {"reduce_res": t((32, 1))}),
        Case("NKI-V103", "reduce_res [64, 2] has 2", {"reduce_res": t((64, 2))}),
        Case("NKI-V107", "op0 is bitwise_and", {"op0": "bitwise_and"}),
        Case("NKI-V107", "reduce_op is subtract", {"reduce_op": "subtract"}),
        Case("NKI-V109", "operand0 is bfloat16", {"operand0": t(C, "bfloat16")}),
        Case("NKI-V109", "reduce_init has 32", {"reduce_init": t((32, 1))}),
        Case("NKI-V109", "op0 is abs", {"op0": "abs"}),
        Case("NKI-V111", "reverse0 is True", {"reverse0": True}),
        Case("NKI-V111", "reduce_cmd is idle", {"reduce_cmd": reduce_cmd.idle, "reduce_init": None}),
        Case("NKI-V113", "not load_reduce", {"reduce_cmd": reduce_cmd.reduce}),
        Case("NKI-V113", "reduce_init is 2.0", {"reduce_cmd": reduce_cmd.reduce, "reduce_init": 2.0}),
        Case("NKI-V113", "reduce_init is None", {"reduce_init": None}),
    ),
    "tensor_scalar_cumulative": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V105", "dst is int32", {"dst": t(dtype="int32")}),
        Case("NKI-V105", "src is uint32", {"src": t(dtype="uint32")}),
        Case("NKI-V107", "op0 is abs", {"op0": "abs"}),
        Case("NKI-V107", "op1 is equal", {"op1": "equal"}),
        Case("NKI-V109", "imm0 is int32", {"imm0": t(C, "int32")}),
        Case("NKI-V109", "imm1 [64, 16]", {"imm1": t()}),
        Case("NKI-V111", "reduce_cmd is reset", {"reduce_cmd": reduce_cmd.reset, "imm1": None}),
        Case("NKI-V113", "imm1 is None", {"imm1": None}),
    ),
    "exponential": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}, TRN3),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}, TRN3),
        Case("NKI-V103", "reduce_res has 32 partitions", {"reduce_res": t((32, 1))}, TRN3),
        Case("NKI-V103", "reduce_res [64, 2] has 2", {"reduce_res": t((64, 2))}, TRN3),
        Case("NKI-V105", "dst is uint32", {"dst": t(dtype="uint32")}, TRN3),
        Case("NKI-V105", "src is tfloat32", {"src": t(dtype="tfloat32")}, TRN3),
        Case("NKI-V105", "reduce_res is int32", {"reduce_res": t(C, "int32")}, TRN3),
        Case("NKI-V109", "max_value is bfloat16", {"max_value": t(C, "bfloat16")}, TRN3),
        Case("NKI-V109", "reduce_init [64, 16]", {"reduce_init": t()}, TRN3),
        Case("NKI-V111", "reduce_cmd is reset", {"reduce_cmd": reduce_cmd.reset, "reduce_init": 0.0}, TRN3),
        Case("NKI-V113", "reduce_init is 1.0", {"reduce_cmd": reduce_cmd.reduce, "reduce_init": 1.0}, TRN3),
        Case("NKI-V108", "since NeuronCore-v4", {}),
    ),
    "activate2": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}, TRN3),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}, TRN3),
        Case("NKI-V103", "reduce_res has 32 partitions", {"reduce_res": t((32, 1))}, TRN3),
        Case("NKI-V103", "reduce_res [64, 2] has 2", {"reduce_res": t((64, 2))}, TRN3),
        Case("NKI-V107", "op is add", {"op": "add"}, TRN3),
        Case("NKI-V113", "op0 is add and op1 is multiply", {"op0": "add", "op1": "multiply"}, TRN3),
        Case("NKI-V113", "reverse1 is True and op1 is bypass", {"op1": "bypass", "reverse1": True}, TRN3),
        Case("NKI-V109", "imm0 has 32", {"imm0": t((32, 1))}, TRN3),
        Case("NKI-V109", "imm1 [64, 16]", {"imm1": t()}, TRN3),
        Case("NKI-V109", "relu_param [64, 16]", {"relu_param": t()}, TRN3),
        Case("NKI-V109", "imm0 is bfloat16 and imm1 is float32", {"imm0": t(C, "bfloat16")}, TRN3),
        Case("NKI-V107", "reduce_op is multiply", {"reduce_op": "multiply"}, TRN3),
        Case("NKI-V111", "reduce_cmd is load_reduce", {"reduce_cmd": reduce_cmd.load_reduce}, TRN3),
        Case("NKI-V113", "reduce_op is None", {"reduce_op": None}, TRN3),
    ),
    "max8": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 8))}),
        Case("NKI-V103", "dst [64, 4] has 4", {"dst": t((64, 4))}),
        Case("NKI-V104", "at least 8", {"src": t((64, 7))}),
        Case("NKI-V104", "at most 16384", {"src": t((64, 16385))}),
    ),
    "nc_find_index8": (
        Case("NKI-V103", "vals has 32 partitions", {"vals": t((32, 8))}),
        Case("NKI-V103", "vals [64, 4] has 4", {"vals": t((64, 4))}),
        Case("NKI-V103", "dst [64, 4] has 4", {"dst": t((64, 4), "uint32")}),
        Case("NKI-V104", "at least 8", {"data": t((64, 7))}),
        Case("NKI-V105", "dst is int32", {"dst": t((64, 8), "int32")}),
    ),
    "nc_match_replace8": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V103", "dst_idx has 32 partitions", {"dst_idx": t((32, 8), "uint32")}),
        Case("NKI-V103", "vals [64, 4] has 4", {"vals": t((64, 4))}),
        Case("NKI-V103", "dst_idx [64, 4] has 4", {"dst_idx": t((64, 4), "uint32")}),
        Case("NKI-V105", "dst_idx is float32", {"dst_idx": t((64, 8))}),
        Case("NKI-V111", "imm is None", {"imm": None}),
    ),
    "nonzero_with_count": (
        Case("NKI-V101", "src is in PSUM", {"src": t(region=PSUM)}),
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 17), "int32")}),
        Case("NKI-V103", "it must have 17", {"dst": t(dtype="int32")}),
        Case("NKI-V105", "src is uint8", {"src": t(dtype="uint8")}),
        Case("NKI-V105", "dst is float32", {"dst": t((64, 17))}),
        Case("NKI-V111", "index_offset is 2147483648", {"index_offset": 2**31}),
        Case("NKI-V111", "padding_val is 0.5", {"padding_val": 0.5}),
    ),
    "sequence_bounds": (
        Case("NKI-V102", "segment_ids has 2 partitions", {"segment_ids": t((2, 16))}),
        Case("NKI-V101", "dst is in PSUM", {"dst": t((1, 2, 16), region=PSUM)}),
        Case("NKI-V105", "dst is bfloat16", {"dst": t((1, 2, 16), "bfloat16")}),
        Case("NKI-V105", "segment_ids is uint8", {"segment_ids": t((1, 16), "uint8")}),
        Case("NKI-V103", "it must have 32", {"dst": t((1, 16))}),
    ),
    "topk": (
        Case("NKI-V101", "src is in PSUM", {"src": t(A, "bfloat16", PSUM)}),
        Case("NKI-V105", "src is float32", {"src": t()}),
        Case("NKI-V105", "val_dst is float32", {"val_dst": t((64, 8))}),
        Case("NKI-V105", "idx_dst is int32", {"idx_dst": t((64, 8), "int32")}),
        Case("NKI-V103", "idx_dst has 32 partitions", {"idx_dst": t((32, 8), "uint32")}),
        Case("NKI-V103", "idx_dst [64, 4] has 4", {"idx_dst": t((64, 4), "uint32")}),
        Case("NKI-V103", "val_dst has 64 partitions, src has 32", {"src": t((32, 16), "bfloat16")}),
        Case("NKI-V103", "a multiple of 16", {"src": t((65, 16), "bfloat16")}),
        Case("NKI-V111", "n is 7", {"n": 7}),
        Case("NKI-V111", "n 300 needs 19", {"n": 300}),
        Case("NKI-V111", "at most 10", {"val_dst": t((64, 16), "bfloat16"), "n": 10}),
    ),
    "nc_stream_shuffle": (
        Case("NKI-V105", "dst is int32", {"dst": t(dtype="int32")}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V111", "has 31 elements", {"shuffle_mask": [0] * 31}),
        Case("NKI-V111", "shuffle_mask[0] is 32", {"shuffle_mask": [32] * 32}),
        Case("NKI-V111", "shuffle_mask[31] is 1.0", {"shuffle_mask": [0] * 31 + [1.0]}),
        Case("NKI-V111", "takes partition 32 of src", {"src": t((1, 16)), "shuffle_mask": [0] * 32}),
        Case(
            "NKI-V111", "takes partition 37 of src",
            {"dst": t((33, 16)), "src": t((33, 16)), "shuffle_mask": [5] * 32},
        ),
        Case("NKI-V110", "with 64 active", {"src": tensor(1, 16, address=(32, 0))}),
    ),
    "nc_n_gather": (
        Case("NKI-V101", "indices is in PSUM", {"indices": t((64, 8), "uint32", PSUM)}),
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 8))}),
        Case("NKI-V103", "dst [64, 4] has 4", {"dst": t((64, 4))}),
        Case("NKI-V105", "dst is bfloat16", {"dst": t((64, 8), "bfloat16")}),
        Case("NKI-V105", "indices is int32", {"indices": t((64, 8), "int32")}),
    ),
    "local_gather": (
        Case("NKI-V101", "index is in PSUM", {"index": t((64, 2), "uint16", PSUM)}),
        Case("NKI-V103", "index has 32 partitions", {"index": t((32, 2), "uint16")}),
        Case("NKI-V103", "a multiple of 16", {"src_buffer": t((65, 16))}),
        Case("NKI-V105", "dst is bfloat16", {"dst": t((64, 60), "bfloat16")}),
        Case("NKI-V105", "index is uint32", {"index": t((64, 2), "uint32")}),
        Case("NKI-V111", "num_elem_per_idx is 3", {"num_elem_per_idx": 3}),
        Case("NKI-V111", "33 indices per core", {"num_valid_indices": 33}),
        Case("NKI-V111", "num_valid_indices is 'a'", {"num_valid_indices": "a"}),
        Case("NKI-V103", "it must have 64", {"num_valid_indices": None}),
    ),
    "quantize_mx": (
        Case("NKI-V101", "src is in PSUM", {"src": t(A, "bfloat16", PSUM)}, TRN3),
        Case("NKI-V105", "src is float32", {"src": t()}, TRN3),
        Case("NKI-V105", "dst is float4_e2m1fn_x4", {"dst": t((64, 4), "float4_e2m1fn_x4")}, TRN3),
        Case("NKI-V105", "dst_scale is int8", {"dst_scale": t((64, 4), "int8")}, TRN3),
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 4), "float8_e5m2_x4")}, TRN3),
        Case("NKI-V103", "a multiple of 32", {"src": t((48, 16), "bfloat16")}, TRN3),
        Case("NKI-V103", "a multiple of 4", {"src": t((64, 18), "bfloat16")}, TRN3),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8), "float8_e5m2_x4")}, TRN3),
        Case("NKI-V103", "dst_scale [64, 8] has 8", {"dst_scale": t((64, 8), "uint8")}, TRN3),
        Case("NKI-V103", "src has 64 and needs 36", {"dst_scale": t((8, 4), "uint8")}, TRN3),
        Case("NKI-V110", "partition 2 of a quadrant", {
            "dst_scale": tensor(64, 4, dtype="uint8", address=(2, 0)),
        }, TRN3),
    ),
    "rng": (
        Case("NKI-V105", "dst is float32", {"dst": t()}),
        Case("NKI-V106", "since NeuronCore-v3", {"engine": Engine.gpsimd}, TRN1),
    ),
    "rand2": (
        Case("NKI-V105", "dst is float8_e4m3fn", {"dst": t(dtype="float8_e4m3fn")}, TRN3),
        Case("NKI-V109", "min is bfloat16", {"min": t(C, "bfloat16")}, TRN3),
        Case("NKI-V109", "max [64, 16]", {"max": t()}, TRN3),
        Case("NKI-V109", "min is 1.0 and max is 1.0", {"min": 1.0}, TRN3),
    ),
    "rand_set_state": (
        Case("NKI-V101", "src_seeds is in PSUM", {"src_seeds": t((64, 6), "uint32", PSUM)}),
        Case("NKI-V105", "src_seeds is int32", {"src_seeds": t((64, 6), "int32")}),
        Case("NKI-V103", "it must have 24", {"engine": Engine.vector}, TRN3),
        Case("NKI-V106", "since NeuronCore-v4", {"engine": Engine.vector}),
    ),
    "rand_get_state": (
        Case("NKI-V101", "since NeuronCore-v4", {
            "dst": t((64, 24), "uint32", PSUM), "engine": Engine.vector,
        }),
        Case("NKI-V105", "dst is int32", {"dst": t((64, 6), "int32")}),
        Case("NKI-V103", "it must have 24", {"engine": Engine.vector}, TRN3),
        Case("NKI-V106", "since NeuronCore-v4", {"engine": Engine.vector}),
    ),
    "set_rng_seed": (
        Case("NKI-V102", "has 2 partitions", {"src_seeds": t((2, 1), "uint32")}),
        Case("NKI-V103", "[1, 2] has 2", {"src_seeds": t((1, 2), "uint32")}),
        Case("NKI-V105", "src_seeds is uint16", {"src_seeds": t((1, 1), "uint16")}),
    ),
    "dropout": (
        Case("NKI-V103", "dst has 32 partitions", {"dst": t((32, 16))}),
        Case("NKI-V103", "dst [64, 8] has 8", {"dst": t((64, 8))}),
        Case("NKI-V105", "dst is bfloat16", {"dst": t(dtype="bfloat16")}),
        Case("NKI-V109", "prob [64, 16]", {"prob": t()}),
        Case("NKI-V109", "prob is int32, it must be a float type", {"prob": t(C, "int32")}),
        Case("NKI-V109", "prob is bfloat16 and data is int8", {
            "data": t(dtype="int8"), "dst": t(dtype="int8"), "prob": t(C, "bfloat16"),
        }),
        Case("NKI-V111", "prob is 1.01, a probability is from 0 to 1", {"prob": 1.01}),
        Case("NKI-V111", "prob is -1, a probability", {"prob": -1}),
    ),
}  # fmt: skip


def strided_dimensions(of):
    """Five free dimensions that do not merge."""
    whole = tensor(of.shape[0], 4, 4, 4, 4, 4, dtype=str(of.dtype), region=of.storage.region)
    inside = view(whole, (of.shape[0], 2, 2, 2, 2, 2), whole.strides)
    return inside


# What any tensor operand can be turned into, and the code that must refuse it.
TENSOR_CHANGES = {
    "NKI-V100": lambda of: 3.5 + 1j,
    "NKI-V101": lambda of: tensor(*of.shape, dtype=str(of.dtype), region=HBM),
    "NKI-V102": lambda of: tensor(129, *of.shape[1:], dtype=str(of.dtype), region=of.storage.region),
    "NKI-V104": lambda of: tensor(of.shape[0], 300_000, dtype=str(of.dtype), region=of.storage.region),
    "NKI-V105": lambda of: tensor(*of.shape, dtype="float8_e4m3fn_x4", region=of.storage.region),
    "NKI-V110": lambda of: tensor(*of.shape, dtype=str(of.dtype), region=of.storage.region, address=(5, 0)),
    "NKI-V112": strided_dimensions,
    "NKI-V115": lambda of: view(
        tensor(128, *of.shape[1:], dtype=str(of.dtype), region=of.storage.region),
        (max(2, of.shape[0]), *of.shape[1:]),
        (2 * of.strides[0], *of.strides[1:]),
    ),
    "NKI-V108": indirect,
}


def generic_changes(opcode):
    """(field, code, changes, target) for every tensor of an instruction, in every way of TENSOR_CHANGES."""
    legal = LEGAL[opcode]()
    newest, usual = TRN3, TRN3 if not TRN2.has(REGISTRY[opcode].needs) else TRN2
    for name, field in REGISTRY[opcode].fields.items():
        if field.role in (Role.read, Role.write, Role.read_write) and isinstance(legal.get(name), NkiTensor):
            for code, change in TENSOR_CHANGES.items():
                yield name, code, {name: change(legal[name])}, newest if code == "NKI-V108" else usual


def indirection_changes(opcode):
    """(changes, target) that break the rules of indirect views, for the instructions that have them."""
    legal = LEGAL[opcode]()
    tensors = {n: v for n, v in legal.items() if isinstance(v, NkiTensor) and v.shape == A}
    engines = REGISTRY[opcode].engines
    for name, value in tensors.items():
        yield {name: indirect(value)}, TRN2
        for engine in engines:
            chosen = {"engine": engine} if "engine" in REGISTRY[opcode].fields else {}
            yield {name: indirect(t(region=PSUM)), **chosen}, TRN3
            yield {name: indirect(value), **chosen}, TRN3
        yield {name: indirect(value, address=5)}, TRN3
