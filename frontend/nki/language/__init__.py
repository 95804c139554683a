"""``nki.language``: tensors, dtypes, memory regions, loops, and the names of operators."""

from types import FunctionType
from typing import Any

from nki import levels
from nki.compiler.language import names
from nki.language import docstrings
from nki.language.composed import (
    ceil,
    cos,
    floor,
    logical_not,
    negative,
    rms_norm,
    softmax,
    tan,
    trunc,
    where,
)
from nki.language.creation import (
    full,
    ndarray,
    ones,
    shared_constant,
    shared_identity_matrix,
    zeros,
    zeros_like,
)
from nki.language.functions import FUNCTIONS, divide, fmod, mod
from nki.language.grids import (
    NkiBlockGrid,
    NkiGrid,
    NkiTileGrid,
    alloc_blocks,
    alloc_tiles,
    blocks,
    empty_like,
    tiles,
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
from nki.language.movement import (
    broadcast_to,
    expand_dims,
    gather_flattened,
    load,
    load_transpose2d,
    matmul,
    store,
    transpose,
)
from nki.language.random_numbers import dropout, rand, random_seed
from nki.language.reductions import all, max, mean, min, prod, sum, var
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
from nki.objects import NKIObject
from nki_isa.machine.dtypes import DTYPES, DType
from nki_isa.tensor.kinds import checked, public_function
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

bool_ = DTYPES["bool"]
globals().update(DTYPES)
globals().update(FUNCTIONS)
range = static_range

for _name, _function in list(globals().items()):
    if isinstance(_function, FunctionType) and not _name.startswith("_"):
        docstrings.complete(_name, _function)


def par_dim(size: int) -> int:
    """`size`: at API level 0.2 kernels mark the partition dimension of a shape with it."""
    return size


# What becomes public here checks the arguments it gets; functions of this package call each other unchecked.
globals().update(
    {
        name: checked(value, "nl.")
        for name, value in list(globals().items())
        if public_function(__name__, value)
    }
)
globals().update({name: levels.leveled(__name__, name, globals()[name]) for name in levels.changed(__name__)})


def __getattr__(name: str) -> Any:
    raise names.attribute_error(__name__, name)


__all__ = [
    "DType",
    "MemoryRegion",
    "NKIObject",
    "NkiBlockGrid",
    "NkiGrid",
    "NkiTensor",
    "NkiTileGrid",
    "affine_range",
    "all",
    "alloc_blocks",
    "alloc_tiles",
    "blocks",
    "bool_",
    "broadcast_to",
    "ceil",
    "cos",
    "device_print",
    "divide",
    "dropout",
    "ds",
    "dynamic_range",
    "empty_like",
    "expand_dims",
    "floor",
    "fmod",
    "fori_loop",
    "full",
    "gather_flattened",
    "hbm",
    "is_hbm",
    "is_on_chip",
    "is_psum",
    "is_sbuf",
    "load",
    "load_transpose2d",
    "logical_not",
    "matmul",
    "max",
    "mean",
    "min",
    "mod",
    "ndarray",
    "negative",
    "no_reorder",
    "num_programs",
    "ones",
    "private_hbm",
    "prod",
    "program_id",
    "program_ndim",
    "psum",
    "rand",
    "random_seed",
    "range",
    "rms_norm",
    "sbuf",
    "sequential_range",
    "shared_constant",
    "shared_hbm",
    "shared_identity_matrix",
    "softmax",
    "static_range",
    "store",
    "sum",
    "tan",
    "tile_size",
    "tiles",
    "transpose",
    "trunc",
    "var",
    "where",
    "while_loop",
    "zeros",
    "zeros_like",
    *DTYPES,
    *FUNCTIONS,
]
