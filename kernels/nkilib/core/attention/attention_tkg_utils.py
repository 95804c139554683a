"""What callers of attention_tkg need to know: its configuration, and how two cores share the work."""

from dataclasses import dataclass

import nki.language as nl

from ..utils.kernel_assert import kernel_assert

CORES = 2
SECTION_KEYS = 8 * 1024


@dataclass
class AttnTKGConfig(nl.NKIObject):
    """Sizes and choices of a call of attention_tkg.

    Attributes:
        bs: batch size.
        q_head: heads of queries; all share one head of keys and values.
        s_active: new tokens of each sequence; more than one when tokens are speculated.
        curr_sprior: keys that are attended to, the active ones included as the last `s_active`.
        full_sprior: keys that the cache has room for.
        d_head: head dimension.
        block_len: tokens of a block of a block cache; 0 for a flat cache.
        tp_k_prior: the cache of keys is [B, 1, s_prior, d] instead of [B, 1, d, s_prior].
        strided_mm1: a partition holds neighbouring keys, so that values are loaded in long runs. False: keys
            that are 128 apart.
        use_pos_id: the mask of prior keys is made here from position ids; the one given is of active keys.
        fuse_rope: rotate queries and active keys, and scale queries by 1 / sqrt(d_head).
        use_gpsimd_sb2sb: how two cores exchange results; one way serves both values here.
        qk_in_sb: queries and active keys are in SBUF.
        k_out_in_sb: rotated active keys go to SBUF.
        out_in_sb: the result goes to SBUF.
    """

    bs: int = 0
    q_head: int = 0
    s_active: int = 0
    curr_sprior: int = 0
    full_sprior: int = 0
    d_head: int = 0
    block_len: int = 0
    tp_k_prior: bool = False
    strided_mm1: bool = True
    use_pos_id: bool = False
    fuse_rope: bool = False
    use_gpsimd_sb2sb: bool = True
    qk_in_sb: bool = False
    k_out_in_sb: bool = False
    out_in_sb: bool = False


@dataclass
class TileConstants(nl.NKIObject):
    """Sizes of the memories that tiles are cut to.

    Attributes:
        p_max: partitions.
        psum_f_max: fp32 elements of a PSUM bank.
        psum_b_max: PSUM banks.
        sbuf_quadrant_size: partitions of a quadrant of SBUF.
        psum_f_max_bytes: bytes of a PSUM bank.
    """

    p_max: int
    psum_f_max: int
    psum_b_max: int
    sbuf_quadrant_size: int
    psum_f_max_bytes: int

    @staticmethod
    def get_tile_constants():
        """Those of every generation."""
        return TileConstants(128, 512, 8, 32, 2048)


def is_fp8_e4m3(dtype) -> bool:
    """True for float8_e4m3."""
    return dtype == nl.float8_e4m3 or str(dtype) == "float8e4"


def is_fp8_e5m2(dtype) -> bool:
    """True for float8_e5m2."""
    return dtype == nl.float8_e5m2 or str(dtype) == "float8e5"


def uses_flash_attention(s_prior: int):
    """Whether so many keys of one core are worked on in sections, and the keys of a section."""
    return s_prior > SECTION_KEYS, SECTION_KEYS


def is_batch_sharded(cfg, p_max: int) -> bool:
    """True if two cores share the batch: it is even, and rows fill more than `p_max` or keys are few."""
    rows = cfg.bs * cfg.q_head * cfg.s_active
    return cfg.bs % CORES == 0 and (rows > p_max or cfg.curr_sprior < 2 * p_max)


def is_s_prior_sharded(cfg, p_max: int) -> bool:
    """True if two cores share the keys: not the batch, the rows fit and there are keys enough."""
    rows = cfg.bs * cfg.q_head * cfg.s_active
    return not is_batch_sharded(cfg, p_max) and rows <= p_max and cfg.curr_sprior >= 2 * p_max


def resize_cache_block_len_for_attention_tkg_kernel(
    num_blocks_per_batch: int, block_len: int, n_prgs: int, p_max: int, full_sprior: int = 0
):
    """Cut the blocks of a cache so that they divide over cores and partitions.

    Args:
        num_blocks_per_batch: blocks of one sequence.
        block_len: tokens of a block.
        n_prgs: cores.
        p_max: partitions.
        full_sprior: room of the cache; does not matter for the result.

    Returns:
        The largest common divisor of `block_len` and the keys of one partition, and how many such pieces a
        block has.
    """
    keys = num_blocks_per_batch * block_len
    kernel_assert(
        keys % (n_prgs * p_max) == 0,
        f"num_blocks_per_batch * block_len is a multiple of {n_prgs * p_max}, got {keys}",
    )
    piece, rest = block_len, keys // (n_prgs * p_max)
    while rest > 0:
        piece, rest = rest, piece % rest
    return piece, block_len // piece
