"""What both passes of cross entropy share: limits, positions on partitions, tiles, where targets are."""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info
from ..utils.tiled_range import TiledRange

MAX_POSITIONS = 128
MAX_CHUNK = 65535
MAX_BATCH_BYTES = 24 * 1024 * 1024
TILE = 16384  # logits of a position that a step handles, at most


def check_arguments(logits_hbm, targets_hbm, positions_per_batch, chunk_size, dtype):
    """Refuse what the pages of both passes do not allow."""
    kernel_assert(len(logits_hbm.shape) == 2, f"logits_hbm is [N, V], got shape {logits_hbm.shape}")
    kernel_assert(len(targets_hbm.shape) == 1, f"targets_hbm is [N], got shape {targets_hbm.shape}")
    positions, vocabulary = logits_hbm.shape
    kernel_assert(positions > 0 and vocabulary > 0, f"logits_hbm has elements, got {logits_hbm.shape}")
    kernel_assert(
        targets_hbm.shape[0] == positions,
        f"targets_hbm has {positions} positions as logits_hbm, got {targets_hbm.shape[0]}",
    )
    kernel_assert(
        logits_hbm.dtype in (nl.bfloat16, nl.float32),
        f"logits_hbm is bfloat16 or float32, got {logits_hbm.dtype}",
    )
    kernel_assert(targets_hbm.dtype == nl.int32, f"targets_hbm is int32, got {targets_hbm.dtype}")
    kernel_assert(dtype in (nl.bfloat16, nl.float32), f"dtype is bfloat16 or float32, got {dtype}")
    kernel_assert(
        0 < positions_per_batch <= MAX_POSITIONS,
        f"positions_per_batch is 1 to {MAX_POSITIONS}, got {positions_per_batch}",
    )
    limit = min(vocabulary, MAX_CHUNK)
    kernel_assert(0 < chunk_size <= limit, f"chunk_size is 1 to {limit}, got {chunk_size}")
    size = positions_per_batch * chunk_size * (4 if dtype == nl.float32 else 2)
    kernel_assert(
        size <= MAX_BATCH_BYTES,
        f"positions_per_batch * chunk_size * bytes of dtype is at most {MAX_BATCH_BYTES}, got {size}",
    )


@dataclass
class Block(nl.NKIObject):
    """Positions ``start + group * lanes + lane`` of a program, lane by lane on the partitions.

    Attributes:
        start: the first.
        lanes: partitions they are on.
        groups: positions in each partition.
    """

    start: int
    lanes: int
    groups: int

    def column(self, tensor):
        """The values [lanes, groups] of a tensor [N] in HBM."""
        return tensor.ap([[1, self.lanes], [self.lanes, self.groups]], offset=self.start)

    def tile(self, tensor, group, columns):
        """Columns of a tensor [N, V] in HBM for one group: [lanes, columns]."""
        rows = nl.ds(self.start + group * self.lanes, self.lanes)
        return tensor[rows, nl.ds(columns.start_offset, columns.size)]


def my_blocks(positions):
    """The share of this program as at most two blocks: full partitions, and what is left over."""
    _, count, program = get_verified_program_sharding_info("cross_entropy", (0, 1))
    first = program * positions // count
    end = (program + 1) * positions // count
    blocks = []
    while first < end:
        lanes = min(end - first, nl.tile_size.pmax)
        groups = (end - first) // lanes
        blocks.append(Block(first, lanes, groups))
        first += lanes * groups
    return blocks


def tiles_of(vocabulary, chunk_size):
    """The vocabulary in tiles of about equal size."""
    count = div_ceil(vocabulary, min(chunk_size, TILE))
    return TiledRange(vocabulary, div_ceil(vocabulary, count))


def target_places(block, targets_hbm, vocabulary):
    """int32 [lanes, groups]: the places of the targets' logits, from the first logit of their group on."""
    places = nl.ndarray((block.lanes, block.groups), dtype=nl.int32, buffer=nl.sbuf)
    rows = nl.ndarray((block.lanes, block.groups), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=places, src=block.column(targets_hbm))
    nisa.iota(dst=rows, pattern=[[0, block.groups]], channel_multiplier=vocabulary)
    nisa.tensor_tensor(dst=places, data1=places, data2=rows, op=nl.add, engine=nisa.engine.gpsimd)
    return places


def of_targets(block, tensor, places, group):
    """The elements of the targets of one group in a tensor [N, V] in HBM, as a view [lanes, 1]."""
    positions, vocabulary = tensor.shape
    return tensor.reshape((positions * vocabulary, 1)).ap(
        [[1, block.lanes], [1, 1]],
        offset=(block.start + group * block.lanes) * vocabulary,
        vector_offset=places[:, group : group + 1],
        indirect_dim=0,
    )
