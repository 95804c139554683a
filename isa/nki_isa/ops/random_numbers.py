"""Random numbers: XORWOW generators in every lane of the vector and gpsimd engines.

The SDK names the algorithm (XORWOW) and the size of its state: 6 words per lane on
gpsimd, 24 on the vector engine, taken here as four generators that give elements in
turn. It publishes neither the order of the words, nor how a seed of one word or no
seed fills them, nor the generator behind `rng` before NeuronCore-v4: runs repeat
here, but the numbers are not those of the hardware. Lane p serves the p-th partition of
an operand, wherever the operand starts (architecture guide, cross-partition
connectivity).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nki_isa.constraints.data_types import dtypes, same_dtype
from nki_isa.constraints.indirection import no_indirection
from nki_isa.constraints.memories import memory, memory_since
from nki_isa.constraints.operands import SBUF, STUB, elements_per_partition, rules
from nki_isa.constraints.operators import engine_since
from nki_isa.constraints.sizes import elements, partitions, same_shape
from nki_isa.constraints.tiles import tile
from nki_isa.constraints.values import attribute_rule, column, scalar_rule
from nki_isa.cost import Cost, streaming
from nki_isa.ir.fields import attribute, read, scalar, write
from nki_isa.ir.instruction import MakeTile, Order, instruction
from nki_isa.machine.enums import Engine
from nki_isa.machine.target import Feature
from nki_isa.ops.base import (
    GPSIMD_ENGINE,
    VECTOR_ENGINE,
    Array,
    ComputeInstruction,
    from_bits,
    pointers,
    rows,
    scalar_operand,
)
from nki_isa.ops.select import FLOAT_TYPES
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.machine.target import Target

_LANES = 128
_WORDS = 6  # five of the shift register and a counter
_GENERATORS = {GPSIMD_ENGINE: 1, VECTOR_ENGINE: 4}  # per lane
_STEP = np.uint32(362437)  # of the counter


def _seeded(engine: Engine, seed: int) -> Array:
    """States of all generators of an engine from one number: lanes by generators by words."""
    count = _GENERATORS[engine]
    words = np.random.SeedSequence(seed & 0xFFFFFFFF).generate_state(_LANES * count * _WORDS, np.uint32)
    return words.reshape(_LANES, count, _WORDS)


def _states(state: Any, engine: Engine) -> Array:
    if engine not in state.rng:
        state.rng[engine] = _seeded(engine, 0)
    found: Array = state.rng[engine]
    return found


def random_words(state: Any, engine: Engine, lanes: int, count: int) -> Array:
    """The next `count` 32-bit numbers of each of the first `lanes` lanes."""
    states = _states(state, engine)
    generators = states.shape[1]
    turns = -(-count // generators)
    x, y, z, w, v, counter = (states[:lanes, :, k].copy() for k in range(_WORDS))
    result = np.empty((turns, lanes, generators), np.uint32)
    for turn in result:
        t = x ^ (x >> 2)
        x, y, z, w = y, z, w, v
        v = v ^ (v << 4) ^ t ^ (t << 1)
        counter += _STEP
        np.add(v, counter, out=turn)
    states[:lanes] = np.stack([x, y, z, w, v, counter], axis=2)
    return result.transpose(1, 0, 2).reshape(lanes, turns * generators)[:, :count]


def _unit(words: Array) -> Array:
    """Uniform float32 in [0, 1), from the upper 24 bits."""
    return (words >> 8).astype(np.float32) * np.float32(2.0**-24)


class _Random(ComputeInstruction):
    """An instruction that uses the generators of its engine."""

    stateful = True


_INTEGER_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


@instruction
class rng(_Random):
    """dst = 32 random bits per element, of which narrower types keep the low ones.

    Shapes: `dst` is an integer tile; on gpsimd (from NeuronCore-v3 on) it is in SBUF.
    Errors: NKI-V101, V102, V104 to V106, V108, V110, V112, V115.
    Source: SDK page nki.isa.rng. No cost is published; one element per cycle is assumed.
    """

    engines = (VECTOR_ENGINE, GPSIMD_ENGINE)
    source = f"{STUB} (rng)"
    order = Order.streamed
    assumed = "one element per cycle"
    dst: NkiTensor = write()
    engine: Engine = attribute(Engine, VECTOR_ENGINE)
    constraints = rules(
        *tile("dst"),
        dtypes("dst", _INTEGER_TYPES),
        engine_since(GPSIMD_ENGINE, Feature.gpsimd_random),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(dtype="uint32")}

    def compute(self, state: Any) -> Array:
        words = random_words(state, self.on, self.dst.shape[0], elements_per_partition(self.dst))
        return from_bits(words, self.dst.dtype)

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst))


def _ordered(instruction: Any, target: Any) -> str | None:
    low, high = instruction.__dict__["min"], instruction.__dict__["max"]
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and not low < high:
        return f"min is {low!r} and max is {high!r}: min must be less"
    return None


_RAND2_TYPES = (
    "float8_e4m3",
    "float8_e5m2",
    "float16",
    "bfloat16",
    "float32",
    "tfloat32",
    *_INTEGER_TYPES,
)


@instruction
class rand2(_Random):
    """dst = random numbers, uniform in [min, max], float32 converted to the data type of `dst`.

    Shapes: `min` and `max` are numbers or float32 [partitions, 1].
    Errors: NKI-V101, V102, V104, V105, V108 to V110, V112, V115.
    Source: SDK page nki.isa.rand2.
    """

    engines = (VECTOR_ENGINE,)
    needs = Feature.rand2
    source = f"{STUB} (rand2)"
    order = Order.streamed
    dst: NkiTensor = write()
    min: Any = scalar()
    max: Any = scalar()
    constraints = rules(
        *tile("dst"),
        dtypes("dst", _RAND2_TYPES),
        column("min", "dst"),
        column("max", "dst"),
        scalar_rule("min is less than max.", _ordered, "swap them, or use nisa.memset for one value"),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "min": 0.0, "max": 1.0}

    def compute(self, state: Any, min: Any, max: Any) -> Array:
        words = random_words(state, self.on, self.dst.shape[0], elements_per_partition(self.dst))
        low, high = scalar_operand(min, self.min), scalar_operand(max, self.max)
        return np.minimum(low + _unit(words) * (high - low), high)

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        return streaming.elementwise(
            target, self.on, n, rate="vector_random_rate", pointers=pointers(self.min, self.max)
        )


def _state_words(instruction: Any, target: Any) -> int:
    return _WORDS * _GENERATORS.get(instruction.on, 1)


@instruction
class rand_set_state(_Random):
    """Set the generators of an engine: partition p of `src_seeds` holds the state of lane p.

    Shapes: `src_seeds` uint32 in SBUF with 6 words per partition on gpsimd, 24 on the vector
    engine (from NeuronCore-v4 on).
    Errors: NKI-V101 to V106, V108, V110, V112, V115.
    Source: SDK page nki.isa.rand_set_state. No cost is published; one word per cycle is assumed.
    """

    engines = (GPSIMD_ENGINE, VECTOR_ENGINE)
    needs = Feature.random_states
    source = f"{STUB} (rand_set_state)"
    order = Order.streamed
    assumed = "one word per cycle"
    src_seeds: NkiTensor = read()
    engine: Engine = attribute(Engine, GPSIMD_ENGINE)
    constraints = rules(
        *tile("src_seeds"),
        memory("src_seeds", SBUF),
        dtypes("src_seeds", ("uint32",)),
        elements("src_seeds", _state_words, "6 words for each generator of a lane"),
        engine_since(VECTOR_ENGINE, Feature.vector_random_states),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"src_seeds": t((128, 6), "uint32")}

    def compute(self, state: Any, src_seeds: Array) -> tuple[()]:
        states = _states(state, self.on)
        states[: len(src_seeds)] = src_seeds.reshape(len(src_seeds), -1, _WORDS)
        return ()

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.src_seeds))


@instruction
class rand_get_state(_Random):
    """dst = the state of the generators of an engine, lane p in partition p.

    Shapes: `dst` uint32 with 6 words per partition on gpsimd, 24 on the vector engine (from
    NeuronCore-v4 on); in SBUF, from v4 on also in PSUM (not on gpsimd).
    Errors: NKI-V101 to V106, V108, V110, V112, V115.
    Source: SDK page nki.isa.rand_get_state. No cost is published; one word per cycle is assumed.
    """

    engines = (GPSIMD_ENGINE, VECTOR_ENGINE)
    needs = Feature.random_states
    source = f"{STUB} (rand_get_state)"
    order = Order.streamed
    assumed = "one word per cycle"
    dst: NkiTensor = write()
    engine: Engine = attribute(Engine, GPSIMD_ENGINE)
    constraints = rules(
        *tile("dst"),
        memory_since("dst", Feature.vector_random_states),
        dtypes("dst", ("uint32",)),
        elements("dst", _state_words, "6 words for each generator of a lane"),
        engine_since(VECTOR_ENGINE, Feature.vector_random_states),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t((128, 6), "uint32")}

    def compute(self, state: Any) -> Array:
        states = _states(state, self.on)[: self.dst.shape[0]]
        return states.reshape(len(states), -1).copy()

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, elements_per_partition(self.dst))


@instruction
class set_rng_seed(_Random):
    """Seed the generators of the vector engine from one 32-bit number.

    Shapes: `src_seeds` [1, 1] of a 32-bit type in SBUF or PSUM.
    Errors: NKI-V101 to V105, V108, V110, V112, V115.
    Source: SDK page nki.isa.set_rng_seed. No cost is published; one element is assumed.
    """

    engines = (VECTOR_ENGINE,)
    source = f"{STUB} (set_rng_seed)"
    order = Order.streamed
    assumed = "the time of one element"
    src_seeds: NkiTensor = read()
    constraints = rules(
        *tile("src_seeds"),
        partitions("src_seeds", limit=1, source=STUB),
        elements("src_seeds", 1, "one seed"),
        dtypes("src_seeds", ("uint32", "int32", "float32")),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"src_seeds": t((1, 1), "uint32")}

    def compute(self, state: Any, src_seeds: Array) -> tuple[()]:
        state.rng[self.on] = _seeded(self.on, int(np.ascontiguousarray(src_seeds).view(np.uint32).flat[0]))
        return ()

    def cost(self, target: Target) -> Cost:
        return streaming.elementwise(target, self.on, 1)


def _probability_dtype(instruction: Any, target: Any) -> str | None:
    data, prob = instruction.__dict__["data"], instruction.__dict__["prob"]
    if isinstance(data, NkiTensor) and isinstance(prob, NkiTensor):
        if data.dtype.kind != "float" and prob.dtype != "float32":
            return f"prob is {prob.dtype} and data is {data.dtype}: it must be float32"
        if prob.dtype not in FLOAT_TYPES:
            return f"prob is {prob.dtype}, it must be a float type"
    return None


def _probability_range(instruction: Any, target: Any) -> str | None:
    prob = instruction.__dict__["prob"]
    if isinstance(prob, (int, float)) and not 0 <= prob <= 1:
        return f"prob is {prob}, a probability is from 0 to 1"
    return None


@instruction
class dropout(_Random):
    """dst = data, or 0 with probability `prob` for each element; kept values are not rescaled.

    Shapes: `dst` and `data` have equal data types, partitions and elements per partition;
    `prob` is a number or [partitions, 1], a float type, float32 for integer data.
    Errors: NKI-V101 to V105, V108 to V112, V115.
    Source: SDK page nki.isa.dropout.
    """

    engines = (VECTOR_ENGINE,)
    source = f"{STUB} (dropout)"
    order = Order.streamed
    dst: NkiTensor = write()
    data: NkiTensor = read()
    prob: Any = scalar()
    constraints = rules(
        *tile("dst", "data"),
        *same_shape("data", "dst"),
        same_dtype("data", "dst"),
        column("prob", "data", fp32=False),
        scalar_rule(
            "prob is a float type, float32 for integer data.", _probability_dtype, "pass prob as float32"
        ),
        attribute_rule(
            "prob is from 0 to 1.", _probability_range, "pass the share of elements to drop, such as prob=0.1"
        ),
        no_indirection(),
    )

    @classmethod
    def sample(cls, t: MakeTile) -> dict[str, Any]:
        return {"dst": t(), "data": t(), "prob": 0.5}

    def compute(self, state: Any, data: Array, prob: Any) -> Array:
        values = rows(data)
        words = random_words(state, self.on, *values.shape)
        keep = _unit(words) >= scalar_operand(prob, self.prob)
        return np.where(keep, values, values.dtype.type(0))

    def cost(self, target: Target) -> Cost:
        n = elements_per_partition(self.dst)
        return streaming.elementwise(target, self.on, n, pointers=pointers(self.prob))
