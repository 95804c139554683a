"""Writes the printed pages into a folder: ``python -m nki_cli.docs docs``."""

import sys
from pathlib import Path

from nki_cli.docs.printed import write

if __name__ == "__main__":
    write(Path(sys.argv[1]))
