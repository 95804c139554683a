"""Random legal kernels, each with what numpy says it computes, and defects that can be planted in them.

A kernel is a chain of instructions over tiles of one shape. Its text is Python as a user writes it; what it
computes is stated here by plain numpy on float32 and integers, apart from everything in nki_isa.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n"
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}

#: Operators on elements: the name in nki.language, and numpy's.
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
UNARY = {"copy": lambda a: a, "square": np.square, "relu": lambda a: np.maximum(a, 0), "abs": np.abs}
REDUCE = {"add": np.sum, "maximum": np.max, "minimum": np.min}


@dataclass
class Case:
    """One kernel.

    Attributes:
        text: the module.
        inputs: its arguments.
        expected: what it returns.
        tolerance: of the result, relative to its largest element.
        codes: with a planted defect, the codes of which one must be told; none for a legal kernel.
    """

    text: str
    inputs: list[np.ndarray]
    expected: np.ndarray
    tolerance: float
    codes: frozenset[str] = frozenset()


@dataclass
class _Maker:
    random: random.Random
    lines: list[str] = field(default_factory=list)
    tiles: dict[str, np.ndarray] = field(default_factory=dict)
    shape: tuple[int, int] = (0, 0)
    dtype: str = "float32"
    inexact: bool = False

    def stored(self, values: np.ndarray) -> np.ndarray:
        """`values`, computed in float32, as a tile keeps them."""
        return values.astype(np.float32).astype(DTYPES[self.dtype])

    def new(self, values: np.ndarray, shape: tuple[int, int] | None = None, memory: str = "sbuf") -> str:
        name = f"{'p' if memory == 'psum' else 't'}{len(self.tiles)}"
        self.tiles[name] = values
        dtype = "float32" if memory == "psum" else self.dtype
        self.lines.append(f"{name} = nl.ndarray({shape or self.shape}, dtype=nl.{dtype}, buffer=nl.{memory})")
        return name

    def pick(self) -> str:
        fits = [n for n, values in self.tiles.items() if n[0] == "t" and values.shape == self.shape]
        return self.random.choice(fits)

    def wide(self, name: str) -> np.ndarray:
        return self.tiles[name].astype(np.float32)

    # --- instructions: each adds a tile

    def binary(self) -> None:
        a, b, op = self.pick(), self.pick(), self.random.choice(list(BINARY))
        dst = self.new(self.stored(BINARY[op](self.wide(a), self.wide(b))))
        self.lines.append(f"nisa.tensor_tensor(dst={dst}, data1={a}, data2={b}, op=nl.{op})")

    def scalar(self) -> None:
        a, op = self.pick(), self.random.choice(list(BINARY))
        number = self.random.choice((0.5, 2.0, -1.0, 3.0, 0.25))
        dst = self.new(self.stored(BINARY[op](self.wide(a), np.float32(number))))
        self.lines.append(f"nisa.tensor_scalar(dst={dst}, data={a}, op0=nl.{op}, operand0={number})")

    def two_scalars(self) -> None:
        a, first, second = self.pick(), *self.random.choices(list(BINARY), k=2)
        dst = self.new(
            self.stored(BINARY[second](BINARY[first](self.wide(a), np.float32(0.5)), np.float32(1.5)))
        )
        self.lines.append(
            f"nisa.tensor_scalar(dst={dst}, data={a}, op0=nl.{first}, operand0=0.5, op1=nl.{second}, operand1=1.5)"
        )

    def activation(self) -> None:
        a, op = self.pick(), self.random.choice(list(UNARY))
        dst = self.new(self.stored(UNARY[op](self.wide(a) * np.float32(0.5))))
        self.lines.append(f"nisa.activation(dst={dst}, op=nl.{op}, data={a}, scale=0.5)")

    def copy(self) -> None:
        a = self.pick()
        dst = self.new(self.tiles[a].copy())
        self.lines.append(f"nisa.tensor_copy(dst={dst}, src={a})")

    def halves(self) -> None:
        a, b = self.pick(), self.pick()
        half = self.shape[1] // 2
        values = np.concatenate([self.tiles[b][:, :half], self.tiles[a][:, half:]], axis=1)
        dst = self.new(values)
        self.lines.append(f"nisa.tensor_copy(dst={dst}[:, 0:{half}], src={b}[:, 0:{half}])")
        self.lines.append(
            f"nisa.tensor_copy(dst={dst}[:, {half}:{self.shape[1]}], src={a}[:, {half}:{self.shape[1]}])"
        )

    def loop(self) -> None:
        """On the device, or unrolled."""
        a, turns = self.pick(), self.random.randrange(1, 5)
        kind = self.random.choice(("nl.dynamic_range", "nl.static_range", "nl.affine_range", "range"))
        values = self.tiles[a]
        dst = self.new(values)
        for _ in range(turns):
            values = self.stored(values.astype(np.float32) * np.float32(0.5))
        self.tiles[dst] = values
        self.lines.append(f"nisa.tensor_copy(dst={dst}, src={a})")
        self.lines.append(f"for _ in {kind}({turns}):")
        self.lines.append(f"    nisa.tensor_scalar(dst={dst}, data={dst}, op0=nl.multiply, operand0=0.5)")

    def rows(self) -> None:
        """A reduction along the free dimension, then each row against its own number."""
        a, b, op = self.pick(), self.pick(), self.random.choice(list(REDUCE))
        reduced = self.stored(REDUCE[op](self.wide(a), axis=1, keepdims=True))
        self.inexact = self.inexact or op == "add"
        wide = self.stored(reduced).astype(np.float32)
        row = self.new(wide, (self.shape[0], 1), "sbuf")
        self.lines[-1] = self.lines[-1].replace(f"nl.{self.dtype}", "nl.float32")
        self.tiles[row] = REDUCE[op](self.wide(a), axis=1, keepdims=True).astype(np.float32)
        self.lines.append(f"nisa.tensor_reduce(dst={row}, op=nl.{op}, data={a}, axis=1)")
        dst = self.new(self.stored(np.minimum(self.wide(b), self.tiles[row])))
        self.lines.append(f"nisa.tensor_scalar(dst={dst}, data={b}, op0=nl.minimum, operand0={row})")

    def product(self) -> None:
        """A matmul into PSUM and out again."""
        a, b = self.pick(), self.pick()
        k = min(self.shape[1], 128, self.shape[0])
        values = self.wide(a)[:, :k].T @ self.wide(b)
        self.inexact = True
        psum = self.new(values.astype(np.float32), (k, self.shape[1]), "psum")
        self.lines.append(f"nisa.nc_matmul(dst={psum}, stationary={a}[:, 0:{k}], moving={b})")
        if k == self.shape[0]:
            dst = self.new(self.stored(values * np.float32(0.0078125)))
            self.lines.append(
                f"nisa.tensor_scalar(dst={dst}, data={psum}, op0=nl.multiply, operand0=0.0078125)"
            )
        else:
            self.lines.append(
                f"used_{psum} = nl.ndarray({(k, self.shape[1])}, dtype=nl.float32, buffer=nl.sbuf)"
            )
            self.lines.append(f"nisa.tensor_copy(dst=used_{psum}, src={psum})")
            self.lines.append(f"nisa.dma_copy(dst=side[0:{k}, :], src=used_{psum})")


STEPS = (
    "binary",
    "binary",
    "scalar",
    "two_scalars",
    "activation",
    "copy",
    "halves",
    "loop",
    "rows",
    "product",
)


def legal(seed: int) -> Case:
    """The kernel of a number; the same for the same number."""
    made, _ = _make(seed)
    return made


def _make(seed: int) -> tuple[Case, _Maker]:
    chance = random.Random(seed)
    numbers = np.random.default_rng(seed)
    maker = _Maker(chance, shape=(chance.choice((1, 4, 32, 64, 128)), chance.choice((8, 32, 64, 512))))
    maker.dtype = chance.choice(list(DTYPES))
    inputs = [numbers.integers(-8, 8, maker.shape).astype(DTYPES[maker.dtype]) for _ in range(2)]
    for name, values in zip("xy", inputs):
        tile = maker.new(values)
        maker.lines.append(f"nisa.dma_copy(dst={tile}, src={name})")
    for _ in range(chance.randrange(2, 8)):
        getattr(maker, chance.choice(STEPS))()
    last = [n for n, values in maker.tiles.items() if n[0] == "t" and values.shape == maker.shape][-1]
    side = any("side[" in line for line in maker.lines)
    expected = maker.tiles[last]
    return Case(_text(maker, last, side), inputs, expected, _tolerance(maker)), maker


def _tolerance(maker: _Maker) -> float:
    return {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[maker.dtype] if maker.inexact else 0.0


def _text(maker: _Maker, last: str, side: bool) -> str:
    body = [f"out = nl.ndarray({maker.shape}, dtype=nl.{maker.dtype}, buffer=nl.shared_hbm)"]
    if side:
        body.append(f"side = nl.ndarray({(128, maker.shape[1])}, dtype=nl.float32, buffer=nl.private_hbm)")
    body += [*maker.lines, f"nisa.dma_copy(dst=out, src={last})", "return out"]
    return HEAD + "\n\n@nki.jit\ndef k(x, y):\n" + "".join(f"    {line}\n" for line in body)


# --- defects

#: What each defect puts at the end of a legal kernel, and the codes it may be told with.
DEFECTS = {
    "too many partitions": (
        "z = nl.ndarray((129, 8), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(dst=z, value=0.0)",
        "NKI-V102",
    ),
    "unknown name": ("nisa.tensor_copy(dst=t0, src=missing)", "NKI-L010"),
    "unknown instruction": ("nisa.tensor_kopy(dst=t0, src=t1)", "NKI-L011"),
    "unknown argument": ("nisa.tensor_copy(dst=t0, source=t1)", "NKI-L012"),
    "index out of range": ("nisa.tensor_copy(dst=t0[:, 0:4], src=t1[:, 5000:5004])", "NKI-V010 NKI-V013"),
    "sizes differ": (
        "z = nl.ndarray((1, 3), dtype=nl.float32, buffer=nl.sbuf)\nnisa.tensor_copy(dst=z, src=t0)",
        "NKI-V103",
    ),
    "wrong memory": ("nisa.tensor_tensor(dst=t0, data1=x, data2=t1, op=nl.add)", "NKI-V101"),
    "SBUF over capacity": (
        "z = nl.ndarray((128, 200000), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(dst=z[:, 0:8], value=0.0)",
        "NKI-M003 NKI-M001",
    ),
    "operator on tensors": ("z = t0 + t1", "NKI-V030 NKI-L005"),
    "read before write": (
        "z = nl.ndarray(t0.shape, dtype=t0.dtype, buffer=nl.sbuf)\nnisa.tensor_copy(dst=t0, src=z)\nnisa.dma_copy(dst=out, src=t0)",
        "NKI-H002",
    ),
    "loop without end": ("n = 1\nwhile n:\n    n = n + 1", "NKI-L035"),
    "returned tile": ("return t0", "NKI-L025"),
    "bad start partition": (
        "z = nl.ndarray((128, 8), dtype=nl.float32, buffer=nl.sbuf)\nnisa.memset(dst=z, value=0.0)\nnisa.activation(dst=z[5:9, :], op=nl.copy, data=z[5:9, :])",
        "NKI-V110",
    ),
    "run-time index": (
        "r = nisa.register_alloc(4000)\nnisa.dma_copy(dst=t0[0:1], src=x.select(0, r))",
        "NKI-H001",
    ),
    "matmul into SBUF": (
        "nisa.nc_matmul(dst=t0, stationary=t1[:, 0:1], moving=t1)",
        "NKI-V101 NKI-V103 NKI-V105",
    ),
    "output not written": (
        "gap = nl.ndarray((4, 4), dtype=nl.float32, buffer=nl.shared_hbm)\nreturn gap",
        "NKI-H009",
    ),
}


def defective(seed: int) -> tuple[str, Case]:
    """A legal kernel with one defect planted in it, and the name of the defect."""
    case, _ = _make(seed)
    name = list(DEFECTS)[seed % len(DEFECTS)]
    lines, codes = DEFECTS[name]
    planted = "".join(f"    {line}\n" for line in lines.split("\n"))
    head, tail = case.text.rsplit("    return out\n", 1)
    text = f"{head}{planted}    return out\n{tail}"
    return name, Case(text, case.inputs, case.expected, case.tolerance, frozenset(codes.split()))
