"""Copies from some partitions to others."""

import nki.isa as nisa

from .kernel_assert import kernel_assert

_QUADRANT = 32
_STAYS = 255  # in a shuffle mask


def cross_partition_copy(
    src,
    dst,
    src_start_partition: int,
    dst_start_partition: int,
    num_partitions_to_copy: int,
    free_dim_size: int,
) -> None:
    """Copy ``src[s : s + n, 0:f]`` to ``dst[d : d + n, 0:f]`` on the vector engine, for any s and d.

    Where source and target start at a partition that an engine can start at, the partitions are copied at
    once; elsewhere a shuffle moves those that share a quadrant of `src` and one of `dst`.

    Args:
        src: [partitions, F] in SBUF or PSUM, from its first partition on.
        dst: [partitions, F] of the dtype of `src`; its other partitions stay as they are.
        src_start_partition: s.
        dst_start_partition: d.
        num_partitions_to_copy: n.
        free_dim_size: f.
    """
    _check("src", src, src_start_partition, num_partitions_to_copy, free_dim_size)
    _check("dst", dst, dst_start_partition, num_partitions_to_copy, free_dim_size)
    done = 0
    while done < num_partitions_to_copy:
        left = num_partitions_to_copy - done
        start, to = src_start_partition + done, dst_start_partition + done
        if start % _QUADRANT == 0 and to % _QUADRANT == 0:
            size = min(left, _span(start), _span(to))
            nisa.tensor_copy(
                dst=dst[to : to + size, 0:free_dim_size],
                src=src[start : start + size, 0:free_dim_size],
                engine=nisa.vector_engine,
            )
        else:
            size = min(left, _QUADRANT - start % _QUADRANT, _QUADRANT - to % _QUADRANT)
            mask = [_STAYS] * _QUADRANT
            for i in range(size):
                mask[to % _QUADRANT + i] = start % _QUADRANT + i
            nisa.nc_stream_shuffle(
                dst=_quadrant(dst, to)[:, 0:free_dim_size],
                src=_quadrant(src, start)[:, 0:free_dim_size],
                shuffle_mask=mask,
            )
        done += size


def _check(name: str, tensor, start: int, count: int, free_dim_size: int) -> None:
    kernel_assert(
        start >= 0 and count >= 1 and start + count <= tensor.shape[0],
        f"{name} has {tensor.shape[0]} partitions, got {count} of them from {start} on",
    )
    kernel_assert(
        len(tensor.shape) == 2 and 1 <= free_dim_size <= tensor.shape[1],
        f"{name} is [partitions, at least free_dim_size = {free_dim_size}], got {tensor.shape}",
    )


def _span(start: int) -> int:
    """How many partitions an instruction can take that starts at this multiple of 32."""
    if start == 0:
        return 128
    return 64 if start == 64 else _QUADRANT


def _quadrant(tensor, partition: int):
    """The part of a tensor in the quadrant of a partition."""
    first = partition // _QUADRANT * _QUADRANT
    return tensor[first : min(first + _QUADRANT, tensor.shape[0])]
