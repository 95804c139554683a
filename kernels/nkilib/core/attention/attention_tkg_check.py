"""What attention_tkg refuses."""

import nki.language as nl

from ..utils.kernel_assert import assert_shape, kernel_assert
from .attention_tkg_utils import (
    is_batch_sharded,
    is_fp8_e4m3,
    is_fp8_e5m2,
    is_s_prior_sharded,
    uses_flash_attention,
)

PARTITIONS = 128
MAX_BATCH = 128
MAX_HEADS = 16
MAX_ACTIVE = 8

#: Up to so many keys: pairs of batch size, and heads times active tokens, that are taken.
SIZES = (
    (256, ((128, 64),)),
    (2 * 1024, ((64, 32), (128, 1))),
    (8 * 1024, ((4, 128), (16, 16), (128, 1))),
    (12 * 1024, ((8, 64), (128, 1))),
    (16 * 1024, ((4, 64), (128, 1))),
    (32 * 1024, ((1, 128), (4, 16))),
)


def check_arguments(
    q, k_active, v_active, k_prior, v_prior, mask, out, cfg, inv_freqs, rope_pos_ids, sink, table, k_out,
    debug, programs,
):  # fmt: skip
    """Refuse what the kernel does not take, by the name of the parameter."""
    check_sizes(cfg, programs)
    bs, heads, active, d, keys = cfg.bs, cfg.q_head, cfg.s_active, cfg.d_head, cfg.curr_sprior
    rows = bs * heads * active
    if cfg.qk_in_sb:
        assert_shape(q, (d, rows), "q")
        assert_shape(k_active, (d, bs * active), "k_active")
    else:
        kernel_assert(
            tuple(q.shape) in ((bs, heads, active, d), (bs, d, heads, active)),
            f"q is {(bs, heads, active, d)} or {(bs, d, heads, active)}, got {tuple(q.shape)}",
        )
        kernel_assert(
            tuple(k_active.shape) in ((bs, 1, active, d), (bs, d, active)),
            f"k_active is {(bs, 1, active, d)} or {(bs, d, active)}, got {tuple(k_active.shape)}",
        )
    assert_shape(v_active, (bs, 1, active, d), "v_active")
    if cfg.block_len > 0:
        assert_shape(k_prior, (k_prior.shape[0], cfg.block_len, d), "k_prior")
        assert_shape(v_prior, (k_prior.shape[0], cfg.block_len, d), "v_prior")
        kernel_assert(table is not None, "block_len > 0 needs active_blocks_table")
        assert_shape(table, (bs, keys // cfg.block_len), "active_blocks_table")
        kernel_assert(
            keys % cfg.block_len == 0, f"curr_sprior is a multiple of block_len {cfg.block_len}, got {keys}"
        )
    else:
        full = cfg.full_sprior
        kernel_assert(
            k_prior.shape[0] >= bs, f"k_prior holds at least bs = {bs} sequences, got {k_prior.shape[0]}"
        )
        kernel_assert(
            v_prior.shape[0] >= bs, f"v_prior holds at least bs = {bs} sequences, got {v_prior.shape[0]}"
        )
        shape = (full, d) if cfg.tp_k_prior else (d, full)
        assert_shape(k_prior, (k_prior.shape[0], 1, shape[0], shape[1]), "k_prior")
        assert_shape(v_prior, (v_prior.shape[0], 1, full, d), "v_prior")
    assert_shape(mask, (active if cfg.use_pos_id else keys, bs, heads, active), "mask")
    assert_shape(out, (d, rows) if cfg.out_in_sb else (bs, heads, d, active), "out")
    if cfg.fuse_rope:
        kernel_assert(
            inv_freqs is not None and rope_pos_ids is not None, "fuse_rope needs inv_freqs and rope_pos_ids"
        )
        kernel_assert(k_out is not None, "fuse_rope needs k_out")
        assert_shape(inv_freqs, (d // 2, 1), "inv_freqs")
        assert_shape(k_out, (d, bs * active) if cfg.k_out_in_sb else (bs, 1, d, active), "k_out")
    if cfg.use_pos_id:
        kernel_assert(rope_pos_ids is not None, "use_pos_id needs rope_pos_ids")
    if cfg.fuse_rope or cfg.use_pos_id:
        assert_shape(rope_pos_ids, (bs, active), "rope_pos_ids")
    if sink is not None:
        assert_shape(sink, (heads, 1), "sink")
    if debug is not None:
        wanted = 4 if cfg.block_len == 0 else 5
        kernel_assert(len(debug) == wanted, f"DBG_TENSORS are {wanted} tensors, got {len(debug)}")
    _check_dtypes(q, k_active, v_active, k_prior, v_prior, cfg)


def check_sizes(cfg, programs):
    rows = cfg.q_head * cfg.s_active
    kernel_assert(0 < cfg.bs <= MAX_BATCH, f"bs is 1 to {MAX_BATCH}, got {cfg.bs}")
    kernel_assert(0 < cfg.q_head <= MAX_HEADS, f"q_head is 1 to {MAX_HEADS}, got {cfg.q_head}")
    kernel_assert(0 < cfg.s_active <= MAX_ACTIVE, f"s_active is 1 to {MAX_ACTIVE}, got {cfg.s_active}")
    kernel_assert(0 < cfg.d_head <= PARTITIONS, f"d_head is 1 to {PARTITIONS}, got {cfg.d_head}")
    keys = cfg.curr_sprior
    kernel_assert(
        cfg.s_active <= keys <= cfg.full_sprior,
        f"curr_sprior is s_active = {cfg.s_active} to full_sprior = {cfg.full_sprior}, got {keys}",
    )
    cores = programs if programs > 1 and is_s_prior_sharded(cfg, PARTITIONS) else 1
    kernel_assert(
        keys % (cores * PARTITIONS) == 0 or (cores == 1 and keys <= PARTITIONS and cfg.block_len == 0),
        f"curr_sprior is a multiple of {cores * PARTITIONS} here, got {keys}",
    )
    kernel_assert(cfg.fuse_rope or cfg.qk_in_sb, "fuse_rope=False needs qk_in_sb=True")
    kernel_assert(cfg.block_len == 0 or cfg.qk_in_sb, "a block cache (block_len > 0) needs qk_in_sb=True")
    kernel_assert(cfg.block_len == 0 or cfg.tp_k_prior, "a block cache (block_len > 0) needs tp_k_prior=True")
    kernel_assert(
        not cfg.fuse_rope or (cfg.bs * rows <= PARTITIONS and not is_batch_sharded(cfg, PARTITIONS)),
        f"fuse_rope takes bs * q_head * s_active up to {PARTITIONS} and no sharding of the batch, got "
        f"{cfg.bs * rows} rows and curr_sprior = {keys}",
    )
    kernel_assert(
        not cfg.fuse_rope or cfg.d_head in (64, 128), f"fuse_rope takes d_head 64 or 128, got {cfg.d_head}"
    )
    _check_table(cfg, rows)


def _check_table(cfg, rows):
    """The sizes that are taken up to one section; longer contexts, in sections, have no such limit."""
    sectioned, _ = uses_flash_attention(cfg.curr_sprior)
    if sectioned:
        return
    taken = SIZES[0][1]
    for row in SIZES:
        taken = row[1]
        if cfg.curr_sprior <= row[0]:
            break
    fits = False
    for pair in taken:
        fits = fits or (cfg.bs <= pair[0] and rows <= pair[1])
    kernel_assert(
        fits,
        f"with curr_sprior = {cfg.curr_sprior} bs and q_head * s_active are up to one of {taken}, got "
        f"{cfg.bs} and {rows}",
    )


def _check_dtypes(q, k_active, v_active, k_prior, v_prior, cfg):
    narrow = 0
    for tensor in (k_active, v_active, k_prior, v_prior):
        kernel_assert(
            not is_fp8_e5m2(tensor.dtype), "keys and values are not float8_e5m2; float8_e4m3 is taken"
        )
        narrow += is_fp8_e4m3(tensor.dtype)
    kernel_assert(
        narrow in (0, 4), "k_active, v_active, k_prior and v_prior are all float8_e4m3, or none of them is"
    )
    if narrow == 4:
        kernel_assert(not cfg.fuse_rope, "fuse_rope is not combined with keys and values of float8_e4m3")
        kernel_assert(q.dtype != nl.float32, "q is not float32 with keys and values of float8_e4m3")
