"""Small helpers of kernels: integer arithmetic on tile counts, the launch, what options stand for."""

import nki.language as nl

from .common_types import ActFnType, NormType
from .kernel_assert import kernel_assert

PSUM_BANK_SIZE = 2048
"""Bytes of one partition of a bank of PSUM."""


def div_ceil(n: int, d: int) -> int:
    """`n` / `d`, rounded up."""
    return (n + d - 1) // d


def get_ceil_quotient(numerator: int, denominator: int) -> int:
    """`numerator` / `denominator`, rounded up."""
    return div_ceil(numerator, denominator)


def get_ceil_aligned_size(size: int, alignment_multiple: int) -> int:
    """The smallest multiple of `alignment_multiple` that is at least `size`."""
    return div_ceil(size, alignment_multiple) * alignment_multiple


def get_floor_quotient(numerator: int, denominator: int) -> int:
    """`numerator` / `denominator`, rounded down."""
    return numerator // denominator


def get_floor_aligned_size(size: int, alignment_multiple: int) -> int:
    """The largest multiple of `alignment_multiple` that is at most `size`."""
    return size // alignment_multiple * alignment_multiple


def is_hbm_buffer(tensor) -> bool:
    """True for a tensor in HBM, whichever kind."""
    return tensor.buffer in (nl.hbm, nl.shared_hbm, nl.private_hbm)


def is_launched_as_spmd() -> bool:
    """True if the kernel runs as several programs."""
    return nl.program_ndim() != 0 and nl.num_programs(0) > 1


def get_program_sharding_info():
    """Grid dimensions, number of programs and this program's index: ``(ndim, count, id)``."""
    ndim = nl.program_ndim()
    if ndim == 0:
        return 0, 1, 0
    return ndim, nl.num_programs(0), nl.program_id(0)


def get_verified_program_sharding_info(kernel_name: str = "", allowed_ndims=None, max_sharding=None):
    """As :func:`get_program_sharding_info`; refuses grids the kernel was not written for.

    Args:
        kernel_name: for the message.
        allowed_ndims: the numbers of grid dimensions the kernel takes; None takes all.
        max_sharding: the largest number of programs it takes; None takes all.
    """
    ndim, count, index = get_program_sharding_info()
    if allowed_ndims is not None:
        kernel_assert(
            ndim in allowed_ndims, f"{kernel_name} takes grids of {allowed_ndims} dimensions, got {ndim}"
        )
    if max_sharding is not None:
        kernel_assert(
            count <= max_sharding, f"{kernel_name} runs on at most {max_sharding} programs, got {count}"
        )
    return ndim, count, index


def is_rms_normalization(norm_type: NormType) -> bool:
    """True for RMSNorm, with weights or without."""
    return norm_type in (NormType.RMS_NORM, NormType.RMS_NORM_SKIP_GAMMA)


def normalization_uses_weights(norm_type: NormType) -> bool:
    """True if the normalization multiplies by weights of its own."""
    return norm_type in (NormType.RMS_NORM, NormType.LAYER_NORM)


def get_nl_act_fn_from_type(act_fn: ActFnType):
    """The function of ``nki.language`` that the scalar engine evaluates for an activation."""
    if act_fn == ActFnType.SiLU:
        return nl.silu
    if act_fn == ActFnType.GELU:
        return nl.gelu
    if act_fn == ActFnType.GELU_Tanh_Approx:
        return nl.gelu_apprx_tanh
    kernel_assert(act_fn == ActFnType.Swish, f"there is no activation function for {act_fn}")
    return nl.gelu_apprx_sigmoid


def get_max_positive_value_for_dtype(dtype) -> float:
    """The largest finite value of a floating-point dtype; 240 for float8_e4m3."""
    if dtype == nl.float8_e4m3:
        return 240.0
    if dtype == nl.float8_e5m2:
        return 57344.0
    if dtype == nl.float16:
        return 65504.0
    if dtype == nl.bfloat16:
        return 255 * 2.0**120
    kernel_assert(dtype == nl.float32, f"dtype {dtype} has no largest finite value here")
    return (2**24 - 1) * 2.0**104


def reduce(op: str = "mul", input=None, initial_value=None):
    """Combine the numbers of a list, in order.

    Args:
        op: ``"mul"``, ``"add"``, ``"min"`` or ``"max"``.
        input: the numbers.
        initial_value: what it starts from; None starts from the first number.
    """
    kernel_assert(op in ("mul", "add", "min", "max"), f"reduce takes op mul, add, min or max, got {op}")
    kernel_assert(initial_value is not None or len(input) > 0, "reduce of no numbers needs an initial_value")
    result = input[0] if initial_value is None else initial_value
    for index in range(1 if initial_value is None else 0, len(input)):
        value = input[index]
        if op == "mul":
            result = result * value
        elif op == "add":
            result = result + value
        elif op == "min":
            result = min(result, value)
        else:
            result = max(result, value)
    return result
