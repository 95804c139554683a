"""SbufManager, ModularAllocator and their logs: addresses, refusals, and all of it inside kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler.checker.check import check
from nki.runtime import session
from nki_isa.diagnostics import NkiError
from nkilib.core.utils import logging as kernel_logging
from nkilib.core.utils.allocator import (
    SbufManager,
    align_to,
    create_auto_alloc_manager,
    num_elts,
    sizeinbytes,
)
from nkilib.core.utils.kernel_assert import kernel_assert
from nkilib.core.utils.logging import Logger, LogLevel, get_logger
from nkilib.core.utils.modular_allocator import ModularAllocator
from nkilib.core.utils.tree_logger import TreeLogger


@given(st.integers(0, 10**6), st.integers(1, 4096))
def test_align_to(value, alignment):
    assert align_to(value, alignment) % alignment == 0
    assert 0 <= align_to(value, alignment) - value < alignment


def test_sizes():
    assert (num_elts((128, 3, 5)), num_elts(())) == (1920, 1)
    sizes = {nl.float32: 4, nl.bfloat16: 2, nl.float8_e4m3: 1, nl.float8_e4m3fn_x4: 4, nl.float4_e2m1fn_x4: 2}
    assert {dtype: sizeinbytes(dtype) for dtype in sizes} == sizes
    with pytest.raises(AssertionError, match="float99"):
        sizeinbytes("float99")


@pytest.fixture(params=["0.2", "0.6"])
def level(request):
    before = levels.use(request.param)
    yield
    levels.use(before)


def placed(kernel, *args):
    """Where a kernel's tensors in SBUF are, by name: the byte of the partition, or None."""
    with session(data=False) as record:
        kernel(np.zeros((128, 4), np.float32), *args)
    storages = record.launches[-1].program.storages
    return {one.name: one.address for one in storages if one.region is nl.sbuf}


def found(kernel):
    """Everything but the note that a name has a successor, which older levels lack."""
    return [d for d in check(kernel, "strict") if d.code != "NKI-L056"]


def expect(condition):
    """What `assert` is in a kernel: pytest rewrites that word in this file."""
    kernel_assert(condition, "not as expected")


def finish(x, tile):
    """Use a tile, and return a result."""
    nisa.dma_copy(dst=tile, src=x)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@nki.jit
def scopes(x):
    """The example of the API page, with its addresses, in half of the SBUF."""
    sbm = SbufManager(0, 131072)
    top = sbm.get_total_space()
    expect((sbm.get_used_space(), sbm.get_free_space()) == (0, top))
    sbm.alloc_heap((128, 256), nl.bfloat16, name="weights")
    expect(sbm.get_heap_curr_addr() == 130560)
    sbm.open_scope(name="outer")
    sbm.alloc_stack((128, 512), nl.bfloat16, name="buf1")
    sbm.open_scope(name="inner")
    sbm.alloc_stack((128, 256), nl.bfloat16, name="buf2")
    expect(sbm.get_stack_curr_addr() == 1536)
    sbm.alloc_stack((128, 256), nl.bfloat16, name="buf3")
    expect((sbm.get_used_space(), sbm.get_free_space()) == (2560, top - 2560))
    sbm.close_scope()
    expect(sbm.get_stack_curr_addr() == 1024)
    sbm.alloc_stack((128, 512), nl.bfloat16, name="buf4")
    sbm.close_scope()
    sbm.pop_heap()
    expect(sbm.get_used_space() == 0)
    sbm.open_scope()
    return finish(x, sbm.alloc_stack(x.shape, x.dtype, name="tile"))


def test_stack_heap_and_scopes(level):
    assert found(scopes) == []
    where = placed(scopes)
    expected = {"weights": 130560, "buf1": 0, "buf2": 1024, "buf3": 1536, "buf4": 1024, "tile": 0}
    assert where == {name: (0, byte) for name, byte in expected.items()}


@nki.jit
def alignments(x):
    sbm = SbufManager(3, 4096)
    sbm.open_scope()
    expect(sbm.alloc_stack((128, 3), nl.int8, name="a").shape == (128, 3))
    expect(sbm.get_stack_curr_addr() == 6)
    tile = sbm.alloc_stack(x.shape, x.dtype, name="b")
    expect(sbm.get_stack_curr_addr() == 24)
    sbm.alloc_stack((32, 1), nl.float32, name="c", base_partition=32, align=64)
    expect(sbm.get_stack_curr_addr() == 68)
    sbm.align_stack_curr_addr()
    expect(sbm.get_stack_curr_addr() == 96)
    sbm.align_stack_curr_addr(align=128)
    expect(sbm.get_stack_curr_addr() == 128)
    sbm.alloc_heap((128, 7), nl.int8, name="d")
    expect(sbm.get_heap_curr_addr() == 4088)
    sbm.alloc_heap((128, 1), nl.int8, name="e", align=64)
    expect(sbm.get_heap_curr_addr() == 4032)
    sbm.pop_heap()
    expect(sbm.get_heap_curr_addr() == 4088)
    return finish(x, tile)


def test_alignments_and_base_partitions(level):
    assert placed(alignments)["b"] == (0, 8)


@nki.jit
def interleaved(x, degree, count, inner):
    """Where `count` tensors of one scope start."""
    sbm = SbufManager(64, 4096, default_stack_alloc=True)
    sbm.open_scope(interleave_degree=degree)
    for i in range(count):
        expect(sbm.get_stack_curr_addr() == 64 + i % degree * 20)
        sbm.alloc((128, 5), nl.float32, name=f"t{i}")
        if inner:
            sbm.open_scope()
            sbm.alloc((128, 100), nl.float32)
            sbm.close_scope()
        sbm.increment_section()
    sbm.close_scope()
    expect(sbm.get_stack_curr_addr() == 64)
    sbm.open_scope()
    return finish(x, sbm.alloc(x.shape, x.dtype))


@pytest.mark.parametrize("degree, inner", [(1, False), (2, False), (3, True)])
def test_sections_take_turns(degree, inner, level):
    assert found(interleaved) == []
    placed(interleaved, degree, 5, inner)


@nki.jit
def prefixed(x, auto, stack):
    sbm = SbufManager(0, 4096, None, auto, default_stack_alloc=stack)
    expect(sbm.is_auto_alloc() == auto)
    expect((sbm.is_default_stack_alloc(), sbm.is_default_heap_alloc()) == (stack, not stack))
    sbm.open_scope()
    sbm.set_name_prefix("attn_")
    expect(sbm.get_name_prefix() == "attn_")
    tile = sbm.alloc(x.shape, x.dtype, name="q")
    sbm.set_name_prefix("")
    sbm.alloc(x.shape, x.dtype, name="q")
    sbm.close_scope()
    return finish(x, tile)


@pytest.mark.parametrize("auto, stack, address", [(False, True, 0), (False, False, 4080), (True, True, None)])
def test_prefixes_and_defaults(auto, stack, address, level):
    where = placed(prefixed, auto, stack)
    assert where["attn_q"] == (None if auto else (0, address))


@nki.jit
def automatic(x):
    sbm = create_auto_alloc_manager()
    expect(sbm.is_auto_alloc() and sbm.get_total_space() == nl.tile_size.total_available_sbuf_size)
    sbm.alloc_heap((128, 4), nl.float32)
    tile = sbm.alloc_stack(x.shape, x.dtype)
    sbm.pop_heap()
    expect((sbm.get_used_space(), sbm.get_free_space()) == (0, sbm.get_total_space()))
    return finish(x, tile)


def test_the_compiler_chooses_in_automatic_mode(level):
    assert found(automatic) == []
    assert set(placed(automatic).values()) == {None}


@nki.jit
def misused(x, how):
    sbm = SbufManager(0, 1024, use_auto_alloc=how in ("stack_addr", "heap_addr", "align_auto"))
    if how == "space":
        sbm.alloc_heap((128, 200), nl.float32)
        sbm.open_scope()
        sbm.alloc_stack((128, 57), nl.float32)
    elif how == "heap space":
        sbm.open_scope()
        sbm.alloc_stack((128, 200), nl.float32)
        sbm.alloc_heap((128, 57), nl.float32)
    elif how == "no scope":
        sbm.alloc_stack((128, 1), nl.float32)
    elif how == "psum":
        sbm.alloc_heap((128, 1), nl.float32, buffer=nl.psum)
    elif how == "pop":
        sbm.pop_heap()
    elif how == "close":
        sbm.close_scope()
    elif how == "section":
        sbm.increment_section()
    elif how == "degree":
        sbm.open_scope(0)
    elif how == "align":
        sbm.align_stack_curr_addr(2048)
        sbm.open_scope()
        sbm.alloc_stack((128, 1), nl.float32)
        sbm.align_stack_curr_addr(2048)
    elif how == "stack_addr":
        sbm.get_stack_curr_addr()
    elif how == "heap_addr":
        sbm.get_heap_curr_addr()
    elif how == "align_auto":
        sbm.align_stack_curr_addr()
    return finish(x, nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf))


@pytest.mark.parametrize(
    "how, message",
    [
        ("space", r"\(128, 57\) of float32 takes 228 bytes per partition; 224 of 1024 are free"),
        ("heap space", "takes 228 bytes per partition; 224 of 1024 are free"),
        ("no scope", "call open_scope first"),
        ("psum", "allocates in nl.sbuf"),
        ("pop", "empty heap"),
        ("close", "without an open scope"),
        ("section", "needs an open scope"),
        ("degree", "at least 1, got 0"),
        ("align", "gives 2048; the heap starts at 1024"),
        ("stack_addr", "get_stack_curr_addr is not supported in automatic mode"),
        ("heap_addr", "get_heap_curr_addr is not supported in automatic mode"),
        ("align_auto", "align_stack_curr_addr is not supported in automatic mode"),
    ],
)
def test_refusals(how, message):
    with pytest.raises(NkiError, match=message) as caught:
        misused(np.zeros((128, 4), np.float32), how)
    assert [d.code for d in caught.value.diagnostics] == ["NKI-L020"]


@nki.jit
def double_buffered(x):
    sbm = SbufManager(0, 4096, Logger("SBM", LogLevel.DEBUG))
    sbm.open_scope(interleave_degree=2, name="double_buffer")
    for _ in range(4):
        tile = sbm.alloc_stack((128, 512), nl.bfloat16)
        sbm.increment_section()
    sbm.close_scope()
    return finish(x, tile[:, 0:4])


PAGE = """\
[SBM] Allocations:
    ▶ SCOPE 'double_buffer' [interleave=2] @ 0
    ├── (unnamed): 1024 B @ 0 (128, 512) bfloat16
    ├── ↳ section: 1/2 @ 1024
    ├── (unnamed): 1024 B @ 1024 (128, 512) bfloat16
    ├── ↻ section: 0/2 @ 0
    ├── (unnamed): 1024 B @ 0 (128, 512) bfloat16
    ├── ↳ section: 1/2 @ 1024
    └── (unnamed): 1024 B @ 1024 (128, 512) bfloat16
    ◀ END 'double_buffer' freed=2048 B
"""


def test_log_of_the_page(capsys):
    double_buffered(np.zeros((128, 4), np.float32).astype("bfloat16"))
    assert capsys.readouterr().out == PAGE


def test_subtrees(capsys):
    tree = TreeLogger("Tree", Logger("T", LogLevel.DEBUG))
    for text, depth, boundary in [
        ("(", 0, True),
        ("a", 1, False),
        ("(", 1, True),
        ("b", 2, False),
        (")", 1, True),
        ("c", 1, False),
        (")", 0, True),
    ]:
        tree.log(text, depth, is_scope_boundary=boundary)
    tree.flush()
    tree.flush()
    assert capsys.readouterr().out.split("\n")[1:-1] == [
        "    (",
        "    ├── a",
        "    │   (",
        "    │   └── b",
        "    │   )",
        "    └── c",
        "    )",
    ]


def test_levels_of_loggers(capsys, monkeypatch):
    logger = Logger("K", LogLevel.WARN)
    for say in (logger.debug, logger.info, logger.warn, logger.error):
        say("x")
    assert capsys.readouterr().out == "[K] WARNING: x\n[K] ERROR: x\n"
    assert LogLevel.from_string("warn") is LogLevel.WARN and not logger.is_enabled_for(LogLevel.INFO)
    with pytest.raises(AssertionError, match="DEBUG, INFO, WARN, ERROR, OFF"):
        LogLevel.from_string("loud")
    monkeypatch.setenv("NKILIB_LOG_LEVEL", "error")
    monkeypatch.setenv("NKILIB_LOG_LEVEL_SBM", "debug")
    monkeypatch.setattr(kernel_logging, "_of_environment", kernel_logging._levels_of_environment())
    assert [get_logger(name).level for name in ("SBM", "other")] == [LogLevel.DEBUG, LogLevel.ERROR]


@nki.jit
def circular(x):
    allocator = ModularAllocator(40)
    allocator.alloc_sbuf_tensor((128, 2), nl.bfloat16)
    expect(allocator.get_current_address() == 44)
    tiles = allocator.alloc_sbuf_tensor((128, 8), nl.float32, [3, 5], [2, 4], align_to=32)
    expect(allocator.get_current_address() == 64 + 2 * 4 * 32)
    out = nl.ndarray((3, 5, 128, 8), dtype=nl.float32, buffer=nl.shared_hbm)
    for i in range(3):
        for j in range(5):
            nisa.memset(dst=tiles[i][j], value=float(10 * i + j))
            nisa.dma_copy(dst=out[i, j], src=tiles[i][j])
    every = allocator.alloc_sbuf_tensor((32, 1), nl.float32, block_dim=[2], base_partition=32)
    expect(len(every) == 2)
    allocator.set_current_address(512)
    return finish(x, allocator.alloc_sbuf_tensor(x.shape, x.dtype)), out


def test_modular_buffers(level):
    """Sixteen tensors in eight buffers: each is whole until the next of its buffer is written."""
    assert found(circular) == []
    _, out = circular(np.zeros((128, 4), np.float32))
    np.testing.assert_array_equal(out[:, :, 0, 0], [[10 * i + j for j in range(5)] for i in range(3)])
    assert (out == out[:, :, :1, :1]).all()
    bytes_of_tiles = [byte for partition, byte in placed(circular).values() if 64 <= byte < 320]
    assert bytes_of_tiles == [64 + 32 * (i % 2 * 4 + j % 4) for i in range(3) for j in range(5)]


def test_modular_needs_a_number_for_each_list():
    with pytest.raises(AssertionError, match="number for each of block_dim"):
        ModularAllocator().alloc_sbuf_tensor((128, 8), nl.float32, [3, 5], [2])
