"""A refusal that an older API level would not make says so, and how to choose that level."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import check, specialize
from nki_isa.diagnostics import NkiError

X = np.ones((4, 8), np.float32)


def numbers(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x, dge_mode=3)
    return out


def moved_offset(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    nisa.affine_select(t, [[1, 8]], 0, 1, t, 0.0)
    nisa.dma_copy(dst=out, src=t)
    return out


def keyword(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    nisa.dma_copy(dst=out, src=x, dst_rmw_op=nl.add)
    return out


def name(x):
    return nl.ndarray((nl.par_dim(4), 8), dtype=x.dtype, buffer=nl.shared_hbm)


def text(x):
    nisa.dma_copy(dst=x, src=nl.ndarray(x.shape, dtype=x.dtype, buffer="private_hbm"))
    return x


def whole(x):
    t = nl.ndarray(x.shape, dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(t, 2.0)
    nisa.dma_copy(dst=x, src=t)
    return x


def private(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def of_list(x, sizes=[1, 2]):  # noqa: B006  (what the test is about)
    return x


def diagnostics(kernel):
    with pytest.raises(NkiError) as found:
        specialize(nki.jit(kernel), X)
    return found.value.diagnostics


@pytest.mark.parametrize(
    ("kernel", "level"),
    [
        (numbers, "0.3"),
        (moved_offset, "0.2"),
        (keyword, "0.2"),
        (name, "0.2"),
        (text, "0.2"),
        (whole, "0.2"),
        (private, "0.2"),
        (of_list, "0.2"),
    ],
)
def test_the_level_that_takes_it(kernel, level):
    told = diagnostics(kernel)
    assert any(levels.choice(level) in d.notes for d in told)
    before = levels.use(level)
    try:
        specialize(nki.jit(kernel), X)
    finally:
        levels.use(before)


def refused_everywhere(x):
    nisa.dma_copy(dst=x, src=x, dge_mode="fast")
    return x


def test_nothing_is_said_of_what_no_level_takes():
    assert not any("API level" in note for d in diagnostics(refused_everywhere) for note in d.notes)


def test_the_text_alone_tells_it():
    notes = [d.notes for d in check(nki.jit(moved_offset)) if d.code == "NKI-L012"]
    assert all(levels.choice("0.2") in note for note in notes)
    (found,) = [d for d in check(nki.jit(keyword)) if d.code == "NKI-L050"]
    assert levels.choice("0.2") in found.notes
