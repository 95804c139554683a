"""Lowers checked syntax trees to host code objects that keep source positions.

Our tree has the shape of the host's own abstract syntax, so lowering is a copy by
reflection with four changes: annotations, and the decorators and defaults of the
outermost definition, are dropped; the condition of ``while`` asks :class:`Turns`
where its value is not simply True or False, so that a register makes a
:class:`~nki_isa.ir.program.While` region; each turn of a loop and each call takes a
step (:mod:`nki.compiler.specializer.steps`); and names a closure captured become parameters
of a wrapper.
"""

from __future__ import annotations

import ast
import dis
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any

from nki import levels
from nki.compiler.source.kept import Kept
from nki.compiler.specializer import stacks
from nki.compiler.specializer.recorder import current
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Located, Node
from nki_isa.diagnostics import NkiError, error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.ir.program import While
from nki_isa.tensor.storage import VirtualRegister

_WHILE, _NEXT, _STEPS, _TURNS = "__nki_while__", "__nki_next__", "__nki_steps__", "__nki_turns__"
_ENCLOSING = "captured"


class Turns:
    """Decides about each turn of one ``while`` loop: a register makes it a loop on the device.

    The condition of such a loop is evaluated twice: before the loop, and at the end of the one turn
    that is recorded. A register other than the first is the next turn's condition.
    """

    __slots__ = ("region",)

    def __init__(self) -> None:
        self.region: While | None = None

    def __call__(self, value: Any) -> bool:
        if self.region is None:
            if not isinstance(value, VirtualRegister):
                return bool(value)
            self.region = While(value)
            deprecated = levels.deprecation(*levels.WHILE)
            if deprecated is not None:
                current().warn(NkiError([deprecated]))
            current().open(self.region)
            return True
        region, self.region = self.region, None
        if not isinstance(value, VirtualRegister):
            raise error(
                "NKI-L022",
                f"the condition of a loop that runs on the device became {value!r}, which is not a register",
                help="end the loop by loading 0 into its register: nisa.register_load(reg, tile)",
            )
        if value is not region.condition:
            current().emit(REGISTRY["register_move"](region.condition, value))
        current().close(region)
        return False


def helpers(left: Iterator[bool]) -> dict[str, Any]:
    """The global names that lowered code uses; loops and calls take their steps from `left`."""
    return {_WHILE: Turns, _NEXT: next, _STEPS: left, _TURNS: partial(itertools.compress, selectors=left)}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A definition as host code.

    Attributes:
        code: its code object.
        names: the global names that it and the functions inside it read.
        node: the definition; held, so that its id stays its own.
    """

    code: CodeType
    names: frozenset[str]
    node: tree.FunctionDef


_lowered: Kept[tuple[int, tuple[str, ...], bool, bool], Lowered] = Kept(1024)


def lower(
    node: tree.FunctionDef,
    free: tuple[str, ...],
    owner: str | None,
    qualname: str,
    file: str,
    *,
    counted: bool = True,
    assertions: bool = True,
) -> Lowered:
    """The host code of `node`, its positions those of the source text.

    Args:
        node: the definition.
        free: names it takes from enclosing functions.
        owner: the class whose body it stands in; private names (``self.__x``) are its own.
        qualname: what call stacks show.
        file: the source file.
        counted: False leaves out the steps of loops and calls; the code is that of Python then.
        assertions: False leaves them out, as ``python -O`` does.
    """
    key = (id(node), free, counted, assertions)
    kept = _lowered.get(key)
    if kept is None:
        definition = _Lowering(counted).host(node)
        definition.decorator_list, definition.args.defaults = [], []
        definition.args.kw_defaults = [None] * len(definition.args.kwonlyargs)
        outer = definition
        if owner is not None:
            outer = _located(
                ast.ClassDef(name=owner, bases=[], keywords=[], body=[outer], decorator_list=[]), node
            )
        if free:
            outer = _located(
                ast.FunctionDef(name=_ENCLOSING, args=_parameters(free), body=[outer], decorator_list=[]),
                node,
            )
        for made in (definition, outer, *getattr(outer, "body", ())):
            if "type_params" in made._fields:  # Python 3.12 and later
                made.type_params = []
        module = ast.fix_missing_locations(ast.Module(body=[outer], type_ignores=[]))
        whole = compile(module, file, "exec", dont_inherit=True, optimize=0 if assertions else 1)
        code = _inside(whole, 1 + (owner is not None) + bool(free))
        stacks.register(code, qualname, node)
        kept = _lowered[key] = Lowered(code, frozenset(_global_names(code)), node)
    return kept


def _global_names(code: CodeType) -> Iterator[str]:
    """Every global name `code` and the functions inside it read."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


def _inside(outer: CodeType, levels: int) -> CodeType:
    """The only code object inside `outer`, so many times over."""
    for _ in range(levels):
        (outer,) = (c for c in outer.co_consts if isinstance(c, CodeType))
    return outer


def _parameters(names: tuple[str, ...]) -> ast.arguments:
    arguments = [ast.arg(arg=name) for name in names]
    return ast.arguments(posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[])


def _located(made: Any, node: Any) -> Any:
    """`made` at the place of `node`."""
    if "lineno" in made._attributes:
        made.lineno, made.col_offset = node.lineno, node.col_offset
        made.end_lineno, made.end_col_offset = node.end_lineno, node.end_col_offset
    return made


class _Lowering:
    """One definition on its way to the host's syntax."""

    def __init__(self, counted: bool) -> None:
        self._counted = counted
        self._loops = itertools.count(1)

    def host(self, node: Any) -> Any:
        """The host's node for ours, by name and fields."""
        if isinstance(node, list):
            made = [self.host(item) for item in node]
            return [part for item in made for part in (item if isinstance(item, list) else (item,))]
        if not isinstance(node, Node):
            return node
        special = getattr(self, f"_{type(node).__name__}", None)
        return special(node) if special else self._copy(node)

    def _copy(self, node: Node) -> Any:
        kind = getattr(ast, type(node).__name__)
        parts = {name: self.host(getattr(node, name)) for name in kind._fields if hasattr(node, name)}
        return _located(kind(**parts), node)

    def _While(self, node: Any) -> Any:
        """``turns = Turns()`` and ``while step and ((t := test) is True or (t is not False and turns(t)))``.

        True and False cost no call of ours. A constant is not a register: it needs no `turns`.
        """
        made, at = self._copy(node), node.test
        step = _call(at, _NEXT, _name(at, _STEPS))
        if isinstance(node.test, tree.Constant):
            made.test = _both(at, ast.And(), step, made.test)
            return made
        turns, value = f"_nki_while_{next(self._loops)}", "_nki_test"
        test = _located(ast.NamedExpr(target=_name(at, value, ast.Store()), value=made.test), at)
        unknown = _compare(_name(at, value), ast.IsNot(), False)
        asked = _both(at, ast.And(), unknown, _call(at, turns, _name(at, value)))
        made.test = _both(at, ast.And(), step, _both(at, ast.Or(), _compare(test, ast.Is(), True), asked))
        first = _located(ast.Assign(targets=[_name(at, turns, ast.Store())], value=_call(at, _WHILE)), at)
        return [first, made]

    def _For(self, node: Any) -> Any:
        made = self._copy(node)
        if self._counted:
            made.iter = _call(node.iter, _TURNS, made.iter)
        return made

    def _comprehension(self, node: Any) -> Any:
        return self._For(node)

    def _AnnAssign(self, node: Any) -> Any:
        """An annotated assignment without its annotation; a bare annotation does nothing."""
        if node.value is None:
            return _located(ast.Pass(), node)
        return _located(ast.Assign(targets=[self.host(node.target)], value=self.host(node.value)), node)

    def _arg(self, node: Any) -> Any:
        return _located(ast.arg(arg=node.arg, annotation=None), node)

    def _FunctionDef(self, node: Any) -> Any:
        made = self._copy(node)
        made.returns = None
        at = node.body[0]
        if self._counted:
            made.body.insert(0, _located(ast.Expr(value=_call(at, _NEXT, _name(at, _STEPS))), at))
        return made


def _name(at: Located, id: str, context: ast.expr_context | None = None) -> Any:
    return _located(ast.Name(id=id, ctx=context or ast.Load()), at)


def _call(at: Located, function: str, *args: Any) -> Any:
    return _located(ast.Call(func=_name(at, function), args=list(args), keywords=[]), at)


def _compare(left: Any, op: ast.cmpop, constant: bool) -> Any:
    right = _located(ast.Constant(value=constant), left)
    return _located(ast.Compare(left=left, ops=[op], comparators=[right]), left)


def _both(at: Located, op: ast.boolop, *values: Any) -> Any:
    return _located(ast.BoolOp(op=op, values=list(values)), at)
