"""Signatures of the compute instructions: parameters, order and defaults of the SDK's nki.isa (2.32)."""

import enum
import inspect

import pytest

from nki_isa.ir.instruction import REGISTRY
from nki_isa.ops.select import FP32_MIN

SIGNATURES = """
tensor_copy(dst, src, engine=unknown, name=None)
memset(dst, value, engine=unknown, name=None)
tensor_tensor(dst, data1, data2, op, engine=unknown, name=None)
tensor_scalar(dst, data, op0, operand0, reverse0=False, op1=None, operand1=None, reverse1=False,
  engine=unknown, name=None)
scalar_tensor_tensor(dst, data, op0, operand0, op1, operand1, reverse0=False, reverse1=False,
  name=None)
reciprocal(dst, data, name=None)
tensor_scalar_reduce(dst, data, op0, operand0, reduce_op, reduce_res=None, reverse0=False,
  reduce_cmd=reset_reduce, reduce_init=None, reduce_res_negate=False, name=None)
tensor_scalar_cumulative(dst, src, op0, op1, imm0, imm1=None, reduce_cmd=reset_reduce, name=None)
exponential(dst, src, max_value=0.0, reduce_res=None, reduce_cmd=idle, reduce_init=0.0, name=None)
nc_stream_shuffle(dst, src, shuffle_mask, name=None)
nc_n_gather(dst, data, indices, name=None)
local_gather(dst, src_buffer, index, num_elem_per_idx=1, num_valid_indices=None, name=None)
iota(dst, pattern, offset=0, channel_multiplier=0, name=None)
affine_select(dst, pattern, channel_multiplier, on_true_tile, on_false_value, cmp_op=nl.equal,
  offset=0, name=None)
quantize_mx(dst, src, dst_scale, name=None)
tensor_copy_predicated(dst, src, predicate, reverse_pred=False, name=None)
select_reduce(dst, predicate, on_true, on_false, reduce_res=None, reduce_cmd=idle,
  reduce_op=nl.maximum, reverse_pred=False, name=None)
range_select(dst, on_true_tile, comp_op0, comp_op1, bound0, bound1, reduce_cmd=reset_reduce,
  reduce_res=None, reduce_op=nl.maximum, range_start=0, on_false_value=FP32_MIN, name=None)
rng(dst, engine=vector, name=None)
rand2(dst, min, max, name=None)
rand_set_state(src_seeds, engine=gpsimd, name=None)
rand_get_state(dst, engine=gpsimd, name=None)
set_rng_seed(src_seeds, name=None)
dropout(dst, data, prob, name=None)
tensor_reduce(dst, op, data, axis, negate=False, keepdims=False, name=None)
tensor_partition_reduce(dst, op, data, name=None)
tensor_tensor_scan(dst, data0, data1, initial, op0, op1, reverse0=False, reverse1=False, name=None)
bn_stats(dst, data, name=None)
bn_aggr(dst, data, name=None)
activation(dst, op, data, bias=None, scale=1.0, reduce_op=None, reduce_res=None, reduce_cmd=idle,
  name=None)
activation_reduce(dst, op, data, reduce_op, reduce_res, bias=None, scale=1.0, name=None)
activate2(dst, op, data, imm0, imm1, op0, op1, relu_param=0.0, reverse0=False, reverse1=False,
  reduce_op=None, reduce_res=None, reduce_cmd=idle, name=None)
max8(dst, src, name=None)
nc_find_index8(dst, data, vals, name=None)
nc_match_replace8(dst, data, vals, imm, dst_idx=None, name=None)
nonzero_with_count(dst, src, index_offset=0, padding_val=-1, name=None)
sequence_bounds(dst, segment_ids, name=None)
topk(val_dst, idx_dst, src, n, name=None)
nc_transpose(dst, data, engine=unknown, name=None)
"""


def signatures():
    return dict(line.rstrip(")").split("(") for line in SIGNATURES.replace("\n  ", " ").split("\n") if line)


def shown(parameter):
    default = parameter.default
    if default is inspect.Parameter.empty:
        return parameter.name
    if default == FP32_MIN:
        return f"{parameter.name}=FP32_MIN"
    return f"{parameter.name}={default.name if isinstance(default, enum.Enum) else repr(default)}"


@pytest.mark.parametrize("opcode", sorted(signatures()))
def test_signature(opcode):
    parameters = REGISTRY[opcode].signature.parameters.values()
    assert ", ".join(shown(p) for p in parameters) == signatures()[opcode]
