"""Terminal tables: the figures of Profile and Placement, in units that read well."""

import numpy as np
import pytest
from rich.console import Console

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.machine.targets import TRN2
from nki_sim import words
from nki_sim.report.ablation import Ablated
from nki_sim.report.profile import Profile
from nki_sim.report.terminal import ablation_table, launch_line, memory_tables, profile_tables

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's


@nki.jit
def many_tiles(a):
    """Twenty tiles of different sizes, all live to the end."""
    result = nl.ndarray((128, 1), dtype=a.dtype, buffer=nl.shared_hbm)
    tiles = []
    for k in range(20):
        tile = nl.ndarray((128, 128 * (k + 1)), dtype=a.dtype, buffer=nl.sbuf)
        nisa.memset(dst=tile, value=0.0)
        tiles.append(tile)
    for tile in tiles:
        nisa.dma_copy(dst=result, src=tile[:, 0:1])
    return result


@nki.jit
def empty(a):
    return a


def launched(kernel, *arguments):
    with runtime.session(timing=True, data=False, target=TRN2) as session:
        kernel(*arguments)
    return session.launches[0]


def text(*renderables):
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(*renderables, sep="\n")
    return captured.get()


def test_mechanisms_that_cost_nothing_are_dim():
    rows = [Ablated("descriptors", 100.0, saved) for saved in (-1.0, 0.0, 1.0)]
    assert [row.style for row in ablation_table(rows).rows] == [None, "dim", None]
    assert "-1 ns" in text(ablation_table(rows))


@pytest.mark.parametrize(
    "ns, shown",
    [(0, "0 ns"), (999, "999 ns"), (1000, "1.00 us"), (1234567, "1.23 ms"), (5e9, "5.00 s")],
)
def test_times(ns, shown):
    assert words.time(ns) == shown


@pytest.mark.parametrize(
    "octets, shown",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.50 KiB"),
        (3 << 20, "3 MiB"),
        (96 << 30, "96 GiB"),
    ],
)
def test_sizes(octets, shown):
    assert words.size(octets) == shown


def test_a_launch_in_one_line():
    launch = launched(many_tiles, np.ones((128, 4), np.float32))
    assert launch_line(launch.program).plain == "many_tiles(a float32[128, 4]) -> float32[128, 1]  on trn2"
    assert launch_line(launch.program, 1500.0).plain.endswith("on trn2  1.50 us")


def test_memory_lists_the_heaviest_lines_first():
    launch = launched(many_tiles, np.ones((128, 4), np.float32))
    shown = text(*memory_tables(launch.program, launch.placement))
    rows = [line.split() for line in shown.splitlines() if "test_terminal.py" in line or "others" in line]
    assert [row[1:3] for row in rows[:2]] == [["float32[128,", "2560]"], ["float32[128,", "2432]"]]
    assert len(rows) == 13
    assert rows[-1][:2] == ["others", "8"]


def test_the_curve_of_a_memory_has_its_shape():
    """Tiles are filled one after the other, then used one after the other: up, then down."""
    launch = launched(many_tiles, np.ones((128, 4), np.float32))
    shown = text(*memory_tables(launch.program, launch.placement))
    (curve,) = [line.split()[1] for line in shown.splitlines() if "full height" in line]
    assert len(curve) == 40
    heights = [" ▁▂▃▄▅▆▇█".index(cell) for cell in curve]
    top = heights.index(8)
    assert heights[: top + 1] == sorted(heights[: top + 1])
    assert heights[top:] == sorted(heights[top:], reverse=True)


def scoped(count):
    @nki.jit
    def kernel(a):
        result = nl.ndarray((128, 1), dtype=a.dtype, buffer=nl.shared_hbm)
        for k in range(count):
            tile = nl.ndarray((128, 512), dtype=a.dtype, buffer=nl.sbuf, name=f"block{k}/inner/tile")
            nisa.memset(dst=tile, value=0.0)
            nisa.dma_copy(dst=result, src=tile[:, 0:1])
        return result

    launch = launched(kernel, np.ones((128, 4), np.float32))
    shown = text(*memory_tables(launch.program, launch.placement)).splitlines()
    start = next(k for k, line in enumerate(shown) if line.split()[:1] == ["scope"])
    return shown[start + 1 :]


@pytest.mark.parametrize("count, listed, more", [(12, 24, None), (13, 24, 2), (20, 24, 16), (2, 4, None)])
def test_scopes_of_names_are_listed_up_to_24(count, listed, more):
    """Each block is a scope with one inside it."""
    lines = [line for line in scoped(count) if line.strip() and not set(line) <= set(" ─━-")]
    assert [line.split()[:2] for line in lines[:listed:2]] == [[f"block{k}", "1"] for k in range(listed // 2)]
    inner = {line.index("inner") - outer.index("block") for outer, line in zip(lines[::2], lines[1:listed:2])}
    assert inner == {2}
    assert all(line.split()[-2:] == ["2", "KiB"] for line in lines[:listed])
    told = [line.split() for line in lines[listed : listed + 1] if line.split()[:1] == ["and"]]
    assert told == ([["and", str(more), "more"]] if more else [])


def test_memory_of_a_kernel_without_tiles_is_one_table():
    launch = launched(empty, np.ones((128, 4), np.float32))
    tables = memory_tables(launch.program, launch.placement)
    assert len(tables) == 1
    assert "0 B" in text(*tables)


def test_profile_of_a_kernel_without_instructions():
    launch = launched(empty, np.ones((128, 4), np.float32))
    shown = text(*profile_tables(Profile.of(launch.timeline), launch.placement))
    assert "0 transfers" in shown and "no matmuls" in shown


def test_profile_shows_every_engine_and_the_wait_reasons():
    launch = launched(many_tiles, np.ones((128, 4), np.float32))
    profile = Profile.of(launch.timeline)
    shown = text(*profile_tables(profile, launch.placement))
    for name, engine in profile.engines.items():
        row = next(line for line in shown.splitlines() if line.split()[:1] == [name])
        assert row.split()[1] == str(engine.instructions)
        for reason, ns in engine.idle.items():
            assert reason == "done" or f"{reason} {words.time(ns)}" in row
    assert words.time(profile.total) in shown
    assert words.counted(20, "transfer") in shown


def test_notes_of_the_timeline_are_shown():
    @nki.jit
    def counted(a, n):
        count = nisa.register_alloc()
        index = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(dst=index, src=n)
        nisa.register_load(dst=count, src=index)
        tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
        for _ in nl.dynamic_range(0, count):
            nisa.memset(dst=tile, value=0.0)
        return a

    launch = launched(counted, np.ones((128, 4), np.float32), np.ones((1, 1), np.int32))
    assert "note: The loop at" in text(*profile_tables(Profile.of(launch.timeline), launch.placement))
