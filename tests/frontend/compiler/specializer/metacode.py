"""Meta-code that means the same to Python and to the compiler: each of FUNCTIONS returns what it found."""

# ruff: noqa: SIM222, SIM223, RUF005, UP031 (what they would change is what is tested)

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import sibling
import sibling as other
from sibling import SCALE, Shape, double
from sibling import double as twice

import nki.language as nl

TILE = 128
SIZES = (1, 2, 4)
TABLE = {"a": 1, "b": [2, 3]}


class Mode(Enum):
    fast = 1
    slow = "s"


COST = {Mode.fast: 1, Mode.slow: 10}


@dataclass
class Point(nl.NKIObject):
    x: int
    y: int = 2
    tags: list = None

    def __post_init__(self):
        self.total = self.x + self.y

    def moved(self, by):
        return Point(self.x + by, self.y + by)

    @staticmethod
    def origin():
        return Point(0, 0)


@dataclass(frozen=True)
class Key(nl.NKIObject):
    name: str
    mode: Mode = Mode.fast


class Loose(nl.NKIObject):
    first: int
    second: str = "two"

    def __repr__(self):
        return f"Loose<{self.first}>"


class Counter(nl.NKIObject):
    def __init__(self, start=0):
        self.value = start
        self.__step = 2

    def next(self):
        self.value += self.__step
        return self.value


def add(a, b=1, c=0):
    return a + b + c


def with_object(point=Point(1), scale=math.sqrt(4.0)):  # noqa: B008
    return point.total * scale


def outer(n):
    def inner(x):
        return x * n

    return inner


def apply(f, values):
    out = []
    for v in values:
        out.append(f(v))
    return out


def numbers():
    a, b = 7, -2
    return [
        a + b,
        a - b,
        a * b,
        a / b,
        a // b,
        a % b,
        a**2,
        a << 2,
        a >> 1,
        a & 3,
        a | 8,
        a ^ 1,
        ~a,
        -a,
        +b,
        not a,
        1e-3,
        0x10,
        1_000,
        abs(b),
        min(a, b),
        max(a, b),
        divmod(a, 2),
        int(3.7),
        float(2),
        bool(0),
        str(a),
        round(2.5),
    ]


def comparisons():
    x = 5
    return [
        0 <= x < 10,
        0 <= x < 5,
        x == 5 != 6,
        x in SIZES,
        4 in SIZES,
        3 not in SIZES,
        x is None,
        None is None,
        x > 1 and x < 3,
        x or 0,
        None or "d",
        0 and x,
        "ab" < "b",
        (1, 2) < (1, 3),
    ]


def conditional():
    out = []
    for i in range(4):
        out.append("zero" if i == 0 else ("even" if i % 2 == 0 else "odd"))
    return out


def lists():
    x = [3, 1, 2]
    x.append(4)
    x.extend((5, 6))
    x.insert(0, 9)
    x.remove(1)
    last = x.pop()
    first = x.pop(0)
    y = x.copy()
    y.reverse()
    x.sort()
    z = [0] * 3 + [1]
    z[1] = 7
    z[2:] = [8, 8]
    z += [5]
    w = [4]
    w.clear()
    return [
        x,
        y,
        z,
        w,
        last,
        first,
        x.index(4),
        x.count(5),
        len(x),
        x[-1],
        x[1:3],
        x[::2],
        x[::-1],
        3 in x,
        list((1, 2)),
        sum(x),
        sorted(y),
        [[1, 2], [3]][1][0],
    ]


def tuples():
    t = (1, 2, 3)
    a, b, c = t
    (d, e), f = (4, 5), 6
    g = h = [1]
    g.append(2)
    return [
        t + (4,),
        t * 2,
        t[1:],
        t[-1],
        len(t),
        t.index(2),
        t.count(1),
        a + b + c,
        d,
        e,
        f,
        h,
        (),
        (1,),
        tuple([1, 2]),
    ]


def dicts():
    d = dict()
    d["a"] = 1
    d["b"] = 2
    e = {"x": [1], "y": {"z": 2}}
    e["y"]["z"] += 5
    e["x"].append(3)
    keys, values, items = [], [], []
    for k in d:
        keys.append(k)
    for v in d.values():
        values.append(v)
    for item in d.items():
        k, v = item
        items.append((k, v))
    for k in d:
        keys.append(k)
    popped = d.pop("a")
    missing = d.pop("q", None)
    set_default = d.setdefault("c", 3)
    d.update({"e": 5})
    return [
        d,
        e,
        keys,
        values,
        items,
        popped,
        missing,
        set_default,
        d.get("b"),
        d.get("z", 0),
        "b" in d,
        len(d),
        dict(a=1),
    ]


def strings():
    s = "Ab c"
    n, f, name = 5, 2.5, "x"
    return [
        s.lower(),
        s.upper(),
        s.split(" "),
        s.replace("b", "q"),
        s.startswith("A"),
        s.strip(),
        ",".join(["a", "b"]),
        s[0],
        s[1:],
        s + "!",
        s * 2,
        len(s),
        "b" in s,
        f"{n}",
        f"{n=}",
        f"{n + 1}|{f}|{name!r}",
        f"{s!s} {{}} {n}",
        f"{name}joined{n}",
        "%d" % n,
        f"{Mode.fast} {Mode.slow.name} {nl.bfloat16}",
        """three
lines""",
    ]


def loops():
    out = []
    for i in range(10):
        if i == 2:
            continue
        if i == 5:
            break
        out.append(i)
    for x in (7, 8):
        out.append(x)
    for x in [9]:
        for y in range(2, 0, -1):
            out.append(x + y)
    n = 0
    while n < 3:
        n += 1
        if n == 2:
            continue
        out.append(-n)
    while True:
        n -= 1
        if n < 0:
            break
    for i in nl.affine_range(2):
        out.append(i)
    for i in nl.static_range(1, 7, 3):
        out.append(i)
    for i in nl.sequential_range(2, 3):
        out.append(i)
    for pair in enumerate(["p", "q"]):
        i, x = pair
        out.append((i, x))
    for pair in zip((1, 2), "ab"):
        out.append(pair)
    k = [3, 2]
    while k:  # a list is not a bool: its truth is asked
        out.append(k.pop())
    while len(out) > 100 and out:
        out.pop()
    return [out, n]


def nested_while():
    out = []
    i = 0
    while i < 3:
        j = 0
        while j < i:
            out.append((i, j))
            j += 1
        i += 1
    return out


def augmented():
    x = 10
    x += 1
    x -= 2
    x *= 3
    x //= 2
    x %= 7
    x **= 2
    x <<= 1
    x |= 1
    y = [1]
    y += [2]
    y[0] += 5
    p = Point(1)
    p.x += 4
    return [x, y, p.x]


def annotated():
    x: int = 3
    y: Undefined  # noqa: F821
    y = x + 1
    return y


def functions():
    half = {"f": outer(3)}
    return [
        add(1),
        add(1, 2),
        add(1, b=5),
        add(b=2, a=1),
        apply(outer(10), (1, 2)),
        half["f"](2),
        with_object(),
        with_object(Point(5), scale=2),
        choose("double")(4),
        recursive(5),
    ]


def choose(name):
    if name == "double":
        return double
    return add


def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)


def nested_function():
    seen = []

    def visit(x, scale=TILE):
        seen.append(x * scale)

    for i in range(3):
        visit(i)
    return seen


def classes():
    p = Point(1)
    q = p.moved(2)
    loose = Loose(first=1)
    c = Counter(start=1)
    c.next()
    p.extra = "set later"
    return [
        p.x,
        p.y,
        p.total,
        p.tags,
        q.x,
        q.y,
        Point.origin().total,
        loose.first,
        loose.second,
        f"{loose}",
        Loose(2, "b").second,
        c.next(),
        p.extra,
        isinstance(p, Point),
        isinstance(q, Loose),
        isinstance(1, int),
        isinstance("s", (int, str)),
    ]


def missing_fields():
    loose = Loose()
    return [loose.first, loose.second]


def equality():
    return [
        Point(1) == Point(1),
        Point(1) == Point(2),
        Point(1) != Point(1, 3),
        Loose(1) == Loose(first=1),
        Key("a") == Key("a"),
        Key("a") == Key("a", Mode.slow),
        Mode.fast == Mode.fast,
        Mode.fast == Mode.slow,
        Mode.fast != Mode.slow,
        [Point(1)] == [Point(1)],
        {"k": Loose(2)} == {"k": Loose(2)},
        Point(1) == 1,
    ]


def enums():
    m = Mode.slow
    found = []
    if m == Mode.fast:
        found.append("fast")
    elif m == Mode.slow:
        found.append("slow")
    return [found, m.name, m.value, Mode.fast.value, COST[m], f"{m.name}", m in (Mode.fast, Mode.slow)]


def constants():
    return [
        TILE,
        SIZES[-1],
        TABLE["b"][0],
        math.pi,
        math.ceil(2.1),
        math.floor(2.9),
        math.sqrt(16.0),
        math.gcd(12, 18),
        np.inf,
        -np.inf < 0,
        sibling.SCALE,
        other.SCALE,
        SCALE,
    ]


def modules():
    return [
        double(2),
        twice(3),
        sibling.double(4),
        other.nested(5),
        Shape(3, 4).area(),
        sibling.Shape(1, 1).area(),
        sibling.deep.CONSTANT,
        sibling.deep.function(),
    ]


def slices():
    s = slice(1, None, 2)
    e = Ellipsis
    return [[0, 1, 2, 3, 4][s], s.start, s.step, e == ...]


def host_values_are_copied():
    TABLE["b"].append(99)
    return TABLE["b"]


FUNCTIONS = [
    numbers,
    comparisons,
    conditional,
    lists,
    tuples,
    dicts,
    strings,
    loops,
    nested_while,
    augmented,
    annotated,
    functions,
    nested_function,
    classes,
    missing_fields,
    equality,
    enums,
    constants,
    modules,
    slices,
]
