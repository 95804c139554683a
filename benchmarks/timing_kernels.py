"""Kernels whose time on hardware is public, as instruction streams."""

from __future__ import annotations

from streams import Stream

from nki_isa.ir.program import Program
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
    (k, m), n = left.shape, right.shape[1]
    depths = _tiles(k, TILE)
    for block_m in _tiles(m, 2 * TILE):
        block_rows = _tiles(2 * TILE, TILE, block_m.start)
        stationary = [[stream.load(left[depth, rows]) for depth in depths] for rows in block_rows]
        for block_n in _tiles(n, 2 * MOVING):
            block_columns = _tiles(2 * MOVING, MOVING, block_n.start)
            moving = [[stream.load(right[depth, columns]) for depth in depths] for columns in block_columns]
            for a, rows in enumerate(block_rows):
                for b, columns in enumerate(block_columns):
                    product = stream.psum((TILE, MOVING))
                    for i in range(len(depths)):
                        stream.nc_matmul(product, stationary[a][i], moving[b][i], accumulate=i > 0)
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
        sums = []
        for _ in range(m // TILE):
            sums.append(stream.sbuf((TILE, tiles_n, MOVING), result.dtype))
            stream.memset(dst=sums[-1], value=0.0)
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
                        total = sums[block * tiles_m + a][:, b]
                        stream.tensor_tensor(dst=total, data1=total, data2=product, op="add")
        for total, rows in zip(sums, _tiles(m, TILE), strict=True):
            stream.dma_copy(dst=result[rows, columns], src=total.reshape((TILE, MOVING * tiles_n)))


_VERSIONS = {"tiled": _tiled, "hoisted": _hoisted, "blocked free": _blocked_free, "blocked": _blocked}


def attention(size: int, dtype: str, fused: bool, target: str = "trn2") -> Program:
    """softmax(Q^T K) V^T for one head of 128 features, in the order the source states.

    Fused, a tile of 128 queries goes through all steps on chip. Otherwise scores and
    probabilities make a round trip through HBM, and each step runs for all tiles before the next.
    """
    stream = Stream(f"{'fused' if fused else 'baseline'}_attention", target)
    q, k, v = (stream.load(stream.input((TILE, size), dtype)) for _ in range(3))
    result = stream.output((size, TILE), dtype)
    steps = _AttentionSteps(stream, size, dtype)
    queries = _tiles(size, TILE)
    if fused:
        v_t = [steps.transposed(v[:, part], "vector") for part in queries]
        for rows in queries:
            weights, inverse = steps.softmax(steps.scores(q[:, rows], k))
            product = steps.weighted(weights, v_t, "scalar")
            out = stream.sbuf((TILE, TILE), dtype)
            stream.tensor_scalar(dst=out, data=product, op0="multiply", operand0=inverse)
            stream.dma_copy(dst=result[rows], src=out)
        return stream.program
    memory = [stream.tensor("private_hbm", (TILE, size), "float32") for _ in queries]
    for rows, kept in zip(queries, memory, strict=True):
        stream.dma_copy(dst=kept, src=steps.scores(q[:, rows], k, "scalar"))
    for kept in memory:
        weights, inverse = steps.softmax(stream.load(kept))
        scaled = stream.sbuf((TILE, size), "float32")
        for part in _tiles(size, MOVING):
            stream.tensor_scalar(dst=scaled[:, part], data=weights[:, part], op0="multiply", operand0=inverse)
        stream.dma_copy(dst=kept, src=scaled)
    v_t = [steps.transposed(v[:, part], "scalar") for part in queries]
    for rows, kept in zip(queries, memory, strict=True):
        product = steps.weighted(stream.load(kept), v_t, "scalar")
        _evict(stream, product, result[rows])
    return stream.program


class _AttentionSteps:
    """The steps both versions of attention share."""

    def __init__(self, stream: Stream, size: int, dtype: str):
        self.stream, self.size, self.dtype = stream, size, dtype

    def transposed(self, source: NkiTensor, engine: str) -> NkiTensor:
        """[128, 128] turned over through PSUM."""
        turned = self.stream.psum((TILE, TILE), source.dtype)
        self.stream.nc_transpose(dst=turned, data=source)
        tile = self.stream.sbuf((TILE, TILE), source.dtype)
        self.stream.copy_on(engine, tile, turned)
        return tile

    def scores(self, queries: NkiTensor, keys: NkiTensor, engine: str = "vector") -> NkiTensor:
        """Scores of 128 queries with all keys."""
        stream = self.stream
        found = stream.sbuf((TILE, self.size), "float32")
        for part in _tiles(self.size, MOVING):
            product = stream.psum((TILE, MOVING))
            stream.nc_matmul(product, queries, keys[:, part], accumulate=False)
            stream.copy_on(engine, found[:, part], product)
        return found

    def softmax(self, scores: NkiTensor) -> tuple[NkiTensor, NkiTensor]:
        """Exponentials of the scores less their peak, and the inverse of their sum."""
        stream, parts = self.stream, _tiles(self.size, MOVING)
        peaks, sums = (stream.sbuf((TILE, len(parts)), "float32") for _ in range(2))
        peak, total, inverse = (stream.sbuf((TILE, 1), "float32") for _ in range(3))
        for i, part in enumerate(parts):
            stream.tensor_reduce(dst=peaks[:, i : i + 1], op="maximum", data=scores[:, part], axis=1)
        stream.tensor_reduce(dst=peak, op="maximum", data=peaks, axis=1)
        weights = stream.sbuf((TILE, self.size), self.dtype)
        for i, part in enumerate(parts):
            stream.activation(dst=weights[:, part], op="exp", data=scores[:, part], bias=peak)
            stream.tensor_reduce(dst=sums[:, i : i + 1], op="add", data=weights[:, part], axis=1)
        stream.tensor_reduce(dst=total, op="add", data=sums, axis=1)
        stream.reciprocal(dst=inverse, data=total)
        return weights, inverse

    def weighted(self, weights: NkiTensor, values: list[NkiTensor], engine: str) -> NkiTensor:
        """Sum of the values by these weights, in PSUM."""
        turned = [self.transposed(weights[:, part], engine) for part in _tiles(self.size, TILE)]
        product = self.stream.psum((TILE, TILE))
        for i, (tile, value) in enumerate(zip(turned, values, strict=True)):
            self.stream.nc_matmul(product, tile, value, accumulate=i > 0)
        return product


def scheduled_attention(target: str = "trn2") -> Program:
    """Fused attention of 512 positions in fp32, in the order the compiler gave it on hardware.

    The trace shows one load of each input, copies of four transposed tiles at a time, and a
    single store.
    """
    stream = Stream("scheduled_attention", target)
    queries, keys, values = (stream.input((TILE, 512), "float32") for _ in range(3))
    result = stream.output((512, TILE), "float32")
    v, k, q = stream.load(values), stream.load(keys), stream.load(queries)
    parts = _tiles(512, TILE)

    def turned(source: NkiTensor) -> NkiTensor:
        columns = stream.psum((TILE, 512))
        for part in parts:
            stream.nc_transpose(dst=columns[:, part], data=source[:, part])
        return columns

    def copied(columns: NkiTensor, engine: str) -> NkiTensor:
        tile = stream.sbuf((TILE, 512), "float32")
        stream.copy_on(engine, tile, columns)
        return tile

    v_t = copied(turned(v), "scalar")
    scores = []
    for part in parts:
        scores.append(stream.psum((TILE, 512)))
        stream.nc_matmul(scores[-1], q[:, part], k)
    peaks, low = stream.sbuf((TILE, 4), "float32"), stream.sbuf((TILE, 4), "float32")
    for i in range(4):
        stream.tensor_reduce(dst=peaks[:, i : i + 1], op="maximum", data=scores[i], axis=1)
    stream.tensor_scalar(dst=low, data=peaks, op0="multiply", operand0=-1.0)
    sums, inverse = stream.sbuf((TILE, 4), "float32"), stream.sbuf((TILE, 4), "float32")
    columns, weights = [], []
    for i in range(4):
        exponentials = stream.sbuf((TILE, 512), "float32")
        stream.activation(dst=exponentials, op="exp", data=scores[i], bias=low[:, i : i + 1])
        stream.tensor_reduce(dst=sums[:, i : i + 1], op="add", data=exponentials, axis=1)
        columns.append(turned(exponentials))
        if i == 1:
            weights.append(copied(columns[0], "vector"))
    weights += [copied(part, "scalar") for part in columns[1:]]
    stream.reciprocal(dst=inverse, data=sums)
    out = stream.sbuf((TILE, 4, TILE), "float32")
    for i in range(4):
        product = stream.psum((TILE, TILE))
        for j, part in enumerate(parts):
            stream.nc_matmul(product, weights[i][:, part], v_t[:, part], accumulate=j > 0)
        stream.tensor_scalar(dst=out[:, i], data=product, op0="multiply", operand0=inverse[:, i : i + 1])
    stream.dma_copy(dst=result.reshape((4, TILE, TILE)).permute((1, 0, 2)), src=out)
    return stream.program
