# ruff: noqa: E501  (tables with one case per line)
"""The syntax tree of every construct of Python 3.12, against golden text and against Python's own tree."""

from __future__ import annotations

import ast
import sys

import pytest
from reference import Differences, host_tree, read, sample, stdlib_files

from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Node, dump, walk
from nki.compiler.syntax.parse import parse

GOLDEN = {
    "x = a.b[1:2, ...](c, *d, e=f, **g)": (
        "Assign(targets=[Name(id='x', ctx=Store())], value=Call(func=Subscript(value=Attribute(value=Name(id='a', "
        "ctx=Load()), attr='b', ctx=Load()), slice=Tuple(elts=[Slice(lower=Constant(value=1, kind=None), "
        "upper=Constant(value=2, kind=None), step=None), Constant(value=Ellipsis, kind=None)], ctx=Load()), "
        "ctx=Load()), args=[Name(id='c', ctx=Load()), Starred(value=Name(id='d', ctx=Load()), ctx=Load())], "
        "keywords=[keyword(arg='e', value=Name(id='f', ctx=Load())), keyword(arg=None, value=Name(id='g', "
        "ctx=Load()))]))"
    ),
    "type A[T: int, *U, **V] = T": (
        "TypeAlias(name=Name(id='A', ctx=Store()), type_params=[TypeVar(name='T', bound=Name(id='int', ctx=Load())), "
        "TypeVarTuple(name='U'), ParamSpec(name='V')], value=Name(id='T', ctx=Load()))"
    ),
    "f'{x!r:>{w}}'": (
        "Expr(value=JoinedStr(values=[FormattedValue(value=Name(id='x', ctx=Load()), conversion=114, "
        "format_spec=JoinedStr(values=[Constant(value='>', kind=None), FormattedValue(value=Name(id='w', ctx=Load()), "
        "conversion=-1, format_spec=None)]))]))"
    ),
}

# One text per construct; where this Python is too old for one, only our own parser is tried.
CONSTRUCTS = r"""
a = b = c, d = 1
a += 1; b -= 2; c *= 3; d /= 4; e //= 5; f %= 6; g **= 7; h @= 8; i &= 1; j |= 2; k ^= 3; l <<= 4; m >>= 5
a: int
a.b: int = 1
(a): int = 1
a[0], b.c, (d, *e), [f] = x
x = yield
return *a, b
if a: pass
if a:\n    b\nelif c:\n    d\nelif e:\n    f\nelse:\n    g
while a:\n    break\nelse:\n    continue
for a, *b in c, d:\n    pass\nelse:\n    pass
for a.b in c: pass
for a[0] in c: pass
try:\n    a\nexcept B as c:\n    d\nexcept (E, F):\n    g\nexcept:\n    h\nelse:\n    i\nfinally:\n    j
try:\n    a\nexcept* B as c:\n    d
try: a\nfinally: b
with a: pass
with a as b, c as (d, e), f: pass
with (a): pass
with (a, b): pass
with (a as b, c as d,): pass
with (a, b) as c: pass
with (a, b), c: pass
with (a).b() as c: pass
with (yield): pass
with (a := b): pass
with (*a, b): pass
with (a for a in b): pass
with (): pass
with nl.no_reorder(): pass
raise
raise A
raise A from b
assert a
assert a, "b"
del a, b.c, d[0], (e, f), [g]
del (a), b
global a, b
nonlocal a
import a, b.c as d
from a import b
from . import a
from .a.b import (c as d, e,)
from ...a import *
from .... import a
pass
def f(): pass
def f(a, b: int = 1, /, c=2, *d: int, e, f=3, **g) -> int:\n    return a
def f(*, a): pass
def f(a, *b: *c): pass
def f[T: int, *U, **V](a: T) -> U: pass
@a\n@b.c(d)\ndef f(): pass
@a\nclass A: pass
class A(B, metaclass=C, **d):\n    a: int = 1\n    def f(self): pass
class A[T](B): pass
async def f():\n    await a\n    async for b in c: pass\n    async with d as e: pass\n    return [f async for f in g]
@a\nasync def f(): pass
lambda: 1
lambda a, /, b=1, *c, d, e=2, **f: (yield)
lambda *, a: a
a if b else c if d else e
a or b or c and not d and e
a < b <= c == d != e > f >= g
a is b is not c in d not in e
a | b ^ c & d << e >> f + g - h * i / j // k % l @ m
-a ** -b ** ~c
(a + b) * (c)
- - +a
(a, b), (c,), (), [d, *e], {f, *g}, {h: i, **j}, {}
(a := b), [c := d], {e := f}, f(g := h), a[b := c]
[a for b in c if d if e for f in g]
{a for b, in c}
{a: b for c in d}
(a for b in c)
f(a for b in c)
f(a)(b=1, *c, **d)(e,)
a[b], a[b:c], a[b:c:d], a[:], a[::], a[b:], a[:c], a[::d], a[b, c], a[b,], a[:, None], a[*b], a[*b, c]
0, 1_000, 0xFf, 0o17, 0b101, 1.5, .5, 5., 1e10, 1_0.0_1e-1_0, 1j, 1.5J, 00
'a' "b" r'\\n' '''c\nd''' u'e' '\\n\\x41\\101\\u0041\\U00000041\\N{LATIN SMALL LETTER A}\\q'
b'a' rb'\\n' Rb'\\x' b'\\x00\\377\\n\\q'
'a\\\nb'
f'' f'a' 'b' f"{c}" rf'\\{d}' fR'{e}\\n'
f'{{}} {a}}}' f'\\N{DIGIT ONE}' f'{a!s}{b!a:c}{d:{e}.{f}}'
f'{a=}{b = }{c=!r}{d=:>5}{(lambda: 1)()}{e!=f}{g:=^9}'
f'''{\na\n}'''
f'{f"{a}"}' f"{'b'}" f'{ {1: 2}[1] }' f'{a,}' f'{*a, b}' f'{yield}'
f'{x:%H:%M}' f'{x:{"{"}>10}'
match = 1; match.a; match[0]; match(a); print(match, case, type)
match: int = 1
match a:\n    case 1 | -2 | 3.5 | 1+2j | -1-2j | 'a' 'b' | b'c' | None | True: pass
match (a):\n    case _: pass\n    case a: pass\n    case (b): pass\n    case c.d.e: pass
match a, *b:\n    case x, *y: pass\n    case [x, *_]: pass\n    case (): pass\n    case (x,): pass\n    case []: pass
match a:\n    case {}: pass\n    case {1: x, a.b: y, 'c': z, **rest}: pass\n    case A(): pass\n    case a.B(x, y=z,): pass
match a:\n    case (1 | 2) as x if x > 1:\n        match b:\n            case y: pass\n    case z: pass
match -a:\n    case 1: pass
type = 1; type(a); type.b
type A = int
type A[T] = list[T]
async def f():\n    x = await a ** 2
Ünï = 1; ℌ = 2
x = 'ä'; yß = f'ä{ö}ü'
a; b; c;
if a:\n\tb\n\tif c:\n\t\td
a = (1 +\n     2) # comment\n# comment\n\nb = \\\n    3
""".strip().split("\n")


def unescape(text: str) -> str:
    """A row of the table as source text: backslash-n is a newline, two backslashes are one."""
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\0", "\\")


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text: str) -> None:
    result = parse(text, "golden.py")
    assert result.diagnostics == ()
    assert result.tree is not None
    assert dump(result.tree) == f"Module(body=[{GOLDEN[text]}], type_ignores=[])"


def test_golden_with_places_and_indentation() -> None:
    result = parse("if a:\n  b\n", "golden.py")
    assert result.tree is not None
    assert dump(result.tree.body[0], places=True, indent=1) == (
        "If@1:0-2:3(\n test=Name@1:3-1:4(\n  id='a',\n  ctx=Load()),\n body=[\n  Expr@2:2-2:3(\n"
        "   value=Name@2:2-2:3(\n    id='b',\n    ctx=Load()))],\n orelse=[])"
    )


@pytest.mark.parametrize("row", CONSTRUCTS)
def test_constructs(row: str) -> None:
    text = unescape(row)
    result = parse(text, "construct.py")
    assert result.diagnostics == ()
    host = host_tree(text)
    assert host is not None or sys.version_info < (3, 12)
    if host is not None:
        assert Differences(text).compare(result.tree, host) == []


def test_places_count_characters() -> None:
    result = parse("'ä' + ö", "x.py")
    assert result.tree is not None
    (statement,) = result.tree.body
    assert isinstance(statement, tree.Expr) and isinstance(statement.value, tree.BinOp)
    span = statement.value.right.span("x.py")
    assert (span.file, span.line, span.column, span.end_line, span.end_column) == ("x.py", 1, 7, 1, 8)


def test_walk_goes_through_the_text_in_order() -> None:
    result = parse("a = b + c\nd", "x.py")
    assert result.tree is not None
    names = [node.id for node in walk(result.tree) if isinstance(node, tree.Name)]
    assert names == ["a", "b", "c", "d"]


def test_classes_and_fields_are_those_of_python() -> None:
    later = {"TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple", "TryStar"}
    for name, kind in {**vars(tree), **vars(symbols)}.items():
        if isinstance(kind, type) and issubclass(kind, Node) and name not in ("Node", "Located", "Symbol"):
            host = getattr(ast, name, None)
            assert host is not None or name in later | {"type_param"}, name
            if host is not None and sys.version_info[:2] == (3, 12):
                assert kind._fields == tuple(field for field in host._fields if field != "type_comment")


def test_line_ends_and_byte_order_mark() -> None:
    plain = parse("a\nb\n", "x.py")
    for text in ("a\r\nb\r\n", "a\rb", "\ufeffa\nb"):
        assert dump(parse(text, "x.py").tree, places=True) == dump(plain.tree, places=True)


def test_the_same_text_is_parsed_once() -> None:
    assert parse("a = 1\n", "x.py") is parse("a = 1\n", "x.py")
    assert parse("a = 1\n", "x.py") is not parse("a = 1\n", "y.py")


@pytest.mark.parametrize("text", ["", "\n", "# comment", "   ", "  # comment\n", "\\\n", "\f\n"])
def test_empty_texts(text: str) -> None:
    result = parse(text, "x.py")
    assert result.diagnostics == ()
    assert result.tree is not None and result.tree.body == []


def _compare_files(files: list) -> None:
    compared = 0
    for path in files:
        text = read(path)
        host = None if text is None else host_tree(text)
        if text is None or host is None:
            continue
        result = parse(text, str(path))
        assert result.diagnostics == (), path
        assert Differences(text).compare(result.tree, host) == [], path
        compared += 1
    assert compared > 0.9 * len(files)


@pytest.mark.parametrize("part", range(5))
def test_a_sample_of_the_standard_library(part: int) -> None:
    _compare_files(sample(150)[part::5])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_the_standard_library(part: int) -> None:
    _compare_files(stdlib_files()[part::20])
