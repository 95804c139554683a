"""The values of string and number literals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_SIMPLE = {
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_LENGTHS = {"x": 2, "u": 4, "U": 8}
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|N\{([^}]*)\}|(.))", re.DOTALL
)
_BYTES_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


def number(text: str) -> int | float | complex:
    """The value of a number literal.

    Raises:
        ValueError: an integer has more digits than Python converts.
    """
    text = text.replace("_", "").lower()
    if text[:2] in ("0x", "0o", "0b"):
        return int(text, 0)
    if text.endswith("j"):
        return complex(0, float(text[:-1]))
    if "." in text or "e" in text:
        return float(text)
    return int(text)


def string(text: str) -> str | bytes:
    """The value of a string literal, prefix and quotes included.

    Raises:
        ValueError: an escape is malformed, or a bytes literal holds a character beyond ASCII.
    """
    quote = min(i for i in (text.find("'"), text.find('"')) if i >= 0)
    prefix = text[:quote].lower()
    width = 3 if text[quote : quote + 3] in ("'''", '"""') and len(text) >= quote + 6 else 1
    inner = text[quote + width : -width]
    raw = "r" in prefix
    if "b" not in prefix:
        return inner if raw else unescape(inner)
    if not inner.isascii():
        wrong = next(c for c in inner if not c.isascii())
        raise ValueError(f"a bytes literal holds `{wrong}`, which is not an ASCII character")
    return inner.encode() if raw else _unescape(inner, _BYTES_ESCAPE, _bytes_character).encode("latin-1")


def unescape(text: str) -> str:
    """`text` with the escapes of a string literal replaced by what they stand for.

    Raises:
        ValueError: an escape is malformed.
    """
    return _unescape(text, _ESCAPE, _character)


def _unescape(text: str, escape: re.Pattern[str], character: Callable[[re.Match[str]], str]) -> str:
    return escape.sub(character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    octal, two, four, eight, name, other = found.groups()
    if octal:
        return chr(int(octal, 8))
    if code := two or four or eight:
        if int(code, 16) > 0x10FFFF:
            raise ValueError(f"`{found[0]}` is beyond the last Unicode character, U+10FFFF")
        return chr(int(code, 16))
    if name is not None:
        try:
            return unicodedata.lookup(name)
        except KeyError:
            raise ValueError(f"no Unicode character is named `{name}`") from None
    return _simple(found[0], other, _LENGTHS)


def _bytes_character(found: re.Match[str]) -> str:
    octal, two, other = found.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    return chr(int(two, 16)) if two else _simple(found[0], other, {"x": 2})


def _simple(escape: str, character: str, lengths: dict[str, int]) -> str:
    """An escape of one character; Python keeps the backslash of those it does not know."""
    if character in lengths:
        raise ValueError(f"`{escape}` is not followed by {lengths[character]} hexadecimal digits")
    if character == "N" and "U" in lengths:
        raise ValueError("`\\N` is not followed by the name of a character in braces")
    return _SIMPLE.get(character, escape)
