"""Overflow errors as a person sees them: needed, available, who holds it, the line that tipped it."""

from pathlib import Path

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki.rendering import plain
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.machine.targets import TARGETS, TRN1, TRN2
from nki_sim.placement.refusals import host_overflow


@nki.jit
def keeps_everything(x):
    result = nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    weights = nl.ndarray((128, 16384), dtype=nl.float32, buffer=nl.sbuf, name="weights", address=(0, 0))
    nisa.memset(dst=weights, value=1.0)
    tiles = []
    for k in range(6):
        tile = nl.ndarray((128, 8192), dtype=nl.float32, buffer=nl.sbuf, name=f"tile{k}")
        nisa.dma_copy(dst=tile[:, 0:512], src=x)
        tiles.append(tile)
    total = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name="total")
    nisa.tensor_copy(dst=total, src=weights[:, 0:512])
    for tile in tiles + tiles:  # the second time waits for the first, so that no order holds less
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def opens_nine_products(x):
    tile = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.memset(dst=tile, value=1.0)
    products = []
    for _ in range(9):
        product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile)
        products.append(product)
    for product in products:
        nisa.tensor_copy(dst=tile, src=product)
    return x


def refused(kernel, target):
    with runtime.session(target=target, data=False, spill=False), pytest.raises(NkiMemoryError) as caught:
        kernel(np.ones((128, 512), np.float32))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def shown(kernel, target):
    return plain([refused(kernel, target)]).replace(__file__, "kernel.py")


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_sbuf_overflow(target, snapshot):
    assert shown(keeps_everything, target) == snapshot


def test_psum_overflow(snapshot):
    assert shown(opens_nine_products, TRN2) == snapshot


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_an_overflow_names_what_is_needed_and_available_and_why(target):
    text = shown(keeps_everything, target)
    usable, whole = target.sbuf_usable_bytes >> 10, target.sbuf_partition_bytes >> 10
    assert f"258 KiB per partition are live at once, {usable} KiB are available on {target.name}" in text
    assert f"{whole} KiB per partition" in text
    for figure in ("sbuf_partition_bytes", "sbuf_usable_bytes"):
        assert target.source(figure).reference in text
    for other in TARGETS.values():
        assert f"{other.name} {other.sbuf_usable_bytes >> 10} KiB" in text or other is target


def test_hbm_overflow():
    """All tensors, the largest, and what the device has."""

    @nki.jit
    def kernel(x):
        for gib in (64, 40):
            large = nl.ndarray((gib, 1 << 28), dtype=nl.float32, buffer=nl.private_hbm, name=f"of{gib}")
            nisa.dma_copy(dst=large[0:1, 0:512], src=x[0:1])
        return x

    found = refused(kernel, TRN2)
    assert found.code == "NKI-M003"
    assert "take 104.0 GiB, of64 float32[64, 268435456] alone 64.0 GiB; trn2 has 96 GiB" in found.message


@pytest.mark.parametrize("own", [True, False])
def test_what_does_not_fit_into_the_machine_that_runs_it(own):
    """The line of the largest tensor in HBM that the kernel allocates; the largest of all in the notes."""

    @nki.jit
    def kernel(x):
        small = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
        if own:
            large = nl.ndarray((128, 2048), dtype=nl.float32, buffer=nl.private_hbm, name="large")
            nisa.dma_copy(dst=large[:, 0:512], src=x)
        tile = nl.ndarray((128, 65536 // 4), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile[:, 0:512], src=x)
        nisa.dma_copy(dst=small, src=tile[:, 0:512])
        return small

    with runtime.session(target=TRN2, data=False, check="none") as session:
        kernel(np.ones((128, 512), np.float32))
    (found,) = host_overflow(session.launches[0].program, 3 << 30, 1 << 20).diagnostics
    assert found.code == "NKI-M008"
    assert "running kernel takes 3 GiB of the memory of this machine, which has 1 MiB left" in found.message
    line = Path(__file__).read_text().splitlines()[found.span.line - 1]
    assert ("large = " if own else "small = ") in line
    sizes = [note.split(":")[0] for note in found.notes]
    assert sizes == (["1 MiB"] if own else []) + ["256 KiB", "256 KiB"]


def test_the_tensor_that_tipped_it_is_the_first_beyond_what_is_available():
    """64 KiB of weights and tiles of 32 KiB: the fourth is too many for 176 KiB (trn1), the fifth for 208."""
    for target, name in ((TRN1, "tile3"), (TRN2, "tile4")):
        (note,) = [note for note in refused(keeps_everything, target).notes if "tipped it" in note]
        assert note.startswith(f"{name} float32[128, 8192]")
