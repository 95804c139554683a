"""Walks one definition that a kernel reaches and reports what is wrong in it."""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from nki import levels
from nki.compiler.checker import calls, flow, scope
from nki.compiler.checker.scope import (
    Definition,
    Host,
    Legacy,
    Sourceless,
    TextScope,
    Unresolved,
    UserModule,
    Value,
)
from nki.compiler.checker.source_file import imports_in
from nki.compiler.language import frontends, names
from nki.compiler.language.profile import BUILTINS, HOST_BUILTINS, Acceptance, cited
from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Located, Node, children, walk
from nki_isa.diagnostics import Diagnostic, Frame, Label, Severity, Span
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.operators import Operator
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki.compiler.checker.check import Run

_DUNDERS = ("__name__", "__file__", "__doc__", "__debug__", "__package__", "__class__")
_COMPREHENSIONS = (tree.ListComp, tree.SetComp, tree.DictComp, tree.GeneratorExp)
_TENSOR_ATTRIBUTES = frozenset(name for name in dir(NkiTensor) if not name.startswith("_")) - {"name"}
_STATES = {
    Acceptance.used: "outside of the documented NKI language",
    Acceptance.undocumented: "in no document of the NKI language",
    Acceptance.refused: "not taken by the parser front end",
}


class Walker:
    """One definition of one run.

    Args:
        run: where findings go.
        definition: what to walk.
        calls: the user's calls that lead to it.
        broken: True if its text has mistakes of syntax, so that some of its names are not known.
    """

    def __init__(self, run: Run, definition: Definition, calls: tuple[Frame, ...], broken: bool):
        self.findings = run
        self.definition = definition
        self.calls = calls
        self.broken = broken
        self.file = definition.file.name
        self.scope = definition.scope
        self.locals: list[set[str]] = []
        self.handles: dict[str, tree.Call] = {}
        self.stores: Counter[str] = Counter()
        self.results: set[int] = set()  # calls told to return no tensor

    # --- reporting

    def report(
        self,
        code: str,
        message: str,
        node: Any,
        help: str | None,
        *,
        severity: Severity = Severity.error,
        notes: tuple[str, ...] = (),
        labels: tuple[Label, ...] = (),
        fix: str | None = None,
    ) -> None:
        """Keep one finding at `node`, with the calls that lead there; `fix` replaces the text of `node`."""
        span = _span(node, self.definition)
        stack = (*self.calls, Frame(self.definition.qualname, span))
        self.findings.add(Diagnostic(code, message, span, help, notes, labels, stack, severity, fix))

    def reach(self, value: Value, node: Any) -> None:
        """`value` is used at `node`."""
        if isinstance(value, (Definition, Sourceless, Host)):
            self.findings.reach(value, (*self.calls, Frame(self.definition.qualname, node.span(self.file))))

    # --- walking

    def run(self) -> None:
        """Walk the definition."""
        node = self.definition.node
        parent: Node = self.definition.owner.node if self.definition.owner else self.definition.file.module
        if isinstance(node, tree.ClassDef):
            self.rows(node, parent)
            for item in node.body:
                if not isinstance(item, tree.FunctionDef):
                    self.rows(item, node)
            for base in self.definition.bases():
                if isinstance(base, Definition):
                    self.reach(base, node)
            return
        self.rows(node, parent)
        self.visit(node.args, node, defaults=False)
        self.function(node)

    def function(self, node: tree.FunctionDef) -> None:
        """The body of a function, with its parameters and locals known."""
        local = flow.bound_names(node.body) | {a.arg for a in flow.parameters(node.args)}
        for found in flow.misplaced(node.body):
            word = type(found).__name__.lower()
            self.report(
                "NKI-L014",
                f"`{word}` stands outside of a loop",
                found,
                "put it in a for or while loop, or use return",
            )
        if not self.broken:
            for name in flow.read_before_assignment(node):
                message = f"{name.id!r} is read before it is assigned in {node.name}"
                self.report("NKI-L016", message, name, f"assign {name.id} before this line")
        outer_handles, outer_stores = self.handles, self.stores
        self.handles = {}
        stored = (n.id for n in walk(node) if isinstance(n, tree.Name) and isinstance(n.ctx, symbols.Store))
        self.stores = Counter(stored)
        with self.names(local):
            for annotation in (a.annotation for a in flow.parameters(node.args)):
                self.annotation(annotation)
            for statement in node.body:
                self.visit(statement, node)
        self.handles, self.stores = outer_handles, outer_stores

    @contextmanager
    def names(self, local: set[str]) -> Iterator[None]:
        """Inside, `local` names are bound."""
        self.locals.append(local)
        yield
        self.locals.pop()

    def annotation(self, node: Node | None) -> None:
        """A class that a parameter is annotated with comes in with the argument."""
        found = scope.resolve(node, self.scope)
        if isinstance(found, Definition) and node is not None:
            self.findings.depend(self.scope, getattr(node, "id", ""), found)
            self.reach(found, node)

    def visit(self, node: Node, parent: Node, defaults: bool = True) -> None:
        """Check `node` and all below it."""
        self.rows(node, parent)
        special = self._VISIT.get(type(node))
        if special is not None:
            special(self, node, parent)
        elif isinstance(node, tree.arguments):
            if defaults:
                for default in (*node.defaults, *node.kw_defaults):
                    if default is not None:
                        self.visit(default, node)
        else:
            self.below(node)

    def below(self, node: Node) -> None:
        """Visit what is below `node`."""
        for child in children(node):
            self.visit(child, node)

    def rows(self, node: Node, parent: Node) -> None:
        """Report the constructs of `node` that the profile does not accept."""
        for row in self.findings.rows.get(type(node), ()):
            for part in row.found(node, parent):
                at = part if isinstance(part, Located) else parent
                message = f"{row.title} is {_STATES[row.verdict]}: {row.why}"
                self.construct(row.title, row.verdict, message, at, row.instead, (cited(row.source),))

    def construct(
        self,
        what: str,
        verdict: Acceptance,
        message: str,
        node: Any,
        instead: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Report a construct that the profile does not accept, or note that it needs the tracer."""
        severity = self.findings.severities[verdict]
        if severity is None:
            return
        if verdict is Acceptance.refused and not self.findings.refused(what, _span(node, self.definition)):
            return
        if severity is Severity.error and not frontends.takes_python():
            instead = f"{instead}; {frontends.REMEDY}"
        self.report("NKI-L005", message, node, instead, severity=severity, notes=notes)

    def _visit_function(self, node: tree.FunctionDef, parent: Node) -> None:
        self.visit(node.args, node)
        self.function(node)

    def _visit_class(self, node: tree.ClassDef, parent: Node) -> None:
        """A class inside a function is refused as a whole."""

    def _visit_lambda(self, node: tree.Lambda, parent: Node) -> None:
        self.visit(node.args, node)
        with self.names({a.arg for a in flow.parameters(node.args)}):
            self.visit(node.body, node)

    def _visit_comprehension(self, node: Node, parent: Node) -> None:
        with self.names(flow.comprehension_names(node)):
            self.below(node)

    def _visit_raise(self, node: tree.Raise, parent: Node) -> None:
        """Refused as a whole: what it raises is not looked at."""

    def _visit_handler(self, node: tree.ExceptHandler, parent: Node) -> None:
        for statement in node.body:
            self.visit(statement, node)

    def _visit_annotated(self, node: tree.AnnAssign, parent: Node) -> None:
        self.visit(node.target, node)
        if node.value is not None:
            self.visit(node.value, node)

    def _visit_assign(self, node: tree.Assign, parent: Node) -> None:
        self.below(node)
        target = node.targets[0]
        if isinstance(node.value, tree.Call) and len(node.targets) == 1 and isinstance(target, tree.Name):
            is_new = self.instruction(node.value) is not None and id(node.value) not in self.results
            if is_new and self.stores[target.id] == 1:
                self.handles[target.id] = node.value

    # --- names

    def is_local(self, name: str) -> bool:
        """Whether an enclosing function of the text binds `name`."""
        return any(name in local for local in self.locals)

    def value(self, node: Node) -> Value:
        """What an expression stands for, as far as the text tells."""
        if isinstance(node, tree.Name):
            return Unresolved.unknown if self.is_local(node.id) else scope.present(self.scope.get(node.id))
        if isinstance(node, tree.Attribute):
            owner = self.definition.owner
            if owner is not None and isinstance(node.value, tree.Name) and node.value.id == self.self_name():
                found = owner.member(node.attr)
                return found if isinstance(found, Definition) else Unresolved.unknown
            return scope.attribute(self.value(node.value), node.attr)
        return Unresolved.unknown

    def host(self, node: Node) -> None:
        """A part of the file that the host runs: only what it takes from nki is looked at."""
        for part in walk(node):
            if isinstance(part, tree.Name):
                self.legacy(part)
            elif isinstance(part, tree.Attribute):
                base = self.value(part.value)
                if isinstance(base, Host) and scope.attribute(base, part.attr) is Unresolved.missing:
                    self.unknown_attribute(part, base, part.attr, self.text(part))

    def self_name(self) -> str:
        """The first parameter of a method, empty for functions and static methods."""
        node = self.definition.node
        if self.definition.owner is None or isinstance(node, tree.ClassDef) or calls.is_static(node):
            return ""
        places = [*node.args.posonlyargs, *node.args.args]
        return places[0].arg if places else ""

    def _visit_name(self, node: tree.Name, parent: Node) -> None:
        if not isinstance(node.ctx, symbols.Load):
            return
        if self.is_local(node.id):
            if _is_tensor_use(node, parent):
                self.use_of_handle(node)
            return
        self.legacy(node)
        found = self.scope.get(node.id)
        self.findings.depend(self.scope, node.id, found)
        if found is Unresolved.missing:
            self.unknown_name(node)
        elif isinstance(self.scope, TextScope) and found is Unresolved.unknown:
            self.mentioned(node)
        else:
            self.reach(found, node)

    def mentioned(self, node: tree.Name) -> None:
        """The definitions that a table at the top of a file mentions, but for functions that only fill it."""
        binding = self.scope.bindings.get(node.id) if isinstance(self.scope, TextScope) else None
        if isinstance(binding, tree.Assign) and isinstance(
            binding.value, (tree.Dict, tree.List, tree.Tuple, tree.Call)
        ):
            parts = [*walk(binding.value)]
            called = {id(part.func) for part in parts if isinstance(part, tree.Call)}
            for part in parts:
                if isinstance(part, (tree.Name, tree.Attribute)):
                    found = scope.resolve(part, self.scope)
                    if not isinstance(found, Definition):
                        continue
                    if isinstance(found.node, tree.ClassDef) or id(part) not in called:
                        self.reach(found, node)

    def unknown_name(self, node: tree.Name) -> None:
        name = node.id
        if name in _DUNDERS or self.broken:
            return
        origin = self.scope.origin(name)
        if origin is not None:
            self.unknown_attribute(node, origin[0], origin[1], name)
            return
        row = BUILTINS.get(name)
        if row is not None:
            note = (cited(row.source),) if row.source else ()
            message = f"the built-in {name} is {_STATES.get(row.verdict)}"
            instead = row.instead or "compute it on the host and pass it in"
            self.construct(f"the built-in {name}", row.verdict, message, node, instead, note)
            return
        if hasattr(builtins, name):
            message = f"the built-in {name} is {_STATES[Acceptance.refused]}"
            instead = "compute the value on the host and pass it in"
            self.construct(f"the built-in {name}", Acceptance.refused, message, node, instead)
            return
        module = next((m for m in self.starred() if names.is_known_missing(m.__name__, name)), None)
        if module is not None:
            self.unknown_attribute(node, Host(module), name, name)
            return
        known = {*self.scope.names(), *HOST_BUILTINS, *(n for local in self.locals for n in local)}
        near = names.nearest(name, known)
        hint = (
            f"write {near}"
            if near
            else f"assign it, import it at the top of the file, or pass it to {self.definition.name}"
        )
        message = f"{name!r} is not a parameter, local, global or supported built-in"
        self.report("NKI-L010", message, node, hint, fix=near)

    def starred(self) -> Iterator[ModuleType]:
        """The modules that the file takes all names from."""
        for node in self.definition.file.module.body:
            if isinstance(node, tree.ImportFrom) and node.names[0].name == "*" and node.module in sys.modules:
                yield sys.modules[node.module]

    def _visit_attribute(self, node: tree.Attribute, parent: Node) -> None:
        base = self.value(node.value)
        found = self.value(node)
        if isinstance(base, UserModule):
            self.findings.depend(base.scope, node.attr, found)
        if found is Unresolved.missing and isinstance(node.ctx, symbols.Load):
            self.unknown_attribute(node, base, node.attr, self.text(node))
        elif isinstance(base, Host):
            for told in levels.member_notes(base.value, node.attr):
                self.report(told.code, told.message, node, told.help, severity=told.severity)
        if isinstance(base, Unresolved) or (isinstance(base, Host) and found is Unresolved.unknown):
            self.findings.use_attribute(node.attr)
        self.reach(found, node)
        self.visit(node.value, node)

    def unknown_attribute(self, node: Any, base: Value, name: str, written: str) -> None:
        """`base` has no `name`; the user wrote it as `written`."""
        if isinstance(base, UserModule):
            near = names.nearest(name, base.scope.names())
            hint = f"write {near}" if near else f"define {name} in that file"
            fix = _renamed(node, near, written)
            self.report("NKI-L010", f"{written}: {base.scope.file} has no {name!r}", node, hint, fix=fix)
            return
        if not isinstance(base, Host):
            return
        value = base.value
        module = value.__name__ if isinstance(value, ModuleType) else ""
        near = names.member(value, name)
        owner = module or getattr(value, "__name__", type(value).__name__)
        prefix = written[: -len(name)] if written.endswith(name) else ""
        fix = _renamed(node, near, written)
        hint = f"write {prefix}{near}" if near else f"see the names of {owner} in its reference"
        if module and not scope.is_nki(module):
            self.report("NKI-L010", f"{written}: module {module} has no {name!r}", node, hint, fix=fix)
            return
        if not module:
            self.report("NKI-L011", f"{written}: {owner} has no {name!r}", node, hint, fix=fix)
            return
        told = names.missing(module, name, written)
        fix = fix if told.help == hint else None
        self.report(told.code, told.message, node, told.help, notes=told.notes, fix=fix)

    def legacy(self, node: tree.Name) -> None:
        """Report the namespace of Beta 1 where the file imports what `node` names, else at `node`."""
        if self.is_local(node.id) or not isinstance(self.scope.get(node.id), Legacy):
            return
        imports = self.definition.file.imports
        self.beta1(next((i for i, top, bound in imports if bound == node.id and top == scope.LEGACY), node))

    def beta1(self, place: Any) -> None:
        """Report the namespace of Beta 1 at an import statement, or where it is used."""
        written = self.text(place)
        now = re.sub(r"\bfrom neuronxcc import", "import", re.sub(r"\bneuronxcc\.nki\b", "nki", written))
        is_import = isinstance(place, (tree.Import, tree.ImportFrom))
        notes: tuple[str, ...] = ("source: migration guide 0.3 to 0.4",)
        if any(module == "nki" for _, module, _ in self.definition.file.imports):
            notes = ("this file imports both neuronxcc.nki and nki; their objects do not mix", *notes)
        self.report(
            "NKI-L015",
            "neuronxcc.nki is the namespace of Beta 1",
            place,
            f"write {now}" if is_import else "write import nki, and use its modules",
            notes=notes,
            fix=now if is_import and "neuronxcc" not in now else None,
        )

    def imports(self, node: tree.Import | tree.ImportFrom) -> None:
        """What an import statement takes from nki, or from where nki was in Beta 1."""
        if any(top == scope.LEGACY for _, top, _ in imports_in(node)):
            self.beta1(node)
        if not isinstance(node, tree.ImportFrom):
            return
        for alias in node.names:
            base, name = self.scope.origin(alias.asname or alias.name) or (Unresolved.unknown, "")
            base = scope.present(base)
            if isinstance(base, Host) and scope.attribute(base, name) is Unresolved.missing:
                self.unknown_attribute(alias, base, name, f"{node.module}.{name}")

    # --- calls

    def instruction(self, call: tree.Call) -> str | None:
        """The opcode if `call` is of an instruction."""
        found = self.value(call.func)
        if isinstance(found, Host) and getattr(found.value, "__module__", "") == "nki.isa":
            name = getattr(found.value, "__name__", "")
            return name if name in REGISTRY and REGISTRY[name].namespace == "nki.isa" else None
        return None

    def _visit_call(self, node: tree.Call, parent: Node) -> None:
        found = self.value(node.func)
        signature = self.signature(node, found)
        if signature is not None:
            self.arguments(node, parent, signature, found)
        if isinstance(found, Host) and scope.is_nki(getattr(found.value, "__module__", "")):
            for value in (*node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(value, tree.Name):
                    self.use_of_handle(value)
                elif isinstance(value, tree.Call) and self.instruction(value):
                    self.report_result(value, node, self.text(value.func))
        self.below(node)

    def signature(self, node: tree.Call, found: Value) -> calls.Signature | None:
        """What the callee takes; None where it is not known."""
        if isinstance(found, Definition):
            owner = self.definition.owner
            through_self = (
                isinstance(node.func, tree.Attribute) and self.text(node.func.value) == self.self_name()
            )
            return calls.of_definition(found, bound=owner is not None and through_self)
        if isinstance(found, Host) and scope.is_nki(getattr(found.value, "__module__", "")):
            value: Any = found.value
            if isinstance(value, Operator):
                value = getattr(value, "__call__", None)  # noqa: B004  (signatures are those of methods)
            if inspect.isroutine(value):
                return calls.of_python(self.text(node.func), value)
        return None

    def arguments(self, node: tree.Call, parent: Node, signature: calls.Signature, found: Value) -> None:
        opcode = self.instruction(node)
        module = getattr(found.value, "__module__", "") if isinstance(found, Host) else ""
        problems = list(calls.misfits(node, signature))
        if opcode is not None and "dst" in {p.name for p in signature.parameters}:
            lacking = any(p.missing for p in problems)
            if (lacking and not isinstance(parent, (tree.Expr, tree.Return))) or _is_tensor_use(node, parent):
                self.report_result(node, parent, signature.callee)
                problems = [p for p in problems if not p.missing]
        label: tuple[Label, ...] = ()
        if isinstance(found, Definition):
            label = (Label(found.heading, f"{signature} is defined here"),)
        name = signature.callee.rpartition(".")[2]
        refused = [levels.keyword_refusal(module, name, problem.keyword) for problem in problems]
        for problem, told in zip(problems, refused):
            if told is not None:
                help = told.help or problem.help
                self.report(told.code, told.message, problem.node, help, notes=told.notes)
                continue
            if problem.missing and any(refused):  # it was given by the name another level has for it
                continue
            removed = _removed_keyword(module, signature.callee, problem.keyword)
            if removed is not None:
                severity: Severity | None = Severity.error
                if opcode is not None and problem.keyword == "dtype":  # taken if it is that of dst
                    severity = self.findings.severities[Acceptance.undocumented]
                self.report(
                    "NKI-L015",
                    f"{signature.callee}: the argument {problem.keyword}= was removed from the NKI API",
                    problem.node,
                    removed,
                    notes=(f"source: {names.REMOVED_SOURCE}",),
                    severity=severity or Severity.error,
                )
                continue
            hint = problem.help
            if "dst" in problem.missing:
                hint = f"allocate the result with nl.ndarray and pass it as dst=; {hint}"
            fix = self._renamed_keyword(problem)
            place = levels.place_of(module, name)
            count = len(node.args) if place and levels.form_of(*place) is None else None
            notes = levels.orders(*place, count) if place else ()
            if place:
                given = [keyword.arg for keyword in node.keywords if keyword.arg]
                notes = (*notes, *levels.fitting(*place, len(node.args), given))
            self.report("NKI-L012", problem.message, problem.node, hint, labels=label, fix=fix, notes=notes)

    def _renamed_keyword(self, problem: calls.CallFault) -> str | None:
        """The text of an unknown keyword under the name it is likely to stand for, if it is on one line."""
        node = problem.node
        if problem.near is None or not isinstance(node, tree.keyword) or node.lineno != node.end_lineno:
            return None
        return f"{problem.near}={self.text(node.value)}"

    def report_result(self, node: tree.Call, parent: Node, callee: str) -> None:
        """The value of an instruction is used as if it were its result."""
        if id(node) in self.results:
            return
        self.results.add(id(node))
        hint = f"allocate a tensor with nl.ndarray and pass it: {callee}(dst=tile, ...)"
        if isinstance(parent, tree.Assign):
            target = self.text(parent.targets[0])
            hint = f"write {callee}(dst={target}, ...)"
            if isinstance(parent.targets[0], tree.Name):
                hint = f"allocate {target} with nl.ndarray and {hint}"
        message = f"{callee} returns no tensor, as it did in Beta 1: it writes into dst"
        self.report("NKI-L015", message, node, hint, notes=("source: migration guide 0.1 to 0.2",))

    def use_of_handle(self, node: tree.Name) -> None:
        """A local is used as a tensor: it should not hold what an instruction returned."""
        call = self.handles.pop(node.id, None)
        if call is not None:
            callee = self.text(call.func)
            self.report(
                "NKI-L015",
                f"{node.id!r} holds what {callee} returned, which is not a tensor: it wrote into dst",
                node,
                "use the tensor that was passed as dst=",
                labels=(Label(call.span(self.file), "assigned here"),),
                notes=("source: migration guide 0.1 to 0.2",),
            )

    def text(self, node: Any) -> str:
        """The source of `node`, on one line."""
        lines = self.definition.file.lines[node.lineno - 1 : node.end_lineno]
        if not lines:
            return ""
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return " ".join(line.strip() for line in lines)

    _VISIT: ClassVar[dict[type[Node], Callable[..., None]]] = {
        tree.FunctionDef: _visit_function,
        tree.ClassDef: _visit_class,
        tree.Lambda: _visit_lambda,
        tree.Raise: _visit_raise,
        tree.ExceptHandler: _visit_handler,
        tree.AnnAssign: _visit_annotated,
        tree.Assign: _visit_assign,
        tree.Name: _visit_name,
        tree.Attribute: _visit_attribute,
        tree.Call: _visit_call,
        **dict.fromkeys(_COMPREHENSIONS, _visit_comprehension),
    }


def _is_tensor_use(node: Node, parent: Node) -> bool:
    """Whether the place of `node` asks for a tensor."""
    if isinstance(parent, tree.Attribute):
        return parent.attr in _TENSOR_ATTRIBUTES
    return isinstance(parent, tree.BinOp) or (isinstance(parent, tree.Subscript) and parent.value is node)


def _span(node: Any, definition: Definition) -> Span:
    """The place of `node`; of a statement with a block, its first line."""
    span = node.span(definition.file.name)
    if span.end_line == span.line or not isinstance(node, tree.stmt) or not hasattr(node, "body"):
        return span
    if isinstance(node, (tree.FunctionDef, tree.ClassDef)):
        return scope.heading(node, definition.file.name)
    line = definition.file.lines[node.lineno - 1].rstrip()
    return Span(span.file, span.line, span.column, span.line, len(line) + 1)


def _renamed(node: Any, near: str | None, written: str) -> str | None:
    """`written`, the text of `node`, with its last name replaced; None where the name was only imported."""
    return f"{written[: -len(node.attr)]}{near}" if near and isinstance(node, tree.Attribute) else None


def _removed_keyword(module: str, callee: str, keyword: str) -> str | None:
    """What to write instead of a keyword that older releases had; None if it is not such a keyword."""
    if not keyword or not module.startswith("nki"):
        return None
    name = callee.rpartition(".")[2]
    found = names.REMOVED_KEYWORDS.get((name, keyword))
    if found is None and (keyword == "mask" or module == "nki.isa"):
        found = names.REMOVED_KEYWORDS.get(("", keyword))
    return found
