"""A typical call of every instruction: on tiles of 128 partitions by 128 elements, where it takes such.

The reference page, the coverage of costs and the benchmark of instructions are made of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import nki_isa.ops  # noqa: F401  (fills the registry)
from nki_isa.dtypes import DTYPES
from nki_isa.enums import reduce_cmd
from nki_isa.instruction import REGISTRY, Instruction
from nki_isa.tensor import MemoryRegion, NkiTensor, Storage, VirtualRegister

_SBUF, _PSUM, _HBM = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm

_SQUARE, _COLUMN, _EIGHT = (128, 128), (128, 1), (128, 8)

Call = dict[str, Any]


def sample(opcode: str) -> Instruction:
    """A new typical instruction of this name, each operand in a storage of its own."""
    numbers = itertools.count()

    def t(
        shape: tuple[int, ...] = _SQUARE, dtype: str = "float32", region: MemoryRegion = _SBUF
    ) -> NkiTensor:
        number = next(numbers)
        return NkiTensor.whole(Storage(number, f"t{number}", region, shape, DTYPES[dtype]))

    return REGISTRY[opcode](**_CALLS[opcode](t))


_CALLS: dict[str, Callable[[Callable[..., NkiTensor]], Call]] = {
    # --- tensor engine
    "nc_matmul": lambda t: {
        "dst": t(region=_PSUM), "stationary": t(dtype="bfloat16"), "moving": t(dtype="bfloat16"),
        "accumulate": False,
    },
    "nc_matmul_mx": lambda t: {
        "dst": t(region=_PSUM), "stationary": t(dtype="float8_e5m2_x4"),
        "moving": t(dtype="float8_e5m2_x4"), "stationary_scale": t(dtype="uint8"),
        "moving_scale": t(dtype="uint8"), "accumulate": False,
    },
    "nc_transpose": lambda t: {"dst": t(dtype="bfloat16", region=_PSUM), "data": t(dtype="bfloat16")},
    # --- scalar engine
    "activation": lambda t: {"dst": t(), "op": "exp", "data": t(), "bias": t(_COLUMN), "scale": 0.5},
    "activation_reduce": lambda t: {
        "dst": t(), "op": "exp", "data": t(), "reduce_op": "add", "reduce_res": t(_COLUMN),
    },
    "activate2": lambda t: {
        "dst": t(), "op": "exp", "data": t(), "imm0": 0.5, "imm1": t(_COLUMN),
        "op0": "multiply", "op1": "add",
    },
    # --- vector engine
    "tensor_copy": lambda t: {"dst": t(), "src": t()},
    "memset": lambda t: {"dst": t(), "value": 0.0},
    "tensor_tensor": lambda t: {"dst": t(), "data1": t(), "data2": t(), "op": "add"},
    "tensor_scalar": lambda t: {
        "dst": t(), "data": t(), "op0": "multiply", "operand0": t(_COLUMN), "op1": "add", "operand1": 1.0,
    },
    "scalar_tensor_tensor": lambda t: {
        "dst": t(), "data": t(), "op0": "multiply", "operand0": 2.0, "op1": "add", "operand1": t(),
    },
    "reciprocal": lambda t: {"dst": t(), "data": t()},
    "tensor_scalar_reduce": lambda t: {
        "dst": t(), "data": t(), "op0": "multiply", "operand0": 2.0, "reduce_op": "add",
        "reduce_res": t(_COLUMN),
    },
    "tensor_scalar_cumulative": lambda t: {
        "dst": t(), "src": t(), "op0": "multiply", "op1": "add", "imm0": 2.0,
    },
    "exponential": lambda t: {
        "dst": t(), "src": t(), "max_value": t(_COLUMN), "reduce_res": t(_COLUMN),
        "reduce_cmd": reduce_cmd.reset_reduce,
    },
    "tensor_reduce": lambda t: {"dst": t(_COLUMN), "op": "add", "data": t(), "axis": 1},
    "tensor_tensor_scan": lambda t: {
        "dst": t(), "data0": t(), "data1": t(), "initial": 0.0, "op0": "multiply", "op1": "add",
    },
    "bn_stats": lambda t: {"dst": t((128, 6)), "data": t()},
    "bn_aggr": lambda t: {"dst": t((128, 2)), "data": t((128, 96))},
    "tensor_copy_predicated": lambda t: {"dst": t(), "src": t(), "predicate": t(dtype="uint8")},
    "select_reduce": lambda t: {
        "dst": t(), "predicate": t(dtype="uint8"), "on_true": t(), "on_false": 0.0, "reduce_res": t(_COLUMN),
        "reduce_cmd": reduce_cmd.reset_reduce,
    },
    "range_select": lambda t: {
        "dst": t(), "on_true_tile": t(), "comp_op0": "greater_equal", "comp_op1": "less",
        "bound0": t(_COLUMN), "bound1": t(_COLUMN), "reduce_res": t(_COLUMN),
    },
    "max8": lambda t: {"dst": t(_EIGHT), "src": t()},
    "nc_find_index8": lambda t: {"dst": t(_EIGHT, "uint32"), "data": t(), "vals": t(_EIGHT)},
    "nc_match_replace8": lambda t: {"dst": t(), "data": t(), "vals": t(_EIGHT), "imm": -1.0},
    "nc_stream_shuffle": lambda t: {"dst": t(), "src": t(), "shuffle_mask": list(range(31, -1, -1))},
    "quantize_mx": lambda t: {
        "dst": t((128, 32), "float8_e4m3fn_x4"), "src": t(dtype="bfloat16"),
        "dst_scale": t((128, 32), "uint8"),
    },
    "rng": lambda t: {"dst": t(dtype="uint32")},
    "rand2": lambda t: {"dst": t(), "min": 0.0, "max": 1.0},
    "set_rng_seed": lambda t: {"src_seeds": t((1, 1), "uint32")},
    "dropout": lambda t: {"dst": t(), "data": t(), "prob": 0.5},
    # --- gpsimd engine
    "iota": lambda t: {"dst": t(), "pattern": [[1, 128]]},
    "affine_select": lambda t: {
        "dst": t(), "pattern": [[1, 128]], "channel_multiplier": 1, "on_true_tile": t(),
        "on_false_value": 0.0, "cmp_op": "greater_equal",
    },
    "tensor_partition_reduce": lambda t: {"dst": t((1, 128)), "op": "add", "data": t()},
    "nonzero_with_count": lambda t: {"dst": t((128, 129), "int32"), "src": t()},
    "sequence_bounds": lambda t: {"dst": t((1, 2, 128)), "segment_ids": t((1, 128))},
    "topk": lambda t: {
        "val_dst": t(_EIGHT, "bfloat16"), "idx_dst": t(_EIGHT, "uint32"), "src": t(dtype="bfloat16"),
        "n": 2000,
    },
    "nc_n_gather": lambda t: {"dst": t(), "data": t(), "indices": t(dtype="uint32")},
    "local_gather": lambda t: {
        "dst": t(), "src_buffer": t(), "index": t(_EIGHT, "uint16"), "num_elem_per_idx": 1,
        "num_valid_indices": 128,
    },
    "rand_set_state": lambda t: {"src_seeds": t((128, 6), "uint32")},
    "rand_get_state": lambda t: {"dst": t((128, 6), "uint32")},
    # --- DMA, registers, other cores
    "dma_copy": lambda t: {"dst": t(), "src": t(region=_HBM)},
    "dma_transpose": lambda t: {"dst": t(dtype="bfloat16"), "src": t(dtype="bfloat16", region=_HBM)},
    "dma_compute": lambda t: {"dst": t(), "srcs": [t(region=_HBM), t(region=_HBM)], "reduce_op": "add"},
    "register_move": lambda t: {"dst": VirtualRegister(0), "src": 1},
    "register_load": lambda t: {"dst": VirtualRegister(0), "src": t((1, 1), "int32")},
    "register_store": lambda t: {"dst": t((1, 1), "int32"), "src": VirtualRegister(0)},
    "core_barrier": lambda t: {"data": t(region=_HBM), "cores": (0, 1)},
    "sendrecv": lambda t: {
        "src": t(), "dst": t(), "send_to_rank": 1, "recv_from_rank": 1, "pipe_id": 0,
    },
    "device_print": lambda t: {"print_prefix": "t", "tensor": t((4, 4))},
}  # fmt: skip
