"""Builds the syntax tree: one method per rule or alias of grammar.lark.

Expressions have a module of their own.

A method gets the values of its rule (see the top of the grammar) and the indices of its first and last token.
What a context-free grammar cannot say is checked here: the order of parameters and of arguments.
"""

from __future__ import annotations

from typing import Any

from nki.compiler.syntax import tree
from nki.compiler.syntax.build_expressions import ExpressionBuilder, Place, no_parameters
from nki.compiler.syntax.symbols import BINARY_OPS, LOAD
from nki.compiler.syntax.tree import expr, stmt


class Builder(ExpressionBuilder):
    """Makes the tree of the tokens of one text; mistakes go to the diagnostics of the tokens."""

    # --- Statements -----------------------------------------------------------------------------------------

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

    def from_stmt(
        self, source: tuple[int, str | None], names: list[tree.alias], start: int, end: int
    ) -> stmt:
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

    def elif_rest(
        self, test: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int
    ) -> list[stmt]:
        return [self.if_stmt(test, body, orelse, start, end)]

    def while_stmt(
        self, test: expr, body: list[stmt], orelse: list[stmt] | None, start: int, end: int
    ) -> stmt:
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
                "NKI-L004",
                "`try` has neither `except` nor `finally`",
                start,
                start,
                "Add one of them after its block.",
            )
        stars = {star for star, _ in handlers}
        kind = tree.TryStar if True in stars else tree.Try
        return kind(
            *self._at(start, end), body, [handler for _, handler in handlers], orelse or [], finalbody or []
        )

    def except_clause(self, star: bool | None, caught: Any, body: list[stmt], start: int, end: int) -> Any:
        kind, name = caught or (None, None)
        return star, tree.ExceptHandler(*self._at(start, end), kind, name, body)

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
        self,
        name: str,
        type_params: Any,
        parameters: Any,
        returns: Any,
        body: list[stmt],
        start: int,
        end: int,
    ) -> stmt:
        parameters = parameters or no_parameters()
        return tree.FunctionDef(*self._at(start, end), name, parameters, body, [], returns, type_params or [])

    def classdef(
        self, name: str, type_params: Any, given: Any, body: list[stmt], start: int, end: int
    ) -> stmt:
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

    # --- Parameters and arguments ---------------------------------------------------------------------------

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
        made = no_parameters()
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
                self._error_at(
                    "NKI-L004", "a generator expression stands beside other arguments", item[0], help
                )
                item = item[0]
            if keywords and (not isinstance(item, tree.Starred) or any(k.arg is None for k in keywords)):
                message = "a positional argument follows a keyword argument"
                self._error_at("NKI-L004", message, item, "Move it before the keywords, or name it too.")
            args.append(item)
        return args, keywords, None

    # --- Patterns -------------------------------------------------------------------------------------------

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
            return tree.MatchClass(
                *place, path, positional, [name for name, _ in named], [p for _, p in named]
            )
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
        return tree.MatchMapping(
            *self._at(start, end), [key for key, _ in pairs], [p for _, p in pairs], rest
        )

    def mapping_rest(self, name: str, _start: int, _end: int) -> str:
        return name


METHODS = frozenset(name for name in dir(Builder) if not name.startswith("_"))
"""The rules and aliases of the grammar that the builder makes something of."""


def _listed(items: tuple[Any, list[Any]] | None) -> list[Any]:
    """A first item and the rest, as one list."""
    return [] if items is None else [items[0], *items[1]]
