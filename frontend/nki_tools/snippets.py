"""Lines of a kernel as whole files: the frame that examples of the documentation stand in."""

from __future__ import annotations

import re
import textwrap

_IMPORTS = """\
import nki
import nki.isa as nisa
import nki.language as nl
import numpy as np


"""
_KERNEL = """\
@nki.jit
def kernel(x):
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
"""
_END = """\
    result = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=result, src=tile)
    return result


kernel(np.ones((128, 512), np.float32))
"""

#: What is to be known about snippets that are not whole files.
FRAME = (
    "Snippets without imports are a kernel body where `x` is the argument, float32[128, 512] in HBM, and "
    "`tile` a copy of it in SBUF, which is returned at the end. Definitions without imports stand after "
    "`import nki`, `nki.isa as nisa`, `nki.language as nl` and `numpy as np`."
)


def is_framed(text: str) -> bool:
    """True for Python that is not a whole file."""
    return not re.search(r"^(import|from) ", text, re.MULTILINE)


def whole(text: str) -> str:
    """`text` as a file that can run."""
    if not is_framed(text):
        return text
    if "nki.jit" in text:
        return _IMPORTS + text
    return _IMPORTS + _KERNEL + textwrap.indent(text, "    ") + _END
