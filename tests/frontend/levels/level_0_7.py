"""Names of NKI 0.7, and kernels that are traced at that level, for its tests."""

from __future__ import annotations

import numpy as np
import pytest
from both_front_ends import front_end

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize
from nki.compiler.language.frontends import FrontEnd
from nki_isa.diagnostics import NkiError

before = levels.use("0.7")
tiles, blocks, alloc_tiles, alloc_blocks = nl.tiles, nl.blocks, nl.alloc_tiles, nl.alloc_blocks
int64, uint64 = nl.int64, nl.uint64
scalar_load, scalar_store, NkiScalar = nisa.scalar_load, nisa.scalar_store, nisa.NkiScalar
CompileConfig, SpecializationConfig = nki.compiler.CompileConfig, nki.compiler.SpecializationConfig
AddressRotation = nki.compiler.AddressRotation
levels.use(before)

SOURCE = np.arange(300 * 600, dtype=np.float32).reshape(300, 600)
X = np.arange(8 * 64, dtype=np.float32).reshape(8, 64)


def inside(body, *arrays):
    """What `body` returns while a kernel is specialized."""
    found = []

    @nki.jit
    def kernel(*tensors):
        found.append(body(*tensors))

    with front_end(FrontEnd.tracer):
        specialize(kernel, *arrays)
    return found[0]


def refused(code, body, *arrays, kind=NkiError):
    """The diagnostics of a kernel that is refused with `code`."""
    with pytest.raises(NkiError) as caught:
        inside(body, *arrays)
    assert {d.code for d in caught.value.diagnostics} == {code}
    assert all(d.help for d in caught.value.diagnostics)
    cause = caught.value.__cause__ or caught.value
    assert isinstance(cause, kind), type(cause)
    return caught.value.diagnostics
