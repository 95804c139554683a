"""Addresses a kernel gives: what is accepted, what is refused and where, and stacks of them."""

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_isa.machine.targets import TARGETS, TRN2


@nki.jit
def engine_at(x, partition, byte, partitions):
    result = nl.ndarray((partitions, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((partitions, 64), dtype=nl.float32, buffer=nl.sbuf, address=(partition, byte))
    nisa.dma_copy(dst=tile, src=x[0:partitions])
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def dma_at(x, partition, byte, partitions):
    result = nl.ndarray((partitions, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    tile = nl.ndarray((partitions, 64), dtype=nl.float32, buffer=nl.sbuf, address=(partition, byte))
    nisa.dma_copy(dst=tile, src=x[0:partitions])
    nisa.dma_copy(dst=result, src=tile)
    return result


@nki.jit
def bank_at(x, byte):
    product = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.psum, address=(0, byte))
    nisa.memset(dst=product, value=0.0)
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=product)
    nisa.dma_copy(dst=x, src=tile)
    return x


X = np.arange(128 * 64, dtype=np.float32).reshape(128, 64)


def code_of(kernel, *arguments, target=TRN2):
    """The code a launch is refused with, and the line it names; or what it returns."""
    with runtime.session(target=target):
        try:
            return kernel(*arguments)
        except NkiError as found:
            (diagnostic,) = found.diagnostics
            return diagnostic.code, diagnostic.span.file


@pytest.mark.parametrize("byte", [0, 1, 2, 3, 5, 1000, 4096])
def test_sbuf_takes_any_byte(byte):
    """``nl.tile_size.sbuf_min_align`` is 1."""
    assert np.array_equal(code_of(engine_at, X, 0, byte, 128), 2 * X)


@pytest.mark.parametrize("byte", [2048 * bank for bank in range(8)])
def test_psum_takes_the_start_of_a_bank(byte):
    assert not np.any(code_of(bank_at, X.copy(), byte))


@pytest.mark.parametrize("byte", [1, 4, 512, 2044, 2047, 3000])
def test_psum_refuses_bytes_inside_a_bank(byte):
    assert code_of(bank_at, X.copy(), byte) == ("NKI-M004", __file__)


@pytest.mark.parametrize(
    ("partitions", "starts"), [(32, (0, 32, 64, 96)), (20, (0, 32, 64, 96)), (64, (0, 64)), (33, (0, 64))]
)
def test_engines_start_at_partitions_by_how_many_there_are(partitions, starts):
    for start in range(0, 128 - partitions + 1, 8):
        found = code_of(engine_at, X, start, 0, partitions)
        if start in starts:
            assert np.array_equal(found, 2 * X[:partitions])
        else:
            assert found == ("NKI-V110", __file__)


@pytest.mark.parametrize("start", [0, 1, 17, 50, 63])
def test_dma_starts_at_any_partition(start):
    assert np.array_equal(code_of(dma_at, X, start, 0, 65), X[:65])


def test_partitions_end_with_the_memory():
    assert code_of(dma_at, X, 64, 0, 65) == ("NKI-M004", __file__)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_bytes_end_with_what_a_kernel_may_use(target):
    last = target.sbuf_usable_bytes - 256
    assert np.array_equal(code_of(engine_at, X, 0, last, 128, target=target), 2 * X)
    assert code_of(engine_at, X, 0, last + 1, 128, target=target) == ("NKI-M004", __file__)


# --- a stack of scopes, as kernels of the vendor's library manage SBUF themselves


class Stack(nl.NKIObject):
    """Bytes of a partition handed out upward; a scope gives back what was taken in it."""

    def __init__(self, start):
        self.next = start
        self.scopes = []

    def open(self):
        self.scopes.append(self.next)

    def close(self):
        self.next = self.scopes.pop()

    def tile(self, columns, dtype, name):
        size = columns * 4
        made = nl.ndarray((128, columns), dtype=dtype, buffer=nl.sbuf, name=name, address=(0, self.next))
        self.next = self.next + size
        return made


@nki.jit
def scoped(x):
    result = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    stack = Stack(512)
    total = stack.tile(64, nl.float32, "total")
    nisa.memset(dst=total, value=0.0)
    for k in range(3):
        stack.open()
        tile = stack.tile(64, nl.float32, f"tile{k}")
        nisa.dma_copy(dst=tile, src=x)
        stack.open()
        scratch = stack.tile(64, nl.float32, f"scratch{k}")
        nisa.tensor_scalar(dst=scratch, data=tile, op0=nl.multiply, operand0=2.0)
        nisa.tensor_tensor(dst=total, data1=total, data2=scratch, op=nl.add)
        stack.close()
        stack.close()
    nisa.dma_copy(dst=result, src=total)
    return result


def test_a_stack_of_scopes_reuses_its_bytes():
    with runtime.session(target=TRN2, warnings_as_errors=True) as session:
        assert np.array_equal(scoped(X), 6 * X)
    used = session.launches[0].placement.sbuf
    places = {h.storage.name: h.offset for h in used.holders}
    assert places["total"] == 512
    assert {places[f"tile{k}"] for k in range(3)} == {768}
    assert {places[f"scratch{k}"] for k in range(3)} == {1024}
    assert used.peak == 3 * 256
    assert list(used.shared()) == []
