"""The table of constructs: every piece of Python syntax, and what is known about it in kernels.

Rows stand in the order of the docs page. Sources: the *language guide*, the *migration
guide* and the *simulator guide* of the SDK documentation; *KLR*, the public formal front
end (``KLR/NKI/Simplify.lean`` and ``interop/klr/gather.c`` of leanprover/KLR); *nkilib*,
the public kernel library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nki import levels
from nki.compiler.language import names
from nki.compiler.language.profile import PROFILES, Acceptance
from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Node

Found = Callable[[Any, Any], Iterable[Node]]


@dataclass(frozen=True, slots=True)
class Construct:
    """A row: a construct of Python, and what is known about it in kernels.

    Attributes:
        key: a short stable name.
        title: how messages and the docs page call it.
        verdict: what the sources say.
        source: which source says so.
        nodes: the classes of tree nodes it can be.
        example: a line or two of source with it, for the docs page and the tests.
        found: the parts of such a node (given its parent) that are this construct; none where it is not.
        why: why it is not accepted, as a clause.
        instead: what to write instead.
        since: the first API level that does not accept it, if earlier ones do.
    """

    key: str
    title: str
    verdict: Acceptance
    source: str
    nodes: tuple[type[Node], ...]
    example: str
    found: Found
    why: str = ""
    instead: str = ""
    since: str = "0.2"


def _always(node: Any, parent: Any) -> Iterable[Node]:
    return (node,)


def _when(holds: Callable[..., object]) -> Found:
    """The node itself where `holds(node)`."""
    return lambda node, parent: (node,) if holds(node) else ()


def _under(kind: type[Node] | tuple[type[Node], ...], holds: Callable[..., object] = bool) -> Found:
    """The node itself where its parent is a `kind` and `holds(node)`."""
    return lambda node, parent: (node,) if isinstance(parent, kind) and holds(node) else ()


def _comparison(*kinds: type[Node]) -> Found:
    return _when(lambda node: any(isinstance(op, kinds) for op in node.ops))


def _is(against_none: bool) -> Found:
    def holds(node: tree.Compare) -> bool:
        kinds = (symbols.Is, symbols.IsNot)
        right = [c for op, c in zip(node.ops, node.comparators) if isinstance(op, kinds)]
        return any((isinstance(c, tree.Constant) and c.value is None) == against_none for c in right)

    return _when(holds)


def _constant(*kinds: type) -> Found:
    return _when(lambda node: type(node.value) in kinds)


def last_name(node: Node | None) -> str:
    """``c`` of ``a.b.c`` and of ``a.b.c(...)``; empty for anything else."""
    if isinstance(node, tree.Call):
        node = node.func
    return node.attr if isinstance(node, tree.Attribute) else node.id if isinstance(node, tree.Name) else ""


_DECORATORS = {*names.DECORATORS, "staticmethod", "dataclass"}  # those of Beta 1 have a message of their own
BASES = ("NKIObject", "Enum", "NamedTuple")


def _decorators(*, known: bool) -> Found:
    def found(node: Any, parent: Any) -> Iterable[Node]:
        """Those above ``nki.jit`` get the kernel object on the host: release notes of NKI 0.2."""
        decorators = node.decorator_list
        kernel = next((k for k, d in enumerate(decorators) if last_name(d) == "jit"), 0)
        return [d for d in decorators[kernel:] if (last_name(d) in _DECORATORS) == known]

    return found


def _bases(*, known: bool) -> Found:
    def found(node: Any, parent: Any) -> Iterable[Node]:
        return [b for b in node.bases if (last_name(b) in BASES) == known]

    return found


def _tuple_target(node: tree.Assign) -> bool:
    return any(isinstance(t, (tree.Tuple, tree.List)) for t in node.targets)


def _is_no_reorder(node: tree.With | tree.AsyncWith) -> bool:
    (first, *rest) = node.items
    call = first.context_expr
    return (
        not rest
        and first.optional_vars is None
        and last_name(call) == "no_reorder"
        and isinstance(call, tree.Call)
        and not call.args
        and not call.keywords
    )


_DEFINITIONS = (tree.FunctionDef, tree.AsyncFunctionDef, tree.Lambda)
_CLASS_BODY = (tree.FunctionDef, tree.AnnAssign, tree.Assign, tree.Pass, tree.Expr, tree.ClassDef)
_STATEMENTS: tuple[type[Node], ...] = tuple(
    kind
    for kind in vars(tree).values()
    if isinstance(kind, type) and issubclass(kind, tree.stmt) and kind is not tree.stmt
)
_GUIDE, _KLR, _BOTH = "language guide", "KLR", "language guide, KLR"
_M12, _M23, _M56 = "migration guide 0.1 to 0.2", "migration guide 0.2 to 0.3", "migration guide 0.5 to 0.6"
_D, _R = Acceptance.documented, Acceptance.refused
_SEQUENTIAL = "kernels are sequential programs"
_VALUES = "the containers are tuples, lists, dictionaries and classes"
_CALLS = "the arguments of a call are known from its text"
_PURE = "kernels are pure functions of their arguments"

CONSTRUCTS: tuple[Construct, ...] = (
    # --- statements
    Construct(
        "expression-statement", "expression as a statement", _D, _BOTH, (tree.Expr,), "nisa.memset(t, 0)",
        _always,
    ),
    Construct("assign", "assignment", _D, _BOTH, (tree.Assign,), "x = 1", _always),
    Construct(
        "assign-unpack", "tuple unpacking", _D, _KLR, (tree.Assign,), "a, b = (1, 2)", _when(_tuple_target)
    ),
    Construct(
        "assign-chain", "chained assignment", _D, _KLR, (tree.Assign,), "a = b = 1",
        _when(lambda n: len(n.targets) > 1)
    ),
    Construct(
        "assign-attribute", "assignment to an attribute", _D, _GUIDE, (tree.Attribute,), "self.x = 1",
        _when(lambda n: isinstance(n.ctx, symbols.Store)),
    ),
    Construct(
        "assign-item", "assignment to a list or dict item", _D, _GUIDE, (tree.Subscript,), "d['a'] = 1",
        _when(lambda n: isinstance(n.ctx, symbols.Store)),
    ),
    Construct(
        "assign-augmented", "augmented assignment", _D, _BOTH, (tree.AugAssign,), "x += 1",
        _when(lambda n: not isinstance(n.op, symbols.MatMult)),
    ),
    Construct("assign-annotated", "annotated assignment", _D, _KLR, (tree.AnnAssign,), "x: int = 1", _always),
    Construct("assert", "`assert`", _D, _BOTH, (tree.Assert,), "assert x < 3, 'too large'", _always),
    Construct("pass", "`pass`", _D, _BOTH, (tree.Pass,), "pass", _always),
    Construct("return", "`return`", _D, _BOTH, (tree.Return,), "return x", _always),
    Construct("if", "`if`, `elif`, `else`", _D, _BOTH, (tree.If,), "if x: pass", _always),
    Construct("for", "`for` loop", _D, _BOTH, (tree.For,), "for i in range(4): pass", _always),
    Construct(
        "for-unpack", "tuple target of a `for` loop", _R, _KLR, (tree.For,), "for a, b in pairs: pass",
        lambda n, p: (n.target,) if not isinstance(n.target, tree.Name) else (),
        "a loop has one variable", "write `for pair in ...:` and `a, b = pair` as the first line of the body",
    ),
    Construct(
        "for-else", "`else` of a `for` loop", _R, _KLR, (tree.For,), "for i in range(4): pass\nelse: pass",
        _when(lambda n: n.orelse), "a loop has no else branch",
        "set a flag before the loop, clear it before `break`, and test it after the loop",
    ),
    Construct("while", "`while` loop", _D, _BOTH, (tree.While,), "while x < 3: x += 1", _always),
    Construct(
        "while-else", "`else` of a `while` loop", _R, _KLR, (tree.While,), "while x: pass\nelse: pass",
        _when(lambda n: n.orelse), "a loop has no else branch",
        "set a flag before the loop, clear it before `break`, and test it after the loop",
    ),
    Construct("break", "`break`", _D, _KLR, (tree.Break,), "for i in range(4): break", _always),
    Construct("continue", "`continue`", _D, _KLR, (tree.Continue,), "for i in range(4): continue", _always),
    Construct(
        "with-no-reorder", "`with nl.no_reorder()`", _D, "nki.language API, KLR", (tree.With,),
        "with nl.no_reorder(): pass", _when(_is_no_reorder),
    ),
    Construct(
        "with", "`with` statement", _R, _KLR, (tree.With,), "with open('f') as f: pass",
        _when(lambda n: not _is_no_reorder(n)), "the only context a kernel has is nl.no_reorder()",
        "call what the context does before and after the block",
    ),
    Construct(
        "nested-function", "function inside a function", _D, _M56, (tree.FunctionDef,), "def body(i): pass",
        _under(_DEFINITIONS),
    ),
    Construct(
        "nested-class", "class inside a function", _R, _KLR, (tree.ClassDef,), "class C(NKIObject): pass",
        _under(_DEFINITIONS), "classes are known before the kernel runs",
        "move the class to the top of the file",
    ),
    Construct(
        "import", "`import` inside a function", _R, _KLR, (tree.Import, tree.ImportFrom), "import math",
        _under(_STATEMENTS),
        "names are known before the kernel runs", "move the import to the top of the file",
    ),
    Construct(
        "try", "`try` statement", _R, _KLR, (tree.Try, tree.TryStar), "try: pass\nexcept ValueError: pass",
        _always,
        "there are no exceptions to catch: an error ends the compilation", "test the condition with `if`",
    ),
    Construct(
        "raise", "`raise`", _R, _KLR, (tree.Raise,), "raise ValueError('no')", _always,
        "exceptions do not exist in kernels", "write `assert condition, message`",
    ),
    Construct(
        "del", "`del`", _R, _KLR, (tree.Delete,), "del x", _always,
        "tensors end with their last use", "leave it out; for a dict item write d.pop('key')",
    ),
    Construct(
        "global", "`global`", _R, _KLR, (tree.Global,), "global x", _always,
        _PURE, "return the value, or pass a list or dict in and change that",
    ),
    Construct(
        "nonlocal", "`nonlocal`", _R, _KLR, (tree.Nonlocal,), "nonlocal x", _always,
        _PURE, "return the value, or change a list or dict of the enclosing function",
    ),
    Construct(
        "match", "`match` statement", _R, _KLR, (tree.Match,), "match x:\n    case 1: pass", _always,
        "a branch tests one condition", "write if, elif, else",
    ),
    Construct(
        "async", "`async`", _R, _KLR, (tree.AsyncFunctionDef, tree.AsyncFor, tree.AsyncWith),
        "async def f(): pass", _always, _SEQUENTIAL, "leave out `async`",
    ),
    Construct(
        "await", "`await`", _R, _KLR, (tree.Await,), "await x", _always, _SEQUENTIAL,
        "call the function without `await`",
    ),
    Construct(
        "yield", "`yield`", _R, _KLR, (tree.Yield, tree.YieldFrom), "yield x", _always,
        "kernels have no generators", "append to a list and return it",
    ),
    Construct(
        "type-alias", "`type` statement", _R, _KLR, (tree.TypeAlias,), "type T = int", _always,
        "types are not declared in kernels", "leave it out: annotations are not evaluated",
    ),
    # --- definitions
    Construct(
        "decorator", "decorator `nki.jit`, `dataclass` or `staticmethod`", _D, _BOTH,
        (tree.FunctionDef, tree.ClassDef),
        "@dataclass\nclass C(NKIObject): pass", _decorators(known=True),
    ),
    Construct(
        "decorator-other", "decorator other than `nki.jit`, `dataclass` and `staticmethod`", _R, _KLR,
        (tree.FunctionDef, tree.ClassDef), "@functools.cache\ndef f(): pass", _decorators(known=False),
        "a decorator runs on the host and hides the function's source",
        "leave it out, or decorate on the host only",
    ),
    Construct(
        "default", "default value of a parameter", _D, _BOTH, (tree.arguments,), "def f(x=1): pass",
        _when(lambda n: n.defaults),
    ),
    Construct(
        "positional-only", "positional-only parameter", _D, _KLR, (tree.arguments,), "def f(x, /): pass",
        lambda n, p: n.posonlyargs[:1],
    ),
    Construct(
        "keyword-only", "keyword-only parameter", _R, _M23, (tree.arguments,), "def f(*, x=1): pass",
        lambda n, p: n.kwonlyargs[:1],
        "the compiler refuses the * separator in a signature from API level 0.3 on",
        "leave out the * and put parameters with defaults last", "0.3",
    ),
    Construct(
        "varargs", "`*args` parameter", _R, _KLR, (tree.arguments,), "def f(*args): pass",
        lambda n, p: [n.vararg] if n.vararg else [],
        _CALLS, "name each parameter, or pass one tuple",
    ),
    Construct(
        "kwargs", "`**kwargs` parameter", _R, _KLR, (tree.arguments,), "def f(**kwargs): pass",
        lambda n, p: [n.kwarg] if n.kwarg else [],
        _CALLS, "name each parameter, or pass one dict with string keys",
    ),
    Construct(
        "type-parameters", "type parameter", _R, _KLR, (tree.FunctionDef, tree.ClassDef), "def f[T](x): pass",
        lambda n, p: n.type_params[:1],
        "types are not declared in kernels", "leave out the brackets after the name",
    ),
    Construct(
        "class-base", "class that inherits from NKIObject, Enum or NamedTuple", _D, _BOTH, (tree.ClassDef,),
        "class C(NKIObject): pass", _bases(known=True),
    ),
    Construct(
        "class-base-other", "class that inherits from another class", _R, _BOTH, (tree.ClassDef,),
        "class C(Base): pass", _bases(known=False), "a kernel's class inherits from NKIObject alone",
        "inherit from nl.NKIObject and keep the other object in a field",
    ),
    Construct(
        "class-no-base", "class without a base", _R, _GUIDE, (tree.ClassDef,), "class C: pass",
        _when(lambda n: not n.bases), "a kernel's class inherits from NKIObject",
        "write `class C(nl.NKIObject):`",
    ),
    Construct(
        "class-keywords", "keyword of a class", _R, _KLR, (tree.ClassDef,),
        "class C(NKIObject, metaclass=M): pass",
        lambda n, p: n.keywords[:1],
        "a kernel's class inherits from NKIObject alone", "leave out the keyword",
    ),
    Construct(
        "class-field", "field of a class", _D, _BOTH, (tree.AnnAssign, tree.Assign),
        "class C(NKIObject):\n    x: int = 1", _under(tree.ClassDef),
    ),
    Construct(
        "class-method", "method", _D, _BOTH, (tree.FunctionDef,),
        "class C(NKIObject):\n    def f(self): pass",
        _under(tree.ClassDef),
    ),
    Construct(
        "class-statement", "statement in a class body other than fields and methods", _R, _KLR, _STATEMENTS,
        "class C(NKIObject):\n    assert True",
        _under(tree.ClassDef, lambda n: not isinstance(n, _CLASS_BODY)
               or (isinstance(n, tree.Expr) and not isinstance(n.value, tree.Constant))),
        "a class body declares fields and methods", "move it to the top of the file or into a method",
    ),
    # --- expressions
    Construct("name", "name", _D, _BOTH, (tree.Name,), "x", _always),
    Construct(
        "constant", "None, True, False, integers, floats, strings", _D, _BOTH, (tree.Constant,), "x = 1",
        _constant(type(None), bool, int, float, str),
    ),
    Construct(
        "bytes", "bytes literal", _R, _BOTH, (tree.Constant,), "x = b'a'", _constant(bytes),
        "the values of a kernel are None, bool, int, float, str and tensors", "write a string",
    ),
    Construct(
        "complex", "imaginary number", _R, _BOTH, (tree.Constant,), "x = 1j", _constant(complex),
        "the values of a kernel are None, bool, int, float, str and tensors",
        "keep real and imaginary part apart",
    ),
    Construct("tuple", "tuple", _D, _BOTH, (tree.Tuple,), "x = (1, 2)", _always),
    Construct("list", "list", _D, _BOTH, (tree.List,), "x = [1, 2]", _always),
    Construct("dict", "dict with string keys", _D, _BOTH, (tree.Dict,), "x = {'a': 1}", _always),
    Construct(
        "dict-key", "dict key that is not a string", _R, _BOTH, (tree.Dict,), "x = {1: 2}",
        lambda n, p: [k for k in n.keys if isinstance(k, tree.Constant) and not isinstance(k.value, str)],
        "dictionaries have string keys", "use a list indexed by the number, or str(key)",
    ),
    Construct(
        "dict-unpack", "`**` inside a dict", _R, _KLR, (tree.Dict,), "x = {**y}",
        lambda n, p: [v for k, v in zip(n.keys, n.values) if k is None],
        _CALLS, "write a for loop over y.keys() that copies the items",
    ),
    Construct(
        "set", "set", _R, _GUIDE, (tree.Set,), "x = {1, 2}", _always, _VALUES, "write a list or a tuple",
    ),
    Construct(
        "list-comprehension", "list comprehension", _R, _KLR, (tree.ListComp,), "x = [i for i in y]", _always,
        "what it makes is built by statements", "write a for loop that appends to a list",
    ),
    Construct(
        "set-comprehension", "set comprehension", _R, _KLR, (tree.SetComp,), "x = {i for i in y}", _always,
        "what it makes is built by statements", "write a for loop that appends to a list",
    ),
    Construct(
        "dict-comprehension", "dict comprehension", _R, _KLR, (tree.DictComp,), "x = {i: 1 for i in y}",
        _always,
        "what it makes is built by statements", "write a for loop that sets d[key] = value",
    ),
    Construct(
        "generator", "generator expression", _R, _KLR, (tree.GeneratorExp,), "x = f(i for i in y)", _always,
        "what it makes is built by statements", "write a for loop that appends to a list",
    ),
    Construct(
        "lambda", "`lambda`", _R, _KLR, (tree.Lambda,), "f = lambda x: x", _always,
        "functions are compiled from their definition", "write the function with `def`",
    ),
    Construct(
        "walrus", "assignment expression", _R, _KLR, (tree.NamedExpr,), "f(x := 1)", _always,
        "assignment is a statement", "assign on a line of its own",
    ),
    Construct("conditional", "conditional expression", _D, _KLR, (tree.IfExp,), "x = 1 if y else 2", _always),
    Construct("bool-op", "`and`, `or`", _D, _BOTH, (tree.BoolOp,), "x = y and z", _always),
    Construct("unary", "`not`, `-`, `+`, `~`", _D, _BOTH, (tree.UnaryOp,), "x = not y", _always),
    Construct(
        "binary", "`+ - * / // % ** << >> & ^`, bitwise or", _D, _BOTH, (tree.BinOp,), "x = y * 2",
        _when(lambda n: not isinstance(n.op, symbols.MatMult)),
    ),
    Construct(
        "matmul", "`@` operator", _R, _KLR, (tree.BinOp, tree.AugAssign), "x = y @ z",
        _when(lambda n: isinstance(n.op, symbols.MatMult)),
        "a matrix product is an instruction", "call nisa.nc_matmul(dst, stationary, moving)",
    ),
    Construct(
        "compare", "`==`, `!=`, `<`, `<=`, `>`, `>=`", _D, _BOTH, (tree.Compare,), "x = y < 2",
        _comparison(symbols.Eq, symbols.NotEq, symbols.Lt, symbols.LtE, symbols.Gt, symbols.GtE),
    ),
    Construct(
        "compare-chain", "chained comparison", _D, _KLR, (tree.Compare,), "x = 0 <= y < 2",
        _when(lambda n: len(n.ops) > 1),
    ),
    Construct(
        "compare-in", "`in`, `not in`", _D, _KLR, (tree.Compare,), "x = y in (1, 2)",
        _comparison(symbols.In, symbols.NotIn),
    ),
    Construct(
        "is-none", "`is None`, `is not None`", _D, "KLR, nkilib", (tree.Compare,), "x = y is None",
        _is(True),
    ),
    Construct(
        "is", "`is` between values", Acceptance.used, f"nkilib; {_M23} refuses it", (tree.Compare,),
        "x = y is z", _is(False), "identity of objects has no meaning in a compiled kernel", "write == or !=",
        "0.3",
    ),
    Construct("attribute", "attribute", _D, _BOTH, (tree.Attribute,), "x = y.shape", _always),
    Construct("subscript", "index and slice", _D, _BOTH, (tree.Subscript,), "x = y[0:4, ::2]", _always),
    Construct(
        "ellipsis", "`...` as an index", _D, _BOTH, (tree.Constant,), "x = y[..., 1]",
        _under((tree.Subscript, tree.Tuple), lambda n: n.value is Ellipsis),
    ),
    Construct("call", "call", _D, _BOTH, (tree.Call,), "f(x, y=1)", _always),
    Construct(
        "call-star", "`*` in a call", _R, _KLR, (tree.Starred,), "f(*x)", _under(tree.Call), _CALLS,
        "write out the arguments: f(x[0], x[1])",
    ),
    Construct(
        "call-star-star", "`**` in a call", _R, _KLR, (tree.keyword,), "f(**x)",
        _when(lambda n: n.arg is None), _CALLS,
        "write out the keywords: f(a=x['a'])",
    ),
    Construct(
        "starred", "`*` in a tuple, list or assignment", _R, _KLR, (tree.Starred,), "a, *b = x",
        _under((tree.Tuple, tree.List, tree.Assign, tree.For, tree.Set, tree.Subscript)),
        "the number of values is known from the text", "use slices and + : x[1:], (a,) + x",
    ),
    Construct("f-string", "f-string", _D, _BOTH, (tree.JoinedStr,), "x = f'{y} {z!r}'", _always),
    Construct(
        "f-string-format", "format specifier in an f-string", _R, _KLR, (tree.FormattedValue,),
        "x = f'{y:.2f}'", lambda n, p: [n.format_spec] if n.format_spec else [],
        "values print in one form", "leave out the part after the colon",
    ),
)


def not_accepted(profile: str) -> dict[type[Node], tuple[Construct, ...]]:
    """The rows that `profile` reports at the API level in force, by node class."""
    severities = PROFILES[profile]
    found: dict[type[Node], list[Construct]] = {}
    for row in CONSTRUCTS:
        if severities[row.verdict] is not None and not levels.before(row.since):
            for kind in row.nodes:
                found.setdefault(kind, []).append(row)
    return {kind: tuple(rows) for kind, rows in found.items()}
