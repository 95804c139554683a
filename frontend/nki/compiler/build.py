"""Builds the syntax tree: one method per rule or alias of grammar.lark.

A method gets the values of its rule (see the top of the grammar) and the indices of its first and last token.
What a context-free grammar cannot say is checked here: assignment targets, the order of parameters and
arguments, what may stand next to each other in a display.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nki_isa.diagnostics import Diagnostic

from nki.compiler import literals, tree
from nki.compiler.lexer import LAYOUT, Tokens
from nki.compiler.tree import BINARY_OPS, BOOL_OPS, COMPARE_OPS, DEL, LOAD, STORE, UNARY_OPS, expr, stmt

Place = tuple[int, int, int, int]
Items = tuple[Any, "list[tree.comprehension] | tuple[Any, ...] | None"]
"""What stands in brackets: the first item, then comprehension clauses, or further items, or no comma at all."""

_TARGETS = {"assigned to": STORE, "deleted": DEL}

# How an expression that cannot be a target is called in a message.
_DESCRIPTIONS = {
    tree.Call: "a call",
    tree.Constant: "a literal",
    tree.JoinedStr: "an f-string",
    tree.Compare: "a comparison",
    tree.Lambda: "a lambda",
    tree.IfExp: "a conditional expression",
    tree.NamedExpr: "a named expression",
    tree.Dict: "a dict",
    tree.Set: "a set",
    tree.Await: "an await expression",
    tree.Yield: "a yield expression",
    tree.BinOp: "an operation",
    tree.UnaryOp: "an operation",
    tree.BoolOp: "an operation",
    tree.Tuple: "a tuple",
    tree.List: "a list",
    tree.ListComp: "a comprehension",
    tree.GeneratorExp: "a generator expression",
}


class Builder:
    """Makes nodes of the tokens of one text; mistakes go to their diagnostics."""

    def __init__(self, tokens: Tokens):
        self._tokens = tokens
        self._types, self._texts = tokens.types, tokens.texts
        self._lines, self._columns = tokens.lines, tokens.columns
        self._end_lines, self._end_columns = tokens.end_lines, tokens.end_columns

    def _at(self, start: int, end: int) -> Place:
        """The place from token `start` to token `end`, without the layout at its end."""
        while self._types[end] in LAYOUT and end > start:
            end -= 1
        return self._lines[start], self._columns[start], self._end_lines[end], self._end_columns[end]

    def _error(self, code: str, message: str, start: int, end: int, help: str) -> None:
        self._tokens.diagnostics.append(Diagnostic(code, message, self._tokens.span(start, end), help=help))

    def _error_at(self, code: str, message: str, node: tree.Located, help: str) -> None:
        self._tokens.diagnostics.append(Diagnostic(code, message, node.span(self._tokens.file), help=help))

    def _store(self, target: Any, deed: str = "assigned to", nested: bool = True) -> Any:
        """`target` as something that is assigned to or deleted; a sequence only if `nested`."""
        match target:
            case tree.Name() | tree.Attribute() | tree.Subscript():
                target.ctx = _TARGETS[deed]
            case tree.Tuple() | tree.List() if nested:
                target.ctx = _TARGETS[deed]
                for item in target.elts:
                    self._store(item, deed)
            case tree.Starred() if nested and deed == "assigned to":
                target.ctx = STORE
                self._store(target.value)
            case _:
                constant = isinstance(target, tree.Constant) and target.value in (None, True, False)
                what = f"`{target.value}`" if constant else _DESCRIPTIONS.get(type(target), "this expression")
                help = "Only a name, an attribute or a subscript can be, or a tuple of them."
                if isinstance(target, tree.Compare | tree.Constant):
                    help += " To compare, write `==`."
                self._error_at("NKI-L006", f"{what} cannot be {deed}", target, help)
        return target

    # --- Statements -------------------------------------------------------------------------------------------------

    def file_input(self, statements: list[Any], start: int, end: int) -> tree.Module:
        return tree.Module(self.block(statements, start, end), [])

    def block(self, statements: list[Any], _start: int, _end: int) -> list[stmt]:
        flat: list[stmt] = []
        for statement in statements:
            if isinstance(statement, list):
                flat += statement
            else:
                flat.append(statement)
        return flat

    def simple_stmts(self, first: stmt, rest: list[stmt], _start: int, _end: int) -> list[stmt]:
        return [first, *rest]

    def pass_stmt(self, start: int, end: int) -> stmt:
        return tree.Pass(*self._at(start, end))

    def break_stmt(self, start: int, end: int) -> stmt:
        return tree.Break(*self._at(start, end))

    def continue_stmt(self, start: int, end: int) -> stmt:
        return tree.Continue(*self._at(start, end))

    def yield_stmt(self, value: expr, start: int, end: int) -> stmt:
        return tree.Expr(*self._at(start, end), value)

    def expr_stmt(self, value: expr, rest: Any, start: int, end: int) -> stmt:
        if rest is None:
            return tree.Expr(*self._at(start, end), value)
        make, *parts = rest
        node: stmt = make(self._at(start, end), value, *parts)
        return node

    def assign_rest(self, values: list[expr], _start: int, _end: int) -> Any:
        return self._assign, values

    def _assign(self, place: Place, first: expr, values: list[expr]) -> stmt:
        *others, value = values
        return tree.Assign(*place, [self._store(target) for target in (first, *others)], value)

    def aug_assign_rest(self, op: str, value: expr, _start: int, _end: int) -> Any:
        return self._aug_assign, op, value

    def _aug_assign(self, place: Place, target: expr, op: str, value: expr) -> stmt:
        return tree.AugAssign(*place, self._store(target, nested=False), BINARY_OPS[op[:-1]], value)

    def ann_assign_rest(self, annotation: expr, value: expr | None, _start: int, _end: int) -> Any:
        return self._ann_assign, annotation, value

    def _ann_assign(self, place: Place, target: expr, annotation: expr, value: expr | None) -> stmt:
        simple = isinstance(target, tree.Name) and (target.lineno, target.col_offset) == place[:2]
        return tree.AnnAssign(*place, self._store(target, nested=False), annotation, value, int(simple))

    def return_stmt(self, value: expr | None, start: int, end: int) -> stmt:
        return tree.Return(*self._at(start, end), value)

    def assert_stmt(self, test: expr, message: expr | None, start: int, end: int) -> stmt:
        return tree.Assert(*self._at(start, end), test, message)

    def raise_stmt(self, parts: Any, start: int, end: int) -> stmt:
        return tree.Raise(*self._at(start, end), *(parts or (None, None)))

    def del_stmt(self, first: expr, rest: list[expr], start: int, end: int) -> stmt:
        return tree.Delete(*self._at(start, end), [self._store(x, "deleted") for x in (first, *rest)])

    def global_stmt(self, first: str, rest: list[str], start: int, end: int) -> stmt:
        return tree.Global(*self._at(start, end), [first, *rest])

    def nonlocal_stmt(self, first: str, rest: list[str], start: int, end: int) -> stmt:
        return tree.Nonlocal(*self._at(start, end), [first, *rest])

    def type_stmt(self, name: tree.Name, parameters: Any, value: expr, start: int, end: int) -> stmt:
        return tree.TypeAlias(*self._at(start, end), self._store(name), parameters or [], value)

    def import_stmt(self, first: tree.alias, rest: list[tree.alias], start: int, end: int) -> stmt:
        return tree.Import(*self._at(start, end), [first, *rest])

    def from_stmt(self, source: tuple[int, str | None], names: list[tree.alias], start: int, end: int) -> stmt:
        level, module = source
        return tree.ImportFrom(*self._at(start, end), module, names, level)

    def relative_source(self, dots: list[str], module: str | None, _start: int, _end: int) -> Any:
        return sum(map(len, dots)), module

    def absolute_source(self, module: str, _start: int, _end: int) -> Any:
        return 0, module

    def dotted_name(self, first: str, rest: list[str], _start: int, _end: int) -> str:
        return ".".join([first, *rest])

    def alias(self, name: str, asname: str | None, start: int, end: int) -> tree.alias:
        return tree.alias(*self._at(start, end), name, asname)

    def import_star(self, start: int, end: int) -> list[tree.alias]:
        return [tree.alias(*self._at(start, end), "*", None)]

    def imported(self, first: tree.alias, rest: list[tree.alias], _start: int, _end: int) -> list[tree.alias]:
        return [first, *rest]

    def if_stmt(self, test: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int) -> stmt:
        return tree.If(*self._at(start, end), test, body, orelse or [])

    def elif_rest(self, test: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int) -> list[stmt]:
        return [self.if_stmt(test, body, orelse, start, end)]

    def while_stmt(self, test: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int) -> stmt:
        return tree.While(*self._at(start, end), test, body, orelse or [])

    def for_stmt(
        self, target: expr, iterable: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int
    ) -> stmt:
        return tree.For(*self._at(start, end), self._store(target), iterable, body, orelse or [])

    def try_stmt(
        self, body: list[stmt], handlers: list[Any], orelse: Any, finalbody: Any, start: int, end: int
    ) -> stmt:
        if not handlers and finalbody is None:
            self._error(
                "NKI-L004", "`try` has neither `except` nor `finally`", start, start, "Add one of them after its block."
            )
        stars = {star for star, _ in handlers}
        kind = tree.TryStar if True in stars else tree.Try
        return kind(*self._at(start, end), body, [handler for _, handler in handlers], orelse or [], finalbody or [])

    def except_clause(self, star: bool | None, caught: Any, body: list[stmt], start: int, end: int) -> Any:
        return star, tree.ExceptHandler(*self._at(start, end), *(caught or (None, None)), body)

    def with_stmt(self, items: list[tree.withitem], body: list[stmt], start: int, end: int) -> stmt:
        return tree.With(*self._at(start, end), items, body)

    def with_items(
        self, first: tree.withitem, rest: list[tree.withitem], _start: int, _end: int
    ) -> list[tree.withitem]:
        return [first, *rest]

    def with_item(self, context: expr, target: expr | None, _start: int, _end: int) -> tree.withitem:
        return tree.withitem(context, None if target is None else self._store(target))

    def async_stmt(self, node: Any, start: int, end: int) -> stmt:
        kind = {
            tree.FunctionDef: tree.AsyncFunctionDef,
            tree.For: tree.AsyncFor,
            tree.With: tree.AsyncWith,
        }[type(node)]
        made: stmt = kind(*self._at(start, end), *(getattr(node, name) for name in node._fields))
        return made

    def decorated(self, decorators: list[expr], node: Any, start: int, end: int) -> stmt:
        if isinstance(node, tree.FunctionDef | tree.AsyncFunctionDef | tree.ClassDef):
            node.decorator_list = decorators
        else:
            help = "Put it before `def` or `class`."
            self._error_at("NKI-L004", "a decorator stands before a loop or a `with`", decorators[0], help)
        made: stmt = node
        return made

    def funcdef(
        self, name: str, type_params: Any, parameters: Any, returns: Any, body: list[stmt], start: int, end: int
    ) -> stmt:
        parameters = parameters or _no_parameters()
        return tree.FunctionDef(*self._at(start, end), name, parameters, body, [], returns, type_params or [])

    def classdef(self, name: str, type_params: Any, given: Any, body: list[stmt], start: int, end: int) -> stmt:
        bases, keywords, _ = given or ([], [], None)
        return tree.ClassDef(*self._at(start, end), name, bases, keywords, body, [], type_params or [])

    def type_params(self, first: tree.type_param, rest: list[tree.type_param], _start: int, _end: int) -> Any:
        return [first, *rest]

    def type_var(self, name: str, bound: expr | None, start: int, end: int) -> tree.type_param:
        return tree.TypeVar(*self._at(start, end), name, bound)

    def type_var_tuple(self, name: str, start: int, end: int) -> tree.type_param:
        return tree.TypeVarTuple(*self._at(start, end), name)

    def param_spec(self, name: str, start: int, end: int) -> tree.type_param:
        return tree.ParamSpec(*self._at(start, end), name)

    # --- Parameters and arguments -----------------------------------------------------------------------------------

    def arg(self, name: str, *rest: Any) -> tree.arg:
        *annotation, start, end = rest
        return tree.arg(*self._at(start, end), name, annotation[0] if annotation else None)

    def parameter(self, arg: tree.arg, default: expr | None, start: int, end: int) -> Any:
        return "name", arg, default, start, end

    def star_parameter(self, arg: tree.arg | None, start: int, end: int) -> Any:
        return "*", arg, None, start, end

    def star_star_parameter(self, arg: tree.arg, start: int, end: int) -> Any:
        return "**", arg, None, start, end

    def slash_parameter(self, start: int, end: int) -> Any:
        return "/", None, None, start, end

    def parameters(self, first: Any, rest: list[Any], _start: int, _end: int) -> tree.arguments:
        made = _no_parameters()
        seen: set[str] = set()
        for kind, arg, default, start, end in (first, *rest):
            problem = self._parameter_problem(kind, default, seen, made)
            if problem:
                self._error("NKI-L004", problem[0], start, end, problem[1])
            match kind:
                case "name" if "*" in seen:
                    made.kwonlyargs.append(arg)
                    made.kw_defaults.append(default)
                case "name":
                    made.args.append(arg)
                    made.defaults += [default] if default else []
                case "/":
                    made.posonlyargs, made.args = made.args, []
                case "*":
                    made.vararg = arg
                case "**":
                    made.kwarg = arg
            seen.add(kind)
        last = (first, *rest)[-1]
        if last[0] == "*" and last[1] is None:
            self._error("NKI-L004", "no parameter follows the bare `*`", last[3], last[4], "Remove the `*`.")
        return made

    def _parameter_problem(
        self, kind: str, default: expr | None, seen: set[str], made: tree.arguments
    ) -> tuple[str, str] | None:
        if "**" in seen:
            return "a parameter follows the one with `**`", "Put `**` last."
        if kind in seen and kind != "name":
            return f"`{kind}` stands twice among the parameters", "Remove one of them."
        if kind == "/" and ("*" in seen or not seen):
            return "`/` does not follow a positional parameter", "Move it before `*` and after a parameter."
        if kind == "name" and default is None and made.defaults and "*" not in seen:
            return (
                "a parameter without a default follows one with a default",
                "Give it a default, or move it forward.",
            )
        return None

    def keyword(self, name: str, value: expr, start: int, end: int) -> tree.keyword:
        return tree.keyword(*self._at(start, end), name, value)

    def unpacked_argument(self, value: expr, start: int, end: int) -> tree.keyword:
        return tree.keyword(*self._at(start, end), None, value)

    def starred_argument(self, value: expr, start: int, end: int) -> expr:
        return tree.Starred(*self._at(start, end), value, LOAD)

    def argument(self, value: expr, clauses: list[tree.comprehension] | None, start: int, end: int) -> Any:
        return value if clauses is None else (tree.GeneratorExp(*self._at(start, end), value, clauses),)

    def arguments(self, first: Any, rest: list[Any], _start: int, _end: int) -> Any:
        """Positional and keyword arguments, and the generator if that is the only argument."""
        args: list[expr] = []
        keywords: list[tree.keyword] = []
        for item in (first, *rest):
            if isinstance(item, tree.keyword):
                keywords.append(item)
                continue
            if isinstance(item, tuple):
                if not rest:
                    return [item[0]], [], item[0]
                help = "Put it in parentheses of its own."
                self._error_at("NKI-L004", "a generator expression stands beside other arguments", item[0], help)
                item = item[0]
            if keywords and (not isinstance(item, tree.Starred) or any(k.arg is None for k in keywords)):
                message = "a positional argument follows a keyword argument"
                self._error_at("NKI-L004", message, item, "Move it before the keywords, or name it too.")
            args.append(item)
        return args, keywords, None

    # --- Patterns ---------------------------------------------------------------------------------------------------

    def match_stmt(self, subject: expr, cases: list[tree.match_case], start: int, end: int) -> stmt:
        return tree.Match(*self._at(start, end), subject, cases)

    def case_block(
        self, pattern: tree.pattern, guard: expr | None, body: list[stmt], _start: int, _end: int
    ) -> tree.match_case:
        return tree.match_case(pattern, guard, body)

    def open_sequence_pattern(self, first: tree.pattern, rest: Any, start: int, end: int) -> tree.pattern:
        return tree.MatchSequence(*self._at(start, end), [first, *rest])

    def star_pattern(self, name: str, start: int, end: int) -> tree.pattern:
        return tree.MatchStar(*self._at(start, end), None if name == "_" else name)

    def as_pattern(self, pattern: tree.pattern, name: str | None, start: int, end: int) -> tree.pattern:
        return tree.MatchAs(*self._at(start, end), pattern, name)

    def or_pattern(self, first: tree.pattern, rest: list[tree.pattern], start: int, end: int) -> tree.pattern:
        return tree.MatchOr(*self._at(start, end), [first, *rest])

    def value_pattern(self, value: expr, start: int, end: int) -> tree.pattern:
        return tree.MatchValue(*self._at(start, end), value)

    def singleton_pattern(self, value: tree.Constant, start: int, end: int) -> tree.pattern:
        return tree.MatchSingleton(*self._at(start, end), value.value)

    def path_pattern(self, path: expr, given: Any, start: int, end: int) -> tree.pattern:
        place = self._at(start, end)
        if given is not None:
            positional = [item for item in given if not isinstance(item, tuple)]
            named = [item for item in given if isinstance(item, tuple)]
            return tree.MatchClass(*place, path, positional, [name for name, _ in named], [p for _, p in named])
        if isinstance(path, tree.Name):
            return tree.MatchAs(*place, None, None if path.id == "_" else path.id)
        return tree.MatchValue(*place, path)

    def class_pattern_args(self, items: Any, _start: int, _end: int) -> list[Any]:
        return _listed(items)

    def keyword_pattern(self, name: str, pattern: tree.pattern, _start: int, _end: int) -> Any:
        return name, pattern

    def group_pattern(self, items: Any, start: int, end: int) -> tree.pattern:
        if items is None or items[1] is not None:
            return tree.MatchSequence(*self._at(start, end), [] if items is None else [items[0], *items[1]])
        only: tree.pattern = items[0]
        return only

    def sequence_pattern(self, items: Any, start: int, end: int) -> tree.pattern:
        return tree.MatchSequence(*self._at(start, end), _listed(items))

    def mapping_pattern(self, items: Any, start: int, end: int) -> tree.pattern:
        every = _listed(items)
        pairs = [item for item in every if isinstance(item, tuple)]
        rest = next((item for item in every if isinstance(item, str)), None)
        return tree.MatchMapping(*self._at(start, end), [key for key, _ in pairs], [p for _, p in pairs], rest)

    def mapping_rest(self, name: str, _start: int, _end: int) -> str:
        return name

    # --- Operators --------------------------------------------------------------------------------------------------

    def walrus(self, target: tree.Name, value: expr, start: int, end: int) -> expr:
        return tree.NamedExpr(*self._at(start, end), self._store(target), value)

    def conditional(self, body: expr, rest: tuple[expr, expr], start: int, end: int) -> expr:
        test, orelse = rest
        return tree.IfExp(*self._at(start, end), test, body, orelse)

    def lambda_(self, parameters: tree.arguments | None, body: expr, start: int, end: int) -> expr:
        return tree.Lambda(*self._at(start, end), parameters or _no_parameters(), body)

    def or_test(self, first: expr, rest: list[expr], start: int, end: int) -> expr:
        return tree.BoolOp(*self._at(start, end), BOOL_OPS["or"], [first, *rest])

    def and_test(self, first: expr, rest: list[expr], start: int, end: int) -> expr:
        return tree.BoolOp(*self._at(start, end), BOOL_OPS["and"], [first, *rest])

    def comparison(self, left: expr, rest: list[tuple[Any, expr]], start: int, end: int) -> expr:
        ops = [COMPARE_OPS[op if isinstance(op, str) else " ".join(op)] for op, _ in rest]
        return tree.Compare(*self._at(start, end), left, ops, [right for _, right in rest])

    def operand(self, op: str, right: expr, _start: int, end: int) -> Any:
        return op, right, end

    def binary(self, left: expr, rest: list[Any], start: int, _end: int) -> expr:
        line, column = self._lines[start], self._columns[start]
        for op, right, end in rest:
            end_line, end_column = self._end_lines[end], self._end_columns[end]
            left = tree.BinOp(line, column, end_line, end_column, left, BINARY_OPS[op], right)
        return left

    def power(self, left: expr, right: expr, start: int, end: int) -> expr:
        return tree.BinOp(*self._at(start, end), left, BINARY_OPS["**"], right)

    def unary(self, op: str, operand: expr, start: int, end: int) -> expr:
        return tree.UnaryOp(*self._at(start, end), UNARY_OPS[op], operand)

    def await_(self, value: expr, start: int, end: int) -> expr:
        return tree.Await(*self._at(start, end), value)

    def yield_(self, value: expr | None, start: int, end: int) -> expr:
        return tree.Yield(*self._at(start, end), value)

    def yield_from(self, value: expr, start: int, end: int) -> expr:
        return tree.YieldFrom(*self._at(start, end), value)

    def star_expr(self, value: expr, start: int, end: int) -> expr:
        return tree.Starred(*self._at(start, end), value, LOAD)

    # --- Primaries --------------------------------------------------------------------------------------------------

    def primary(self, node: expr, trailers: list[Any], start: int, _end: int) -> expr:
        line, column = self._lines[start], self._columns[start]
        for make, payload, end in trailers:
            node = make((line, column, self._end_lines[end], self._end_columns[end]), node, payload)
        return node

    def attribute_trailer(self, name: str, _start: int, end: int) -> Any:
        return _attribute, name, end

    def call_trailer(self, given: Any, start: int, end: int) -> Any:
        args, keywords, generator = given or ([], [], None)
        if generator is not None:
            place = self._at(start, end)
            generator.lineno, generator.col_offset, generator.end_lineno, generator.end_col_offset = place
        return _call, (args, keywords), end

    def subscript_trailer(self, index: expr, _start: int, end: int) -> Any:
        if isinstance(index, tree.Starred):
            place = index.lineno, index.col_offset, index.end_lineno, index.end_col_offset
            index = tree.Tuple(*place, [index], LOAD)
        return _subscript, index, end

    def closed_slice(self, lower: expr, rest: tuple[Any, Any], start: int, end: int) -> expr:
        return tree.Slice(*self._at(start, end), lower, *rest)

    def open_slice(self, rest: tuple[Any, Any], start: int, end: int) -> expr:
        return tree.Slice(*self._at(start, end), None, *rest)

    def name(self, name: str, start: int, _end: int) -> expr:
        return tree.Name(
            self._lines[start], self._columns[start], self._end_lines[start], self._end_columns[start], name, LOAD
        )

    def number(self, text: str, start: int, end: int) -> expr:
        try:
            value = literals.number(text)
        except ValueError as error:
            self._error("NKI-L008", str(error), start, end, "Write it in hexadecimal, or compute it.")
            value = 0
        return tree.Constant(*self._at(start, end), value, None)

    def singleton(self, text: str, start: int, end: int) -> expr:
        return tree.Constant(*self._at(start, end), {"None": None, "True": True, "False": False}[text], None)

    def ellipsis(self, start: int, end: int) -> expr:
        return tree.Constant(*self._at(start, end), ..., None)

    def tail(self, items: list[Any], _start: int, _end: int) -> tuple[Any, ...]:
        return tuple(items)

    def no_tail(self, _start: int, _end: int) -> tuple[Any, ...]:
        return ()

    def tuple_(self, first: expr, rest: tuple[expr, ...], start: int, end: int) -> expr:
        return tree.Tuple(*self._at(start, end), [first, *rest], LOAD)

    def items(self, first: Any, rest: Any, _start: int, _end: int) -> Items:
        return first, rest

    def comp_for(
        self, is_async: bool | None, target: expr, iterable: expr, ifs: list[expr], _start: int, _end: int
    ) -> tree.comprehension:
        return tree.comprehension(self._store(target), iterable, ifs, int(bool(is_async)))

    def parenthesised(self, group: Any, start: int, end: int) -> expr:
        if isinstance(group, expr):
            return group
        first, rest = group or (None, ())
        if rest is None:
            if isinstance(first, tree.Starred):
                self._error_at("NKI-L004", "`*` unpacks into nothing here", first, "Write `(*x,)` to make a tuple.")
            only: expr = first
            return only
        if isinstance(rest, list):
            return tree.GeneratorExp(*self._at(start, end), self._element(first), rest)
        return tree.Tuple(*self._at(start, end), [first, *rest] if group else [], LOAD)

    def list_(self, items: Items | None, start: int, end: int) -> expr:
        first, rest = items or (None, ())
        if isinstance(rest, list):
            return tree.ListComp(*self._at(start, end), self._element(first), rest)
        return tree.List(*self._at(start, end), [first, *(rest or ())] if items else [], LOAD)

    def dict_or_set_item(self, key: expr, value: expr | None, _start: int, _end: int) -> Any:
        return key if value is None else (key, value)

    def dict_unpack_item(self, value: expr, _start: int, _end: int) -> Any:
        return None, value

    def braces(self, items: Items | None, start: int, end: int) -> expr:
        place = self._at(start, end)
        if items is None:
            return tree.Dict(*place, [], [])
        first, rest = items
        if isinstance(rest, list):
            if isinstance(first, tuple):
                if first[0] is None:
                    self._error_at(
                        "NKI-L004", "`**` stands in a dict comprehension", first[1], "Write `key: value for ...`."
                    )
                return tree.DictComp(*place, *first, rest)
            return tree.SetComp(*place, self._element(first), rest)
        every = [first, *(rest or ())]
        pairs = [item for item in every if isinstance(item, tuple)]
        if not pairs:
            return tree.Set(*place, every)
        for item in every:
            if not isinstance(item, tuple):
                self._error_at("NKI-L004", "a dict has an entry without a value", item, "Write `key: value`.")
        return tree.Dict(*place, [key for key, _ in pairs], [value for _, value in pairs])

    def _element(self, node: expr) -> expr:
        """The element of a comprehension, which is no unpacking."""
        if isinstance(node, tree.Starred):
            self._error_at("NKI-L004", "`*` stands in a comprehension", node, "Add a second `for` instead.")
        return node

    # --- Strings ----------------------------------------------------------------------------------------------------

    def string(self, text: str, start: int, end: int) -> list[expr]:
        return [self._constant(text, literals.string, "u" if text[0] in "uU" else None, start, end)]

    def _constant(self, text: str, decode: Any, kind: str | None, start: int, end: int) -> tree.Constant:
        try:
            value = decode(text)
        except ValueError as error:
            self._error("NKI-L008", str(error), start, end, "Correct the escape, or write `r` before the string.")
            value = ""
        return tree.Constant(*self._at(start, end), value, kind)

    def strings(self, parts: list[Any], start: int, end: int) -> expr:
        place = self._at(start, end)
        if not any(isinstance(part, tuple) for part in parts):
            return self._joined_constant(place, [part[0] for part in parts], start, end)
        pieces = [piece for part in parts for piece in (part[0] if isinstance(part, tuple) else part)]
        if any(isinstance(piece, tree.Constant) and isinstance(piece.value, bytes) for piece in pieces):
            self._mixed(start, end)
            pieces = []
        return tree.JoinedStr(*place, _merged(pieces))

    def _joined_constant(self, place: Place, parts: list[tree.Constant], start: int, end: int) -> expr:
        if len(parts) == 1:
            return parts[0]
        values: list[Any] = [part.value for part in parts]
        kinds = {type(value) for value in values}
        if len(kinds) > 1:
            self._mixed(start, end)
            values = [""]
        return tree.Constant(*place, type(values[0])().join(values), parts[0].kind)

    def _mixed(self, start: int, end: int) -> None:
        message = "bytes and text literals stand side by side"
        self._error("NKI-L004", message, start, end, "Give all of them the prefix `b`, or none.")

    def fstring(self, opening: str, parts: list[list[expr]], start: int, _end: int) -> Any:
        return ([piece for part in parts for piece in part],)

    def fstring_text(self, text: str, start: int, end: int) -> list[expr]:
        return [self._constant(text, literals.unescape, None, start, end)]

    def fstring_raw_text(self, text: str, start: int, end: int) -> list[expr]:
        return [tree.Constant(*self._at(start, end), text, None)]

    def fstring_field(
        self, value: expr, mark: int | None, conversion: int | None, spec: expr | None, start: int, end: int
    ) -> list[expr]:
        field = tree.FormattedValue(*self._at(start, end), value, -1 if conversion is None else conversion, spec)
        if mark is None:
            return [field]
        if conversion is None and spec is None:
            field.conversion = ord("r")
        begin = self._end_lines[start], self._end_columns[start]
        stop = self._lines[mark + 1], self._columns[mark + 1]
        return [tree.Constant(*begin, *stop, self._tokens.source(begin, stop), None), field]

    def debug_mark(self, start: int, _end: int) -> int:
        return start

    def conversion(self, name: str, start: int, end: int) -> int:
        if name not in ("s", "r", "a"):
            self._error("NKI-L004", f"`!{name}` is no conversion", start, end, "Write `!s`, `!r` or `!a`.")
        return ord(name[0])

    def format_spec(self, parts: list[list[expr]], start: int, end: int) -> expr:
        return tree.JoinedStr(*self._at(start, end), _merged(piece for part in parts for piece in part))


METHODS = frozenset(name for name in vars(Builder) if not name.startswith("_"))
"""The rules and aliases of the grammar that the builder makes something of."""


def _call(place: Place, function: expr, given: tuple[list[expr], list[tree.keyword]]) -> expr:
    return tree.Call(*place, function, *given)


def _subscript(place: Place, value: expr, index: expr) -> expr:
    return tree.Subscript(*place, value, index, LOAD)


def _attribute(place: Place, value: expr, name: str) -> expr:
    return tree.Attribute(*place, value, name, LOAD)


def _no_parameters() -> tree.arguments:
    return tree.arguments([], [], None, [], [], None, [])


def _listed(items: tuple[Any, list[Any]] | None) -> list[Any]:
    """A first item and the rest, as one list."""
    return [] if items is None else [items[0], *items[1]]


def _merged(pieces: Iterable[expr]) -> list[expr]:
    """The pieces of an f-string without empty text, and with neighbouring texts as one."""
    merged: list[expr] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if not isinstance(piece, tree.Constant):
            merged.append(piece)
        elif isinstance(last, tree.Constant):
            last.value = f"{last.value}{piece.value}"
            last.end_lineno, last.end_col_offset = piece.end_lineno, piece.end_col_offset
        elif piece.value:
            merged.append(piece)
    return merged
