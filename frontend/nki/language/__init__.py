"""``nki.language``: tensors, dtypes, memory regions, loops, and the names of operators."""

from typing import Any

from nki_isa.dtypes import DTYPES, DType
from nki_isa.tensor import MemoryRegion, NkiTensor

from nki.language.creation import (
    empty_like,
    full,
    ndarray,
    ones,
    shared_constant,
    shared_identity_matrix,
    zeros,
    zeros_like,
)
from nki.language.functions import (
    FUNCTIONS,
    REDUCTIONS,
    broadcast_to,
    expand_dims,
    load,
    matmul,
    store,
    transpose,
)
from nki.language.iteration import (
    affine_range,
    device_print,
    ds,
    dynamic_range,
    fori_loop,
    no_reorder,
    num_programs,
    program_id,
    program_ndim,
    sequential_range,
    static_range,
    while_loop,
)
from nki.language.objects import NKIObject
from nki.language.regions import (
    hbm,
    is_hbm,
    is_on_chip,
    is_psum,
    is_sbuf,
    private_hbm,
    psum,
    sbuf,
    shared_hbm,
    tile_size,
)

bool_ = DTYPES["bool"]
globals().update(DTYPES)
globals().update(FUNCTIONS)
globals().update(REDUCTIONS)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'nki.language' has no attribute {name!r}")


__all__ = [
    "DType",
    "MemoryRegion",
    "NKIObject",
    "NkiTensor",
    "affine_range",
    "bool_",
    "broadcast_to",
    "device_print",
    "ds",
    "dynamic_range",
    "empty_like",
    "expand_dims",
    "fori_loop",
    "full",
    "hbm",
    "is_hbm",
    "is_on_chip",
    "is_psum",
    "is_sbuf",
    "load",
    "matmul",
    "ndarray",
    "no_reorder",
    "num_programs",
    "ones",
    "private_hbm",
    "program_id",
    "program_ndim",
    "psum",
    "sbuf",
    "sequential_range",
    "shared_constant",
    "shared_hbm",
    "shared_identity_matrix",
    "static_range",
    "store",
    "tile_size",
    "transpose",
    "while_loop",
    "zeros",
    "zeros_like",
    *DTYPES,
    *FUNCTIONS,
    *REDUCTIONS,
]
