"""Every rule of matmuls, DMA, registers and other cores: the typical call passes it, some case breaks it."""

import pytest
from breaking import indirect
from tiles import HBM, PSUM, SBUF, gathered, shifted, tensor, view

from nki_isa.constraints.operands import ENGINE, GENERATION
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.enums import Engine, dge_mode, dma_engine, matmul_perf_mode, oob_mode
from nki_isa.machine.targets import TARGETS, TRN1, TRN2, TRN3, since
from nki_isa.ops.base import ComputeInstruction
from nki_isa.ops.samples import sample
from nki_isa.tensor.storage import VirtualRegister

OPCODES = sorted(name for name, cls in REGISTRY.items() if not issubclass(cls, ComputeInstruction))
SQUARE = (128, 128)


def t(shape=SQUARE, dtype="bfloat16", region=SBUF, address=None):
    return tensor(*shape, dtype=dtype, region=region, address=address)


def scattered(shape=SQUARE, dtype="bfloat16"):
    """Every second partition."""
    whole = t((256, *shape[1:]), dtype)
    return view(whole, shape, (2 * whole.strides[0], *whole.strides[1:]))


def five_dimensions(dtype="bfloat16", region=SBUF):
    whole = t((128, 4, 4, 4, 4, 4), dtype, region)
    return view(whole, (128, 2, 2, 2, 2, 8), (*whole.strides[:-1], 0))


TILED = {"tile_position": (64, 0), "tile_size": (64, 128)}
ROW = matmul_perf_mode.double_row
ROWS = t((128, 2, 64), "float8_e5m2")
BYTES = t((128, 128), "float8_e5m2")

_MATMUL = [
    ({"dst": 3 + 1j}, TRN2),
    ({"dst": t(dtype="float32")}, TRN2),
    ({"moving": t(region=PSUM)}, TRN2),
    ({"tile_position": (0, 0)}, TRN3),
    ({"tile_position": (0, 0), "tile_size": (48, 128)}, TRN3),
    ({"tile_position": (0, 0), "tile_size": (64, 128)}, TRN3),
    ({"stationary": t((64, 128))}, TRN2),
    ({"stationary": t((129, 128)), "moving": t((129, 128))}, TRN2),
    ({"accumulate": "first"}, TRN2),
]


def _exchange(source="srcs", received="dsts", on_chip=True, **more):
    """What every collective refuses, by the names of its tensors."""
    cube, other = t((4, 4, 4), "float32"), t(dtype="bfloat16", region=HBM)
    return [
        ({source: [1]}, TRN2),
        ({"replica_group": ((0, 1), (1, 2))}, TRN2),
        ({source: [HBM_TILE, HBM_TILE]}, TRN2),
        ({source: [t(dtype="float32")]}, TRN2),
        ({received: [cube], source: [cube]}, TRN2),
        ({received: [other]}, TRN2),
        ({"priority": 4}, TRN3),
        ({received: [t((128, 64), "float32", HBM)]}, TRN2),
        *(({name: value}, TRN2) for name, value in more.items()),
    ]


def _variable(**more):
    """What every collective refuses whose sizes the data say."""
    return [
        *(case for case in _exchange(on_chip=False) if case[0].keys() != {"dsts"}),
        ({"dsts": [t((1, 1023), "float32", HBM)]}, TRN2),
        ({"dsts": [t((8, 128), "float32", HBM)[:, 0:64]]}, TRN2),
        ({"dsts": [t((128, 128), "bfloat16", HBM)]}, TRN2),
        ({"dsts": [t((4, 4, 4), "float32")]}, TRN2),
        ({"metadata_tensor": t((3, 5), "uint32", HBM)}, TRN2),
        ({"metadata_tensor": t((3, 8), "uint32", PSUM)}, TRN2),
        ({"metadata_tensor": t((3, 8), "int32", HBM)}, TRN2),
        *(({name: value}, target) for name, (value, target) in more.items()),
    ]


HBM_TILE = t(dtype="float32", region=HBM)
RING = "collective_permute_implicit"
COLLECTIVES = {
    "all_reduce": _exchange(op="multiply"),
    "all_gather": _exchange(collective_dim=1),
    "reduce_scatter": _exchange(collective_dim=1, op="multiply"),
    "all_to_all": _exchange(collective_dim=1, replica_group=((0, 1, 2),)),
    "collective_permute": [
        case for case in _exchange(source_target_pairs=((0, 1), (0, 2))) if "replica_group" not in case[0]
    ],
    RING: _exchange("srcs_by_channel", "dsts_by_channel", channel_ids=(1,)),
    f"{RING}_reduce": _exchange("srcs0_by_channel", "dsts_by_channel", channel_ids=(1,), op="multiply"),
    **{
        f"all_to_all_v{half}": _variable(has_rdispls=(True, TRN2), replica_group=(((0, 1, 2, 3),), TRN3))
        for half in ("", "_prepare")
    },
    **{
        f"all_gather_v{half}": _variable(has_rdispls=(True, TRN2), replica_group=(((0, 1),), TRN3))
        for half in ("", "_prepare")
    },
    "all_to_all_v_trigger": [({"prepare_instr": 1}, TRN2)],
    "all_gather_v_trigger": [({"prepare_instr": 1}, TRN2)],
    "rank_id": [({"name": 1}, TRN2)],
    f"{RING}_current_processing_rank_id": [
        ({"channel_id": "a"}, TRN2),
        ({"replica_group": ((0, 1), (1, 2))}, TRN2),
    ],
}

CASES = {
    "nc_matmul": [
        *_MATMUL,
        ({"stationary": t(dtype="int32")}, TRN2),
        ({"moving": t(dtype="int32")}, TRN2),
        ({"moving": t(dtype="float32")}, TRN2),
        ({"dst": t(region=PSUM)}, TRN2),
        ({"moving": t(address=(32, 0))}, TRN2),
        ({"moving": scattered()}, TRN2),
        ({"moving": five_dimensions()}, TRN2),
        ({"moving": t((128, 513)), "dst": t((128, 513), "float32", PSUM)}, TRN2),
        ({"dst": t((64, 128), "float32", PSUM)}, TRN2),
        ({"dst": view(t((128, 4096), "float32", PSUM), SQUARE, (4096, 1), 448)}, TRN2),
        ({"stationary": ROWS, "moving": ROWS, "perf_mode": ROW}, TRN1),
        ({"stationary": BYTES, "moving": BYTES, "perf_mode": ROW}, TRN2),
        ({"stationary": ROWS, "moving": ROWS, "perf_mode": ROW, "is_transpose": True}, TRN2),
        ({"is_transpose": True, "accumulate": True}, TRN2),
        ({"stationary": BYTES, "dst": t(dtype="float8_e5m2", region=PSUM), "is_transpose": True}, TRN2),
        ({"moving": indirect(t())}, TRN2),
        ({"moving": indirect(t(), address=5)}, TRN3),
        ({"moving": indirect(t(dtype="float32"))}, TRN3),
        ({"moving": indirect(t()), "is_transpose": True}, TRN3),
        ({"moving": indirect(t()), **TILED}, TRN3),
    ],
    "nc_matmul_mx": [
        *((changes, TRN3) for changes, _ in _MATMUL),
        *(({name: t()}, TRN3) for name in ("stationary", "moving", "stationary_scale", "moving_scale")),
        ({"dst": t(dtype="float16", region=PSUM)}, TRN3),
        ({"stationary": t((48, 128), "float8_e5m2_x4"), "moving": t((48, 128), "float8_e5m2_x4")}, TRN3),
        ({"moving": t(dtype="float8_e5m2_x4", address=(32, 0))}, TRN3),
        ({"moving": scattered(dtype="float8_e5m2_x4")}, TRN3),
        ({"moving": five_dimensions("float8_e5m2_x4")}, TRN3),
        ({"stationary": t((128, 127), "float8_e5m2_x4")}, TRN3),
        ({"stationary": t((128, 130), "float8_e5m2_x4")}, TRN3),
        ({"dst": t((64, 128), "float32", PSUM)}, TRN3),
        ({"moving_scale": t((128, 64), "uint8")}, TRN3),
        ({"moving_scale": t((124, 128), "uint8", address=(2, 0))}, TRN3),
        ({"moving": indirect(t(dtype="float8_e5m2_x4"))}, TRN2),
        ({"moving": indirect(t(dtype="float8_e5m2_x4"), address=5)}, TRN3),
        ({"moving": indirect(t(dtype="float8_e5m2_x4")), **TILED}, TRN3),
    ],
    "dma_copy": [
        ({"dst": 3 + 1j}, TRN2),
        ({"dst": t(region=PSUM)}, TRN2),
        ({"dst": t((128, 64))}, TRN2),
        ({"dst": t(dtype="float8_e5m2_x4")}, TRN2),
        ({"dst": t(dtype="float16"), "dge_mode": dge_mode.hwdge}, TRN2),
        ({"priority": 4}, TRN3),
        ({"dge_mode": dge_mode.hwdge}, TRN1),
        ({"src": gathered(t(region=HBM))}, TRN1),
        ({"src": gathered(t())}, TRN2),
        ({"src": gathered(t(region=HBM)), "dge_mode": dge_mode.hwdge}, TRN2),
        ({"src": gathered(t(region=HBM), columns=2)}, TRN2),
        ({"engine": Engine.sync}, TRN2),
        ({"src": indirect(t())}, TRN2),
    ],
    "dma_transpose": [
        ({"dst": 3 + 1j}, TRN2),
        ({"dst": t(region=HBM)}, TRN2),
        ({"src": t(region=PSUM)}, TRN2),
        ({"dst": t(dtype="float32")}, TRN2),
        ({"axes": (0, 1)}, TRN2),
        ({"dst": t((64, 128))}, TRN2),
        ({"priority": 4}, TRN3),
        ({"dge_mode": dge_mode.hwdge}, TRN1),
        ({"dge_mode": dge_mode.hwdge}, TRN2),
        ({"src": gathered(t(region=HBM))}, TRN1),
        ({"src": gathered(t())}, TRN2),
        ({"src": gathered(t(region=HBM)), "dge_mode": dge_mode.hwdge}, TRN2),
        ({"dge_mode": dge_mode.swdge}, TRN2),
        ({"src": gathered(t(region=HBM), dtype="int32")}, TRN2),
        ({"oob_mode": oob_mode.skip}, TRN2),
        ({"src": indirect(t())}, TRN2),
    ],
    "dma_compute": [
        ({"dst": 3 + 1j}, TRN2),
        ({"dst": t(region=PSUM)}, TRN2),
        ({"srcs": [t()] * 17}, TRN2),
        ({"oob_mode": oob_mode.skip}, TRN2),
        ({"srcs": [t((64, 128))]}, TRN2),
        ({"reduce_op": "multiply"}, TRN2),
        ({"scales": (2.0, 1.0)}, TRN2),
        ({"unique_indices": False}, TRN2),
        ({"srcs": [gathered(t(region=HBM)), t()]}, TRN1),
        ({"srcs": [gathered(t()), t()]}, TRN2),
        ({"srcs": [gathered(t(region=HBM), columns=2), t()]}, TRN2),
        ({"srcs": [gathered(t(region=HBM)), t()]}, TRN2),
        ({"srcs": [shifted(t(region=HBM)), t()]}, TRN2),
        ({"srcs": [indirect(t()), t()]}, TRN2),
    ],
    "register_move": [({"src": "one"}, TRN2), ({"dst": VirtualRegister(0, True)}, TRN2)],
    "register_load": [
        ({"src": 1}, TRN2),
        ({"dst": VirtualRegister(0, True)}, TRN2),
        ({"src": t((1, 1), "int32", PSUM)}, TRN2),
        ({"src": t((1, 2), "int32")}, TRN2),
        ({"src": t((1, 1), "float8_e5m2_x4")}, TRN2),
    ],
    "register_store": [
        ({"dst": 1}, TRN2),
        ({"dst": t((1, 1), "int32", PSUM)}, TRN2),
        ({"dst": t((1, 2), "int32")}, TRN2),
        ({"dst": t((1, 1), "float8_e5m2_x4")}, TRN2),
    ],
    "scalar_load": [
        ({"src": t((1, 1), "int32", PSUM)}, TRN2),
        ({"src": t((1, 2), "int32")}, TRN2),
        ({"src": t((1, 1), "float32")}, TRN2),
        ({"src": t((1, 1), "float8_e5m2_x4")}, TRN2),
        ({"src": 1}, TRN2),
    ],
    "scalar_store": [
        ({"dst": t((1, 1), "int32", PSUM)}, TRN2),
        ({"dst": t((1, 2), "int32")}, TRN2),
        ({"dst": t((1, 1), "float32")}, TRN2),
        ({"dst": t((1, 1), "float8_e5m2_x4")}, TRN2),
        ({"dst": 1}, TRN2),
    ],
    "scalar_compute": [({"left": "one"}, TRN2)],
    "core_barrier": [
        ({"data": 3 + 1j}, TRN2), ({}, TRN1), ({"data": t(region=PSUM)}, TRN2), ({"cores": (0, 2)}, TRN2),
    ],
    "sendrecv": [
        ({"dst": 3 + 1j}, TRN2),
        ({}, TRN1),
        ({"src": t(dtype="float32", region=PSUM)}, TRN2),
        ({"dst": t(dtype="float32", region=PSUM)}, TRN2),
        ({"src": t((64, 128), "float32")}, TRN2),
        ({"src": t((128, 64), "float32")}, TRN2),
        ({"src": t()}, TRN2),
        ({"send_to_rank": 2}, TRN2),
        ({"dma_engine": "dma"}, TRN2),
        ({"dma_engine": dma_engine.gpsimd_dma, "src": t((128, 512), "float32")}, TRN2),
    ],
    **COLLECTIVES,
    "device_print": [
        ({"tensor": 3 + 1j}, TRN2), ({"print_prefix": 1}, TRN2), ({"tensor": t(region=PSUM)}, TRN2),
    ],
}  # fmt: skip


def changed(opcode, changes):
    original = sample(opcode)
    values = {name: original.__dict__[name] for name in original.fields}
    return REGISTRY[opcode](**{**values, **changes})


def test_every_other_instruction_is_covered():
    assert set(CASES) == set(OPCODES)


@pytest.mark.parametrize("opcode", sorted(REGISTRY))
def test_typical_calls_pass_on_every_generation_that_has_them(opcode):
    for target in TARGETS.values():
        found = GENERATION.broken(sample(opcode), target)
        assert (found is not None) == (target.nc_version < since(REGISTRY[opcode].needs))
        if found is None:
            sample(opcode).check(target)


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_constraint_has_a_case_that_breaks_it(opcode):
    rules = REGISTRY[opcode].constraints
    instructions = [(changed(opcode, changes), target) for changes, target in CASES[opcode]]
    for k, rule in enumerate(rules):
        if rule not in (GENERATION, ENGINE):
            messages = [rule.broken(i, target) for i, target in instructions]
            assert any(messages), (k, rule.code, rule.rule)


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_case_is_refused(opcode):
    for changes, target in CASES[opcode]:
        assert any(rule.broken(changed(opcode, changes), target) for rule in REGISTRY[opcode].constraints), (
            changes
        )


@pytest.mark.parametrize("opcode", OPCODES)
def test_an_engine_without_it_refuses(opcode):
    for engine in Engine:
        instruction = sample(opcode)
        instruction.on = engine
        assert (ENGINE.broken(instruction, TRN2) is not None) == (engine not in REGISTRY[opcode].engines)
