"""Readers and writers, scopes, and what to shrink, on kernels whose answers are known."""

import json

import numpy as np
import pytest
from rich.console import Console

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.machine.targets import TRN2
from nki_sim.report.facts import capacities
from nki_sim.report.terminal import memory_tables
from nki_sim.report.usage import Uses, memory_report, savings, scopes_by_call, scopes_by_name

KIB = 1024


def load(x, name):
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name=name)
    nisa.dma_copy(dst=tile, src=x)
    return tile


@nki.jit
def layered(x):
    """32 KiB of weights held from the start; four tiles of 2 KiB at once; a product in PSUM."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    weights = nl.ndarray((128, 16384), dtype=nl.bfloat16, buffer=nl.sbuf, name="model/weights")
    nisa.memset(dst=weights, value=0.0)
    tiles = []
    for k in range(4):
        tiles.append(load(x, f"model/tiles/t{k}"))
    total = load(x, "total")
    for tile in tiles:
        nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, name="product")
    nisa.nc_matmul(dst=product, stationary=weights[:, 0:128], moving=weights[:, 0:512])
    nisa.tensor_tensor(dst=total, data1=total, data2=product, op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def stacked(x):
    """A stack of addresses: the inner scope reuses bytes; one pair overlaps while both are live."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    outer = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="outer", address=(0, 0))
    first = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="first", address=(0, 2048))
    nisa.dma_copy(dst=outer, src=x)
    nisa.tensor_copy(dst=first, src=outer)
    nisa.tensor_copy(dst=outer, src=first)
    second = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="second", address=(0, 2048))
    clash = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="clash", address=(0, 3072))
    nisa.tensor_copy(dst=second, src=outer)
    nisa.tensor_copy(dst=clash, src=second)
    nisa.dma_copy(dst=result, src=clash)
    return result


def launched(kernel):
    with runtime.session(data=False, target=TRN2, check="none") as session:
        kernel(np.ones((128, 512), np.float32))
    return session.launches[0]


@pytest.fixture(scope="module")
def layers():
    return launched(layered)


def holder(launch, name):
    return next(h for h in launch.placement.sbuf.holders if h.storage.name == name)


def test_readers_and_writers_by_line(layers):
    uses = Uses(layers.program)
    found = [
        (uses.sites[use.site][0], use.writes, use.count, use.first)
        for use in uses.of(holder(layers, "total").storage)
    ]
    assert found == [
        ("dma_copy", True, 1, 5),
        ("tensor_tensor", False, 4, 6),
        ("tensor_tensor", True, 4, 6),
        ("tensor_tensor", False, 1, 11),
        ("tensor_tensor", True, 1, 11),
        ("dma_copy", False, 1, 12),
    ]
    weights = holder(layers, "model/weights").storage
    assert uses.around(weights, 5) == (0, 10)
    assert uses.around(weights, 12) == (10, -1)


def test_scopes_of_names_and_of_calls(layers):
    used = layers.placement.sbuf
    assert used.peak == 42 * KIB
    (model,) = scopes_by_name(used.live).inside.values()
    assert (model.label, len(model.holders), model.held(used)) == ("model", 5, (40 * KIB, 40 * KIB))
    assert [(s.label, s.held(used)) for s in model.inside.values()] == [("tiles", (8 * KIB, 8 * KIB))]
    (kernel,) = scopes_by_call(used.live).inside.values()
    assert kernel.label == "layered"
    called = kernel.inside["load"]
    assert called.held(used) == (10 * KIB, 10 * KIB)
    assert len(called.inside) == 1


def test_what_to_shrink_first_lowers_the_peak_most(layers):
    used = layers.placement.sbuf
    found = savings(used, Uses(layers.program))
    weights, tiles = found[0], found[1]
    assert [h.storage.name for h in weights.holders] == ["model/weights"]
    assert (weights.together, weights.without, weights.halved) == (32 * KIB, 32 * KIB, 16 * KIB)
    assert weights.advice.startswith("nothing touches model/weights from instruction 0 to 10")
    assert len(tiles.holders) == 5  # the total is loaded on the same line
    assert (tiles.without, tiles.halved) == (10 * KIB, 5 * KIB)


def test_the_peak_without_a_line_is_the_peak_of_a_kernel_without_it(layers):
    """Every saving against counting the live bytes of the others position by position."""
    used = layers.placement.sbuf
    for saving in savings(used, Uses(layers.program)):
        line = saving.holders[0].storage.stack[-1].span
        rest = [h for h in used.live if h.storage.stack[-1].span != line]
        held = [
            sum(h.storage.row_bytes for h in rest if h.first <= p <= h.last) for p in range(len(used.usage))
        ]
        assert used.peak - saving.without == max(held)


@nki.jit
def looped(x):
    """Each turn loads 4 KiB; no two turns' tiles live at once."""
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=total, value=0.0)
    for _ in range(5):
        tile = nl.ndarray((128, 1024), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:512], src=x)
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


def test_a_line_counts_with_all_turns_of_its_loop():
    launch = launched(looped)
    tile, total = savings(launch.placement.sbuf, Uses(launch.program))
    assert (len(tile.holders), tile.together, tile.without, tile.halved) == (1, 4 * KIB, 4 * KIB, 2 * KIB)
    assert (total.together, total.without) == (2 * KIB, 2 * KIB)


def test_what_nobody_reads_is_left_out():
    @nki.jit
    def kernel(x):
        result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        tile, lost = load(x, "tile"), nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="lost")
        nisa.memset(dst=lost, value=0.0)
        for _ in range(2):
            turn = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
            nisa.memset(dst=turn, value=0.0)
            nisa.memset(dst=lost, value=1.0)
        nisa.dma_copy(dst=result, src=tile)
        return result

    launch = launched(kernel)
    found = savings(launch.placement.sbuf, Uses(launch.program))
    advice = {saving.holders[0].storage.name: saving.advice for saving in found}
    assert advice["lost"] == "nothing reads it: leave out what writes it"


def test_capacities_in_words(layers):
    found = {figure: words for figure, *words in capacities(layers.placement)}
    assert found["SBUF peak"] == ["42 KiB", "20.2 % of 208 KiB per partition, at instruction 5"]
    assert found["SBUF free then"][0] == "166 KiB"
    assert found["PSUM peak"] == ["2 KiB", "12.5 % of 16 KiB per partition, at instruction 10"]
    assert found["PSUM banks"] == ["1", "of 8 at most at once"]
    assert "SBUF banks" not in found


def test_a_stack_of_addresses_reuses_bytes_and_overlaps_are_named():
    launch = launched(stacked)
    used = launch.placement.sbuf
    assert used.usage.tolist() == [2048, 4096, 4096, 4096, 3072, 2048]
    assert [(a.storage.name, b.storage.name) for a, b in used.shared()] == [("second", "clash")]
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(*memory_tables(launch.program, launch.placement), sep="\n")
    shown = captured.get()
    (line,) = [line for line in shown.splitlines() if line.startswith("second, live")]
    assert line.count("test_usage.py:") == 2


def test_the_report_is_json_and_complete(layers):
    report = json.loads(json.dumps(memory_report(layers.program, layers.placement)))
    sbuf, psum = report["sbuf"], report["psum"]
    assert [row["name"] for row in sbuf["allocations"]] == [
        h.storage.name for h in layers.placement.sbuf.holders
    ]
    assert {use["opcode"] for use in sbuf["allocations"][0]["used_by"]} == {"memset", "nc_matmul"}
    assert sbuf["peak_kib"] == 42
    assert sbuf["free_at_peak_kib"] == 208 - 42
    assert 0 < sbuf["largest_free_piece_at_peak_kib"] <= 208 - 42
    assert (psum["banks_at_peak"], psum["most_banks"]) == (1, 1)
    assert [p["banks"] for p in psum["timeline"]] == [0] * 10 + [1, 1, 0]
    first = sbuf["shrink_first"][0]
    assert (first["kib"], first["saves_kib"], first["halved_saves_kib"]) == (32, 32, 16)
    assert first["names"] == ["model/weights"]
    tiles = {"label": "tiles", "tensors": 4, "at_peak_kib": 8, "own_peak_kib": 8, "inside": []}
    model = {"label": "model", "tensors": 5, "at_peak_kib": 40, "own_peak_kib": 40, "inside": [tiles]}
    assert sbuf["scopes"]["by_name"] == [model]
