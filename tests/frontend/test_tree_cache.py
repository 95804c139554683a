"""Trees of unchanged files are kept between runs; whatever happens to what is kept, the tree is right."""

import os
import stat

import pytest

from nki.compiler import parse as parsing
from nki.compiler import tree, tree_cache

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
    return tree.dump(result.tree, places=True), result.tokens, result.diagnostics


def test_an_unchanged_file_is_not_parsed_again(kept, never_parsed):
    first = kept()
    never_parsed()
    assert shown(kept()) == shown(first)


def test_a_changed_file_is(kept):
    kept()
    assert shown(kept("x = 2\n")) != shown(kept("x = 3\n"))


def test_mistakes_are_told_every_time(kept):
    assert len(kept("x = = 1\n").diagnostics) == len(kept("x = = 1\n").diagnostics) == 1


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x05N."])
def test_damage_is_parsed_over(kept, damage):
    first = kept()
    (place,) = tree_cache.folder().iterdir()
    place.write_bytes(damage)
    assert shown(kept()) == shown(first)


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
