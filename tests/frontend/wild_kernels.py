"""Sixty kernels of Python as people write it, each with the constructs that only the tracer takes.

Every kernel takes `x`, 128 by 64 of float32, and gives back what the function beside it does. The constructs
are the titles of :mod:`nki.compiler.language.constructs` and the names of built-ins.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import functools
import itertools
import math
import operator
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl

KERNELS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {}
P, F = 128, 64


def wild(expected: Any, *constructs: str) -> Any:
    """Enter a kernel in the table: what it gives for x, and what only the tracer takes of it."""

    def enter(kernel: Any) -> Any:
        KERNELS[kernel.function.__name__] = kernel, expected, constructs
        return kernel

    return enter


def load(x):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    return tile


def store(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


def scaled(tile, factor):
    result = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=result, data=tile, op0=nl.multiply, operand0=float(factor))
    return result


def added(a, b):
    result = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=result, data1=a, data2=b, op=nl.add)
    return result


def same(x):
    return x


def times(factor):
    return lambda x: x * np.float32(factor)


# --- comprehensions


@wild(same, "list comprehension")
@nki.jit
def list_of_tiles(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tiles = [load(x[:, i * 16 : (i + 1) * 16]) for i in range(4)]
    for i in range(4):
        nisa.dma_copy(dst=out[:, i * 16 : (i + 1) * 16], src=tiles[i])
    return out


@wild(times(6), "list comprehension")
@nki.jit
def list_with_a_condition(x):
    tile = load(x)
    for factor in [n for n in range(4) if n > 1]:
        tile = scaled(tile, factor)
    return store(tile)


@wild(times(5), "dict comprehension")
@nki.jit
def dict_of_tiles(x):
    tiles = {f"{n}": scaled(load(x), n) for n in (2, 3)}
    return store(added(tiles["2"], tiles["3"]))


@wild(times(3), "set comprehension")
@nki.jit
def set_of_factors(x):
    factors = {n % 3 for n in range(9)}
    return store(scaled(load(x), 1 + sorted(factors)[-1]))


@wild(times(10), "generator expression")
@nki.jit
def sum_of_a_generator(x):
    return store(scaled(load(x), sum(n for n in range(5))))


@wild(times(24), "list comprehension")
@nki.jit
def nested_comprehensions(x):
    rows = [[i * j for j in range(1, 3)] for i in range(1, 4)]
    tile = load(x)
    for row in rows[1:]:
        for factor in row:
            if factor != 3:
                tile = scaled(tile, factor)
    return store(scaled(tile, 0.5))


@wild(times(4), "list comprehension", "assignment expression")
@nki.jit
def walrus(x):
    doubled = [y for n in range(3) if (y := 2 * n) > 2]
    return store(scaled(load(x), doubled[0]))


@wild(times(6), "assignment expression")
@nki.jit
def walrus_in_tests(x):
    tile = load(x)
    if (factor := 2) > 1 and (more := factor + 1) == 3:
        tile = scaled(tile, factor)
    while (left := more - 3) > 0:
        more = left
    return store(scaled(tile, more + left))


@wild(times(2), "generator expression")
@nki.jit
def joined_text(x):
    name = "-".join(str(n) for n in range(3))
    assert name == "0-1-2"
    return store(scaled(load(x), 2))


# --- generators


def halves(x):
    for half in range(2):
        yield slice(half * 32, (half + 1) * 32), x[:, half * 32 : (half + 1) * 32]


@wild(same, "`yield`", "tuple target of a `for` loop")
@nki.jit
def generator_of_halves(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for place, part in halves(x):
        nisa.dma_copy(dst=out[:, place], src=load(part))
    return out


def counts(n):
    yield from range(1, n)
    yield n


@wild(times(24), "`yield`")
@nki.jit
def yield_from(x):
    tile = load(x)
    for factor in counts(4):
        tile = scaled(tile, factor)
    return store(tile)


def pipeline(x):
    tile = yield load(x)
    while tile is not None:
        tile = yield scaled(tile, 2)


@wild(times(4), "`yield`", "the built-in next")
@nki.jit
def send_to_a_generator(x):
    stages = pipeline(x)
    tile = next(stages)
    tile = stages.send(tile)
    return store(stages.send(tile))


@wild(times(3), "the built-in iter", "the built-in next")
@nki.jit
def iterators(x):
    numbers = iter([1, 3, 5])
    next(numbers)
    return store(scaled(load(x), next(numbers)))


@wild(times(6), "`*` in a call")
@nki.jit
def iter_tools(x):
    tile = load(x)
    for factor in itertools.chain(*[[2], [3]]):
        tile = scaled(tile, factor)
    return store(tile)


# --- classes


class Stage:
    factor = 1

    def run(self, tile):
        return scaled(tile, self.factor)


class Doubling(Stage):
    factor = 2


class Tripling(Doubling):
    factor = 3

    def run(self, tile):
        return super().run(super().run(tile))


@wild(times(2), "class that inherits from another class", "class without a base")
@nki.jit
def inheritance(x):
    return store(Doubling().run(load(x)))


@wild(times(9), "class that inherits from another class", "the built-in super")
@nki.jit
def calls_super(x):
    return store(Tripling().run(load(x)))


class Abstract(abc.ABC):
    @abc.abstractmethod
    def factor(self): ...

    def __call__(self, tile):
        return scaled(tile, self.factor())


class Concrete(Abstract):
    def factor(self):
        return 5


@wild(times(5), "class that inherits from another class")
@nki.jit
def abstract_base(x):
    return store(Concrete()(load(x)))


@dataclass(frozen=True)
class Config:
    factor: float
    tiles: list[int] = field(default_factory=lambda: [16] * 4)

    @property
    def width(self):
        return sum(self.tiles)

    @classmethod
    def doubled(cls, factor):
        return cls(2 * factor)


@wild(times(3), "class without a base")
@nki.jit
def frozen_dataclass(x):
    config = Config(3.0)
    assert config.width == x.shape[1]
    return store(scaled(load(x), config.factor))


@wild(times(4), "class without a base")
@nki.jit
def class_method(x):
    return store(scaled(load(x), Config.doubled(2).factor))


@dataclass
class Base:
    a: int = 2


@dataclass
class Derived(Base):
    b: int = 3


@wild(times(6), "class that inherits from another class")
@nki.jit
def dataclass_inheritance(x):
    both = Derived()
    return store(scaled(load(x), both.a * both.b))


class Kind(enum.IntEnum):
    ONE = 1
    SEVEN = 7


@wild(times(8), "generator expression")
@nki.jit
def enum_members(x):
    return store(scaled(load(x), sum(kind for kind in Kind)))


class Pair(NamedTuple):
    a: Any
    b: Any

    def total(self):
        return added(*self)


@wild(times(3), "`*` in a call")
@nki.jit
def named_tuple(x):
    return store(Pair(load(x), scaled(load(x), 2)).total())


Point = namedtuple("Point", "a b")


@wild(times(5), "list comprehension")
@nki.jit
def collections_named_tuple(x):
    points = [Point(n, n + 1) for n in range(3)]
    return store(scaled(load(x), points[2].a + points[2].b))


class Sliced:
    __slots__ = ("tile",)

    def __init__(self, tile):
        self.tile = tile

    def __getitem__(self, key):
        return self.tile[:, key]

    def __len__(self):
        return self.tile.shape[1]


@wild(same, "class without a base")
@nki.jit
def slots_and_item(x):
    sliced = Sliced(load(x))
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(0, len(sliced), 32):
        nisa.dma_copy(dst=out[:, i : i + 32], src=sliced[i : i + 32])
    return out


class Wrapped:
    def __init__(self, tile):
        self.tile = tile

    def __add__(self, other):
        return Wrapped(added(self.tile, other.tile))

    def __mul__(self, factor):
        return Wrapped(scaled(self.tile, factor))

    __rmul__ = __mul__


@wild(times(7), "class without a base")
@nki.jit
def operators_of_a_class(x):
    tile = Wrapped(load(x))
    return store((2 * tile + tile * 5).tile)


class Meta(type):
    made: list[str] = []

    def __new__(mcs, name, bases, body):
        mcs.made.append(name)
        return super().__new__(mcs, name, bases, body)


class Registered(metaclass=Meta):
    factor = 3


@wild(times(3), "keyword of a class")
@nki.jit
def metaclass(x):
    assert Meta.made[-1] == "Registered"
    return store(scaled(load(x), Registered().factor))


class Described:
    def __init__(self, factor):
        self.factor = factor

    def __get__(self, owner, kind=None):
        return self.factor * 2

    def __set_name__(self, owner, name):
        self.name = name


class Holder:
    factor = Described(2)


@wild(times(4), "class without a base")
@nki.jit
def descriptor(x):
    return store(scaled(load(x), Holder().factor))


@wild(times(4), "class inside a function")
@nki.jit
def local_class(x):
    class Local:
        factor = 4

    return store(scaled(load(x), Local.factor))


T = TypeVar("T")


class Box(Generic[T]):
    def __init__(self, value: T):
        self.value = value


class Runs(Protocol):
    def run(self, tile): ...


@wild(times(3), "class that inherits from another class")
@nki.jit
def generic_class(x):
    box: Box[int] = Box(3)
    return store(scaled(load(x), box.value))


class Plug:
    registry: dict[str, Any] = {}

    def __init_subclass__(cls, key):
        Plug.registry[key] = cls


class Double(Plug, key="double"):
    def __call__(self, tile):
        return scaled(tile, 2)


@wild(times(2), "class without a base")
@nki.jit
def plug_in(x):
    return store(Plug.registry["double"]()(load(x)))


# --- functions


def variadic(*tiles, factor=1, **more):
    total = tiles[0]
    for tile in tiles[1:]:
        total = added(total, tile)
    return scaled(total, factor * more.get("again", 1))


@wild(times(12), "`*args` parameter", "`**kwargs` parameter", "keyword-only parameter")
@nki.jit
def star_arguments(x):
    return store(variadic(load(x), load(x), factor=2, again=3))


@wild(times(6), "`*` in a call", "`**` in a call")
@nki.jit
def spread_arguments(x):
    tiles, options = (load(x), load(x)), {"factor": 3}
    return store(variadic(*tiles, **options))


@wild(times(5), "`lambda`")
@nki.jit
def lambdas(x):
    twice = lambda tile: scaled(tile, 2.5)  # noqa: E731
    return store(scaled(twice(load(x)), 2))


@wild(times(5), "a function without source text")
@nki.jit
def module_lambda(x):
    return store(FIVE(load(x)))


FIVE = lambda tile: scaled(tile, 5)  # noqa: E731


@wild(times(3), "list comprehension")
@nki.jit
def partial(x):
    steps = [functools.partial(scaled, factor=n) for n in (1, 3)]
    tile = load(x)
    for step in steps:
        tile = step(tile)
    return store(tile)


@wild(times(8), "list comprehension")
@nki.jit
def reduce(x):
    factor = functools.reduce(operator.mul, [2 for _ in range(3)])
    return store(scaled(load(x), factor))


@functools.lru_cache(None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@wild(times(8), "list comprehension")
@nki.jit
def cached_recursion(x):
    return store(scaled(load(x), [fibonacci(n) for n in range(7)][-1]))


def tree_sum(tiles):
    if len(tiles) == 1:
        return tiles[0]
    middle = len(tiles) // 2
    return added(tree_sum(tiles[:middle]), tree_sum(tiles[middle:]))


@wild(times(10), "list comprehension")
@nki.jit
def recursion(x):
    return store(tree_sum([scaled(load(x), n) for n in range(1, 5)]))


def traced_calls(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return scaled(function(*args, **kwargs), 2)

    return wrapper


@traced_calls
def tripled(tile):
    return scaled(tile, 3)


@wild(times(6), "`*args` parameter", "`*` in a call")
@nki.jit
def decorated_helper(x):
    return store(tripled(load(x)))


@functools.singledispatch
def dispatched(value, tile):
    return tile


@dispatched.register
def _(value: int, tile):
    return scaled(tile, value)


@wild(times(3), "list comprehension")
@nki.jit
def single_dispatch(x):
    tile = load(x)
    values = [dispatched(v, tile) for v in (3, "text")]
    return store(values[0])


@wild(times(6), "`nonlocal`")
@nki.jit
def counts_by_closure(x):
    factor = 1

    def step(tile):
        nonlocal factor
        factor += 1
        return scaled(tile, factor)

    return store(step(step(load(x))))


FACTOR = 3


@wild(times(3), "`global`")
@nki.jit
def global_statement(x):
    global FACTOR
    FACTOR = 3
    return store(scaled(load(x), FACTOR))


def keyword_only(tile, *, factor):
    return scaled(tile, factor)


@wild(times(3), "keyword-only parameter")
@nki.jit
def named_only(x):
    return store(keyword_only(load(x), factor=3))


# --- context managers and exceptions


@contextlib.contextmanager
def doubled(x):
    tile = scaled(load(x), 2)
    yield tile


@wild(times(2), "`with` statement", "`yield`")
@nki.jit
def context_manager(x):
    with doubled(x) as tile:
        return store(tile)


class Scope:
    def __enter__(self):
        self.closed = False
        return self

    def __exit__(self, *error):
        self.closed = True
        return False


@wild(times(2), "`with` statement")
@nki.jit
def context_class(x):
    with Scope() as scope:
        tile = scaled(load(x), 2)
    assert scope.closed
    return store(tile)


@wild(times(3), "`try` statement", "`raise`")
@nki.jit
def own_exception(x):
    try:
        raise KeyError("no such tile")
    except KeyError:
        factor = 3
    return store(scaled(load(x), factor))


@wild(times(2), "`try` statement")
@nki.jit
def finally_block(x):
    order = []
    try:
        tile = scaled(load(x), 2)
    finally:
        order.append("closed")
    assert order == ["closed"]
    return store(tile)


@wild(times(3), "`with` statement")
@nki.jit
def suppressed(x):
    factor = 3
    with contextlib.suppress(ZeroDivisionError):
        factor = 1 // 0
    return store(scaled(load(x), factor))


@wild(times(2), "`with` statement")
@nki.jit
def exit_stack(x):
    with contextlib.ExitStack() as stack:
        tile = stack.enter_context(doubled(x))
    return store(tile)


# --- numpy and the standard library while tracing


@wild(times(3), "list comprehension")
@nki.jit
def numpy_while_tracing(x):
    factors = np.linspace(1, 3, 3)
    tiles = [scaled(load(x), f) for f in factors if f > 2]
    return store(tiles[-1])


@wild(lambda x: x + np.arange(64, dtype=np.float32), "`with` statement")
@nki.jit
def numpy_constant(x):
    with np.errstate(all="raise"):
        table = np.broadcast_to(np.arange(64, dtype=np.float32), (128, 64))
    return store(added(load(x), load(nl.shared_constant(np.ascontiguousarray(table)))))


@wild(times(6), "the built-in map")
@nki.jit
def maps(x):
    tile = load(x)
    for factor in map(int, ("2", "3")):
        tile = scaled(tile, factor)
    return store(tile)


@wild(times(4), "the built-in filter", "`lambda`")
@nki.jit
def filters(x):
    tile = load(x)
    for factor in filter(lambda n: n > 3, (1, 2, 4)):
        tile = scaled(tile, factor)
    return store(tile)


@wild(times(3), "the built-in set")
@nki.jit
def sets(x):
    return store(scaled(load(x), len(set((1, 2, 2, 3)))))


@wild(times(2), "dict key that is not a string")
@nki.jit
def int_keys(x):
    table = {1: 2.0, 2: 3.0}
    return store(scaled(load(x), table[1]))


@wild(times(6), "`**` inside a dict")
@nki.jit
def merged_dicts(x):
    table = {**{"a": 2}, "b": 3}
    return store(scaled(load(x), table["a"] * table["b"]))


@wild(times(5), "`*` in a tuple, list or assignment")
@nki.jit
def starred(x):
    _first, *rest = (2, 3, 5)
    return store(scaled(load(x), rest[-1]))


@wild(times(4), "`match` statement")
@nki.jit
def matches(x):
    match x.shape:
        case (128, n) if n > 32:
            factor = 4
        case _:
            factor = 1
    return store(scaled(load(x), factor))


@wild(times(2), "`import` inside a function")
@nki.jit
def imports(x):
    import math as m

    return store(scaled(load(x), m.sqrt(4)))


@wild(times(2), "format specifier in an f-string")
@nki.jit
def formats(x):
    text = f"{2:.1f}"
    return store(scaled(load(x), float(text)))


@wild(times(3), "`del`")
@nki.jit
def deletes(x):
    values = [1, 3]
    del values[0]
    return store(scaled(load(x), values[0]))


@wild(times(2), "`else` of a `for` loop")
@nki.jit
def for_else(x):
    for n in range(3):
        if n > 5:
            break
    else:
        factor = 2
    return store(scaled(load(x), factor))


@wild(times(7), "list comprehension")
@nki.jit
def containers(x):
    counted = Counter(["a", "b", "a"])
    queue = deque([1, 2], maxlen=2)
    lists = defaultdict(list)
    lists["k"].append(counted["a"])
    ordered = OrderedDict(z=1)
    chained = ChainMap({"q": 1}, {"q": 5})
    numbers = [*queue, *lists["k"], *ordered.values(), chained["q"]]
    return store(scaled(load(x), [n for n in numbers][1] + 5))


@wild(times(3), "tuple target of a `for` loop")
@nki.jit
def zipped(x):
    tile = load(x)
    for a, b in zip((1, 3), (1, 1)):
        tile = scaled(tile, a * b)
    return store(tile)


@wild(times(2), "the built-in id")
@nki.jit
def identity(x):
    tile = load(x)
    seen = {id(tile): tile}
    return store(scaled(seen[id(tile)], math.floor(2.5)))


@wild(times(4), "`else` of a `while` loop")
@nki.jit
def while_else(x):
    n = 0
    while n < 2:
        n += 1
    else:
        n *= 2
    return store(scaled(load(x), n))
