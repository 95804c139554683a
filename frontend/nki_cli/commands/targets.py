"""``nki-sim targets``: every figure of every generation, and how it is known."""

from __future__ import annotations

from rich import box
from rich.table import Table

from nki_cli.figures import sources, unit
from nki_cli.options import ColorOption, DataFormat, DataFormatOption, TargetOption, read_target
from nki_cli.screen import Format, Screen
from nki_isa.machine.target import FIGURES, Feature, Figure, Target
from nki_isa.machine.targets import TARGETS
from nki_isa.machine.topologies import TOPOLOGIES, Topology
from nki_sim.words import size


def targets(
    target: TargetOption = None,
    format: DataFormatOption = DataFormat.text,
    no_color: ColorOption = False,
) -> None:
    """List hardware parameters with sources: published (p), measured (m), fitted (f) or assumed (a)."""
    screen = Screen.open(Format(format.value), no_color)
    shown = [read_target(target, screen)] if target else list(TARGETS.values())
    if screen.format is Format.json:
        screen.json(
            {
                t.name: {f: _as_dict(t, f) for f in FIGURES}
                | {"features": _named(t), "machines": {m.name: _of(m) for m in topologies_of(t)}}
                for t in shown
            }
        )
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for t in shown:
        table.add_column(t.name, justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for figure in FIGURES:
        cells = [f"{_shown(t, figure)} {t.source(figure).evidence.value[0]}" for t in shown]
        table.add_row(figure, "" if unit(figure) == "bytes" else unit(figure), *cells, sources(figure, shown))
    letters = "p published, m measured, f fitted to measurements, a assumed"
    screen.show(letters, "", table, "", _features(shown), "", _machines(shown))


def _features(shown: list[Target]) -> Table:
    """What the generations can do, and which of them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("feature", no_wrap=True)
    for t in shown:
        table.add_column(t.name, justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for feature in Feature:
        table.add_row(feature.name, *("yes" if feature in t.features else "" for t in shown), feature.value)
    return table


def topologies_of(target: Target) -> list[Topology]:
    """The machines of a generation, by how many ranks they have."""
    return [topology for topology in TOPOLOGIES if topology.target == target.name]


def shape(topology: Topology) -> str:
    """How the chips of a machine are connected."""
    if topology.chips == 1:
        return "one chip"
    if topology.switched:
        servers = topology.grid[0]
        chips = f"{topology.grid[1]} chips behind a switch"
        return f"{servers} servers of {chips}" if servers > 1 else chips
    sizes = " x ".join(map(str, topology.grid))
    kind = ("chain", "ring")[topology.closed] if len(topology.grid) == 1 else f"{len(topology.grid)}-D torus"
    return f"{sizes} chips in a {kind}"


def rates(topology: Topology) -> dict[str, Figure]:
    """What the links of a machine carry, by which they are."""
    names = ["to chips of the server", "to other servers"] if topology.switched else ["a link"]
    if len(topology.grid) == 3:
        names = ["a link between servers", "a link in a server"]
    found = dict(zip(names, topology.rates, strict=False))
    return found | ({"the network, for a chip": topology.network} if topology.network else {})


def _machines(shown: list[Target]) -> Table:
    """The machines that ranks run on: their shape, and what links carry; the JSON form has the sources."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("machine", no_wrap=True)
    table.add_column("ranks", justify="right", no_wrap=True)
    table.add_column("chips", no_wrap=True)
    table.add_column("GB/s of one direction", overflow="fold")
    for target in shown:
        for topology in topologies_of(target):
            figures = "; ".join(
                f"{name} {f.value:g} {f.source.evidence.value[0]}" for name, f in rates(topology).items()
            )
            table.add_row(topology.name, str(topology.ranks), shape(topology), figures)
    return table


def _of(topology: Topology) -> dict[str, object]:
    figures = {
        name: {
            "value": f.value,
            "unit": "GB/s",
            "evidence": f.source.evidence.value,
            "source": f.source.reference,
        }
        for name, f in rates(topology).items()
    }
    return {"ranks": topology.ranks, "chips": topology.chips, "shape": shape(topology), "links": figures}


def _shown(target: Target, figure: str) -> str:
    value = getattr(target, figure)
    return size(value) if unit(figure) == "bytes" else f"{value:.6g}"


def _named(target: Target) -> list[str]:
    return [feature.name for feature in Feature if feature in target.features]


def _as_dict(target: Target, figure: str) -> dict[str, object]:
    source = target.source(figure)
    return {
        "value": getattr(target, figure),
        "unit": unit(figure),
        "evidence": source.evidence.value,
        "source": source.reference,
    }
