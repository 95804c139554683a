"""Sizes of a QKV projection for decoding: what is refused, and which rows and columns a core has.

A partition has H / 128 values of each row of hidden states. Two cores cut them into those of core 0, shared
ones and those of core 1: its own a core multiplies with all columns of the weights, shared ones with half.
"""

from dataclasses import dataclass

import nki.language as nl

from ..subkernels.layernorm_tkg import SHARDING_THRESHOLD as LAYERNORM_THRESHOLD
from ..subkernels.rmsnorm_tkg import SHARDING_THRESHOLD as RMSNORM_THRESHOLD
from ..utils.common_types import NormType, QKVOutputLayout, QuantizationType
from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import (
    div_ceil,
    get_verified_program_sharding_info,
    is_hbm_buffer,
    is_rms_normalization,
)

P_MAX = nl.tile_size.pmax
GROUP = 2560  # columns at one time: five banks of PSUM hold their sums, three those of half of them
SHARED = 2048  # weights of a partition whose loads take as long as an exchange of sums begins and ends
SHARED_ROWS = 2  # whose loads take as long as the columns of the sums move


@dataclass
class Plan(nl.NKIObject):
    """Sizes of a call.

    Attributes:
        rows: B * S.
        hidden: H.
        programs: number of programs.
        program: this one.
        depth: values of H in a partition.
        half: H1, of these those of one program, if it shares none.
        shared: how many of its H1 values a program shares with the other one, for the last columns.
        apart: True if a partition has H1 values of each program's part of H, as norms leave them; False if
            its values lie side by side in HBM.
        group: columns whose sums are in PSUM at one time.
        unit: columns that are stored together: a head for NBSd, otherwise one.
        fp8: the weights are FP8.
        late: rows are multiplied by 1 / rms at the end.
        eps: added to the mean of squares.
        hidden_actual: values that the mean is over.
    """

    rows: int
    hidden: int
    programs: int
    program: int
    depth: int
    half: int
    shared: int
    apart: bool
    group: int
    unit: int
    fp8: bool
    late: bool
    eps: float
    hidden_actual: int


def plan_of(hidden, weights, adds, norm_type, quantization_type, layout, d_head, eps, actual, in_sbuf, sbm):
    """The plan of a call of :func:`..qkv_tkg.qkv_tkg`; refuses what is not offered."""
    name = "qkv_tkg"
    _, programs, program = get_verified_program_sharding_info(name, (0, 1), 2)
    if is_hbm_buffer(hidden):
        rows, size = hidden.shape[0] * hidden.shape[1], hidden.shape[2]
    else:
        rows, size = hidden.shape[1], hidden.shape[0] * hidden.shape[2]
        kernel_assert(
            hidden.shape[0] == P_MAX, f"{name}: hidden in SBUF has 128 partitions, got {hidden.shape}"
        )
        kernel_assert(not adds, f"{name}: fused_add takes hidden in HBM")
    kernel_assert(rows <= P_MAX, f"{name}: B * S is at most {P_MAX}, got {rows}")
    kernel_assert(
        size % (P_MAX * programs) == 0, f"{name}: H is a multiple of 128 * {programs} programs, got {size}"
    )
    kernel_assert(weights.shape[0] == size, f"{name}: weights have {weights.shape[0]} rows, H is {size}")
    kernel_assert(
        quantization_type in (QuantizationType.NONE, QuantizationType.STATIC),
        f"{name}: quantization_type is NONE or STATIC, got {quantization_type}",
    )
    kernel_assert(
        layout in (QKVOutputLayout.BSD, QKVOutputLayout.NBSd),
        f"{name}: output_layout is BSD or NBSd, got {layout}",
    )
    if layout == QKVOutputLayout.NBSd:
        kernel_assert(
            d_head is not None and weights.shape[1] % d_head == 0,
            f"{name}: NBSd takes I a multiple of d_head, got {weights.shape[1]} and {d_head}",
        )
    kernel_assert(sbm is None or sbm.is_auto_alloc(), f"{name}: sbm allocates automatically")
    if adds and norm_type != NormType.NO_NORM and programs > 1:
        limit = LAYERNORM_THRESHOLD if norm_type == NormType.LAYER_NORM else RMSNORM_THRESHOLD
        kernel_assert(
            rows <= limit or rows % 2 == 0,
            f"{name}: with fused_add and a norm on two cores, B * S over {limit} is even, got {rows}",
        )
    fp8 = quantization_type == QuantizationType.STATIC
    late = is_rms_normalization(norm_type) and not fp8
    apart = not is_hbm_buffer(hidden) or (norm_type != NormType.NO_NORM and not late)
    columns = weights.shape[1]
    unit = d_head if layout == QKVOutputLayout.NBSd else 1
    group = div_ceil(columns // unit, div_ceil(columns, GROUP)) * unit
    half, shared = size // P_MAX // programs, 0
    if programs > 1 and not in_sbuf:  # a result in SBUF is exchanged whole
        last = (columns - 1) % group + 1
        shared = min(half, (2 if fp8 else 1) * (SHARED_ROWS + div_ceil(SHARED, last)))
    return Plan(
        rows=rows,
        hidden=size,
        programs=programs,
        program=program,
        depth=size // P_MAX,
        half=half,
        shared=shared,
        apart=apart,
        group=group,
        unit=unit,
        fp8=fp8,
        late=late,
        eps=eps,
        hidden_actual=size if actual is None else actual,
    )


def window(plan):
    """The values of a partition that this program projects, its own and shared ones: (first, count)."""
    return plan.program * (plan.half - plan.shared), plan.half + plan.shared


def own_rows(plan, shared):
    """The values of a partition that are this program's alone, if both share `shared`: (first, count)."""
    return plan.program * (plan.half + shared), plan.half - shared


def side_by_side(plan, first, count):
    """Values of a partition, cut into those that lie side by side in HBM: (first, count) each."""
    runs = []
    end = first + count
    while first < end:
        number = min(end - first, plan.half - first % plan.half) if plan.apart else end - first
        runs.append((first, number))
        first += number
    return runs


def place_of(plan, value):
    """Where in H a value of the first partition is, and how far from it that of the next partition."""
    if plan.apart:
        return value // plan.half * plan.half * P_MAX + value % plan.half, plan.half
    return value, plan.depth
