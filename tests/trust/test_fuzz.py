"""Damaged caches, mutated texts and real Python files: no crash, no hang, nothing executed.

A sample by default; all of it with ``-m slow``.
"""

import ast
import importlib.util
import json
import random
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
from watching import watched

from nki.compiler.checker.check import check_text
from nki.compiler.syntax import parse as parsing
from nki.compiler.syntax import tree, tree_cache, tree_data
from nki.compiler.syntax.node import dump
from nki.compiler.syntax.parse import parse

ROOT = Path(__file__).parents[2]
TEXTS = sorted((ROOT / "examples").glob("*.py"))
SMALL = ROOT / "examples" / "tensor_add.py"


def whole(sample, all_of_it):
    """A number of cases: a sample, and in a slow test all of them."""
    return [sample, pytest.param(all_of_it, marks=pytest.mark.slow)]


# --- the cache


def mutated(octets, random_):
    """`octets` with a few bytes changed, cut, doubled or moved."""
    octets = bytearray(octets)
    for _ in range(random_.choice((1, 1, 2, 5))):
        at = random_.randrange(len(octets) or 1)
        match random_.randrange(6):
            case 0:
                octets[at : at + 1] = bytes([random_.randrange(256)])
            case 1:
                del octets[at : at + random_.choice((1, 2, 16, len(octets)))]
            case 2:
                octets[at:at] = octets[: random_.randrange(64)]
            case 3:
                octets[at:at] = random_.choice(
                    (b"0", b"-1", b"null", b"[]", b"[", b'"', b"1e9", b"\n", b"\x00")
                )
            case 4:
                octets[at : at + 8] = octets[at : at + 8][::-1]
            case 5:
                octets[at : at + 1] = str(random_.randrange(400)).encode()
    return bytes(octets)


@pytest.mark.parametrize("count", whole(300, 10_000))
def test_mutated_caches_are_trees_or_nothing(count, tmp_path, monkeypatch):
    """Half of them with a right checksum, so that what is inside is read."""
    monkeypatch.setenv("NKI_SIM_CACHE", str(tmp_path / "trees"))
    text = SMALL.read_text()
    right = parse(text, "<text>")
    tree_cache.keep(text, right.tree, right.tokens)
    (place,) = tree_cache.folder().iterdir()
    kept = place.read_bytes()
    _, _, data = kept.partition(b"\n")
    random_ = random.Random(1)
    read = 0
    with watched() as events:
        for number in range(count):
            if number % 2:
                inner = mutated(data, random_)
                damaged = b"%s\n%s" % (tree_cache._head(inner), inner)
            else:
                damaged = mutated(kept, random_)
            with place.open("r+b") as file:
                file.truncate()
                file.write(damaged)
            events.clear()  # of writing it
            found = tree_cache.load(text)
            assert events == []
            if found is not None:
                read += 1
                assert isinstance(found[0], tree.Module) and dump(found[0], places=True)
    assert 0 < read < count / 2  # changed names and places are trees still
    place.write_bytes(damaged)
    parsing._results.clear()
    monkeypatch.setattr(parsing.os.path, "isfile", lambda path: True)
    assert dump(parse(text, "<other>").tree, places=True) == dump(right.tree, places=True)


@pytest.mark.parametrize("count", whole(100, 3_000))
def test_mutated_rows_are_trees_or_nothing(count):
    """Values of rows exchanged, so that most of each is in order."""
    rows = json.loads(tree_data.encode(parse(SMALL.read_text(), "<text>").tree))
    random_ = random.Random(2)
    for _ in range(count):
        changed = [list(row) for row in rows]
        for _ in range(random_.choice((1, 2, 4))):
            row = random_.choice(changed)
            at = random_.randrange(len(row))
            value = random_.choice(
                (random_.randrange(-2, 900), None, "x", [], [1], ["i", "0x1"], True, 0.5, {})
            )
            row[at] = random_.choice((value, random_.choice(random_.choice(changed))))
        try:
            found = tree_data.decode(json.dumps(changed))
        except tree_data.DamagedTree:
            continue
        assert dump(found, places=True)


# --- texts

PIECES = (
    *"()[]{}:;,.@=+-*/%&|^~<>!\\'\"#\n\t \f\0\ufeff",
    *("if ", "else:", "elif ", "while ", "for ", "in ", "def f(", "class ", "lambda ", "return", "yield "),
    *("import ", "from ", "match ", "case ", "with ", "as ", "try:", "except:", "async ", "await ", "not "),
    *(
        "f'{",
        "}'",
        "'''",
        'f"""',
        "rb'",
        "0x",
        "1e",
        "1_",
        "0b2",
        "...",
        "->",
        ":=",
        "**",
        "\\N{",
        "nl.",
        "nisa.",
    ),
    *("π", "ﬁ", "\u202e", "\U0001f600", "\ud800", "\r", "\r\n", "    ", "\n        ", "global x\n", "del "),
)


def mutated_text(text, random_):
    for _ in range(random_.choice((1, 2, 3, 8))):
        at = random_.randrange(len(text) + 1)
        match random_.randrange(5):
            case 0:
                text = text[:at] + random_.choice(PIECES) * random_.choice((1, 1, 1, 30)) + text[at:]
            case 1:
                text = text[:at] + text[at + random_.choice((1, 3, 40)) :]
            case 2:
                other = random_.randrange(len(text) + 1)
                text = text[:at] + text[other : other + 80] + text[at:]
            case 3:
                lines = text.split("\n")
                random_.shuffle(lines[random_.randrange(len(lines)) :][:3])
                lines.insert(random_.randrange(len(lines)), random_.choice(lines))
                text = "\n".join(lines)
            case 4:
                text = text.replace(random_.choice(text.split() or ["x"]), random_.choice(PIECES), 1)
    return text


def reads(text):
    """Whether Python of this version reads `text`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


@pytest.mark.parametrize("count", whole(60, 5_000))
def test_mutated_texts_are_checked(count, tmp_path, monkeypatch):
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    check_text("import nki\n", str(tmp_path / "first.py"))
    random_ = random.Random(3)
    texts = [path.read_text() for path in TEXTS]
    refused = []
    for number in range(count):
        text = mutated_text(random_.choice(texts), random_)
        with watched() as events:
            found = check_text(text, str(tmp_path / "text.py"), random_.choice(("strict", "library")))
        assert events == [], text
        assert not [d for d in found if d.code.startswith("NKI-I")], text
        assert all(d.span is None or d.span.line >= 1 for d in found)
        syntax = [d for d in parse(text, "<text>").diagnostics]
        if syntax and reads(text) and not is_known(text):
            refused.append((number, syntax[0].message))
    assert refused == []


def is_known(text):
    """What Python's parser leaves to its compiler, or which version reads it."""
    try:
        compile(text, "<text>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return True
    return False


# --- real files


def real_files():
    """Python files of the packages installed here and of the standard library, in an order by chance."""
    folders = {Path(sysconfig.get_path("stdlib"))}
    for name in ("numpy", "hypothesis", "mypy", "rich", "selenium", "jax", "torch"):
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations:
            folders.update(map(Path, found.submodule_search_locations))
    files = sorted({path for folder in folders for path in folder.rglob("*.py")})
    random.Random(4).shuffle(files)
    return files


@pytest.mark.parametrize("count", whole(20, 2_500))
def test_real_files_are_read_as_python_reads_them(count, monkeypatch):
    """No valid text is refused, none ends in an exception, and nothing of them runs."""
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    parse("x = 1\n", "<text>")
    refused, seen = [], 0
    for path in real_files():
        if seen == count:
            break
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:  # another encoding
            continue
        if not reads(text) or is_known(text):
            continue
        seen += 1
        with watched() as events:
            found = parse(text, str(path))
        assert events == [], path
        if found.diagnostics:
            refused.append((str(path), found.diagnostics[0].message))
    assert refused == []
    assert seen == count or "slow" not in sys.argv
