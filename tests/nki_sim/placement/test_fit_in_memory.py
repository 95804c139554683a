"""Kernels that fit in another order only: what moves, what never does, and that results stay the same."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiMemoryError, Severity
from nki_isa.machine.targets import TRN2
from nki_sim.placement.fit_in_memory import fit
from nki_sim.placement.place import place

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

X = np.arange(128 * 512, dtype=np.float32).reshape(128, 512) % 97 / 16


def sbuf(columns, address=None):
    return nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf, address=address)


def psum():
    return nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)


def result_of(x):
    return nl.ndarray((128, 512), dtype=x.dtype, buffer=nl.shared_hbm)


@nki.jit
def loads_ahead(x, count):
    """`count` tiles of 64 KiB per partition loaded before the first is used; 3 of them fit."""
    result = result_of(x)
    tiles = []
    for k in range(count):
        tile = sbuf(16384)
        nisa.memset(dst=tile, value=float(k))
        nisa.dma_copy(dst=tile[:, 0:512], src=x)
        tiles.append(tile)
    total = sbuf(512)
    nisa.memset(dst=total, value=0.0)
    for k in range(count):
        nisa.tensor_tensor(dst=total, data1=total, data2=tiles[k][:, 0:512], op=nl.add)
        nisa.tensor_tensor(dst=total, data1=total, data2=tiles[k][:, 512:1024], op=nl.multiply)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def copies_out_late(x, count):
    """`count` products of one bank each before the first is copied out; 8 fit."""
    result = result_of(x)
    tile, total = sbuf(512), sbuf(512)
    nisa.dma_copy(dst=tile, src=x)
    products = []
    for _ in range(count):
        product = psum()
        nisa.nc_matmul(dst=product, stationary=tile[:, 0:128], moving=tile)
        products.append(product)
    nisa.memset(dst=total, value=0.0)
    for product in products:
        nisa.tensor_tensor(dst=total, data1=total, data2=product, op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def two_results(x):
    """Two results of two tiles of 88 KiB each, all made first; the first two are of different results."""
    first, second = result_of(x), result_of(x)
    tiles = []
    for k in range(4):
        tile = sbuf(22528)
        nisa.memset(dst=tile, value=float(k))
        tiles.append(tile)
    results = (first, second)
    for k in range(2):
        total = sbuf(512)
        nisa.tensor_tensor(dst=total, data1=tiles[k][:, 0:512], data2=tiles[k + 2][:, 0:512], op=nl.add)
        nisa.dma_copy(dst=results[k], src=total)
    return first, second


@nki.jit
def results_that_share(x):
    """Three blocks, each of a tile of 60 KiB loaded ahead and two results of the same four tiles of 40 KiB.

    A result takes 20 KiB until both are stored.
    """
    outputs = []
    for _ in range(6):
        outputs.append(result_of(x))
    ahead = []
    for block in range(3):
        tile = sbuf(15360)
        nisa.memset(dst=tile, value=float(block + 1))
        ahead.append(tile)
    for block in range(3):
        totals = [sbuf(5120), sbuf(5120)]
        for total in totals:
            nisa.memset(dst=total, value=0.0)
        for k in range(4):
            shared = sbuf(10240)
            nisa.memset(dst=shared, value=float(10 * k))
            for total in totals:
                nisa.tensor_tensor(dst=total, data1=total, data2=shared[:, 0:5120], op=nl.add)
        for total in totals:
            nisa.tensor_tensor(dst=total, data1=total, data2=ahead[block][:, 0:5120], op=nl.add)
        for k in range(2):
            nisa.dma_copy(dst=outputs[2 * block + k], src=totals[k][:, 0:512])
    return outputs


@nki.jit
def in_the_order_stated(x, count):
    """`loads_ahead` with the loads and the uses in one block that must not be reordered."""
    result = result_of(x)
    total = sbuf(512)
    tiles = []
    with nl.no_reorder():
        for k in range(count):
            tile = sbuf(16384)
            nisa.memset(dst=tile, value=float(k))
            tiles.append(tile)
        nisa.memset(dst=total, value=0.0)
        for tile in tiles:
            nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def barrier_between(x):
    """`loads_ahead` with the cores meeting between loads and uses."""
    result = result_of(x)
    tiles = []
    for k in range(4):
        tile = sbuf(16384)
        nisa.memset(dst=tile, value=float(k))
        tiles.append(tile)
    nisa.core_barrier(data=result, cores=(0, 1))
    total = sbuf(512)
    nisa.memset(dst=total, value=0.0)
    for tile in tiles:
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    if nl.program_id(0) == 0:
        nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def inside_a_device_loop(x):
    """`loads_ahead` as the body of a device loop, which moves as a whole."""
    result = result_of(x)
    total = sbuf(512)
    nisa.memset(dst=total, value=0.0)
    for _ in nl.dynamic_range(2):
        tiles = []
        for k in range(4):
            tile = sbuf(16384)
            nisa.memset(dst=tile, value=float(k))
            tiles.append(tile)
        for tile in tiles:
            nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result


@nki.jit
def beside_addresses(x):
    """`loads_ahead` beside two tensors that share bytes by their addresses, one after the other."""
    result, other = result_of(x), result_of(x)
    total = sbuf(512)
    nisa.memset(dst=total, value=0.0)
    fixed = sbuf(16384, address=(0, 0))
    nisa.memset(dst=fixed, value=5.0)
    tiles = []
    for k in range(3):
        tile = sbuf(16384)
        nisa.memset(dst=tile, value=float(k))
        tiles.append(tile)
    nisa.dma_copy(dst=other, src=fixed[:, 0:512])
    again = sbuf(16384, address=(0, 0))
    nisa.memset(dst=again, value=7.0)
    tiles.append(again)
    for tile in tiles:
        nisa.tensor_tensor(dst=total, data1=total, data2=tile[:, 0:512], op=nl.add)
    nisa.dma_copy(dst=result, src=total)
    return result, other


def ran(kernel, *arguments, cores=1):
    """The launch and the outputs, all checks on."""
    with runtime.session(target=TRN2) as session:
        outputs = kernel[cores](X, *arguments)
    return session.launches[-1], outputs


def warned(launch):
    (warning,) = [d for d in launch.diagnostics if d.code == "NKI-M006"]
    assert warning.severity is Severity.warning
    return warning


def test_where_it_fits_as_stated_nothing_moves():
    launch, _ = ran(loads_ahead, 3)
    assert not launch.diagnostics


def test_loads_wait_until_there_is_room():
    launch, out = ran(loads_ahead, 5)
    total = np.zeros_like(X)
    for k in range(5):
        total = (total + X) * k
    np.testing.assert_array_equal(out, total)
    warning = warned(launch)
    assert "fits only because" in warning.message
    assert "322 KiB per partition are live at once, 208 KiB are available" in warning.message
    assert launch.placement.sbuf.peak <= TRN2.sbuf_usable_bytes
    assert f"SBUF {launch.placement.sbuf.peak // 1024} KiB" in warning.notes[0]


def test_without_a_session_the_warning_is_python_s():
    with pytest.warns(RuntimeWarning, match="NKI-M006.*fits only because"):
        loads_ahead(X, 4)


def test_products_are_copied_out_before_the_next_is_computed():
    launch, out = ran(copies_out_late, 12)
    np.testing.assert_allclose(out, 12 * (X[:, :128].T @ X), rtol=1e-5)
    assert "24 KiB per partition are live at once, 16 KiB are available" in warned(launch).message
    assert launch.placement.psum.peak <= 16 * 1024


def test_one_result_after_the_other_where_waiting_leads_nowhere():
    launch, (first, second) = ran(two_results)
    assert (first == 2).all() and (second == 4).all()
    warned(launch)
    assert launch.placement.sbuf.peak <= TRN2.sbuf_usable_bytes


def test_results_stored_together_are_worked_on_together():
    launch, outputs = ran(results_that_share)
    for position, out in enumerate(outputs):
        assert (out == 60 + position // 2 + 1).all()
    warned(launch)
    assert launch.placement.sbuf.peak <= TRN2.sbuf_usable_bytes


@pytest.mark.parametrize(
    "kernel, arguments, cores",
    [(in_the_order_stated, (4,), 1), (barrier_between, (), 2), (inside_a_device_loop, (), 1)],
    ids=lambda value: getattr(getattr(value, "function", None), "__name__", None),
)
def test_what_must_not_move_is_refused_as_before(kernel, arguments, cores):
    with runtime.session(target=TRN2, data=False, spill=False), pytest.raises(NkiMemoryError) as caught:
        kernel[cores](X, *arguments)
    (refusal,) = caught.value.diagnostics
    assert refusal.code == "NKI-M001"
    assert "256" in refusal.message or "258" in refusal.message
    order, spills = refusal.notes[-2:]
    assert "no other order of the instructions that was tried within their dependencies fits either" in order
    assert "not tried, as asked" in spills


def test_a_loop_on_the_device_that_holds_too_much_is_refused_with_spills_too():
    with runtime.session(target=TRN2, data=False), pytest.raises(NkiMemoryError) as caught:
        inside_a_device_loop(X)
    assert "one loop on the device needs at once" in caught.value.diagnostics[0].notes[-1]


def test_addresses_stay_and_their_users_keep_their_order():
    launch, (total, other) = ran(beside_addresses)
    assert (total == 0 + 1 + 2 + 7).all() and (other == 5).all()
    fixed = [s for s in launch.program.storages if s.address is not None]
    assert [launch.placement.addresses[s.index] for s in fixed] == [(0, 0), (0, 0)]


def test_the_same_order_every_time():
    runs = [ran(loads_ahead, count)[0] for count in (5, 6, 5)]
    first, _, again = ([i.opcode for i in launch.program.walk()] for launch in runs)
    assert first == again and len(runs[1].program.body) > len(runs[0].program.body)


def test_a_tensor_too_large_alone_is_refused_as_before():
    @nki.jit
    def kernel(x):
        wide = sbuf(53248 + 128)
        nisa.memset(dst=wide, value=0.0)
        return x

    with runtime.session(target=TRN2, data=False), pytest.raises(NkiMemoryError, match="NKI-M003"):
        kernel(X)


def test_fit_leaves_the_program_as_it_was():
    with runtime.session(target=TRN2, data=False) as session:
        loads_ahead(X, 3)
    program = session.launches[-1].program
    fitted = fit(program, TRN2)
    assert fitted.program is program and not fitted.diagnostics
    assert fitted.placement.addresses == place(program, TRN2).addresses
