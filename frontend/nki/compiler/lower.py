"""Lowers checked syntax trees to host code objects that keep source positions.

Our tree has the shape of the host's own abstract syntax, so lowering is a copy by
reflection with three changes: annotations, and the decorators and defaults of the
outermost definition, are dropped; ``while`` becomes a ``for`` over
:func:`_turns`, which asks the condition whether it is known now (the loop is
unrolled) or a register (a :class:`~nki_isa.program.While` region); and names a
closure captured become parameters of a wrapper.
"""

from __future__ import annotations

import ast
import dis
import enum
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from nki_isa.tensor import VirtualRegister

from nki.compiler import tree
from nki.compiler.recorder import KERNEL_CODES, current

_WHILE = "__nki_while__"


def _turns(condition: Callable[[], Any]) -> Iterator[None]:
    """One turn of a ``while`` loop per item; a register makes it a loop on the device."""
    while True:
        value = condition()
        if isinstance(value, VirtualRegister):
            for _ in current().while_(value):
                yield
            return
        if not value:
            return
        yield


HELPERS: dict[str, Any] = {_WHILE: _turns}

_codes: dict[tuple[int, tuple[str, ...]], tuple[tree.FunctionDef, CodeType]] = {}


def function_code(node: tree.FunctionDef, free: tuple[str, ...], qualname: str, file: str) -> CodeType:
    """The code object of `node`, its positions those of the source text.

    Args:
        node: the definition.
        free: names it takes from enclosing functions.
        qualname: what call stacks show.
        file: the source file.
    """
    key = (id(node), free)
    kept = _codes.get(key)
    if kept is not None:
        return kept[1]
    definition = _host(node)
    definition.decorator_list, definition.args.defaults = [], []
    definition.args.kw_defaults = [None] * len(definition.args.kwonlyargs)
    module = ast.Module(body=[_enclose(definition, free) if free else definition], type_ignores=[])
    outer = compile(ast.fix_missing_locations(module), file, "exec", dont_inherit=True, optimize=0)
    code = _find(outer, node.name, free)
    _register(code, qualname)
    _codes[key] = (node, code)
    return code


def global_names(code: CodeType) -> set[str]:
    """Every global name `code` and the functions inside it read."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= global_names(inner)
    return found


def _register(code: CodeType, qualname: str) -> None:
    KERNEL_CODES[code] = qualname
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            _register(inner, f"{qualname}.<locals>.{inner.co_name}")


def _find(outer: CodeType, name: str, free: tuple[str, ...]) -> CodeType:
    if free:
        outer = next(c for c in outer.co_consts if isinstance(c, CodeType))
    return next(c for c in outer.co_consts if isinstance(c, CodeType) and c.co_name == name)


def _enclose(definition: ast.FunctionDef, free: tuple[str, ...]) -> ast.FunctionDef:
    """A function of the captured names around `definition`, so that it compiles to a closure over them."""
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(arg=name) for name in free], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    wrapper = ast.FunctionDef(
        name="captured", args=arguments, body=[definition], decorator_list=[], lineno=definition.lineno, col_offset=0
    )
    if "type_params" in ast.FunctionDef._fields:
        wrapper.type_params = []  # type: ignore[attr-defined]
    return wrapper


def _host(node: Any) -> Any:
    """The host's node for ours, by name and fields."""
    if isinstance(node, list):
        return [_host(item) for item in node]
    if isinstance(node, enum.Enum):
        return getattr(ast, node.name)()
    if not isinstance(node, tree.Node):
        return node
    special = _SPECIAL.get(type(node).__name__)
    return special(node) if special else _copy(node)


def _copy(node: tree.Node) -> Any:
    kind = getattr(ast, type(node).__name__)
    made = kind(**{name: _host(getattr(node, name)) for name in kind._fields if hasattr(node, name)})
    return _place(made, node)


def _place(made: Any, node: tree.Node) -> Any:
    if "lineno" in made._attributes:
        made.lineno, made.col_offset = node.lineno, node.col_offset
        made.end_lineno, made.end_col_offset = node.end_lineno, node.end_col_offset
    return made


def _while(node: Any) -> Any:
    """``while test: body`` as ``for _ in turns(lambda: test): body``."""
    test = _host(node.test)
    no_arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    condition = _place(ast.Lambda(args=no_arguments, body=test), node.test)
    turns = _place(ast.Name(id=_WHILE, ctx=ast.Load()), node.test)
    call = _place(ast.Call(func=turns, args=[condition], keywords=[]), node.test)
    variable = _place(ast.Name(id="_nki_turn", ctx=ast.Store()), node.test)
    return _place(ast.For(target=variable, iter=call, body=_host(node.body), orelse=_host(node.orelse)), node)


def _annotated(node: Any) -> Any:
    """An annotated assignment without its annotation; a bare annotation does nothing."""
    if node.value is None:
        return _place(ast.Pass(), node)
    return _place(ast.Assign(targets=[_host(node.target)], value=_host(node.value)), node)


def _argument(node: Any) -> Any:
    return _place(ast.arg(arg=node.arg, annotation=None), node)


def _function(node: Any) -> Any:
    made = _copy(node)
    made.returns = None
    return made


_SPECIAL: dict[str, Callable[[Any], Any]] = {
    "While": _while,
    "AnnAssign": _annotated,
    "arg": _argument,
    "FunctionDef": _function,
}
