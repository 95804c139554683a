"""The 16 kernels of the 2.28 release notes, each with one small test of the library's own.

A row is selection only: of the tests that fit it, the first one runs. Names differ between releases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Selected:
    """What one test of a kernel looks like.

    Attributes:
        kernel: the kernel; the two passes of one are two rows.
        file: under test/integration/nkilib.
        function: pattern of the end of the test function's name.
        parameters: pattern of the start of its parameters' text.
    """

    kernel: str
    file: str
    function: str
    parameters: str = ""

    def fits(self, file: str | Path, name: str) -> bool:
        """True for the test `name`, with its parameters, of `file`."""
        function, _, parameters = name.partition("[")
        return self.has(file, function) and re.match(self.parameters, parameters) is not None

    def has(self, file: str | Path, function: str) -> bool:
        """True if the function may make a test that fits."""
        here = Path(file).as_posix().endswith(f"test/integration/nkilib/{self.file}")
        return here and re.search(f"(?:{self.function})$", function) is not None


_LOSS = "experimental/loss/test_cross_entropy_"

SELECTED: Final = (
    Selected("rmsnorm_quant", "core/rmsnorm/test_rmsnorm_quant.py", "quant_vnc_unit", "128-0.5-2-"),
    Selected("qkv", "core/qkv/test_qkv_cte.py", "accuracy_unit", "1-1-128-512-None-512-bfloat16-"),
    Selected("attention_cte", "core/attention/test_attention_cte.py", "no_cp_vnc_unit", "2-1-256-256-128-"),
    Selected(
        "attention_tkg",
        "core/attention/test_attention_tkg.py",
        "tkg_fast|tkg_nki_sweep_manual",
        "bs_4-qh_1-sa_5-sp_1024-|.*bs-4_q_h-1_s_a-5_s_p-1024_",
    ),
    Selected("rope", "core/embeddings/test_rope.py", "rope_fast"),
    Selected("mlp", "core/mlp/test_mlp_tkg.py", "tkg_unit", ".*vnc-2_b-1_s-1_h-8192_i-448_dt-bfloat16_"),
    Selected(
        "output_projection_cte",
        "core/output_projection/test_output_proj_cte.py",
        "cte_unit|bf16_unit",
        "1-128-3072-",
    ),
    Selected(
        "output_projection_tkg",
        "core/output_projection/test_output_proj_tkg.py",
        "tkg_unit",
        "4-8-4-32-3072-|.*batch-4_n_heads-8_S_tkg-4_d_head-32_H-3072_",
    ),
    Selected("router_topk", "core/router_topk/test_router_topk.py", "router_topk", "4-3072-128-4-softmax-"),
    Selected(
        "moe_cte", "core/moe/moe_cte/test_moe_cte_unified.py", "cte_unified", ".*tok-1024_.*int-384_exp-8_"
    ),
    Selected(
        "moe_tkg",
        "core/moe/moe_tkg/test_moe_tkg.py",
        "tkg_bfloat16|tkg_unit",
        "2-4-3072-64-4-|.*tokens-4_h-3072_i-64_expert-4_",
    ),
    Selected("cumsum", "core/cumsum/test_cumsum.py", "cumsum_fast"),
    Selected(
        "attention_block_tkg",
        "experimental/transformer/test_attention_block_tkg.py",
        "megakernel",
        "1-1-128-7168-None-256-256-",
    ),
    Selected("depthwise_conv1d", "experimental/conv/test_depthwise_conv1d.py", "conv1d_fast"),
    Selected("cross_entropy", f"{_LOSS}forward.py", "switch_transformers_fast", ".*_B-1_T-1_"),
    Selected("cross_entropy", f"{_LOSS}backward.py", "switch_transformers_fast", ".*_B-1_T-1_"),
    Selected(
        "blockwise_mm_backward",
        "experimental/moe/test_bwmm_bwd.py",
        "dropless_lnc2",
        ".*tok-4096_hid-4096_int-384_exp-2_",
    ),
)

KERNELS: Final = tuple(dict.fromkeys(row.kernel for row in SELECTED))
FILES: Final = tuple(dict.fromkeys(row.file for row in SELECTED))


def row_of(file: str | Path, name: str) -> Selected | None:
    """The row that the test `name` of `file` fits, if any."""
    return next((row for row in SELECTED if row.fits(file, name)), None)


def has_function(file: str | Path, function: str) -> bool:
    """False if no test made of `function` fits: making the parameters of some takes minutes."""
    return any(row.has(file, function) for row in SELECTED)
