"""Prints how many tokens per second the front end lexes and parses, over files or the standard library.

Usage: python benchmarks/parse.py [FILE ...]
"""

from __future__ import annotations

import sys
import sysconfig
import time
from pathlib import Path

from nki.compiler.syntax.parse import parse
from nki.compiler.syntax.parser import language

LARGEST = 40


def main(arguments: list[str]) -> None:
    """Time every file once; results are not remembered between files."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = [Path(argument) for argument in arguments]
    files = files or sorted(stdlib.glob("*.py"), key=lambda path: -path.stat().st_size)[:LARGEST]
    begin = time.perf_counter()
    language()
    print(f"tables      {time.perf_counter() - begin:8.3f} s")
    texts = {path: path.read_text(encoding="utf-8") for path in files}

    begin = time.perf_counter()
    for path, text in texts.items():
        language().lexer.tokens(text, str(path))
    lexing = time.perf_counter() - begin

    begin = time.perf_counter()
    tokens = sum(parse(text, str(path)).tokens for path, text in texts.items())
    both = time.perf_counter() - begin
    print(f"tokens      {tokens:8d}   in {len(files)} files")
    print(f"lex         {tokens / lexing:8.0f} tokens/s")
    print(f"lex + parse {tokens / both:8.0f} tokens/s")


if __name__ == "__main__":
    main(sys.argv[1:])
