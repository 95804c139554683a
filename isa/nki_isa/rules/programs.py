"""The whole program: names, loops, cores, size."""

from __future__ import annotations

from nki_isa.rules.row import Evidence, Rule, Standing

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
