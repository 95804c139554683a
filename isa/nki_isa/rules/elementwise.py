"""Element by element on the vector, scalar and gpsimd engines: operands, operators, data types."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_STUB = "nki/api/nki/isa"
_NOTES = "nki/release-notes (0.3.0, breaking changes)"

PARTITION_COUNTS = Rule(
    "partition-counts",
    "NKI-V103",
    Standing.error,
    "Each partition has a lane of the engine: operands are met partition by partition, none is repeated over "
    "them. The first dimension of a tile is its partitions, whatever the shape.",
    Evidence(
        f"{_STUB} (layouts)",
        4,
        "'dst' partition total elements 128 != 'src' 1",
        ("trn2",),
        ("2.23",),
    ),
    rule="The tiles of an instruction have the same number of partitions.",
    wrong="""\
stack = nl.ndarray((4, 512), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=stack, value=1.0)
nisa.tensor_copy(dst=tile, src=stack[0])
""",
    right="""\
stack = nl.ndarray((128, 4, 512), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=stack, value=1.0)
nisa.tensor_copy(dst=tile, src=stack[:, 0, :])
""",
)

ELEMENT_COUNTS = Rule(
    "element-counts",
    "NKI-V103",
    Standing.error,
    "An engine streams its operands side by side, one element of each per cycle. A column does not repeat by "
    "itself, and a result has as many elements as its data.",
    Evidence(
        f"{_NOTES}; known issues of 0.3",
        6,
        "'dst' free total elements 512 != 'rhs' free total elements 1",
        ("trn2",),
        ("2.23", "2.27"),
    ),
    rule="The tiles of an instruction have the same number of elements per partition.",
    wrong="""\
column = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=column, value=2.0)
nisa.tensor_tensor(dst=tile, data1=tile, data2=column, op=nl.subtract)
""",
    right="""\
column = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=column, value=2.0)
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.subtract, operand0=column)
""",
)

FUNCTION_SHAPES = Rule(
    "function-shapes",
    "NKI-V103",
    Standing.error,
    "The functions of nki.language are instructions with their results; those of two tiles repeat no dimension, "
    "whatever the simulator of the vendor computes.",
    Evidence("nki/release-notes (0.3.0 and 0.4.0, known issues: no broadcasting)", 2, "", ("trn2",)),
    rule="The two tiles of a function of nki.language have one shape.",
    wrong="""\
column = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=column, value=2.0)
total = nl.add(tile, column)
nisa.tensor_copy(dst=tile, src=total)
""",
    right="""\
column = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=column, value=2.0)
total = nl.add(tile, nl.broadcast_to(column, tile.shape))
nisa.tensor_copy(dst=tile, src=total)
""",
    level="0.3",
    tolerated=True,
)

SCALAR_COLUMN = Rule(
    "scalar-column",
    "NKI-V109",
    Standing.error,
    "A scalar operand is one register of each lane, loaded from one element of each partition.",
    Evidence(
        f"{_STUB} (tensor_scalar)",
        5,
        "'operand0' partition total elements 1 != 'dst' 128",
        ("trn2",),
        ("2.27",),
    ),
    rule="A scalar operand is a number or a tile of one element in each of the partitions of its data.",
    wrong="""\
one = nl.ndarray((1, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=one, value=2.0)
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=one)
""",
    right="""\
one = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=one, value=2.0)
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=one)
""",
)

SCALAR_DTYPE = Rule(
    "scalar-dtype",
    "NKI-V109",
    Standing.error,
    "The registers that hold scalar operands are float32 for arithmetic, and integers for bitvec operators.",
    Evidence(
        f"{_STUB} (tensor_scalar)",
        5,
        "'operand0' must be float32, got 'i32'",
        ("trn2",),
        ("2.27",),
    ),
    rule="A scalar operand of arithmetic is float32, of a bitvec operator an integer.",
    wrong="""\
shift = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
nisa.memset(dst=shift, value=2)
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=shift)
""",
    right="""\
shift = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=shift, value=2.0)
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=shift)
""",
)

TWO_PSUM_SOURCES = Rule(
    "two-psum-sources",
    "NKI-V101",
    Standing.error,
    "An engine has one read port to PSUM.",
    Evidence(
        f"{_STUB} (tensor_tensor, scalar_tensor_tensor)",
        3,
        "NCC_IBVF027: Instruction can only read one of its non-scalar inputs from PSUM",
        ("trn1",),
    ),
    rule="At most one of the tiles an instruction reads is in PSUM.",
    wrong="""\
a = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
b = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.tensor_copy(dst=a, src=tile)
nisa.tensor_copy(dst=b, src=tile)
nisa.tensor_tensor(dst=tile, data1=a, data2=b, op=nl.add)
""",
    right="""\
a = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
nisa.tensor_copy(dst=a, src=tile)
nisa.tensor_tensor(dst=tile, data1=a, data2=tile, op=nl.add)
""",
)

OPERATORS = Rule(
    "operators",
    "NKI-V107",
    Standing.error,
    "An operator is a setting of the engine's arithmetic unit; what the unit lacks (a quotient, a remainder) "
    "takes several instructions, whatever the simulator of the vendor computes.",
    Evidence(
        "nki/api/nki.api.shared (operator table); release notes 0.3 and 0.4",
        7,
        "NCC_IXCG863, NCC_IXCG864: ISA check failed",
        ("trn1", "trn2"),
        ("2.27",),
    ),
    wrong="""\
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.divide, operand0=8.0)
""",
    right="""\
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=0.125)
""",
    whole_code=True,
)

INTEGER_MEMSET = Rule(
    "integer-memset",
    "NKI-V111",
    Standing.error,
    "A fill writes one bit pattern, made when the kernel is compiled: for integers from an int.",
    Evidence(_NOTES, 2),
    rule="An integer tile is set to an int.",
    wrong="""\
count = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
nisa.memset(dst=count, value=3.0)
nisa.tensor_copy(dst=tile, src=count)
""",
    right="""\
count = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
nisa.memset(dst=count, value=3)
nisa.tensor_copy(dst=tile, src=count)
""",
)

BITVEC_WIDTH = Rule(
    "bitvec-width",
    "NKI-C006",
    Standing.error,
    "Bitvec operators move bits and convert nothing; a result of another width has no meaning.",
    Evidence(
        f'{_STUB} (tensor_scalar, tensor_tensor: "without any data type casting")',
        1,
        "",
        ("trn2",),
        ("2.27",),
    ),
    rule="The result of a bitvec operator is as wide as its data.",
    wrong="""\
bits = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
low = nl.ndarray((128, 512), dtype=nl.uint8, buffer=nl.sbuf)
nisa.tensor_copy(dst=bits, src=tile)
nisa.tensor_scalar(dst=low, data=bits, op0=nl.bitwise_and, operand0=255)
nisa.tensor_copy(dst=tile, src=low)
""",
    right="""\
bits = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
low = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
nisa.tensor_copy(dst=bits, src=tile)
nisa.tensor_scalar(dst=low, data=bits, op0=nl.bitwise_and, operand0=255)
nisa.tensor_copy(dst=tile, src=low)
""",
)

BITVEC_DTYPE = Rule(
    "bitvec-dtype",
    "NKI-C006",
    Standing.seen,
    "A front end refused a bitvec operator whose result has another data type than its data, also of one width.",
    Evidence(seen=1, targets=("trn2",), compilers=("2.27",)),
    wrong="""\
bits = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
low = nl.ndarray((128, 512), dtype=nl.uint32, buffer=nl.sbuf)
nisa.tensor_copy(dst=bits, src=tile)
nisa.tensor_scalar(dst=low, data=bits, op0=nl.bitwise_and, operand0=255)
nisa.tensor_copy(dst=tile, src=low)
""",
    right="""\
bits = nl.ndarray((128, 512), dtype=nl.int32, buffer=nl.sbuf)
nisa.tensor_copy(dst=bits, src=tile)
nisa.tensor_scalar(dst=bits, data=bits, op0=nl.bitwise_and, operand0=255)
nisa.tensor_copy(dst=tile, src=bits)
""",
)

COPY_BIAS_TILE = Rule(
    "copy-bias-tile",
    "NKI-C003",
    Standing.seen,
    "The function copy has no table and no per-partition input for a bias on trn1: its bias is in the "
    "instruction. Other functions are the other way round there, and take a tile.",
    Evidence(
        seen=5,
        said="NCC_IBVF043: type Copy only supports immediate bias",
        targets=("trn1",),
        compilers=("2.27",),
    ),
    wrong="""\
bias = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=bias, value=0.5)
nisa.activation(dst=tile, op=nl.copy, data=tile, bias=bias)
""",
    right="""\
nisa.activation(dst=tile, op=nl.copy, data=tile, bias=0.5)
""",
    targets=("trn1",),
    whole_code=True,
)

NUMBER_AS_BIAS = Rule(
    "number-as-bias",
    "NKI-V109",
    Standing.error,
    "On trn1 the bias of an activation is read from a tile, one value a partition; only the function copy has "
    "it in the instruction.",
    Evidence(
        f"{_STUB} (activation: bias on NeuronCore-v2)",
        2,
        "NCC_IBIR605: Ln with immediate bias",
        ("trn1",),
    ),
    rule="On NeuronCore-v2 a bias is a tile of one element per partition, but that of copy.",
    wrong="""\
nisa.activation(dst=tile, op=nl.log, data=tile, bias=2.0)
""",
    right="""\
bias = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.memset(dst=bias, value=2.0)
nisa.activation(dst=tile, op=nl.log, data=tile, bias=bias)
""",
    targets=("trn1",),
)

COPY_BIAS_NUMBER = Rule(
    "copy-bias-number",
    "",
    Standing.never,
    "Compiles and runs on trn1, against the page, which asks for a tile there.",
    Evidence(seen=4, targets=("trn1",), against="kernels that do it run on hardware"),
    rule="An activation with the function copy takes a number as bias on trn1.",
    wrong="""\
nisa.activation(dst=tile, op=nl.copy, data=tile, scale=0.5, bias=4.0)
""",
    right="""\
nisa.activation(dst=tile, op=nl.copy, data=tile, scale=0.5)
""",
    targets=("trn1",),
)

INTEGER_REDUCTION = Rule(
    "integer-tensor-scalar-reduce",
    "NKI-C005",
    Standing.seen,
    "tensor_scalar_reduce sums in float32 and hands its registers out as floats; the verifier wants its data and "
    "its sums to be floats.",
    Evidence(seen=2, said="NCC_IBVF012, NCC_IBVF013", targets=("trn2",)),
    wrong="""\
count = nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf)
nisa.tensor_scalar_reduce(
    dst=tile, data=tile, op0=nl.greater, operand0=0.5, reduce_op=nl.add, reduce_res=count
)
nisa.tensor_copy(dst=tile[:, 0:1], src=count)
""",
    right="""\
count = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.tensor_scalar_reduce(
    dst=tile, data=tile, op0=nl.greater, operand0=0.5, reduce_op=nl.add, reduce_res=count
)
nisa.tensor_copy(dst=tile[:, 0:1], src=count)
""",
    whole_code=True,
)

GPSIMD_TRN1 = Rule(
    "gpsimd-tensor-tensor-trn1",
    "NKI-C007",
    Standing.note,
    "One author saw it fail to compile on trn1 and moved it to the vector engine.",
    Evidence(
        seen=2,
        said="NCC_IXCG965",
        targets=("trn1",),
        compilers=("2.27",),
        against=f"{_STUB} (tensor_tensor) lists engine=gpsimd",
    ),
    wrong="""\
nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.multiply, engine=nisa.engine.gpsimd)
""",
    right="""\
nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.multiply, engine=nisa.engine.vector)
""",
    targets=("trn1",),
    whole_code=True,
)

SCALAR_ENGINE_COPY = Rule(
    "scalar-engine-trn1",
    "NKI-V106",
    Standing.error,
    "The scalar engine of trn1 runs activations; copies and tensor_scalar came with NeuronCore-v3.",
    Evidence(
        "nki/guides/architecture/trainium2_arch (scalar engine)",
        2,
        "tensor_copy does not support engine.scalar on NeuronCore-v2",
        ("trn1",),
    ),
    rule="tensor_copy and tensor_scalar run on the scalar engine since NeuronCore-v3.",
    wrong="""\
nisa.tensor_copy(dst=tile, src=tile, engine=nisa.engine.scalar)
""",
    right="""\
nisa.activation(dst=tile, op=nl.copy, data=tile)
""",
    targets=("trn1",),
)

SQUARE_SUM = Rule(
    "square-activation-reduce",
    "",
    Standing.never,
    "Refused once; the norms of the vendor's kernel library do it on every generation.",
    Evidence(
        seen=2,
        said="NCC_IXCG864",
        targets=("trn2",),
        against="nki-library: rmsnorm_quant, qkv_cte, mlp_cte_norm",
    ),
    rule="activation_reduce takes the function square with a sum.",
    wrong="""\
total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.activation_reduce(dst=tile, op=nl.square, data=tile, reduce_op=nl.add, reduce_res=total)
nisa.tensor_copy(dst=tile[:, 0:1], src=total)
""",
    right="""\
total = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.sbuf)
nisa.activation(dst=tile, op=nl.square, data=tile)
nisa.tensor_reduce(dst=total, op=nl.add, data=tile, axis=(1,))
nisa.tensor_copy(dst=tile[:, 0:1], src=total)
""",
)

AFFINE_SELECT_DIMS = Rule(
    "affine-select-dims",
    "NKI-C016",
    Standing.note,
    "Two authors saw tiles of four dimensions refused and flattened them.",
    Evidence(
        seen=2,
        said="NCC_INLA001: Expected 2D tensor but got 4D AP",
        targets=("trn2",),
        against="the page gives no limit",
    ),
    wrong="""\
view = tile.reshape((128, 8, 8, 8))[:, 0:4, 0:4, :]
nisa.affine_select(
    dst=view, pattern=[[64, 4], [8, 4], [1, 8]], channel_multiplier=-1, on_true_tile=view, on_false_value=0.0
)
""",
    right="""\
nisa.affine_select(
    dst=tile, pattern=[[1, 512]], channel_multiplier=-1, on_true_tile=tile, on_false_value=0.0
)
""",
    whole_code=True,
)
