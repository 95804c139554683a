"""Attention of the fusion study, as the instructions that its compiler made.

Sources: kernels/ and the eight profiles of profiling/artifacts of allenkchau/trainium-kernel-fusion (trn2,
neuronx-cc 2.23), which show every instruction of 512 and 1024 positions in fp32 and bf16. What they have in
common is stated here once, for any length: what runs before what, on which engine, and who triggers a DMA.
The order is not the source's: its loops over tiles of 128 queries are taken apart, and a step runs for a
block of tiles before the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from streams import Stream

from nki_isa.ir.program import Program
from nki_isa.machine.enums import Engine, dge_mode
from nki_isa.tensor.tensor import NkiTensor

TILE = 128
MOVING = 512  # columns of a bank of PSUM: a chunk of scores, or four transposes, which one copy takes
BANKS = 8
BLOCK = 4  # tiles of queries
SOFTMAX_BLOCK = 8  # those that the softmax of the baseline works on at a time


def attention(size: int, dtype: str, fused: bool, target: str = "trn2") -> Program:
    """softmax(Q^T K) V^T for one head of 128 features and `size` positions; scores are fp32 throughout.

    Fused, a block of queries goes through all steps on chip. Otherwise scores and probabilities make a
    round trip through HBM, and each step runs for all queries before the next.
    """
    stream = Stream(f"{'fused' if fused else 'baseline'}_attention", target)
    (_Fused if fused else _Baseline)(stream, size, dtype).run()
    return stream.program


def _parts(size: int, part: int) -> list[slice]:
    return [slice(start, start + part) for start in range(0, size, part)]


class _Attention:
    """What both versions share."""

    def __init__(self, stream: Stream, size: int, dtype: str):
        self.stream, self.size, self.dtype = stream, size, dtype
        self.tiles, self.chunks = _parts(size, TILE), _parts(size, MOVING)
        for kind in dict.fromkeys((dtype, "float32")):  # the identity that the tensor engine transposes with
            self.triggered(stream.sbuf((TILE, TILE), kind), stream.input((TILE, TILE), kind), Engine.sync)

    def arguments(self, count: int) -> list[NkiTensor]:
        """Loads of arguments: Pool makes the descriptors of what the caller gives and gets."""
        return [self.stream.load(self.stream.input((TILE, self.size), self.dtype)) for _ in range(count)]

    def triggered(self, dst: NkiTensor, src: NkiTensor, engine: Engine) -> None:
        """A DMA of the compiler's own tensors, by hardware descriptors: SP loads, ACT stores."""
        self.stream.dma_copy(dst=dst, src=src, engine=engine, dge_mode=dge_mode.hwdge)

    def score(self, queries: NkiTensor, keys: NkiTensor) -> NkiTensor:
        """Scores of 128 queries with 512 keys, in a bank."""
        product = self.stream.psum((TILE, MOVING))
        self.stream.nc_matmul(product, queries, keys, accumulate=False)
        return product

    def turned(self, source: NkiTensor) -> NkiTensor:
        """Blocks of 128 columns transposed into one bank."""
        bank = self.stream.psum(source.shape, str(source.dtype))
        for part in _parts(source.shape[1], TILE):
            self.stream.nc_transpose(dst=bank[:, part], data=source[:, part])
        return bank

    def copied(self, bank: NkiTensor, engine: str, dtype: str = "float32") -> NkiTensor:
        """A bank in SBUF."""
        tile = self.stream.sbuf(bank.shape, dtype)
        self.stream.copy_on(engine, tile, bank)
        return tile

    def values(self, v: NkiTensor) -> list[NkiTensor]:
        """The values turned over, a bank at a time; of one with more columns a copy takes 128."""
        width = min(self.size, MOVING * 4 // v.dtype.itemsize)
        step = width if width <= MOVING else TILE
        banks = [self.turned(v[:, part]) for part in _parts(self.size, width)]
        columns = [bank[:, part] for bank in banks for part in _parts(bank.shape[1], step)]
        return _blocks(self.copied(part, "scalar") for part in columns)

    def exponentials(self, scores: list[list[NkiTensor]]) -> Iterator[NkiTensor]:
        """exp(score - peak) of each chunk of each tile; `inverse` follows: one of the sum for each query.

        What concerns all tiles of the block is one instruction.
        """
        stream, tiles, chunks = self.stream, len(scores), len(self.chunks)
        peaks, sums = (stream.sbuf((TILE, tiles, chunks), "float32") for _ in range(2))
        low, total, self.inverse = (stream.sbuf((TILE, tiles), "float32") for _ in range(3))
        for t, row in enumerate(scores):
            for c, part in enumerate(row):
                stream.tensor_reduce(dst=peaks[:, t, c : c + 1], op="maximum", data=part, axis=1)
        stream.tensor_reduce(dst=low, op="maximum", data=peaks, axis=2, negate=True)
        for t, row in enumerate(scores):
            for c, part in enumerate(row):
                found = stream.sbuf((TILE, MOVING), "float32")
                stream.activation(dst=found, op="exp", data=part, bias=low[:, t : t + 1])
                stream.tensor_reduce(dst=sums[:, t, c : c + 1], op="add", data=found, axis=1)
                yield found
        stream.tensor_reduce(dst=total, op="add", data=sums, axis=2)
        stream.reciprocal(dst=self.inverse, data=total)

    def weighted(self, weights: Iterable[NkiTensor], values: Iterable[NkiTensor]) -> NkiTensor:
        """Sum of the values by these weights, in a bank."""
        product = self.stream.psum((TILE, TILE))
        for k, (tile, value) in enumerate(zip(_blocks(weights), values, strict=True)):
            self.stream.nc_matmul(product, tile, value, accumulate=k > 0)
        return product


class _Fused(_Attention):
    def run(self) -> None:
        v, q, k = self.arguments(3)
        values, count = self.values(v), len(self.tiles)
        out = self.stream.sbuf((TILE, count, TILE), "float32")
        for first in range(0, count, BLOCK):
            block = slice(first, first + BLOCK)
            self._attend([q[:, part] for part in self.tiles[block]], k, values, out[:, block])
        result = self.stream.output((self.size, TILE), self.dtype)
        self.stream.dma_copy(dst=result.reshape((count, TILE, TILE)).permute((1, 0, 2)), src=out)

    def _attend(
        self, queries: list[NkiTensor], keys: NkiTensor, values: list[NkiTensor], out: NkiTensor
    ) -> None:
        """A block of tiles. The first chunk of scores stays in PSUM, for each tile; the others are copied."""
        stream, chunks = self.stream, [keys[:, part] for part in self.chunks]
        engines = itertools.cycle(("scalar", "vector"))
        scores = [
            [self.copied(self.score(tile, chunk), next(engines)) for chunk in chunks[1:]] for tile in queries
        ]
        for row, tile in zip(scores, queries, strict=True):
            row.insert(0, self.score(tile, chunks[0]))
        waiting: list[NkiTensor] = []
        weights: list[NkiTensor] = []

        def copy() -> None:
            engine = "vector" if len(weights) % 8 in (0, 4, 7) else "scalar"
            weights.append(self.copied(waiting.pop(0), engine))

        for number, found in enumerate(self.exponentials(scores)):
            kept = len(queries) - 1 - number // len(chunks)  # scores in PSUM that are still to be read
            if kept + len(waiting) == BANKS:
                copy()  # not before it must
            waiting.append(self.turned(found))
        while waiting:
            copy()
        for t, part in enumerate(_parts(len(weights), len(chunks))):
            product = self.weighted(weights[part], values)
            stream.tensor_scalar(
                dst=out[:, t], data=product, op0="multiply", operand0=self.inverse[:, t : t + 1]
            )


_Store = tuple[NkiTensor, NkiTensor]  # its two sides


class _Baseline(_Attention):
    def run(self) -> None:
        q, k, v = self.arguments(3)
        self.kept = self._rows(self.stream.tensor("private_hbm", (self.size, self.size), "float32"))
        self.together = max(1, 2 * MOVING // self.size)  # tiles that a DMA of scores moves
        self.groups = _parts(len(self.tiles), self.together)
        self.waiting: list[_Store] = []
        self.copies = 3  # of ACT since it triggered a store
        self._score(q, k)
        values = self.values(v)
        self._soften()
        self._weigh(values)

    def _rows(self, matrix: NkiTensor) -> NkiTensor:
        """A matrix in HBM by the tile of its rows: [128, tiles, columns]."""
        return matrix.reshape((len(self.tiles), TILE, matrix.shape[1])).permute((1, 0, 2))

    def _room(self) -> NkiTensor:
        """Room for what a DMA of scores moves."""
        return self.stream.sbuf((TILE, self.together, self.size), "float32")

    def _copy(self, engine: str, dst: NkiTensor, src: NkiTensor) -> None:
        """A copy; ACT triggers a store that waits with every third of its own."""
        self.stream.copy_on(engine, dst, src)
        self.copies += engine == "scalar"
        if self.waiting and self.copies >= 3:
            self._store()

    def _store(self, number: int = 0) -> None:
        self.triggered(*self.waiting.pop(number), Engine.scalar)
        self.copies = 0

    def _score(self, q: NkiTensor, k: NkiTensor) -> None:
        """All scores to HBM."""
        engines = itertools.cycle(("scalar", "vector"))
        for group in self.groups:
            room = self._room()
            for t, rows in enumerate(self.tiles[group]):
                for part in self.chunks:
                    self._copy(next(engines), room[:, t, part], self.score(q[:, rows], k[:, part]))
            self.waiting.append((self.kept[:, group], room))
        while self.waiting:
            self._store(max(0, len(self.waiting) - BLOCK))

    def _soften(self) -> None:
        """Probabilities in place of the scores; the stores of the last tiles wait for what follows."""
        for block in _parts(len(self.groups), SOFTMAX_BLOCK // self.together):
            rooms = {group.start: self._room() for group in self.groups[block]}
            for group in _last_first(self.groups[block]):
                self.triggered(rooms[group.start], self.kept[:, group], Engine.sync)
            tiles = [room[:, t] for room in rooms.values() for t in range(self.together)]
            found = iter(list(self.exponentials([[tile[:, part] for part in self.chunks] for tile in tiles])))
            for number, group in enumerate(self.groups[block]):
                room = self._room()
                for t in range(self.together):
                    tile = number * self.together + t
                    inverse = self.inverse[:, tile : tile + 1]
                    for part in self.chunks:
                        self.stream.tensor_scalar(
                            dst=room[:, t, part], data=next(found), op0="multiply", operand0=inverse
                        )
                self.waiting.append((self.kept[:, group], room))
                if group.start < max(BLOCK, len(self.tiles) - BLOCK):
                    self._store()

    def _weigh(self, values: list[NkiTensor]) -> None:
        """Products, a tile behind the transposes; one store for a block of them."""
        stream, count = self.stream, len(self.tiles)
        places = self._rows(stream.output((self.size, TILE), self.dtype))
        before: list[NkiTensor] = []
        for t in range(count + 1):
            weights: list[NkiTensor] = []
            if t < count:
                if t % self.together == 0:
                    room = self._room()
                    self.triggered(room, self.kept[:, t : t + self.together], Engine.sync)
                for bank in [self.turned(room[:, t % self.together, part]) for part in self.chunks]:
                    weights.append(stream.sbuf(bank.shape, "float32"))
                    self._copy("scalar", weights[-1], bank)
            if before:
                done = t - 1
                if done % BLOCK == 0:
                    out = stream.sbuf((TILE, BLOCK, TILE), self.dtype)
                engine = "vector" if done % BLOCK < 2 else "scalar"
                self._copy(engine, out[:, done % BLOCK], self.weighted(before, values))
                if t % BLOCK == 0:
                    stream.dma_copy(dst=places[:, t - BLOCK : t], src=out)
            before = weights


def _last_first(groups: list[slice]) -> list[slice]:
    """Those of the last block of tiles, then the others."""
    last = groups[-1].stop - BLOCK
    return sorted(groups, key=lambda group: group.start < last)


def _blocks(banks: Iterable[NkiTensor]) -> list[NkiTensor]:
    """Their columns by 128."""
    return [bank[:, part] for bank in banks for part in _parts(bank.shape[1], TILE)]
