"""The whole program: names, loops, cores, size."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_BODY = """\
def double(i):
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)


"""
_NESTED = f"""\
{_BODY}def twice(i):
    nl.fori_loop(0, 2, double)


nl.fori_loop(0, 2, twice)
"""
_ALONE = f"{_BODY}nl.fori_loop(0, 4, double)\n"

NESTED_LOOPS_TRN1 = Rule(
    "nested-device-loops-trn1",
    "NKI-C014",
    Standing.seen,
    "A loop on the device is a branch of the engines' sequencers; the compiler of trn1 was seen to lose the outer "
    "loop's values in the inner one.",
    Evidence(
        seen=3,
        said="operand #3 does not dominate this use",
        targets=("trn1",),
        compilers=("2.27",),
    ),
    wrong=_NESTED,
    right=_ALONE,
    targets=("trn1",),
)

NESTED_LOOPS = Rule(
    "nested-device-loops",
    "NKI-C014",
    Standing.note,
    "Seen on trn1; nothing is known of other generations.",
    Evidence(against="public kernels that generators made nest them"),
    wrong=_NESTED,
    right=_ALONE,
    targets=("trn2", "trn3"),
)

NAME_TWICE = Rule(
    "name-twice",
    "NKI-C017",
    Standing.warning,
    "Names of instructions and of tensors are symbols of one table of the compiler; a loop that is unrolled gives "
    "the name of its body once a turn.",
    Evidence(
        seen=2,
        said="duplicate op name",
        targets=("trn2",),
        compilers=("2.27",),
        against="compiled alone such kernels were taken, inside of a model they were not",
    ),
    wrong="""\
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0, name="shift")
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=2.0, name="shift")
""",
    right="""\
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=1.0, name="shift_one")
nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=2.0, name="shift_two")
""",
    level="0.6",
    whole_code=True,
)

BARRIER_ALONE = Rule(
    "barrier-on-one-core",
    "NKI-C018",
    Standing.seen,
    "A barrier is a semaphore between the cores of a logical core; a kernel launched on one has no other.",
    Evidence(
        seen=1,
        said="core_barrier() requires LNC degree >= 2",
        targets=("trn2",),
        compilers=("2.27",),
    ),
    wrong="""\
shared = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
nisa.dma_copy(dst=shared, src=tile)
nisa.core_barrier(data=shared, cores=(0,))
nisa.dma_copy(dst=tile, src=shared)
""",
    right="""\
shared = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
nisa.dma_copy(dst=shared, src=tile)
nisa.dma_copy(dst=tile, src=shared)
""",
    targets=("trn2", "trn3"),
    whole_code=True,
)

PROGRAM_SIZE = Rule(
    "program-size",
    "NKI-C020",
    Standing.note,
    "The limit is of the compiled graph a kernel is part of, and a compiler makes several instructions of one.",
    Evidence(
        seen=2,
        said="NCC_EBVF030, NCC_EXTP003: limit 5,000,000 instructions",
        targets=("trn1", "trn2"),
    ),
    wrong="",
    right="",
    whole_code=True,
)

ACTIVATION_TABLES = Rule(
    "activation-tables",
    "NKI-C021",
    Standing.note,
    "The scalar engine loads functions by sets; a set of more than eight was refused once.",
    Evidence(seen=1, said="NCC_INLA001: LoadActFuncSet", targets=("trn2",)),
    wrong="\n".join(
        f"nisa.activation(dst=tile, op=nl.{name}, data=tile)"
        for name in ("exp", "tanh", "gelu", "silu", "sigmoid", "softplus", "erf", "mish", "arctan")
    )
    + "\n",
    right="\n".join(f"nisa.activation(dst=tile, op=nl.{name}, data=tile)" for name in ("exp", "tanh")) + "\n",
    whole_code=True,
)

_COLLECTIVE = """\
import numpy as np

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl


@nki.jit
def total(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    rows = x.shape[0] // nl.num_programs(0)
    mine = slice(nl.program_id(0) * rows, (nl.program_id(0) + 1) * rows)
    nisa.dma_copy(dst=sent[mine], src=x[mine])
    ncc.all_reduce(srcs=[sent], dsts=[received], replica_group=ncc.ReplicaGroup([[0]]), op=nl.add)
    nisa.dma_copy(dst=out[mine], src=received[mine])
    return out


total[2](np.ones((128, 64), np.float32))
"""

_ONE_RANK = "total[2](np.ones((128, 64), np.float32))"
_FOUR = "nki.simulate(total, ranks=4)[2]([np.ones((128, 64), np.float32)] * 4)"

COLLECTIVE_ON_ARGUMENT = Rule(
    "collective-on-argument",
    "NKI-C023",
    Standing.error,
    "Buffers of collectives are allocated and registered with the runtime by the compiler; arguments and results "
    "belong to the caller.",
    Evidence(
        seen=6,
        said="Collective instruction cannot read IO tensors",
        targets=("trn2",),
    ),
    wrong=_COLLECTIVE.replace("srcs=[sent]", "srcs=[x]").replace(
        "    nisa.dma_copy(dst=sent[mine], src=x[mine])\n", ""
    ),
    right=_COLLECTIVE,
    whole_code=True,
)

COLLECTIVE_UNNAMED = Rule(
    "collective-without-name",
    "NKI-C024",
    Standing.warning,
    "The tensors that collectives use are found by their symbols.",
    Evidence(
        seen=3,
        said="NCC_IBIR440: DRAM allocation failure",
        targets=("trn2",),
    ),
    wrong=_COLLECTIVE.replace(', name="sent"', ""),
    right=_COLLECTIVE,
    whole_code=True,
)

COLLECTIVE_ON_ONE_CORE = Rule(
    "collective-on-one-core",
    "NKI-C025",
    Standing.note,
    "A rank is a logical core: all of its physical cores take part. Where a logical core is configured as one "
    "physical core, it does not hold.",
    Evidence(seen=4, said="NCC_ILLC059", targets=("trn2",)),
    wrong=_COLLECTIVE.replace("total[2]", "total"),
    right=_COLLECTIVE,
    targets=("trn2", "trn3"),
    whole_code=True,
)

COLLECTIVE_IN_LOOP = Rule(
    "collective-in-device-loop",
    "NKI-C026",
    Standing.warning,
    "The steps of a collective are laid out when the kernel is compiled, once for each time it runs.",
    Evidence(seen=1, targets=("trn2",), compilers=("2.27",)),
    wrong=_COLLECTIVE.replace(
        "    ncc.all_reduce(", "\n    def again(turn):\n        ncc.all_reduce("
    ).replace("    nisa.dma_copy(dst=out", "    nl.fori_loop(0, 2, again)\n    nisa.dma_copy(dst=out"),
    right=_COLLECTIVE,
    whole_code=True,
)

ALL_TO_ALL_GROUPS = Rule(
    "all-to-all-groups",
    "NKI-C027",
    Standing.seen,
    "An all_to_all needs a mesh of its group. The library of NeuronCore-v2 builds it inside four chips, and of "
    "all 32 ranks of a trn1.32xlarge; a group that skips ranks was refused on trn1 and trn2.",
    Evidence(
        seen=2,
        said="alltoall cannot be supported without Mesh algorithm",
        targets=("trn1", "trn2"),
        compilers=("2.27",),
    ),
    wrong=_COLLECTIVE.replace("ncc.all_reduce(", "ncc.all_to_all(")
    .replace("op=nl.add", "collective_dim=0")
    .replace("[[0]]", "[[0, 2], [1, 3]]")
    .replace(_ONE_RANK, _FOUR),
    right=_COLLECTIVE.replace("ncc.all_reduce(", "ncc.all_to_all(")
    .replace("op=nl.add", "collective_dim=0")
    .replace("[[0]]", "[[0, 1], [2, 3]]")
    .replace(_ONE_RANK, _FOUR),
    targets=("trn2", "trn1"),
    whole_code=True,
)

_VARIABLE = """\
import numpy as np

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl


@nki.jit
def exchange(x, table):
    ranks = table.shape[1]
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray((ranks * x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray(table.shape, dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
    core = nl.program_id(0)
    if core == 0:
        nisa.dma_copy(dst=sent, src=x)
        nisa.dma_copy(dst=counts, src=table)
    ncc.all_to_all_v([sent], [received], ncc.ReplicaGroup([range(ranks)]), counts, recv_counts_known=True)
    if core == 0:
        nisa.dma_copy(dst=out, src=received[0 : x.shape[0]])
    return out


x = np.ones((4, 8), np.float32)
table = np.array([[32], [0], [0]], np.uint32)
exchange[2](x, table)
"""
_RANKS = """\
table = np.array([[32] * 4, [0] * 4, [0] * 4], np.uint32)
nki.simulate(exchange, ranks=4)[2]([(x, table)] * 4)
"""
_RANK = """\
table = np.array([[32], [0], [0]], np.uint32)
exchange[2](x, table)
"""

VARIABLE_SLOTS = Rule(
    "all-to-all-v-slots",
    "NKI-C028",
    Standing.seen,
    "Without displacements of what is received each rank has a slot, and the driver wants slots of the size of "
    "all that a rank can send.",
    Evidence(
        seen=1,
        said="output size must be rank_n * input size",
        targets=("trn2",),
        against="the page says that the sizes of srcs and dsts are free",
    ),
    wrong=_VARIABLE.replace("(ranks * x.shape[0], x", "(2 * ranks * x.shape[0], x"),
    right=_VARIABLE,
    targets=("trn2",),
    whole_code=True,
)

VARIABLE_IN_A_SERVER = Rule(
    "all-to-all-v-in-a-server",
    "NKI-C029",
    Standing.error,
    "Ranks of one server were connected for an all_to_all of sizes known at run time from NKI 0.7 on.",
    Evidence(documented="nki/api/nki.collectives (all_to_all_v) at 0.6"),
    wrong=_VARIABLE.replace(_RANK, _RANKS),
    right=_VARIABLE,
    targets=("trn2", "trn1"),
    until="0.6",
    whole_code=True,
)

VARIABLE_ON_ONE_CORE = Rule(
    "variable-collective-on-one-core",
    "NKI-C030",
    Standing.error,
    "all_gather_v, and all_to_all_v on machines with switches, are there for logical cores of two.",
    Evidence(documented="nki/api/nki.collectives (all_gather_v, all_to_all_v)"),
    wrong=_VARIABLE.replace(_RANK, _RANKS.replace("[2](", "(")).replace(
        "ncc.all_to_all_v", "ncc.all_gather_v"
    ),
    right=_VARIABLE.replace(_RANK, _RANKS).replace("ncc.all_to_all_v", "ncc.all_gather_v"),
    targets=("trn2", "trn3"),
    whole_code=True,
)
