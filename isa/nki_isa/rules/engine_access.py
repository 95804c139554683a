"""How engines reach SBUF and PSUM: starts, steps, and addresses that are known at run time only."""

from __future__ import annotations

from nki_isa.rules.rule import Evidence, Rule, Standing

_ARCHITECTURE = "nki/guides/architecture/trainium_inferentia2_arch"

START_PARTITION = Rule(
    "start-partition",
    "NKI-V110",
    Standing.error,
    "SBUF and PSUM are wired to the engines by quadrants of 32 partitions: an access starts where a quadrant "
    "does, and one of more than 32 or 64 partitions where it reaches them all. DMA moves data to any partition.",
    Evidence(
        f"{_ARCHITECTURE} (start_partition)",
        10,
        "Invalid access of 1 partitions starting at partition 5",
        ("trn2",),
        ("2.27",),
    ),
    wrong="""\
nisa.tensor_scalar(dst=tile[7:8, :], data=tile[7:8, :], op0=nl.multiply, operand0=3.0)
""",
    right="""\
nisa.tensor_scalar(dst=tile[96:97, :], data=tile[96:97, :], op0=nl.multiply, operand0=3.0)
""",
    whole_code=True,
)

PARTITION_STEP = Rule(
    "partition-step",
    "NKI-V022",
    Standing.error,
    "An engine reads consecutive partitions; an access pattern that skips some cannot be encoded.",
    Evidence("nki/deep-dives/nki-aps (partition stride)", 5, "NCC_IBIR158", ("trn2",)),
    wrong="""\
nisa.tensor_copy(dst=tile[0:32, :], src=tile.ap(pattern=[[2048, 32], [1, 512]], offset=0))
""",
    right="""\
nisa.tensor_copy(dst=tile[0:32, :], src=tile.ap(pattern=[[512, 32], [1, 512]], offset=0))
""",
    whole_code=True,
)

RESHAPED_ROW = Rule(
    "reshaped-row",
    "NKI-C001",
    Standing.seen,
    "The back end takes the partition step of a tile from its shape. That of one partition is free, and a "
    "reshaped part of such a tile comes out with a step of 0.",
    Evidence(seen=3, said="partition step 0", targets=("trn2",), compilers=("2.27",)),
    wrong="""\
row = nl.ndarray((1, 48), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_copy(dst=row, src=x[0:1, 0:48])
nisa.tensor_reduce(dst=tile[0:1, 0:8], op=nl.add, data=row[:, 16:48].reshape((1, 8, 4)), axis=(2,))
""",
    right="""\
row = nl.ndarray((1, 48), dtype=nl.float32, buffer=nl.sbuf)
part = nl.ndarray((1, 8, 4), dtype=nl.float32, buffer=nl.sbuf)
nisa.dma_copy(dst=row, src=x[0:1, 0:48])
nisa.tensor_copy(dst=part.reshape((1, 32)), src=row[:, 16:48])
nisa.tensor_reduce(dst=tile[0:1, 0:8], op=nl.add, data=part, axis=(2,))
""",
    whole_code=True,
)

RUN_TIME_OFFSET_TRN1 = Rule(
    "run-time-offset-trn1",
    "NKI-C009",
    Standing.seen,
    "On trn1 only DMA takes addresses from registers or tensors: the back end has no pattern for another "
    "engine's operand.",
    Evidence(seen=4, said="NCC_IBIR829, NCC_IBIR040", targets=("trn1",), compilers=("2.27",)),
    wrong="""\
start = nisa.register_alloc(64)
nisa.tensor_scalar(dst=tile[:, 0:64], data=tile[:, nl.ds(start, 64)], op0=nl.add, operand0=1.0)
""",
    right="""\
nisa.tensor_scalar(dst=tile[:, 0:64], data=tile[:, 64:128], op0=nl.add, operand0=1.0)
""",
    targets=("trn1",),
)

RUN_TIME_OFFSET = Rule(
    "run-time-offset",
    "NKI-C009",
    Standing.note,
    "A compiler refused an on-chip copy whose source is at a run-time offset; which versions do is not known.",
    Evidence(
        seen=3,
        said="NCC_INLA001: Dynamic Access is not allowed in the instruction",
        targets=("trn2",),
        against="the migration guide names it as what replaces tensor_copy_dynamic_src",
    ),
    wrong="""\
start = nisa.register_alloc(64)
nisa.tensor_copy(dst=tile[:, 0:64], src=tile[:, nl.ds(start, 64)])
""",
    right="""\
start = nisa.register_alloc(64)
nisa.dma_copy(dst=tile[:, 0:64], src=x[:, nl.ds(start, 64)])
""",
    targets=("trn2", "trn3"),
)
