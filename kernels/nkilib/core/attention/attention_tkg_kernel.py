"""attention_tkg as a kernel of its own: operands come from HBM and results go there."""

from typing import Any

import nki
import nki.isa as nisa
import nki.language as nl
from nki.kernel import Kernel

from ..utils.allocator import SbufManager
from ..utils.kernel_helpers import get_program_sharding_info
from .attention_tkg import attention_tkg
from .attention_tkg_plan import reads_new_keys

SBUF_BYTES = 176 * 1024


def launched(entry: Any) -> Kernel:
    """The kernel that calls `entry`, which is :func:`attention_tkg` or takes and does the same."""

    @nki.jit
    def attention_tkg_kernel(
        q,
        k_active,
        v_active,
        k_prior,
        v_prior,
        mask,
        cfg,
        inv_freqs=None,
        rope_pos_ids=None,
        sink=None,
        active_blocks_table=None,
    ):
        """Call `attention_tkg` with what `cfg` wants in SBUF loaded, and store what it leaves there.

        Args:
            q, k_active, v_active, k_prior, v_prior, mask, cfg, inv_freqs, rope_pos_ids, sink,
                active_blocks_table: as of :func:`attention_tkg`, in HBM; results have the dtype of `q`, bf16
                where that is fp8.

        Returns:
            The result, and with `cfg.fuse_rope` the rotated keys.
        """
        d, rows = cfg.d_head, cfg.bs * cfg.q_head * cfg.s_active
        dtype = nl.bfloat16 if q.dtype == nl.float8_e4m3 else q.dtype
        sbm = SbufManager(0, SBUF_BYTES)
        sbm.open_scope()
        queries, keys = q, k_active
        if cfg.qk_in_sb:
            queries = sbm.alloc_stack(q.shape, dtype=q.dtype, buffer=nl.sbuf)
            keys = sbm.alloc_stack(k_active.shape, dtype=k_active.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=queries, src=q)
            _, programs, program = get_program_sharding_info()
            if cfg.fuse_rope or reads_new_keys(cfg, programs, program):
                nisa.dma_copy(dst=keys, src=k_active)
        out = _result(sbm, cfg.out_in_sb, (d, rows), (cfg.bs, cfg.q_head, d, cfg.s_active), dtype)
        k_out = None
        if cfg.fuse_rope:
            shape = (cfg.bs, 1, d, cfg.s_active)
            k_out = _result(sbm, cfg.k_out_in_sb, (d, cfg.bs * cfg.s_active), shape, dtype)
        out, k_out = entry(
            queries, keys, v_active, k_prior, v_prior, mask, out, cfg, sbm, inv_freqs, rope_pos_ids, sink,
            active_blocks_table, k_out,
        )  # fmt: skip
        out = _stored(out, cfg.out_in_sb)
        if cfg.fuse_rope:
            k_out = _stored(k_out, cfg.k_out_in_sb)
        sbm.close_scope()
        if cfg.fuse_rope:
            return out, k_out
        return out

    return attention_tkg_kernel


attention_tkg_kernel = launched(attention_tkg)


def _result(sbm, in_sbuf, sbuf_shape, hbm_shape, dtype):
    if in_sbuf:
        return sbm.alloc_stack(sbuf_shape, dtype=dtype, buffer=nl.sbuf)
    return nl.ndarray(hbm_shape, dtype=dtype, buffer=nl.shared_hbm)


def _stored(tensor, in_sbuf):
    if not in_sbuf:
        return tensor
    there = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.shared_hbm)
    if nl.program_ndim() == 0 or nl.program_id(0) == 0:
        nisa.dma_copy(dst=there, src=tensor)
    return there
