"""The ``nki-sim`` command: compile a kernel, hand it to the machine, show what happened."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _require_own() -> None:
    """End with a clear word where ``import nki`` finds another package: the vendor's has the same name."""
    found = importlib.util.find_spec("nki")
    place = Path(found.origin).parent if found is not None and found.origin else None
    if place is None or not (place / "levels").is_dir():
        print(
            f"nki-sim: `import nki` finds {place}, which is not the nki of nki-sim; the vendor's package "
            "has the same name. Install them in environments of their own, or reinstall nki-sim last: "
            "pip install --force-reinstall --no-deps nki-sim",
            file=sys.stderr,
        )
        raise SystemExit(2)


_require_own()
