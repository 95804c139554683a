"""Published kernels of the language before Beta 2, rewritten here as streams of their instructions.

What a kernel computes, its tiles and the order of its loops are those of the source it is published in.
Where the source leaves something to the compiler, the figures published beside the time decide, and the
function says so: which loads are made once (bytes read from HBM), which transposes and broadcasts the
tensor engine makes (its share), what is spilled (bytes of spills), and on which engine copies out of PSUM
run (shares of the engines).

Sources: NKIBench of zhang677/AccelOpt, the fusion study of allenkchau/trainium-kernel-fusion, and the MLP
of the SDK's guide on the profiler. All of them tile by 128 partitions and 512 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams import Stream

from nki_isa.ir.program import Program
from nki_isa.tensor.tensor import NkiTensor

TILE, MOVING, LOADED = 128, 512, 1024
_SPILLED, _OF = 7, 10  # blocks of rows of bmm_softmax whose scores are spilled: 753 of 1074 MB are


def _parts(size: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, size)) for k in range(0, size, step)]


def _within(part: slice, step: int) -> list[slice]:
    return [slice(k, k + step) for k in range(part.start, part.stop, step)]


class Kernel(Stream):
    """A stream with the steps that the kernels share; tiles are of `dtype`."""

    def __init__(self, name: str, target: str = "trn1", dtype: str = "float32"):
        super().__init__(name, target)
        self.dtype = dtype

    def tile(self, *shape: int, dtype: str = "") -> NkiTensor:
        """A tile in SBUF."""
        return self.sbuf(shape, dtype or self.dtype)

    def given(self, *shape: int) -> NkiTensor:
        """An argument."""
        return self.input(shape, self.dtype)

    def copied(self, source: NkiTensor, engine: str = "scalar", dtype: str = "") -> NkiTensor:
        """`source`, out of PSUM."""
        tile = self.tile(*source.shape, dtype=dtype)
        self.copy_on(engine, tile, source)
        return tile

    def turned(self, source: NkiTensor) -> NkiTensor:
        """[rows, columns] turned over by the tensor engine, in SBUF."""
        turned = self.psum((source.shape[1], source.shape[0]), self.dtype)
        self.nc_transpose(dst=turned, data=source)
        return self.copied(turned)

    def product(self, pairs: Iterable[tuple[NkiTensor, NkiTensor]]) -> NkiTensor:
        """The sum of stationary.T x moving over `pairs`, in PSUM."""
        found: NkiTensor | None = None
        for stationary, moving in pairs:
            accumulate = found is not None
            if found is None:
                found = self.psum((stationary.shape[1], moving.shape[1]))
            self.nc_matmul(found, stationary, moving, accumulate=accumulate)
        assert found is not None
        return found

    def both(self, op: str, one: NkiTensor, other: NkiTensor) -> NkiTensor:
        """tensor_tensor."""
        result = self.tile(*one.shape)
        self.tensor_tensor(dst=result, data1=one, data2=other, op=op)
        return result

    def scaled(self, data: NkiTensor, factor: NkiTensor | float, op: str = "multiply") -> NkiTensor:
        """tensor_scalar with a number or one value per partition, on the vector engine."""
        result = self.tile(*data.shape)
        self.tensor_scalar(dst=result, data=data, op0=op, operand0=factor)
        return result

    def applied(self, op: str, data: NkiTensor, bias: NkiTensor | None = None) -> NkiTensor:
        """A function on the scalar engine; arithmetic with numbers, too, is ``copy`` with scale and bias."""
        result = self.tile(*data.shape)
        self.activation(dst=result, op=op, data=data, bias=bias)
        return result

    def reduced(self, op: str, data: NkiTensor) -> NkiTensor:
        """tensor_reduce to one column."""
        result = self.tile(data.shape[0], 1, dtype="float32")
        self.tensor_reduce(dst=result, op=op, data=data, axis=1)
        return result

    def inverse(self, data: NkiTensor) -> NkiTensor:
        """reciprocal."""
        result = self.tile(*data.shape)
        self.reciprocal(dst=result, data=data)
        return result

    def spread(self, row: NkiTensor) -> NkiTensor:
        """[1, columns] in all partitions: the tensor engine times ones, copied out by the scalar engine."""
        ones, whole = self.tile(1, TILE), self.tile(TILE, row.shape[1])
        for part in _parts(row.shape[1], MOVING):
            self.copy_on("scalar", whole[:, part], self.product([(ones, row[:, part])]))
        return whole

    def stored(self, where: NkiTensor, tile: NkiTensor) -> None:
        """A tile to HBM."""
        self.dma_copy(dst=where, src=tile)


# --- NKIBench: trn1, fp32. Copies out of PSUM run on the scalar engine: where there are only these, as in
# matmul, bmm and transpose_matmul, the vector engine is published as idle.


def silu(rows: int = 4096, columns: int = 7168) -> Program:
    """x / (1 + exp(-x)); the 1 is added on the scalar engine, whose share is of two instructions."""
    k = Kernel("silu")
    x, y = k.given(rows, columns), k.output((rows, columns), k.dtype)
    zero = k.tile(TILE, 1)
    for block in _parts(rows, TILE):
        for part in _parts(columns, LOADED):
            data, result = k.load(x[block, part]), k.tile(TILE, LOADED)
            for half in _parts(LOADED, MOVING):
                weights = k.applied("copy", k.applied("exp", data[:, half], zero))
                k.tensor_tensor(
                    dst=result[:, half], data1=data[:, half], data2=k.inverse(weights), op="multiply"
                )
            k.stored(y[block, part], result)
    return k.program


def adamw(rows: int = 10944, columns: int = 2048) -> Program:
    """One step of the optimizer; what multiplies by numbers runs on the scalar engine, as its share says.

    The vector engine's share is that of four tensor_tensors and the reciprocal: the scalar engine has the
    square of the slope and the decay, which is one product.
    """
    k = Kernel("adamw")
    arguments = [k.given(rows, columns) for _ in range(4)]
    y = k.output((rows, columns), k.dtype)
    for block in _parts(rows, TILE):
        for part in _parts(columns, LOADED):
            theta, mean, variance, gradient = (k.load(given[block, part]) for given in arguments)
            result = k.tile(*theta.shape)
            for half in _parts(LOADED, MOVING):
                value, slope = theta[:, half], gradient[:, half]
                decayed = k.applied("copy", value)
                step = k.both("add", k.applied("copy", mean[:, half]), k.applied("copy", slope))
                step = k.applied("copy", step)
                square = k.applied("square", slope)
                square = k.both("add", k.applied("copy", variance[:, half]), square)
                root = k.applied("copy", k.applied("sqrt", square))
                step = k.both("multiply", step, k.inverse(root))
                k.tensor_tensor(dst=result[:, half], data1=decayed, data2=step, op="subtract")
            k.stored(y[block, part], result)
    return k.program


def bmm(
    batch: int = 16, rows: int = 4096, depth: int = 64, columns: int = 4096, softmax: bool = False
) -> Program:
    """A batch of products, `softmax` of their rows if asked; scores that SBUF does not hold are spilled."""
    k = Kernel("bmm_softmax" if softmax else "bmm")
    left, right = k.given(batch * rows, depth), k.given(batch * depth, columns)
    y = k.output((batch * rows, columns), k.dtype)
    for one in range(batch):
        outer = _parts(columns, LOADED)
        peaks: dict[int, list[NkiTensor]] = {}
        scores: dict[tuple[int, int], NkiTensor] = {}
        for number, part in enumerate(outer):
            moving = k.load(right[one * depth : (one + 1) * depth, part])
            for row, block in enumerate(_parts(rows, TILE)):
                block = slice(one * rows + block.start, one * rows + block.stop)
                stationary = k.turned(k.load(left[block]))
                result = k.tile(TILE, LOADED)
                for half in _parts(LOADED, MOVING):
                    k.copy_on("scalar", result[:, half], k.product([(stationary, moving[:, half])]))
                    if softmax:
                        peaks.setdefault(row, []).append(k.reduced("maximum", result[:, half]))
                if not softmax:
                    k.stored(y[block, part], result)
                elif row % _OF < _SPILLED:
                    scores[row, number] = k.tensor("private_hbm", (TILE, LOADED), k.dtype)
                    k.stored(scores[row, number], result)
                else:
                    scores[row, number] = result
        for row, found in peaks.items():
            kept = [scores[row, number] for number in range(len(outer))]
            tiles = [k.load(tile) for tile in kept] if row % _OF < _SPILLED else kept
            where = y[one * rows + row * TILE : one * rows + (row + 1) * TILE]
            _normalized(k, tiles, found, where)
    return k.program


def _normalized(k: Kernel, scores: Sequence[NkiTensor], peaks: Sequence[NkiTensor], where: NkiTensor) -> None:
    """The softmax of a block of rows, whose scores are in tiles, to HBM."""
    low = k.scaled(_joined(k, peaks, "maximum"), -1.0)
    weights, sums = [], []
    for tile in scores:
        result = k.tile(*tile.shape)
        for half in _parts(tile.shape[1], MOVING):
            k.activation(dst=result[:, half], op="exp", data=tile[:, half], bias=low)
            sums.append(k.reduced("add", result[:, half]))
        weights.append(result)
    inverse = k.inverse(_joined(k, sums, "add"))
    for number, tile in enumerate(weights):
        result = k.tile(*tile.shape)
        for half in _parts(tile.shape[1], MOVING):
            k.tensor_scalar(dst=result[:, half], data=tile[:, half], op0="multiply", operand0=inverse)
        k.stored(where[:, number * LOADED : (number + 1) * LOADED], result)


def _joined(k: Kernel, columns: Sequence[NkiTensor], op: str) -> NkiTensor:
    """All columns reduced to one, in a chain."""
    found = columns[0]
    for column in columns[1:]:
        found = k.both(op, found, column)
    return found


def matmul(rows: int = 4096, columns: int = 12288, depth: int = 5120) -> Program:
    """left x right, the blocks of left turned for each 1024 columns of the result.

    SBUF does not hold 1024 columns of right and the rest: right is read anew for each block of rows, as the
    published bytes say (9.06 GB).
    """
    k = Kernel("matmul")
    left, right = k.given(rows, depth), k.given(depth, columns)
    y = k.output((rows, columns), k.dtype)
    for part in _parts(columns, LOADED):
        for block in _parts(rows, TILE):
            moving = [k.load(right[deep, part]) for deep in _parts(depth, TILE)]
            stationary = []
            for deep in _parts(depth, LOADED):
                data = k.load(left[block, deep])
                stationary += [k.turned(data[:, piece]) for piece in _parts(LOADED, TILE)]
            result = k.tile(TILE, LOADED)
            for half in _parts(LOADED, MOVING):
                pairs = zip(stationary, (tile[:, half] for tile in moving), strict=True)
                k.copy_on("scalar", result[:, half], k.product(pairs))
            k.stored(y[block, part], result)
    return k.program


def transpose_matmul(rows: int = 4096, depth: int = 2048, columns: int = 10944) -> Program:
    """left.T x right, left given turned over."""
    k = Kernel("transpose_matmul")
    left, right = k.given(depth, rows), k.given(depth, columns)
    y = k.output((rows, columns), k.dtype)
    for outer in _parts(rows, LOADED):
        stationary = [k.load(left[deep, outer]) for deep in _parts(depth, TILE)]
        for part in _parts(columns, LOADED):
            moving = [k.load(right[deep, part]) for deep in _parts(depth, TILE)]
            width = part.stop - part.start
            for block in _parts(LOADED, TILE):
                result = k.tile(TILE, width)
                for half in _parts(width, MOVING):
                    pairs = [
                        (one[:, block], other[:, half]) for one, other in zip(stationary, moving, strict=True)
                    ]
                    k.copy_on("scalar", result[:, half], k.product(pairs))
                k.stored(y[outer.start + block.start : outer.start + block.stop, part], result)
    return k.program


def rmsnorm_matmul(rows: int = 4096, columns: int = 2048, depth: int = 1024) -> Program:
    """rmsnorm(x) x w; x is read from HBM once, as the published bytes say."""
    k = Kernel("rmsnorm_matmul")
    x, w = k.given(rows, depth), k.given(depth, columns)
    y = k.output((rows, columns), k.dtype)
    zero = k.tile(TILE, 1)
    for outer in _parts(rows, LOADED):
        turned: list[list[NkiTensor]] = []
        for block in _parts(LOADED, TILE):
            block = slice(outer.start + block.start, outer.start + block.stop)
            data = k.load(x[block])
            squares = [k.applied("square", data[:, half], zero) for half in _parts(depth, MOVING)]
            sums = [k.reduced("add", k.scaled(square, 1 / depth)) for square in squares]
            scale = k.applied("rsqrt", _joined(k, sums, "add"), zero)
            halves = [k.scaled(data[:, half], scale) for half in _parts(depth, MOVING)]
            turned.append([k.turned(half[:, piece]) for half in halves for piece in _parts(MOVING, TILE)])
        for part in _parts(columns, LOADED):
            moving = [k.load(w[deep, part]) for deep in _parts(depth, TILE)]
            for number, stationary in enumerate(turned):
                result = k.tile(TILE, LOADED)
                for half in _parts(LOADED, MOVING):
                    pairs = zip(stationary, (tile[:, half] for tile in moving), strict=True)
                    k.copy_on("scalar", result[:, half], k.product(pairs))
                first = outer.start + number * TILE
                k.stored(y[first : first + TILE, part], result)
    return k.program


def _rms_scaled(k: Kernel, data: NkiTensor, gamma: NkiTensor) -> NkiTensor:
    """data / rms(data) x gamma, which is spread over the partitions anew, as shares say."""
    mean = k.scaled(k.reduced("add", k.applied("square", data)), 1 / data.shape[1])
    scale = k.applied("rsqrt", k.scaled(mean, 1e-5, "add"))
    return k.both("multiply", k.scaled(data, scale), k.spread(gamma))


def _times(k: Kernel, data: NkiTensor, weights: Sequence[NkiTensor], part: slice) -> NkiTensor:
    """data x weights[:, part] in PSUM; data is turned for each part, as the tensor engine's share says."""
    turned = [k.turned(data[:, deep]) for deep in _parts(data.shape[1], TILE)]
    return k.product(zip(turned, (tile[:, part] for tile in weights), strict=True))


def add_rmsnorm_matmul(rows: int = 4096, columns: int = 2048, depth: int = 1024) -> Program:
    """rmsnorm(x + z) x w; w is read from HBM once."""
    k = Kernel("add_rmsnorm_matmul")
    x, z, w, g = k.given(rows, depth), k.given(rows, depth), k.given(depth, columns), k.given(1, depth)
    y = k.output((rows, columns), k.dtype)
    gamma = k.load(g)
    weights: list[NkiTensor] = []
    for block in _parts(rows, TILE):
        normal = _rms_scaled(k, k.both("add", k.load(x[block]), k.load(z[block])), gamma)
        weights = weights or [k.load(w[deep]) for deep in _parts(depth, TILE)]
        for part in _parts(columns, MOVING):
            k.stored(y[block, part], k.copied(_times(k, normal, weights, part)))
    return k.program


def matmul_add_rmsnorm(rows: int = 4096, columns: int = 2048, depth: int = 2048) -> Program:
    """rmsnorm(x x w + z); w is read from HBM once."""
    k = Kernel("matmul_add_rmsnorm")
    x, z, w, g = k.given(rows, depth), k.given(rows, columns), k.given(depth, columns), k.given(1, columns)
    y = k.output((rows, columns), k.dtype)
    gamma = k.load(g)
    weights = [k.load(w[deep]) for deep in _parts(depth, TILE)]
    for block in _parts(rows, TILE):
        data, product = k.load(x[block]), k.tile(TILE, columns)
        for part in _parts(columns, MOVING):
            k.copy_on("scalar", product[:, part], _times(k, data, weights, part))
        k.stored(y[block], _rms_scaled(k, k.both("add", product, k.load(z[block])), gamma))
    return k.program


def swiglu(rows: int = 4096, inner: int = 3072, depth: int = 1024) -> Program:
    """down(silu(gate(x)) up(x)): the first two loops are one, as spills and the tensor engine's share say."""
    k = Kernel("swiglu")
    x, gate, up = k.given(rows, depth), k.given(depth, inner), k.given(depth, inner)
    down, y = k.given(inner, depth), k.output((rows, depth), k.dtype)
    zero = k.tile(TILE, 1)
    deeps = _parts(depth, TILE)
    hidden: dict[tuple[int, int], NkiTensor] = {}
    for outer in _parts(inner, LOADED):
        gates, ups = ([k.load(w[deep, outer]) for deep in deeps] for w in (gate, up))
        for number, block in enumerate(_parts(rows, MOVING)):
            turned = [k.tile(TILE, MOVING) for _ in deeps]
            for piece in _parts(MOVING, TILE):
                data = k.load(x[block.start + piece.start : block.start + piece.stop])
                for tile, deep in zip(turned, deeps, strict=True):
                    columns = k.psum((TILE, TILE), k.dtype)
                    k.nc_transpose(dst=columns, data=data[:, deep])
                    k.copy_on("scalar", tile[:, piece], columns)
            for piece in _parts(LOADED, TILE):
                gated, raised = (
                    k.product(zip((tile[:, piece] for tile in weights), turned, strict=True))
                    for weights in (gates, ups)
                )
                gated = k.copied(gated)
                weight = k.inverse(k.applied("copy", k.applied("exp", gated, zero)))
                result = k.both("multiply", k.both("multiply", gated, weight), raised)
                kept = k.tensor("private_hbm", (TILE, MOVING), k.dtype)
                hidden[outer.start + piece.start, number] = kept
                k.stored(kept, result)
    downs = [k.load(down[deep]) for deep in _parts(inner, TILE)]
    for number, block in enumerate(_parts(rows, MOVING)):
        loaded = [k.load(hidden[deep.start, number]) for deep in _parts(inner, TILE)]
        for piece in _parts(MOVING, TILE):
            result = k.tile(TILE, depth)
            for part in _parts(depth, MOVING):
                pairs = [(one[:, piece], other[:, part]) for one, other in zip(loaded, downs, strict=True)]
                k.copy_on("scalar", result[:, part], k.product(pairs))
            k.stored(y[block.start + piece.start : block.start + piece.stop], result)
    return k.program


def gqa(length: int = 4096, heads: int = 16, shared: int = 8, depth: int = 128) -> Program:
    """Attention of grouped queries without a mask; all scores are spilled, as the published bytes say."""
    k = Kernel("gqa")
    q, key, value = (
        k.given(length, heads * depth),
        k.given(length, shared * depth),
        k.given(length, shared * depth),
    )
    y = k.output((heads * length, depth), k.dtype)
    blocks = _parts(length, TILE)
    queries: dict[tuple[int, int], NkiTensor] = {}
    for number, block in enumerate(blocks):
        for outer in _parts(heads * depth, LOADED):
            data = k.load(q[block, outer])
            for piece in _parts(LOADED, TILE):
                queries[(outer.start + piece.start) // depth, number] = k.turned(data[:, piece])
    scores: dict[tuple[int, int, int], NkiTensor] = {}
    peaks: dict[tuple[int, int], list[NkiTensor]] = {}
    for column, part in enumerate(_parts(length, MOVING)):
        keys = [k.tile(depth, MOVING) for _ in range(shared)]
        for piece in _parts(MOVING, TILE):
            data = k.load(key[part.start + piece.start : part.start + piece.stop])
            for one, tile in enumerate(keys):
                columns = k.psum((TILE, TILE), k.dtype)
                k.nc_transpose(dst=columns, data=data[:, one * depth : (one + 1) * depth])
                k.copy_on("scalar", tile[:, piece], columns)
        for head in range(heads):
            for number in range(len(blocks)):
                product = k.product([(queries[head, number], keys[head * shared // heads])])
                score = k.scaled(product, depth**-0.5)
                peaks.setdefault((head, number), []).append(k.reduced("maximum", score))
                kept = scores[head, number, column] = k.tensor("private_hbm", (TILE, MOVING), k.dtype)
                k.stored(kept, score)
    values = [k.load(value[block]) for block in blocks]
    for head in range(heads):
        mine = head * shared // heads * depth
        for number in range(len(blocks)):
            low = k.scaled(_joined(k, peaks[head, number], "maximum"), -1.0)
            weights = [
                k.applied("exp", k.load(scores[head, number, column]), low)
                for column in range(length // MOVING)
            ]
            inverse = k.inverse(_joined(k, [k.reduced("add", tile) for tile in weights], "add"))
            tiles = [k.scaled(tile, inverse) for tile in weights]
            turned = [k.turned(tile[:, piece]) for tile in tiles for piece in _parts(MOVING, TILE)]
            pairs = zip(turned, (tile[:, mine : mine + depth] for tile in values), strict=True)
            first = head * length + number * TILE
            k.stored(y[first : first + TILE], k.copied(k.product(pairs)))
    return k.program


def rope(length: int = 64 * 4096, depth: int = 128, step: int = 512, loads: int = 1) -> Program:
    """x cos + turned(x) sin of halves of 128 features; with `loads` of 2 each product loads what it needs."""
    k = Kernel("rope")
    half, width = depth // 2, length
    x, cosines, sines = k.given(depth, width), k.given(half, width), k.given(half, width)
    y = k.output((depth, width), k.dtype)
    for part in _parts(width, step):
        if loads == 2:
            low, high = slice(0, half), slice(half, depth)
            products = [
                k.both("multiply", k.load(x[side, part]), k.load(table[:, part]))
                for side, table in ((low, cosines), (high, sines), (low, sines), (high, cosines))
            ]
            k.stored(y[low, part], k.both("subtract", products[0], products[1]))
            k.stored(y[high, part], k.both("add", products[3], products[2]))
            continue
        data, table = k.load(x[:, part]), k.tile(depth, step)
        k.dma_copy(dst=table[:half], src=cosines[:, part])
        k.dma_copy(dst=table[half:], src=sines[:, part])
        odd, even, result = k.tile(half, step), data[:half], k.tile(depth, step)
        k.copy_on("scalar", odd, data[half:])
        sine = k.tile(half, step)
        k.copy_on("scalar", sine, table[half:])
        cosine = table[:half]
        one, other = k.both("multiply", even, cosine), k.both("multiply", odd, sine)
        k.tensor_tensor(dst=result[:half], data1=one, data2=other, op="subtract")
        one, other = k.both("multiply", odd, cosine), k.both("multiply", even, sine)
        k.tensor_tensor(dst=result[half:], data1=one, data2=other, op="add")
        k.stored(y[:, part], result)
    return k.program


def mamba(length: int = 7168, channels: int = 256, states: int = 16, step: int = 0) -> Program:
    """The selective scan, state by state; with a `step` channel by channel in tiles of so many positions."""
    k = Kernel("mamba")
    delta, u, a = k.given(channels, length), k.given(channels, length), k.given(channels, states)
    b, c, y = k.given(states, length), k.given(states, length), k.output((channels, length), k.dtype)
    rows = _parts(channels, TILE)

    def scanned(
        loaded: tuple[NkiTensor, NkiTensor], block: slice, state: int, part: slice, sums: NkiTensor
    ) -> None:
        here, inputs = loaded
        decay = k.load(a[block, state : state + 1])
        weights = k.tile(*here.shape)
        k.activation(dst=weights, op="exp", data=here, scale=decay)
        added = k.both(
            "multiply", k.both("multiply", here, inputs), k.spread(k.load(b[state : state + 1, part]))
        )
        result = k.tile(*here.shape)
        k.tensor_tensor_scan(dst=result, data0=weights, data1=added, initial=0.0, op0="multiply", op1="add")
        shown = k.both("multiply", result, k.spread(k.load(c[state : state + 1, part])))
        k.tensor_tensor(dst=sums, data1=sums, data2=shown, op="add")

    for part in _parts(length, step or length):
        width = part.stop - part.start
        sums = [k.tile(TILE, width) for _ in rows]
        for tile in sums:
            k.memset(dst=tile, value=0.0)
        if step:
            for block, tile in zip(rows, sums, strict=True):
                loaded = k.load(delta[block, part]), k.load(u[block, part])
                for state in range(states):
                    scanned(loaded, block, state, part, tile)
        else:
            for state in range(states):
                for block, tile in zip(rows, sums, strict=True):
                    scanned((k.load(delta[block, part]), k.load(u[block, part])), block, state, part, tile)
        for block, tile in zip(rows, sums, strict=True):
            k.stored(y[block, part], tile)
    return k.program


def lora(rows: int = 4096, columns: int = 12288, depth: int = 5120, rank: int = 128) -> Program:
    """x w + (x a) b, turned over in the end; the second product and the sums of each quarter of the depth are
    spilled and read back, as the published bytes say."""
    k = Kernel("lora")
    x, w = k.given(rows, depth), k.given(depth, columns)
    a, b, y = k.given(depth, rank), k.given(rank, columns), k.output((rows, columns), k.dtype)
    blocks, parts = _parts(rows, MOVING), _parts(columns, LOADED)

    def turned(block: slice, wide: slice) -> list[NkiTensor]:
        """The columns `wide` of x in 512 rows, turned over."""
        tiles = [k.tile(TILE, MOVING) for _ in _parts(wide.stop - wide.start, TILE)]
        for piece in _parts(MOVING, TILE):
            data = k.load(x[block.start + piece.start : block.start + piece.stop, wide])
            for number, tile in enumerate(tiles):
                found = k.psum((TILE, TILE), k.dtype)
                k.nc_transpose(dst=found, data=data[:, number * TILE : (number + 1) * TILE])
                k.copy_on("scalar", tile[:, piece], found)
        return tiles

    low = [k.load(a[deep]) for deep in _parts(depth, TILE)]
    added: dict[tuple[int, int], NkiTensor] = {}
    for number, block in enumerate(blocks):
        tiles = [tile for wide in _parts(depth, LOADED) for tile in turned(block, wide)]
        small = k.copied(k.product(zip(low, tiles, strict=True)))
        for part in parts:
            wide = k.load(b[:, part])
            for piece in _parts(LOADED, TILE):
                kept = k.tensor("private_hbm", (TILE, MOVING), k.dtype)
                k.stored(kept, k.copied(k.product([(wide[:, piece], small)])))
                added[part.start + piece.start, number] = kept
    for part in parts:
        sums: dict[tuple[int, int], NkiTensor] = {}
        for quarter in _parts(depth, depth // 4):
            weights = [k.load(w[deep, part]) for deep in _within(quarter, TILE)]
            for number, block in enumerate(blocks):
                tiles = [tile for wide in _within(quarter, depth // 8) for tile in turned(block, wide)]
                for piece in _parts(LOADED, TILE):
                    found = k.product(
                        [(one[:, piece], other) for one, other in zip(weights, tiles, strict=True)]
                    )
                    key = piece.start, number
                    if key in sums:
                        result = k.both("add", k.load(sums[key]), found)
                    else:
                        sums[key], result = k.tensor("private_hbm", (TILE, MOVING), k.dtype), k.copied(found)
                    k.stored(sums[key], result)
        for number, block in enumerate(blocks):
            for piece in _parts(LOADED, TILE):
                kept = added[part.start + piece.start, number]
                result = k.both("add", k.load(sums[piece.start, number]), k.load(kept))
                for turn in _parts(MOVING, TILE):
                    where = slice(block.start + turn.start, block.start + turn.stop)
                    column = slice(part.start + piece.start, part.start + piece.stop)
                    k.stored(y[where, column], k.turned(result[:, turn]))
    return k.program


# --- fusion study: trn2


def mlp_up(rows: int, depth: int, columns: int, dtype: str, gelu: str) -> list[Program]:
    """gelu(x w + bias): in one launch, or product and ``"separate"`` gelu in two.

    The tiles of x are loaded once for a block of rows. Those of w that SBUF holds beside them are loaded
    once, the others for each block: the published times of bf16 are below what loading all of them each time
    would take.
    """
    k = Kernel(f"mlp_{gelu}", "trn2", dtype)
    x, w, bias = k.given(depth, rows), k.given(depth, columns), k.given(1, columns)
    y = k.output((rows, columns), dtype)
    deeps, known = _parts(depth, TILE), dict[int, list[NkiTensor]]()
    held = (20 << 20) // (depth * (2 if dtype == "bfloat16" else 4))  # columns of w
    for block in _parts(rows, TILE):
        stationary = [k.load(x[deep, block]) for deep in deeps]
        for part in _parts(columns, MOVING):
            moving = known.get(part.start) or [k.load(w[deep, part]) for deep in deeps]
            if part.stop <= held:
                known[part.start] = moving
            data = k.copied(k.product(zip(stationary, moving, strict=True)), "vector")
            ones = k.tile(1, TILE)
            data = k.both("add", data, k.product([(ones, k.load(bias[:, part]))]))
            if gelu == "table":
                data = k.applied("gelu", data)
            elif gelu == "taylor":
                data = _taylor(k, data)
            k.stored(y[block, part], data)
    if gelu != "separate":
        return [k.program]
    second = Kernel("gelu", "trn2", dtype)
    x, y = second.given(rows, columns), second.output((rows, columns), dtype)
    for block in _parts(rows, TILE):
        for part in _parts(columns, MOVING):
            second.stored(y[block, part], second.applied("gelu", second.load(x[block, part])))
    return [k.program, second.program]


def _taylor(k: Kernel, x: NkiTensor) -> NkiTensor:
    """gelu by a cubic and a sigmoid."""
    cube = k.both("multiply", k.both("multiply", x, x), x)
    inner = k.scaled(k.both("add", x, k.scaled(cube, 0.044715)), 0.7978845608028654)
    result = k.tile(*x.shape)
    k.tensor_scalar(dst=result, data=k.applied("sigmoid", inner), op0="multiply", operand0=2.0,
                    op1="add", operand1=-1.0)  # fmt: skip
    return k.both("multiply", k.scaled(x, 0.5), k.scaled(result, 1.0, "add"))
