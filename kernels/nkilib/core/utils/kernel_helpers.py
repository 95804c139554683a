"""Integer arithmetic on tile counts, and where in a launch a kernel runs."""

import nki.language as nl

from .kernel_assert import kernel_assert


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
    """True for a tensor in either kind of HBM."""
    return nl.is_hbm(tensor.buffer)


def is_launched_as_spmd() -> bool:
    """True if the kernel runs as several programs."""
    return nl.program_ndim() != 0 and nl.num_programs(0) > 1


def get_program_sharding_info():
    """Grid dimensions, number of programs and this program's index: ``(ndim, count, id)``."""
    ndim = nl.program_ndim()
    if ndim == 0:
        return 0, 1, 0
    return ndim, nl.num_programs(0), nl.program_id(0)


def get_verified_program_sharding_info(kernel_name: str = "", grid_ndim_range=(0, 1), max_programs: int = 2):
    """As :func:`get_program_sharding_info`; refuses grids the kernel was not written for.

    Args:
        kernel_name: for the message.
        grid_ndim_range: grid dimensions the kernel takes.
        max_programs: the largest number of programs it takes.
    """
    ndim, count, index = get_program_sharding_info()
    kernel_assert(
        ndim in grid_ndim_range, f"{kernel_name} takes grids of {grid_ndim_range} dimensions, got {ndim}"
    )
    kernel_assert(
        count <= max_programs, f"{kernel_name} runs on at most {max_programs} programs, got {count}"
    )
    return ndim, count, index
