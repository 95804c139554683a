"""Tensors of a loop that take turns in a few buffers of SBUF."""

import nki.language as nl

from .allocator import align_to, num_elts, sizeinbytes
from .kernel_assert import kernel_assert


class ModularAllocator(nl.NKIObject):
    """Allocates tensors, and nested lists of them, one behind the other from an address on.

    Args:
        initial_address: byte of a partition that the first tensor may start at.
    """

    def __init__(self, initial_address: int = 0):
        self.address = initial_address

    def get_current_address(self) -> int:
        """The byte of a partition that the next tensor may start at."""
        return self.address

    def set_current_address(self, address: int) -> None:
        """Go on from another address."""
        self.address = address

    def alloc_sbuf_tensor(
        self, shape, dtype, block_dim=None, num_free_tiles=None, base_partition: int = 0, align_to=None
    ):
        """A tensor, or nested lists of tensors of which some share a buffer.

        Tensor ``[i][j]`` is at ``start + ((i % num_free_tiles[0]) * num_free_tiles[1]
        + j % num_free_tiles[1]) * bytes``: with ``block_dim=[16]`` and ``num_free_tiles=[4]`` the tensors
        0, 4, 8 and 12 share a buffer, and an instruction that writes one waits for those that use the
        one before it.

        Args:
            shape: of each tensor; the first size is partitions and takes no part in the bytes.
            dtype: data type.
            block_dim: lengths of the nested lists, outermost first; None or an empty list for one tensor.
            num_free_tiles: number of buffers along each of them; None gives each tensor its own.
            base_partition: the partition they start at.
            align_to: the first address is a multiple of it; None takes the current address as it is.
        """
        lengths = [] if block_dim is None else block_dim
        buffers = lengths if num_free_tiles is None else num_free_tiles
        kernel_assert(
            len(buffers) == len(lengths),
            f"num_free_tiles has a number for each of block_dim, got {buffers} and {lengths}",
        )
        for i in range(len(lengths)):
            kernel_assert(
                lengths[i] >= 1 and buffers[i] >= 1,
                f"block_dim and num_free_tiles are at least 1, got {lengths} and {buffers}",
            )
        start = self.address if align_to is None else _aligned(self.address, align_to)
        size = num_elts(shape[1:]) * sizeinbytes(dtype)
        self.address = start + num_elts(buffers) * size
        tensors: list = []
        for flat in range(num_elts(lengths)):
            buffer = 0
            rest = flat
            pitch = 1
            for k in range(len(lengths)):
                dim = len(lengths) - 1 - k
                buffer = buffer + rest % lengths[dim] % buffers[dim] * pitch
                rest = rest // lengths[dim]
                pitch = pitch * buffers[dim]
            place = (base_partition, start + buffer * size)
            tensors.append(nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf, address=place))
        for k in range(len(lengths)):
            length = lengths[len(lengths) - 1 - k]
            nested = []
            for i in range(len(tensors) // length):
                nested.append(tensors[i * length : (i + 1) * length])
            tensors = nested
        return tensors[0]


def _aligned(address: int, alignment: int) -> int:
    """:func:`.allocator.align_to`, whose name is a parameter's above."""
    return align_to(address, alignment)
