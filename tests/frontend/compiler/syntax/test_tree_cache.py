"""Trees of unchanged files are kept between runs; whatever happens to what is kept, the tree is right."""

import json
import os
import stat

import pytest

from nki.compiler.syntax import parse as parsing
from nki.compiler.syntax import tree, tree_cache, tree_data
from nki.compiler.syntax.node import dump

TEXT = "def f(x):\n    return [x, 1.5, 'a', f'{x!r:>4}', None, True, ...]\n"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for trees, and a way to parse as a new process would."""
    monkeypatch.setenv("NKI_SIM_CACHE", str(tmp_path / "trees"))
    file = tmp_path / "kernel.py"

    def read(text=TEXT):
        file.write_text(text)
        parsing._results.clear()
        return parsing.parse(text, str(file))

    return read


@pytest.fixture
def never_parsed(monkeypatch):
    def refuse(*args):
        raise AssertionError("the text was parsed again")

    return lambda: monkeypatch.setattr(parsing, "_parsed", refuse)


def shown(result):
    return dump(result.tree, places=True), result.tokens, result.diagnostics


def test_an_unchanged_file_is_not_parsed_again(kept, never_parsed):
    first = kept()
    never_parsed()
    assert shown(kept()) == shown(first)


def test_a_changed_file_is(kept):
    kept()
    assert shown(kept("x = 2\n")) != shown(kept("x = 3\n"))


def test_mistakes_are_told_every_time(kept):
    assert len(kept("x = = 1\n").diagnostics) == len(kept("x = = 1\n").diagnostics) == 1


@pytest.mark.parametrize(
    "damage", [b"", b"not a tree", b"\x80\x05N.", b"nki-sim tree 1 0\n3\n[]", b"[" * 100_000]
)
def test_damage_is_parsed_over(kept, damage):
    first = kept()
    (place,) = tree_cache.folder().iterdir()
    place.write_bytes(damage)
    assert shown(kept()) == shown(first)
    assert place.read_bytes().startswith(b"nki-sim tree 1 ")  # and replaced


def planted(place, tokens, rows):
    """A file with the checksum of its content."""
    data = b"%d\n%s" % (tokens, json.dumps(rows).encode())
    place.write_bytes(b"%s\n%s" % (tree_cache._head(data), data))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        0,
        None,
        {"0": 1},
        [[]],
        [[999]],
        [[0, 1, 0, 1, 0]],
        [["Module", [], []]],
        [[-1, [], []]],
        [[True]],
        [[[], 1]],
    ],
)
def test_a_planted_file_that_is_not_a_tree_is_parsed_over(kept, rows):
    first = kept()
    (place,) = tree_cache.folder().iterdir()
    planted(place, 3, rows)
    assert shown(kept()) == shown(first)


def test_a_tree_of_shared_parts_is_refused(kept):
    """Small text that would be a tree without end to walk."""
    kind = tree_data._KIND_NUMBERS
    place = [1, 0, 1, 0]
    rows = [[kind[tree.Name], *place, "a", 0]]
    for _ in range(60):
        both = len(tree_data._SYMBOLS) + len(rows) - 1
        rows.append([kind[tree.Tuple], *place, [both, both], 0])
    with pytest.raises(tree_data.DamagedTree, match="two parents"):
        tree_data.decode(json.dumps(rows))


def test_a_tree_nested_too_deeply_is_refused():
    kind, place = tree_data._KIND_NUMBERS, [1, 0, 1, 0]
    rows = [[kind[tree.Name], *place, "a", 0]]
    for _ in range(tree.DEPTH + 10):
        rows.append([kind[tree.Tuple], *place, [len(tree_data._SYMBOLS) + len(rows) - 1], 0])
    with pytest.raises(tree_data.DamagedTree, match="too deeply"):
        tree_data.decode(json.dumps(rows))


def test_every_value_of_a_tree_comes_back():
    text = "\n".join(
        (
            "a = (1, -1, 2_0000000000_0000000000, 1.5, 1e400, 2j, b'\\x00\\xff', '\\ud800', ..., None)",
            "match a:\n    case {'x': [1, *_], **rest} | None if True: pass\n    case C(1, y=2) as z: pass",
            "type A[T: int, *Ts, **P] = int",
            "async def f(a, /, b: int = 1, *c, d=None, **e) -> None:\n    global g\n    await f'{a!r:>{b}}'",
            "try: pass\nexcept* E as e: pass\nelse: pass\nfinally: pass",
            "x[1:2, ::3, ...] += lambda *a: (yield)",
        )
    )
    parsed = parsing.parse(text, "<text>")
    assert parsed.diagnostics == ()
    read = tree_data.decode(tree_data.encode(parsed.tree))
    assert dump(read, places=True) == dump(parsed.tree, places=True)


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
class TestTheFolder:
    """It is the user's alone."""

    def test_is_made_for_the_user_alone(self, kept):
        kept()
        assert stat.S_IMODE(tree_cache.folder().stat().st_mode) == 0o700
        assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in tree_cache.folder().iterdir())

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
    def test_is_not_used_if_others_may_write_to_it(self, kept, mode):
        first = kept()
        (place,) = tree_cache.folder().iterdir()
        before = place.read_bytes()
        tree_cache.folder().chmod(mode)
        assert tree_cache.load(TEXT) is None
        assert shown(kept()) == shown(first)
        kept("x = 12\n")
        assert [p.read_bytes() for p in tree_cache.folder().iterdir()] == [before]  # nor written

    def test_is_not_used_if_it_belongs_to_somebody_else(self, kept, monkeypatch):
        kept()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert tree_cache.load(TEXT) is None
        kept("x = 12\n")
        assert len(list(tree_cache.folder().iterdir())) == 1

    def test_may_be_a_file(self, kept):
        tree_cache.folder().write_text("")
        assert kept().tree is not None

    @pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
    def test_holds_only_files(self, kept, kind, tmp_path):
        first = kept()
        (place,) = tree_cache.folder().iterdir()
        place.rename(tmp_path / "elsewhere")
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to(tmp_path / "elsewhere" if kind == "link" else "/dev/zero")
        assert tree_cache.load(TEXT) is None
        assert shown(kept()) == shown(first)


def test_it_is_bounded(kept, monkeypatch):
    monkeypatch.setattr(tree_cache, "FILES", 3)
    for n in range(8):
        kept(f"x = {n}\n")
        (place,) = [tree_cache.folder() / tree_cache._name(f"x = {n}\n")]
        os.utime(place, (n, n))
    left = sorted(p.name for p in tree_cache.folder().iterdir())
    assert left == sorted(tree_cache._name(f"x = {n}\n") for n in (5, 6, 7))
    monkeypatch.setattr(tree_cache, "BYTES", 0)
    kept("x = 9\n")
    assert list(tree_cache.folder().iterdir()) == []


def test_leftovers_are_removed(kept):
    tree_cache.folder().mkdir(mode=0o700)
    old, fresh = (tree_cache.folder() / f"{name}{tree_cache._LEFTOVER}" for name in ("old", "fresh"))
    stranger = tree_cache.folder() / "of somebody else"
    for path in (old, fresh, stranger):
        path.write_text("")
    os.utime(old, (1, 1))
    os.utime(stranger, (1, 1))
    kept()
    assert not old.exists() and fresh.exists() and stranger.exists()


def test_a_full_disk_leaves_nothing(kept, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert kept().tree is not None
    assert list(tree_cache.folder().iterdir()) == []


def test_deleting_the_folder_is_safe(kept):
    first = kept()
    for place in tree_cache.folder().iterdir():
        place.unlink()
    tree_cache.folder().rmdir()
    assert shown(kept()) == shown(first)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_keeps_nothing(kept):
    tree_cache.folder().mkdir()
    tree_cache.folder().chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert kept().tree is not None
    assert list(tree_cache.folder().iterdir()) == []


def test_it_can_be_turned_off(kept, monkeypatch):
    monkeypatch.setenv("NKI_SIM_CACHE", "off")
    assert tree_cache.folder() is None
    assert kept().tree is not None


def test_another_parser_does_not_read_it(kept, monkeypatch):
    kept()
    monkeypatch.setattr(tree_cache, "_parser_digest", lambda: b"a newer parser")
    assert tree_cache.load(TEXT) is None


def test_only_files_are_kept(kept):
    parsing._results.clear()
    parsing.parse("x = 1\n", "<cell>")
    assert not tree_cache.folder().exists()
