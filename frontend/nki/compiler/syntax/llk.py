"""LL(k): from a grammar in Lark's notation to lookahead sets and a proof that k tokens decide.

Lark reads the grammar. For every choice, option and repetition of it the lookahead is computed: FIRST_k of
each way on, followed by FOLLOW_k of the rule, and only as deep as is needed to tell the ways apart. A grammar
where k tokens do not suffice is refused, naming both ways and the tokens they share. From what remains
:mod:`nki.compiler.syntax.generate` makes the parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import LarkError
from lark.grammar import NonTerminal, Terminal
from lark.lexer import PatternStr
from lark.load_grammar import load_grammar

END = "$"


class GrammarError(Exception):
    """The grammar is not LL(k), or uses notation that the parser generator does not know."""


# --- The grammar as data: expressions compare by identity, so that each place in the grammar is its own -----


@dataclass(eq=False, slots=True)
class Match:
    """One token; `kept` tokens hand their text to the builder."""

    type: str
    kept: bool

    def __str__(self) -> str:
        return self.type if self.type.isidentifier() and self.type.isupper() else f'"{self.type}"'


@dataclass(eq=False, slots=True)
class RuleUse:
    """One use of a rule."""

    rule: str

    def __str__(self) -> str:
        return self.rule


@dataclass(eq=False, slots=True)
class Sequence:
    """Expressions one after the other, and the builder method they go to (`None`: the rule's own)."""

    items: tuple[Expression, ...]
    alias: str | None = None

    def __str__(self) -> str:
        return " ".join(map(str, self.items))


@dataclass(eq=False, slots=True)
class Choice:
    """One of several sequences."""

    ways: tuple[Sequence, ...]

    def __str__(self) -> str:
        return "(" + " | ".join(map(str, self.ways)) + ")"


@dataclass(eq=False, slots=True)
class Optional:
    """Once or not at all; `placeholder` says that a missing body still counts as a value."""

    body: Sequence | Choice
    placeholder: bool

    def __str__(self) -> str:
        return f"[{self.body}]"


@dataclass(eq=False, slots=True)
class Repeat:
    """Any number of times; at least once if `required`."""

    body: Sequence | Choice
    required: bool

    def __str__(self) -> str:
        return f"({self.body}){'+' if self.required else '*'}"


@dataclass(eq=False, slots=True)
class Follow:
    """The bottom of a :data:`Stack`: whatever may follow the rule, wherever it is used."""

    rule: str

    def __str__(self) -> str:
        return f"end of {self.rule}"


Expression = Match | RuleUse | Sequence | Choice | Optional | Repeat

Stack = tuple[Any, Any]
"""What is still to be matched, as a linked list ``(expression, rest)`` that ends in a :class:`Follow`."""

Lookahead = dict[str, "Lookahead | None"]
"""Token strings as a trie: a token alone decides (`None`), or it needs the tokens after it."""


@dataclass(frozen=True, slots=True)
class GrammarRule:
    """One rule: `inline` is Lark's ``?``."""

    name: str
    body: Choice
    inline: bool


# --- Reading Lark's notation --------------------------------------------------------------------------------


def read_rules(text: str) -> dict[str, GrammarRule]:
    """The rules of a grammar by name.

    This is the one place that touches ``lark.load_grammar``, which Lark does not document; the version of
    Lark is pinned and ``tests/frontend/compiler/syntax/test_llk.py`` holds the shape it relies on.
    """
    try:
        grammar, _ = load_grammar(text, "<grammar>", [], False)
    except LarkError as refused:
        raise GrammarError(str(refused)) from refused
    rules = {}
    for name, parameters, tree, options in grammar.rule_defs:
        if parameters:
            raise GrammarError(f"rule {name} is a template; write its uses out")
        body = _read(tree, options.keep_all_tokens)
        if not isinstance(body, Choice):
            body = Choice((body if isinstance(body, Sequence) else Sequence((body,)),))
        rules[str(name)] = GrammarRule(str(name), body, options.expand1)
    return rules


def _read(tree: Tree[Any], keep: bool) -> Expression:
    """One node of Lark's grammar tree."""
    children: list[Any] = tree.children
    match tree.data:
        case "expansions":
            ways = tuple(_sequence(child, keep) for child in children)
            return Choice(ways) if len(ways) > 1 else ways[0]
        case "alias" | "expansion":
            return _sequence(tree, keep)
        case "maybe":
            return Optional(_body(children[0], keep), placeholder=True)
        case "expr" if len(children) == 2 and children[1] in ("?", "*", "+"):
            body = _body(children[0], keep)
            operator = str(children[1])
            return Optional(body, placeholder=False) if operator == "?" else Repeat(body, operator == "+")
        case "value" if isinstance(children[0], NonTerminal):
            return RuleUse(str(children[0].name))
        case "value" if isinstance(children[0], Terminal):
            name = str(children[0].name)
            return Match(name, kept=keep or not name.startswith("_"))
        case "value" if isinstance(children[0], Tree) and children[0].data == "literal":
            literal: Any = children[0].children[0]
            return Match(_literal(literal), kept=keep)
    raise GrammarError(f"unknown notation in the grammar: {tree}")


def _literal(token: Token) -> str:
    if token.type != "STRING" or "\\" in token or not token.endswith('"'):
        raise GrammarError(f"a literal of the grammar is a plain string without escapes, not {token}")
    return str(token[1:-1])


def _sequence(tree: Any, keep: bool) -> Sequence:
    if tree.data == "alias":
        expansion, alias = tree.children
        return Sequence(_sequence(expansion, keep).items, str(alias.name))
    if tree.data == "expansion":
        return Sequence(tuple(_read(child, keep) for child in tree.children))
    return Sequence((_read(tree, keep),))


def _body(tree: Tree[Any], keep: bool) -> Sequence | Choice:
    body = _read(tree, keep)
    return body if isinstance(body, Sequence | Choice) else Sequence((body,))


def build_lexer(text: str, start: str) -> tuple[Any, dict[str, str]]:
    """Lark's basic lexer of the grammar, and the text of each terminal that is a plain string, by name."""
    lark = Lark(text, parser=None, lexer="basic", start=start)
    literals = {t.name: t.pattern.value for t in lark.terminals if isinstance(t.pattern, PatternStr)}
    return lark.lexer, literals


# --- Lookahead ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Grammar:
    """An LL(k) grammar with the lookahead of each of its decisions.

    Attributes:
        rules: the rules by name.
        start: the rules parsing may begin with.
        k: how many tokens may be looked at.
        decisions: for each :class:`Choice` one trie per way; for each :class:`Optional` and :class:`Repeat`
            the tries of going in and of going on.

    Raises:
        GrammarError: a rule is left-recursive, a repetition can match nothing, or k tokens do not decide.
    """

    rules: dict[str, GrammarRule]
    start: tuple[str, ...]
    k: int
    decisions: dict[Expression, tuple[Lookahead, ...]] = field(default_factory=dict)
    _first: dict[str, frozenset[str]] = field(default_factory=dict)
    _follow: dict[str, frozenset[str]] = field(default_factory=dict)
    _nullable: set[str] = field(default_factory=set)
    _uses: dict[str, list[Stack | None]] = field(default_factory=dict)
    _loops: dict[Repeat, Repeat] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str, start: tuple[str, ...]) -> Grammar:
        """The grammar of `text`, which says its k as ``LL(k)`` in a comment."""
        stated = re.search(r"^//.*\bLL\((\d+)\)", text, re.MULTILINE)
        if stated is None:
            raise GrammarError("the grammar does not state its k; write LL(1) or LL(2) in its first comment")
        return cls(read_rules(text), start, int(stated[1]))

    def __post_init__(self) -> None:
        self._uses = {name: [] for name in self.rules}
        places: list[tuple[GrammarRule, Choice | Optional | Repeat, Stack]] = []
        for rule in self.rules.values():
            self._walk(rule, rule.body, (Follow(rule.name), None), places)
        for name in self.start:
            self._uses[name].append(None)
        self._find_nullable()
        self._refuse_left_recursion()
        self._find_first()
        self._find_follow()
        for rule, place, rest in places:
            self.decisions[place] = self._decide(rule, place, rest)

    def first(self, expression: Expression) -> frozenset[str]:
        """FIRST_1: the tokens `expression` can begin with."""
        match expression:
            case Match():
                return frozenset((expression.type,))
            case RuleUse():
                return self._first.get(expression.rule, frozenset())
            case Choice():
                return frozenset().union(*map(self.first, expression.ways))
            case Optional() | Repeat():
                return self.first(expression.body)
        found: frozenset[str] = frozenset()
        for item in expression.items:
            found |= self.first(item)
            if not self.nullable(item):
                break
        return found

    def nullable(self, expression: Expression) -> bool:
        """Whether `expression` can match nothing."""
        match expression:
            case Match():
                return False
            case RuleUse():
                return expression.rule in self._nullable
            case Choice():
                return any(map(self.nullable, expression.ways))
            case Optional():
                return True
            case Repeat():
                return not expression.required
        return all(map(self.nullable, expression.items))

    def _walk(self, rule: GrammarRule, expression: Expression, rest: Stack, places: list[Any]) -> None:
        """Note every decision and every use of a rule, each with what comes after it inside its rule."""
        match expression:
            case RuleUse():
                self._uses[expression.rule].append(rest)
            case Sequence():
                for item in reversed(expression.items):
                    self._walk(rule, item, rest, places)
                    rest = (item, rest)
            case Choice():
                places.append((rule, expression, rest))
                for way in expression.ways:
                    self._walk(rule, way, rest, places)
            case Optional():
                places.append((rule, expression, rest))
                self._walk(rule, expression.body, rest, places)
            case Repeat():
                places.append((rule, expression, rest))
                self._walk(rule, expression.body, (self._again(expression), rest), places)

    def _find_nullable(self) -> None:
        size = -1
        while size != len(self._nullable):
            size = len(self._nullable)
            self._nullable |= {r.name for r in self.rules.values() if self.nullable(r.body)}

    def _refuse_left_recursion(self) -> None:
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                cycle = " -> ".join((*path[path.index(name) :], name))
                raise GrammarError(f"rule {name} is left-recursive ({cycle}); write a repetition instead")
            if name not in done:
                for callee in self._leftmost(self.rules[name].body):
                    visit(callee, (*path, name))
                done.add(name)

        for name in self.rules:
            visit(name, ())

    def _leftmost(self, expression: Expression) -> Iterator[str]:
        """The rules that `expression` can begin with."""
        match expression:
            case RuleUse():
                yield expression.rule
            case Choice():
                for way in expression.ways:
                    yield from self._leftmost(way)
            case Optional() | Repeat():
                yield from self._leftmost(expression.body)
            case Sequence():
                for item in expression.items:
                    yield from self._leftmost(item)
                    if not self.nullable(item):
                        return

    def _find_first(self) -> None:
        grown = True
        while grown:
            grown = False
            for rule in self.rules.values():
                found = self.first(rule.body)
                if found != self._first.get(rule.name, frozenset()):
                    self._first[rule.name] = found
                    grown = True

    def _find_follow(self) -> None:
        grown = True
        while grown:
            grown = False
            for name, uses in self._uses.items():
                found = frozenset().union(*(self.first_of_stack(rest) for rest in uses))
                if found != self._follow.get(name, frozenset()):
                    self._follow[name] = found
                    grown = True

    def first_of_stack(self, stack: Stack | None) -> frozenset[str]:
        """The tokens that can come next when `stack` is still to be matched."""
        found: frozenset[str] = frozenset()
        while stack is not None:
            expression, stack = stack
            if isinstance(expression, Follow):
                return found | self._follow.get(expression.rule, frozenset())
            found |= self.first(expression)
            if not self.nullable(expression):
                return found
        return found | {END}

    def _next(self, stacks: list[Stack | None]) -> dict[str, list[Stack | None]]:
        """The tokens that can come next, and for each what can be left to match after it."""
        found: dict[str, list[Stack | None]] = {}
        seen: set[Stack | None] = set()
        todo = list(stacks)
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if stack is None:
                found.setdefault(END, []).append(None)
                continue
            expression, rest = stack
            match expression:
                case Match():
                    found.setdefault(expression.type, []).append(rest)
                case RuleUse():
                    todo.append((self.rules[expression.rule].body, rest))
                case Follow():
                    todo.extend(self._uses[expression.rule])
                case Choice():
                    todo.extend((way, rest) for way in expression.ways)
                case Optional():
                    todo += [(expression.body, rest), rest]
                case Repeat():
                    todo.append((expression.body, (self._again(expression), rest)))
                    if not expression.required:
                        todo.append(rest)
                case Sequence():
                    for item in reversed(expression.items):
                        rest = (item, rest)
                    todo.append(rest)
        return found

    def _again(self, repeat: Repeat) -> Repeat:
        """The repetition after its first time."""
        if not repeat.required:
            return repeat
        return self._loops.setdefault(repeat, Repeat(repeat.body, required=False))

    def _decide(
        self, rule: GrammarRule, place: Choice | Optional | Repeat, rest: Stack
    ) -> tuple[Lookahead, ...]:
        """The tries that tell the ways of `place` apart."""
        ways: list[Stack]
        if isinstance(place, Choice):
            ways = [(way, rest) for way in place.ways]
        elif self.nullable(place.body):
            raise GrammarError(
                f"rule {rule.name}: {place} repeats or makes optional what can already be empty"
            )
        elif isinstance(place, Optional):
            ways = [(place.body, rest), rest]
        else:
            ways = [(place.body, (self._again(place), rest)), rest]
        first = [self.first_of_stack(way) for way in ways]
        tries: tuple[Lookahead, ...] = tuple({token: None for token in tokens} for tokens in first)
        for token in _shared(first):
            contenders = [i for i, tokens in enumerate(first) if token in tokens]
            after = [self._next([ways[i]])[token] for i in contenders]
            deeper = self._separate(rule, [ways[i] for i in contenders], after, (token,))
            for i, trie in zip(contenders, deeper, strict=True):
                tries[i][token] = trie
        return tries

    def _separate(
        self, rule: GrammarRule, ways: list[Stack], after: list[list[Stack | None]], prefix: tuple[str, ...]
    ) -> list[Lookahead]:
        """Tries over the tokens after `prefix`, which all `ways` can begin with."""
        if len(prefix) == self.k:
            one, other = (_show(rule, way) for way in ways[:2])
            raise GrammarError(
                f"not LL({self.k}): rule {rule.name} cannot tell `{one}` from `{other}` "
                f"when the text goes on with {' '.join(prefix)}"
            )
        options = [self._next(stacks) for stacks in after]
        tries: list[Lookahead] = [dict.fromkeys(option) for option in options]
        for token in _shared([frozenset(option) for option in options]):
            contenders = [i for i, option in enumerate(options) if token in option]
            deeper = self._separate(
                rule, [ways[i] for i in contenders], [options[i][token] for i in contenders], (*prefix, token)
            )
            for i, trie in zip(contenders, deeper, strict=True):
                tries[i][token] = trie
        return tries


def _shared(sets: list[frozenset[str]]) -> list[str]:
    """The tokens that are in more than one of `sets`, in a stable order."""
    seen: set[str] = set()
    twice: set[str] = set()
    for tokens in sets:
        twice |= seen & tokens
        seen |= tokens
    return sorted(twice)


def _show(rule: GrammarRule, way: Stack) -> str:
    """A way as its production: the expression it begins with, or the end of its rule."""
    expression = way[0]
    return f"{rule.name}: {expression}" if not isinstance(expression, Follow) else str(expression)
