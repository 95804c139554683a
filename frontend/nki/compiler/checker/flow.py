"""What a function binds, and which of its reads come before every assignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Node, children, walk

_INNER = (tree.FunctionDef, tree.AsyncFunctionDef, tree.ClassDef, tree.Lambda)
_COMPREHENSIONS = (tree.ListComp, tree.SetComp, tree.DictComp, tree.GeneratorExp)
_LOOPS = (tree.For, tree.AsyncFor, tree.While)


def parameters(arguments: tree.arguments) -> list[tree.arg]:
    """All parameters, in the order of the text."""
    found = [*arguments.posonlyargs, *arguments.args]
    found += [arguments.vararg] if arguments.vararg else []
    found += arguments.kwonlyargs
    return found + ([arguments.kwarg] if arguments.kwarg else [])


def bound_names(nodes: Sequence[Node]) -> set[str]:
    """The names that running `nodes` can assign, functions inside them left out."""
    found: set[str] = set()
    elsewhere: set[str] = set()  # names of enclosing functions, or of the module
    todo: list[Node] = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, (tree.FunctionDef, tree.AsyncFunctionDef, tree.ClassDef)):
            found.add(node.name)
            continue
        if isinstance(node, tree.Lambda):
            continue
        if isinstance(node, (tree.Global, tree.Nonlocal)):
            elsewhere.update(node.names)
        if isinstance(node, _COMPREHENSIONS):
            todo += [n for n in walk(node) if isinstance(n, tree.NamedExpr)]
            continue
        if isinstance(node, tree.Name):
            if isinstance(node.ctx, symbols.Store):
                found.add(node.id)
        elif isinstance(node, tree.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, (tree.ExceptHandler, tree.MatchAs, tree.MatchStar)):
            found.update([node.name] if node.name else [])
        elif isinstance(node, tree.MatchMapping) and node.rest:
            found.add(node.rest)
        todo += children(node)
    return found - elsewhere


def comprehension_names(node: Node) -> set[str]:
    """The names that the `for` parts of a comprehension assign."""
    generators: list[tree.comprehension] = getattr(node, "generators", [])
    return bound_names([generator.target for generator in generators])


def misplaced(body: list[tree.stmt], in_loop: bool = False) -> Iterator[tree.Break | tree.Continue]:
    """The `break` and `continue` statements that no loop of `body` contains."""
    for node in body:
        yield from _misplaced(node, in_loop)


def _misplaced(node: Node, in_loop: bool) -> Iterator[tree.Break | tree.Continue]:
    if isinstance(node, (tree.Break, tree.Continue)):
        if not in_loop:
            yield node
    elif isinstance(node, _LOOPS):
        yield from misplaced(node.body, True)
        yield from misplaced(node.orelse, in_loop)
    elif not isinstance(node, (*_INNER, tree.expr)):
        for child in children(node):
            yield from _misplaced(child, in_loop)


def stray_returns(body: Sequence[Node]) -> Iterator[tree.Return]:
    """The `return` statements outside of every function."""
    for node in body:
        if isinstance(node, tree.Return):
            yield node
        elif not isinstance(node, (tree.FunctionDef, tree.AsyncFunctionDef, tree.Lambda, tree.expr)):
            yield from stray_returns([*children(node)])


def read_before_assignment(function: tree.FunctionDef) -> list[tree.Name]:
    """The first read of each local name that no path assigns before; only certain cases.

    Names a loop assigns further down may have their value from an earlier turn, but
    not at a read that every turn passes: the first turn passes it too.
    """
    flow = _Flow(bound_names(function.body))
    start = {argument.arg for argument in parameters(function.args)}
    flow.block(function.body, _State(start, set(start)))
    first: dict[str, tree.Name] = {}
    for name in flow.found:
        first.setdefault(name.id, name)
    return list(first.values())


class _State:
    """Names that may have a value: when this place is first passed, and whenever it is passed."""

    __slots__ = ("always", "first")

    def __init__(self, first: set[str], always: set[str]):
        self.first = first
        self.always = always

    def branch(self) -> _State:
        """The state inside a branch: a later turn may be the first to take it."""
        return _State(set(self.always), set(self.always))

    def add(self, names: set[str]) -> None:
        """These names may have a value from here on."""
        self.first |= names
        self.always |= names


class _Flow:
    def __init__(self, local: set[str]):
        self.local = local
        self.found: list[tree.Name] = []

    def block(self, body: list[tree.stmt], state: _State) -> None:
        for statement in body:
            self.statement(statement, state)

    def statement(self, node: tree.stmt, state: _State) -> None:
        if isinstance(node, (tree.FunctionDef, tree.AsyncFunctionDef, tree.ClassDef)):
            self.assign(node, state)
        elif isinstance(node, tree.If):
            self.evaluate(node.test, state)
            self.branches([node.body, node.orelse], state)
        elif isinstance(node, (tree.For, tree.AsyncFor)):
            self.evaluate(node.iter, state)
            self.loop([node.target, *node.body], node.body, node.orelse, state, node.target)
        elif isinstance(node, tree.While):
            self.evaluate(node.test, state)
            self.loop([*node.body, node.test], node.body, node.orelse, state)
        elif isinstance(node, (tree.With, tree.AsyncWith)):
            for item in node.items:
                self.evaluate(item.context_expr, state)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, state)
            self.block(node.body, state)
        elif isinstance(node, (tree.Try, tree.TryStar)):
            self.block(node.body, state)
            self.branches(
                [handler.body for handler in node.handlers], state, names=bound_names([*node.handlers])
            )
            self.block(node.orelse, state)
            self.block(node.finalbody, state)
        elif isinstance(node, tree.Match):
            self.evaluate(node.subject, state)
            self.branches([case.body for case in node.cases], state, names=bound_names([*node.cases]))
        elif isinstance(node, tree.AugAssign):
            target = node.target
            if isinstance(target, tree.Name):
                self.check(target, state.first)
            self.read(target, state.first)
            self.evaluate(node.value, state)
            self.assign(target, state)
        elif isinstance(node, tree.AnnAssign):
            if node.value is not None:
                self.evaluate(node.value, state)
                self.read(node.target, state.first)
                self.assign(node.target, state)
        elif isinstance(node, tree.Assign):
            self.evaluate(node.value, state)
            for target in node.targets:
                self.read(target, state.first)
                self.assign(target, state)
        else:
            for child in children(node):
                self.read(child, state.first)
            self.assign(node, state)

    def branches(self, bodies: list[list[tree.stmt]], state: _State, names: set[str] | None = None) -> None:
        """Bodies of which one or none runs; `names` may be assigned on the way into any."""
        assigned = set(names or ())
        for body in bodies:
            branch = state.branch()
            branch.add(names or set())
            self.block(body, branch)
            assigned |= bound_names(body)
        state.add(assigned)

    def loop(
        self,
        assigning: Sequence[Node],
        body: list[tree.stmt],
        orelse: list[tree.stmt],
        state: _State,
        target: tree.expr | None = None,
    ) -> None:
        state.always |= bound_names([*assigning])
        if target is not None:
            self.read(target, state.first)
            self.assign(target, state)
        self.block(body, state)
        self.block(orelse, state)

    def assign(self, node: Node, state: _State) -> None:
        state.add(bound_names([node]))

    def evaluate(self, node: tree.expr, state: _State) -> None:
        """Check what an expression surely reads; what it may assign has a value from here on."""
        self.read(node, state.first)
        state.add(bound_names([node]))

    def read(self, node: Node, known: set[str]) -> None:
        """Check the names read in `node` that are surely read."""
        if isinstance(node, tree.Name):
            if isinstance(node.ctx, symbols.Load):
                self.check(node, known)
        elif isinstance(node, tree.BoolOp):
            self.read(node.values[0], known)
        elif isinstance(node, tree.IfExp):
            self.read(node.test, known)
        elif isinstance(node, tree.NamedExpr):
            self.read(node.value, known)
            known |= bound_names([node.target])
        elif not isinstance(node, (*_INNER, *_COMPREHENSIONS)):
            for child in children(node):
                self.read(child, known)

    def check(self, name: tree.Name, known: set[str]) -> None:
        if name.id in self.local and name.id not in known:
            self.found.append(name)
