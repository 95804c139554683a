"""Kernels whose time on hardware is public, as instruction streams."""

from __future__ import annotations

from streams import Stream

from nki_isa.ir.program import Program
from nki_isa.machine.targets import as_target
from nki_isa.tensor.tensor import NkiTensor

TILE = 128
MOVING = 512


def _tiles(size: int, tile: int, start: int = 0) -> list[slice]:
    return [slice(start + k, start + k + tile) for k in range(0, size, tile)]


def matmul(target: str, dtype: str, version: str, k: int = 8192, m: int = 4096, n: int = 8192) -> Program:
    """[k, m].T x [k, n] in one of the four versions of the matrix multiplication tutorials."""
    stream = Stream(f"matmul_{version}", target)
    left, right = stream.input((k, m), dtype), stream.input((k, n), dtype)
    result = stream.output((m, n), dtype)
    _VERSIONS[version](stream, left, right, result)
    return stream.program


def _evict(stream: Stream, product: NkiTensor, where: NkiTensor) -> None:
    tile = stream.sbuf(product.shape, where.dtype)
    stream.tensor_copy(dst=tile, src=product)
    stream.dma_copy(dst=where, src=tile)


def _tiled(stream: Stream, left: NkiTensor, right: NkiTensor, result: NkiTensor) -> None:
    (k, m), n = left.shape, right.shape[1]
    for rows in _tiles(m, TILE):
        for columns in _tiles(n, MOVING):
            product = stream.psum((TILE, MOVING))
            for depth in _tiles(k, TILE):
                stationary = stream.load(left[depth, rows])
                moving = stream.load(right[depth, columns])
                stream.nc_matmul(product, stationary, moving, accumulate=depth.start > 0)
            _evict(stream, product, result[rows, columns])


def _hoisted(stream: Stream, left: NkiTensor, right: NkiTensor, result: NkiTensor) -> None:
    (k, m), n = left.shape, right.shape[1]
    for rows in _tiles(m, TILE):
        stationary = [stream.load(left[depth, rows]) for depth in _tiles(k, TILE)]
        for columns in _tiles(n, MOVING):
            moving = [stream.load(right[depth, columns]) for depth in _tiles(k, TILE)]
            product = stream.psum((TILE, MOVING))
            for i in range(len(moving)):
                stream.nc_matmul(product, stationary[i], moving[i], accumulate=i > 0)
            _evict(stream, product, result[rows, columns])


def _blocked_free(stream: Stream, left: NkiTensor, right: NkiTensor, result: NkiTensor) -> None:
    """Both blocks are kept where they fit. Where they do not, fp32 on trn2, that of the right is loaded again
    for each row of tiles, as the published bytes say: 8.66 GB, where 4.56 would do if it were kept."""
    (k, m), n = left.shape, right.shape[1]
    depths = _tiles(k, TILE)
    held = 2 * (TILE + MOVING) * len(depths) * left.dtype.itemsize
    fits = held <= as_target(stream.program.target).sbuf_usable_bytes

    def loaded(columns: slice) -> list[NkiTensor]:
        return [stream.load(right[depth, columns]) for depth in depths]

    for block_m in _tiles(m, 2 * TILE):
        block_rows = _tiles(2 * TILE, TILE, block_m.start)
        stationary = [[stream.load(left[depth, rows]) for depth in depths] for rows in block_rows]
        for block_n in _tiles(n, 2 * MOVING):
            block_columns = _tiles(2 * MOVING, MOVING, block_n.start)
            kept = {c.start: loaded(c) for c in block_columns} if fits else {}
            for a, rows in enumerate(block_rows):
                for columns in block_columns:
                    moving = kept.get(columns.start) or loaded(columns)
                    product = stream.psum((TILE, MOVING))
                    for i in range(len(depths)):
                        stream.nc_matmul(product, stationary[a][i], moving[i], accumulate=i > 0)
                    _evict(stream, product, result[rows, columns])


def _blocked(
    stream: Stream,
    left: NkiTensor,
    right: NkiTensor,
    result: NkiTensor,
    tiles_m: int = 16,
    tiles_n: int = 2,
    tiles_k: int = 8,
) -> None:
    (k, m), n = left.shape, right.shape[1]
    for columns in _tiles(n, MOVING * tiles_n):
        sums = stream.sbuf((TILE, m // TILE, tiles_n, MOVING), result.dtype)
        stream.memset(dst=sums, value=0.0)
        for depth in _tiles(k, TILE * tiles_k):
            moving = stream.sbuf((TILE, tiles_k, MOVING * tiles_n), right.dtype)
            for i, part in enumerate(_tiles(TILE * tiles_k, TILE, depth.start)):
                stream.dma_copy(dst=moving[:, i], src=right[part, columns])
            for block, rows in enumerate(_tiles(m, TILE * tiles_m)):
                stationary = stream.sbuf((TILE, tiles_k, TILE * tiles_m), left.dtype)
                for i, part in enumerate(_tiles(TILE * tiles_k, TILE, depth.start)):
                    stream.dma_copy(dst=stationary[:, i], src=left[part, rows])
                for b, moving_part in enumerate(_tiles(MOVING * tiles_n, MOVING)):
                    for a, stationary_part in enumerate(_tiles(TILE * tiles_m, TILE)):
                        product = stream.psum((TILE, MOVING))
                        for i in range(tiles_k):
                            stream.nc_matmul(
                                product,
                                stationary[:, i, stationary_part],
                                moving[:, i, moving_part],
                                accumulate=i > 0,
                            )
                        total = sums[:, block * tiles_m + a, b]
                        stream.tensor_tensor(dst=total, data1=total, data2=product, op="add")
        for a, rows in enumerate(_tiles(m, TILE)):
            packed = stream.sbuf((TILE, MOVING * tiles_n), result.dtype)
            for b, part in enumerate(_tiles(MOVING * tiles_n, MOVING)):
                stream.tensor_copy(dst=packed[:, part], src=sums[:, a, b])
            stream.dma_copy(dst=result[rows, columns], src=packed)


_VERSIONS = {"tiled": _tiled, "hoisted": _hoisted, "blocked free": _blocked_free, "blocked": _blocked}
