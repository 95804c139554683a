"""Grids of NKI 0.7: tiles and blocks of tensors, how they are cut, packed, indexed and stored."""

from __future__ import annotations

import numpy as np
import pytest
from level_0_7 import SOURCE, alloc_blocks, alloc_tiles, blocks, inside, refused, tiles

import nki
import nki.isa as nisa
import nki.language as nl
from nki import levels
from nki.compiler import specialize

pytestmark = pytest.mark.usefixtures("at_0_7")

before = levels.use("0.7")  # kernels are defined at it while the tests are read


def test_tiles_of_a_tensor():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert (g.shape, g.tile_shape, g.element_shape) == ((3, 3), (128, 256), (300, 600))
    assert (g.index_step_elements, g.dtype, g.buffer) == ((128, 256), nl.float32, nl.shared_hbm)
    assert isinstance(g[0, :], type(g)) and g[0, :].shape == (3,) and g[0, 0].shape == ()


@pytest.mark.parametrize("size, cells", [(256, 2), (257, 3), (300, 3), (1, 1), (128, 1)])
def test_cells_are_counted_up(size, cells):
    source = np.zeros((size, 4), np.float32)
    assert inside(lambda src: tiles(src, tile_shape=(128, 4)).shape, source) == (cells, 1)


def test_boundary_cells_are_clamped():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g[2, 2].element_shape == (44, 88) and g[2, :].element_shape == (44, 600)
    assert g[2, 2].data.shape == (44, 88)


def test_remainder():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g.is_remainder and g[2, 2].is_remainder and g[:, 2].is_remainder
    assert not g[0, 0].is_remainder and not g[0:2, 0:2].is_remainder


def test_blocks_and_their_tiles():
    b = inside(lambda src: blocks(src, tile_shape=(128, 256), block_shape=(2, 2)), SOURCE)
    assert (b.shape, b.block_shape, b.tile_shape) == ((2, 2), (2, 2), (128, 256))
    assert b.index_step_elements == (256, 512) and b[0, 1].element_shape == (256, 88)
    inner = tiles(b[0, 1])
    assert inner.shape == (2, 1) and inner[1, 0].data.get_pattern() == [[600, 128], [1, 88]]
    assert inner[1, 0].data.offset == 128 * 600 + 512
    assert tiles(b[0, 0], tile_shape=(64, 64)).shape == (4, 8)


def test_slabs():
    source = np.zeros((4, 300, 600), np.float32)
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), source)
    assert g.shape == (4, 3, 3) and g[1, 0, 0].element_shape == (1, 128, 256)
    assert g[1, 0, 0].data.shape == (128, 256) and g[1, 0, 0].data.offset == 300 * 600
    assert g[1:3, 0, 0].data.shape == (2, 128, 256)


def packed(**options):
    given = {"tile_shape": (128, 256), "element_shape": (300, 600), "buffer": nl.sbuf, "dtype": nl.float32}
    return alloc_tiles(**{**given, **options})


def test_packed():
    s = inside(packed)
    assert (s.shape, s.tile_shape, s.element_shape) == ((3, 3), (128, 256), (300, 600))
    assert s[0, 0].data.storage.shape == (128, 9 * 256)
    assert s[1, 2].data.offset == 5 * 256 and s[2, 2].data.shape == (44, 88)
    assert s[1, :].data.shape == (128, 600) and s[1, 0:2].is_data_representable
    assert inside(lambda: packed(buffer=nl.shared_hbm)).data.shape == (300, 600)
    three = inside(lambda: packed(tile_shape=(128, 2, 64), element_shape=(300, 5, 64)))
    assert three.shape == (3, 3, 1) and three[0, 2, 0].data.shape == (128, 1, 64)
    assert three[1, :, 0].data.get_pattern() == [[9 * 128, 128], [64, 5], [1, 64]]


def test_no_one_pattern():
    s = inside(packed)
    assert not s[:, 0].is_data_representable and s[0:1, 0].is_data_representable
    refused("NKI-V152", lambda: packed()[:, 0].data)
    three = inside(lambda: packed(tile_shape=(128, 2, 64), element_shape=(128, 4, 128)))
    assert not three.is_data_representable


def test_blocks_are_stored_as_tiles():
    made = inside(
        lambda: alloc_blocks(
            tile_shape=(128, 256),
            block_shape=(2, 2),
            element_shape=(300, 600),
            buffer=nl.sbuf,
            dtype=nl.float32,
        )
    )
    assert made.shape == (2, 2) and tiles(made[1, 1]).shape == (1, 1)
    assert tiles(made[1, 1])[0, 0].data.offset == 8 * 256
    refused("NKI-V150", lambda: blocks(packed(), block_shape=(2,)), kind=ValueError)


def test_tiles_of_a_grid_keep_its_tile():
    assert inside(lambda: tiles(packed()).shape) == (3, 3)
    refused("NKI-V150", lambda: tiles(packed(), tile_shape=(64, 64)), kind=ValueError)


@pytest.mark.parametrize(
    "options, kind",
    [
        ({"tile_shape": [128, 256]}, TypeError),
        ({"tile_shape": (128, 256.0)}, TypeError),
        ({"tile_shape": (128, True)}, TypeError),
        ({"element_shape": 300}, TypeError),
        ({"buffer": "sbuf"}, TypeError),
        ({"tile_shape": (128, 0)}, ValueError),
        ({"element_shape": (300, -1)}, ValueError),
        ({"tile_shape": (128,)}, ValueError),
        ({"tile_shape": (1, 128, 256)}, ValueError),
    ],
)
def test_shapes_and_buffers_that_are_none(options, kind):
    refused("NKI-V150", lambda: packed(**options), kind=kind)


def test_index_rules():
    g = inside(lambda src: tiles(src, tile_shape=(128, 256)), SOURCE)
    assert g[-1, -1].element_shape == (44, 88) and g[1:, :2].shape == (2, 2)
    assert g[1].shape == (3,)
    for key in [(3, 0), (0, 0, 0), slice(0, 4), slice(0, 3, 2), slice(2, 2), ..., None, True, [0], 0.5]:
        refused("NKI-V151", lambda src, key=key: tiles(src, tile_shape=(128, 256))[key], SOURCE)
    refused("NKI-V151", lambda src: list(tiles(src, tile_shape=(128, 256))), SOURCE)


def test_grids_are_not_made_by_hand_and_not_written():
    refused("NKI-V150", lambda: nl.NkiTileGrid())
    with pytest.raises(AttributeError):
        inside(packed).shape = (1,)


def test_views_record_nothing():
    @nki.jit
    def kernel(src):
        return tiles(blocks(src, tile_shape=(128, 256), block_shape=(2, 2))[0, :])[0, 1].data.shape[0]

    assert not specialize(kernel, SOURCE).body and len(specialize(kernel, SOURCE).storages) == 1


def test_data_of_a_tensor():
    assert inside(lambda src: src.data is src, SOURCE)


def test_empty_like():
    made = inside(lambda: nl.empty_like(packed(), dtype=nl.bfloat16))
    assert made.shape == (3, 3) and made.dtype == nl.bfloat16 and made[2, 2].element_shape == (44, 88)
    assert inside(lambda: nl.empty_like(packed()[1:, :])).element_shape == (172, 600)


@nki.jit
def copies_by_tile(src):
    out = nl.ndarray(src.shape, dtype=src.dtype, buffer=nl.shared_hbm)
    g = tiles(src, tile_shape=(128, 256))
    o = tiles(out, tile_shape=(128, 256))
    s = alloc_tiles(tile_shape=(128, 256), element_shape=src.shape, buffer=nl.sbuf, dtype=src.dtype)
    for i in range(3):
        for j in range(3):
            nisa.dma_copy(dst=s[i, j].data, src=g[i, j].data)
        nisa.dma_copy(dst=o[i, :].data, src=s[i, :].data)
    return out


def test_a_kernel_of_grids():
    assert np.array_equal(copies_by_tile(SOURCE), SOURCE)


levels.use(before)
