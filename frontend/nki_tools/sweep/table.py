"""What a sweep found, as a table: its best rows, and as CSV, JSON, Parquet or a picture."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from nki_isa.diagnostics import error
from nki_sim.words import size, time
from nki_tools.sweep.points import COLUMNS, Row


@dataclass(frozen=True)
class Table:
    """The rows of a sweep, in the order of its points.

    A row is a dict: the values of the point by name, its target, and the figures of
    :data:`nki_tools.sweep.COLUMNS`. ``state`` is ``ok``; ``refused`` for an error of the kernel, which
    ``code``, ``error`` and ``place`` tell; ``failed`` for one of Python; ``passed over`` for a point that
    its bound leaves out.

    Attributes:
        rows: a dict for each point.
        names: the names of the space.
    """

    rows: list[Row]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys of every row."""
        target = () if "target" in self.names else ("target",)
        return (*self.names, *target, *COLUMNS)

    @property
    def varying(self) -> tuple[str, ...]:
        """The names that have several values."""
        return tuple(name for name in self.names if len({row[name] for row in self.rows}) > 1)

    def ranked(self, where: Callable[[Row], object] | None = None, by: str = "time_ns") -> list[Row]:
        """The rows that have a value in column `by` and pass `where`, least first, then in order."""
        known = [row for row in self.rows if row[by] is not None and row["state"] == "ok"]
        return sorted((row for row in known if where is None or where(row)), key=lambda row: row[by])

    def best(self, where: Callable[[Row], object] | None = None, by: str = "time_ns") -> Row | None:
        """The first of :meth:`ranked`; None if there is none."""
        return next(iter(self.ranked(where, by)), None)

    def pareto(self, x: str = "sbuf_bytes", y: str = "time_ns") -> list[Row]:
        """The rows that no other beats in one of two columns without losing in the other; by `x`."""
        front: list[Row] = []
        for row in sorted(self.ranked(by=y), key=lambda row: (row[x], row[y])):
            if not front or row[y] < front[-1][y]:
                front.append(row)
        return front

    def csv(self) -> str:
        """Comma-separated values, with a line of names."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def json(self) -> str:
        """A list of objects."""
        return json.dumps(self.rows, indent=2) + "\n"

    def parquet(self) -> bytes:
        """A Parquet file.

        Raises:
            NkiError: NKI-L034, pyarrow is not installed.
        """
        try:
            arrow: Any = importlib.import_module("pyarrow")
            written: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            help = "pip install 'nki-sim[parquet]'"
            raise error("NKI-L034", "Parquet files need pyarrow, which is not installed", help=help) from None
        columns = {name: _alike([row[name] for row in self.rows]) for name in self.columns}
        file = io.BytesIO()
        written.write_table(arrow.table(columns), file)
        return file.getvalue()

    def svg(self) -> str:
        """Time against SBUF, a dot for each point of each target, the Pareto front of all as a line."""
        return picture(self)

    def write(self, path: str | Path) -> None:
        """Write a file of the kind its name ends in: .csv, .json, .parquet or .svg.

        Raises:
            NkiError: NKI-L032 for another ending; as :meth:`parquet`.
        """
        kinds: dict[str, Callable[[], str | bytes]] = {
            ".csv": self.csv,
            ".json": self.json,
            ".parquet": self.parquet,
            ".svg": self.svg,
        }
        made = kinds.get(Path(path).suffix.lower())
        if made is None:
            help = f"let the name end in {', '.join(kinds)}"
            raise error("NKI-L032", f"a sweep is not written as {str(path)!r}", help=help)
        content = made()
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def _alike(values: Sequence[Any]) -> Sequence[Any]:
    """`values` as one type: as texts where they are of several."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        return values
    return [None if value is None else str(value) for value in values]


# --- a picture

_WIDTH, _HEIGHT, _LEFT, _MARGIN = 720, 420, 90, 40
_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")


def picture(table: Table) -> str:
    """See :meth:`Table.svg`."""
    rows = table.ranked()
    wide = max((row["sbuf_bytes"] for row in rows), default=1) or 1
    high = max((row["time_ns"] for row in rows), default=1.0) or 1.0
    targets = list(dict.fromkeys(row["target"] for row in table.rows))

    def at(row: Row) -> tuple[float, float]:
        x = _LEFT + row["sbuf_bytes"] / wide * (_WIDTH - _LEFT - _MARGIN)
        return x, _HEIGHT - _MARGIN - row["time_ns"] / high * (_HEIGHT - 2 * _MARGIN)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}">',
        "<style>text{font:12px sans-serif;fill:#57606a}</style>",
        f'<path d="M{_LEFT} {_MARGIN}V{_HEIGHT - _MARGIN}H{_WIDTH - _MARGIN}" fill="none" stroke="#57606a"/>',
        f'<text x="4" y="{_MARGIN}">{time(high)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 22}">0</text>',
        f'<text x="{_WIDTH - 2 * _MARGIN}" y="{_HEIGHT - 22}">{size(wide)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">peak of SBUF per partition; upwards simulated time</text>',
    ]
    front = " ".join("{:.1f},{:.1f}".format(*at(row)) for row in table.pareto())
    lines.append(f'<polyline points="{front}" fill="none" stroke="#7f7f7f" stroke-dasharray="4 3"/>')
    for row in rows:
        x, y = at(row)
        point = ", ".join(f"{name} {row[name]}" for name in table.varying)
        title = f"{point}: {time(row['time_ns'])}, {size(row['sbuf_bytes'])}"
        color = _COLORS[targets.index(row["target"]) % len(_COLORS)]
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"><title>{escape(title)}</title></circle>'
        )
    for k, target in enumerate(targets):
        color = _COLORS[k % len(_COLORS)]
        lines.append(f'<circle cx="{_WIDTH - 90}" cy="{_MARGIN + 16 * k}" r="4" fill="{color}"/>')
        lines.append(f'<text x="{_WIDTH - 80}" y="{_MARGIN + 16 * k + 4}">{escape(target)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
