"""Ways to break the constraints of an instruction: one legal call each, and one case or more per rule."""

import dataclasses

from tiles import HBM, PSUM, SBUF, tensor, view

from nki_isa.enums import reduce_cmd
from nki_isa.instruction import REGISTRY, Engine, Role
from nki_isa.target import TRN1, TRN2, TRN3
from nki_isa.tensor import DynamicOffset, NkiTensor

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
    Case("NKI-V111", "pair of ints", {"pattern": [[1.5, 16]]}),
    Case("NKI-V111", "32-bit int", {"channel_multiplier": 2**31}),
    Case("NKI-V103", "it must have 8", {"pattern": [[1, 8]]}),
)

CASES = {
    "tensor_copy": (
        Case("NKI-V103", "src has 32 partitions", {"src": t((32, 16))}),
        Case("NKI-V103", "16 elements per partition, dst", {"dst": t((64, 8))}),
        Case("NKI-V106", "since NeuronCore-v3", {"engine": Engine.scalar}, TRN1),
        Case("NKI-V106", "gpsimd and src is in PSUM", {"engine": Engine.gpsimd, "src": t(region=PSUM)}),
        Case("NKI-V106", "tensor, it runs on vector", {"engine": Engine.tensor}),
    ),
    "memset": (
        Case("NKI-V111", "value is 'a'", {"value": "a"}),
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
        Case("NKI-V111", "axis is (0,)", {"axis": 0}),
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
        Case("NKI-V101", "data is in PSUM", {"data": t(region=PSUM), "engine": Engine.tensor}),
        Case("NKI-V101", "dst is not in PSUM", {"dst": t((16, 64)), "engine": Engine.tensor}),
        Case("NKI-V106", "engine is scalar", {"engine": Engine.scalar}),
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
    "NKI-V104": lambda of: tensor(of.shape[0], 65537, dtype=str(of.dtype), region=of.storage.region),
    "NKI-V105": lambda of: tensor(*of.shape, dtype="float8_e4m3fn_x4", region=of.storage.region),
    "NKI-V110": lambda of: tensor(*of.shape, dtype=str(of.dtype), region=of.storage.region, address=(5, 0)),
    "NKI-V112": strided_dimensions,
    "NKI-V115": lambda of: view(
        tensor(128, *of.shape[1:], dtype=str(of.dtype), region=of.storage.region),
        of.shape,
        (2 * of.strides[0], *of.strides[1:]),
    ),
    "NKI-V108": indirect,
}


def generic_changes(opcode):
    """(field, code, changes, target) for every tensor of an instruction, in every way of TENSOR_CHANGES."""
    legal = LEGAL[opcode]()
    for name, field in REGISTRY[opcode].fields.items():
        if field.role in (Role.read, Role.write, Role.read_write) and isinstance(legal.get(name), NkiTensor):
            for code, change in TENSOR_CHANGES.items():
                if code == "NKI-V115" and legal[name].shape[0] == 1:
                    continue  # one partition has no stride
                yield name, code, {name: change(legal[name])}, TRN3 if code == "NKI-V108" else TRN2


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
