"""From an LL(k) grammar to a parser: one Python function per rule, compiled once per process.

A generated rule looks like this (`while_stmt: "while" named_expr ":" suite ["else" ":" suite]`)::

    def r_while_stmt():
        nonlocal pos
        start = pos
        pos += 1
        v1 = r_named_expr()
        if types[pos] != ':': fail(41)
        pos += 1
        v2 = r_suite()
        v3 = None
        if types[pos] == 'else':
            ...
        return b_while_stmt(v1, v2, v3, start, pos - 1)

The source that is compiled here is made from the grammar alone; text of users never gets into it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from nki.compiler.syntax.llk import (
    Choice,
    Expression,
    Grammar,
    GrammarRule,
    Lookahead,
    Match,
    Optional,
    Repeat,
    RuleUse,
    Sequence,
)


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the grammar where parsing can fail: the rule, and the tokens that would have been right."""

    rule: str
    expected: frozenset[str]


class Mismatch(Exception):
    """The token at `position` is none of those `site` expects."""

    def __init__(self, position: int, site: int):
        super().__init__(position, site)
        self.position = position
        self.site = site


Run = Callable[[str, int], tuple[Any, int]]
"""Parse one rule from a token on: its value, and the index of the token after it."""

Recover = Callable[[int, Mismatch], tuple[Any, int]]
"""What to go on with after a mismatch in a recovering rule: a value for it, and the next token."""


@dataclass(frozen=True, slots=True)
class Parser:
    """A generated parser: `start(types, texts, builder, recover)` gives the function that runs its rules."""

    start: Callable[[list[str], list[str], Any, Recover], Run]
    sites: tuple[Site, ...]
    source: str


def generate(grammar: Grammar, methods: Collection[str], recovering: str) -> Parser:
    """The parser of `grammar`.

    Args:
        grammar: the grammar with its lookahead.
        methods: the names of rules and aliases that the builder has a method for.
        recovering: the rule in which a mismatch is handed to `recover` instead of ending the parse; a
            repetition of it goes on until a token that can follow the repetition.
    """
    writer = _Writer(grammar, frozenset(methods), recovering)
    source = writer.parser()
    namespace: dict[str, Any] = {**writer.sets, "Mismatch": Mismatch}
    exec(compile(source, "<parser generated from grammar.lark>", "exec"), namespace)
    return Parser(namespace["make"], tuple(writer.sites), source)


@dataclass
class _Writer:
    """Writes the functions; every `_write` method adds lines and returns the variables that hold values."""

    grammar: Grammar
    methods: frozenset[str]
    recovering: str
    sets: dict[str, frozenset[str]] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _depth: int = 0
    _variables: int = 0
    _rule: str = ""
    _names: dict[frozenset[str], str] = field(default_factory=dict)

    def parser(self) -> str:
        """The source of all rules, inside a function that holds what they share."""
        self._line("def make(types, texts, builder, recover):")
        self._depth = 1
        self._line("pos = 0")
        for method in sorted(self.methods):
            self._line(f"b_{method} = builder.{method}")
        self._line("def fail(site):")
        self._line("    raise Mismatch(pos, site)")
        for rule in self.grammar.rules.values():
            self._write_rule(rule)
        self._line("rules = {" + ", ".join(f"{name!r}: r_{name}" for name in self.grammar.rules) + "}")
        self._line("def run(rule, position):")
        self._line("    nonlocal pos")
        self._line("    pos = position")
        self._line("    return rules[rule](), pos")
        self._line("return run")
        return "\n".join(self._lines) + "\n"

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _fail(self, expected: frozenset[str]) -> str:
        self.sites.append(Site(self._rule, expected))
        return f"fail({len(self.sites) - 1})"

    def _write_rule(self, rule: GrammarRule) -> None:
        self._rule = rule.name
        self._variables = 0
        self._line(f"def r_{rule.name}():")
        self._depth += 1
        self._line("nonlocal pos")
        self._line("start = pos")
        if rule.name == self.recovering:
            self._line("try:")
            self._depth += 1
            self._write_ways(rule)
            self._depth -= 1
            self._line("except Mismatch as mismatch:")
            self._line("    value, pos = recover(start, mismatch)")
            self._line("    return value")
        else:
            self._write_ways(rule)
        self._depth -= 1

    def _write_ways(self, rule: GrammarRule) -> None:
        if len(rule.body.ways) == 1:
            self._write_way(rule, rule.body.ways[0], verified=False)
            return
        for way, trie in self._tries(rule.body):
            self._line(f"if {self._condition(trie)}:")
            self._depth += 1
            self._write_way(rule, way, verified=len(trie) == 1)
            self._depth -= 1
        self._line(self._fail(self.grammar.first(rule.body)))

    def _write_way(self, rule: GrammarRule, way: Sequence, verified: bool) -> None:
        """One way through a rule, ending in the call of its builder method."""
        *head, last = way.items
        method = way.alias or (rule.name if rule.name in self.methods else None)
        if method is not None and method not in self.methods:
            raise LookupError(f"rule {rule.name} names the builder method {method}, which does not exist")
        if rule.inline and len(head) == 1 and isinstance(last, Optional | Repeat):
            values = self._write_items(tuple(head), verified)
            self._line(f"if not ({self._enters(last)}):")
            self._line(f"    return {values[0]}")
            values += self._write(last, verified=not isinstance(last, Repeat) or last.required)
        else:
            values = self._write_items(way.items, verified)
        if method:
            self._line(f"return b_{method}({', '.join([*values, 'start', 'pos - 1'])})")
        else:
            self._line(f"return {self._packed(values)}")

    def _packed(self, values: list[str]) -> str:
        return values[0] if len(values) == 1 else f"({', '.join(values)})" if values else "None"

    def _write_items(self, items: tuple[Expression, ...], verified: bool) -> list[str]:
        values: list[str] = []
        skipped: frozenset[str] = frozenset()
        for i, item in enumerate(items):
            values += self._write(item, verified and i == 0, skipped)
            skipped = skipped | self.grammar.first(item) if self.grammar.nullable(item) else frozenset()
            if isinstance(item, Repeat):
                skipped |= self.grammar.first(item)
        return values

    def _write(
        self, item: Expression, verified: bool = False, skipped: frozenset[str] = frozenset()
    ) -> list[str]:
        """Match `item`; `verified`: its first token was looked at, `skipped`: what was possible before it."""
        match item:
            case Match():
                return self._write_match(item, verified, skipped)
            case RuleUse():
                variable = self._variable()
                self._line(f"{variable} = r_{item.rule}()")
                return [variable]
            case Sequence():
                return self._write_items(item.items, verified)
            case Choice():
                return self._write_choice(item, skipped)
            case Optional():
                return self._write_optional(item)
        return self._write_repeat(item, verified)

    def _write_match(self, item: Match, verified: bool, skipped: frozenset[str]) -> list[str]:
        if not verified:
            self._line(f"if types[pos] != {item.type!r}: {self._fail(skipped | {item.type})}")
        values = []
        if item.kept:
            values = [self._variable()]
            self._line(f"{values[0]} = texts[pos]")
        self._line("pos += 1")
        return values

    def _write_choice(self, item: Choice, skipped: frozenset[str]) -> list[str]:
        result = [self._variable()] if self._has_value(item) else []
        word = "if"
        for way, trie in self._tries(item):
            self._line(f"{word} {self._condition(trie)}:")
            self._write_into(result, way, verified=len(trie) == 1)
            word = "elif"
        self._line("else:")
        self._line(f"    {self._fail(skipped | self.grammar.first(item))}")
        return result

    def _write_into(self, result: list[str], body: Sequence | Choice, verified: bool) -> None:
        """An indented block that matches `body` and leaves its value in the variable of `result`, if any."""
        self._depth += 1
        values = self._write(body, verified)
        if result:
            self._line(f"{result[0]} = {self._packed(values)}")
        self._depth -= 1

    def _write_optional(self, item: Optional) -> list[str]:
        has_value = self._has_value(item.body)
        result = [self._variable()] if has_value or item.placeholder else []
        for variable in result:
            self._line(f"{variable} = None")
        self._line(f"if {self._enters(item)}:")
        self._write_into(result if has_value else [], item.body, self._one_token(item))
        if result and not has_value:
            self._line(f"    {result[0]} = True")
        return result

    def _write_repeat(self, item: Repeat, verified: bool) -> list[str]:
        result = [self._variable()] if self._has_value(item.body) else []
        for variable in result:
            self._line(f"{variable} = []")
        self._line("while True:" if item.required else f"while {self._enters(item)}:")
        self._depth += 1
        values = self._write(item.body, verified or (self._one_token(item) and not item.required))
        for variable in result:
            self._line(f"{variable}.append({self._packed(values)})")
        if item.required:
            self._line(f"if not ({self._enters(item)}): break")
        self._depth -= 1
        return result

    def _tries(self, choice: Choice) -> list[tuple[Sequence, Lookahead]]:
        """The ways of `choice` with what each asks for.

        The last way for a token takes it whatever comes after, so a mistake after it is found where it is.
        """
        tries = self.grammar.decisions[choice]
        last = {token: i for i, trie in enumerate(tries) for token in trie}
        return [
            (way, {token: None if last[token] == i else deeper for token, deeper in trie.items()})
            for i, (way, trie) in enumerate(zip(choice.ways, tries, strict=True))
        ]

    def _one_token(self, item: Optional | Repeat) -> bool:
        return len(self.grammar.decisions[item][0]) == 1

    def _has_value(self, item: Expression) -> bool:
        match item:
            case Match():
                return item.kept
            case RuleUse():
                return True
            case Sequence():
                return any(map(self._has_value, item.items))
            case Choice():
                return any(map(self._has_value, item.ways))
            case Optional():
                return item.placeholder or self._has_value(item.body)
        return self._has_value(item.body)

    def _enters(self, item: Optional | Repeat) -> str:
        """The condition on which the body of `item` is matched."""
        into, past = self.grammar.decisions[item]
        body = item.body
        if isinstance(item, Repeat) and isinstance(body, Sequence) and len(body.items) == 1:
            only = body.items[0]
            if isinstance(only, RuleUse) and only.rule == self.recovering:
                return f"types[pos] not in {self._set(frozenset(past))}"
        outside = {token: deeper for token, deeper in past.items() if into.get(token)}
        if not outside:
            return self._condition(into)
        inside = self._condition(dict.fromkeys(into))
        if len(into) == 1 and len(outside) == 1:
            (deeper,) = outside.values()
            return f"{inside} and not ({self._condition(deeper or {}, 1)})"
        return f"{inside} and not ({self._condition(outside)})"

    def _condition(self, trie: Lookahead, depth: int = 0) -> str:
        """The condition that the tokens from here on are in `trie`."""
        token = f"types[pos + {depth}]" if depth else "types[pos]"
        alone = frozenset(t for t, deeper in trie.items() if deeper is None)
        terms = []
        if len(alone) == 1:
            terms.append(f"{token} == {next(iter(alone))!r}")
        elif alone:
            terms.append(f"{token} in {self._set(alone)}")
        for t, deeper in trie.items():
            if deeper is not None:
                terms.append(f"{token} == {t!r} and {self._condition(deeper, depth + 1)}")
        return terms[0] if len(terms) == 1 else " or ".join(f"({term})" for term in terms)

    def _set(self, tokens: frozenset[str]) -> str:
        name = self._names.setdefault(tokens, f"S{len(self._names)}")
        self.sets[name] = tokens
        return name
