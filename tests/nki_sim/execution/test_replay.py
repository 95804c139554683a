"""Programs that run again on the same machine give what they give on a new one."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki.compiler import specialize
from nki_isa.machine.targets import TRN2
from nki_isa.ops.matmul import nc_matmul
from nki_sim.cores.device import execute
from nki_sim.execution.replay import Replay, can_replay, is_static, stale_storages
from nki_sim.placement.place import place


@nki.jit
def partial(x, w):
    """Half of a tile is written, all of it is read."""
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[:, 0:32], src=x)
    total = nl.zeros((128, 1), nl.float32)
    for _ in range(w):
        nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.add)
    nisa.tensor_reduce(dst=total, op=nl.add, data=tile, axis=1)
    out = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    sums = nl.ndarray((128, 1), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=sums, src=total)
    return out, sums


@nki.jit
def random(x):
    tile = nl.rand(x.shape, nl.float32)
    acc = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=acc[0:64, 0:64], stationary=tile[:, 0:64], moving=tile[:, 0:64])
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.mark.parametrize("kernel, arguments", [(partial, (3,)), (random, ())])
def test_a_replay_is_a_new_run(kernel, arguments):
    shape = (128, 32) if kernel is partial else (128, 64)
    x = np.ones(shape, np.float32)
    program = specialize(kernel, x, *arguments, target="trn2")
    addresses = place(program, TRN2).addresses
    replay = Replay(program, addresses)
    for turn in range(3):
        inputs = [x * (turn + 1)]
        expected = execute(program, addresses, inputs)
        result = replay(inputs)
        assert result.instructions == expected.instructions
        for a, b in zip(result.outputs, expected.outputs):
            np.testing.assert_array_equal(a, b)


def test_only_what_may_be_left_unwritten_is_cleared():
    x = np.ones((128, 32), np.float32)
    program = specialize(partial, x, 1, target="trn2")
    names = [storage.shape for storage in stale_storages(program)]
    assert names == [(128, 64)]


@nki.jit
def indexed(x, i):
    where = nl.load(i)
    out = nl.ndarray((1, 4), dtype=nl.float32, buffer=nl.shared_hbm)
    register = nisa.register_alloc(where)
    nisa.dma_copy(dst=out, src=x.ap([[4, 1], [1, 4]], scalar_offset=register, indirect_dim=0))
    return out


def test_run_time_indices_are_not_static():
    x, i = np.arange(32, dtype=np.float32).reshape(8, 4), np.array([[3]], np.int32)
    program = specialize(indexed, x, i, target="trn2")
    assert not is_static(program) and can_replay(program)
    assert is_static(specialize(partial, np.ones((128, 32), np.float32), 1, target="trn2"))


@nki.jit
def logarithm(x):
    tile = nl.log(nl.load(x))
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def test_findings_that_depend_on_data_are_made_in_every_run():
    good, bad = np.ones((4, 4), np.float32), np.full((4, 4), -1, np.float32)
    with runtime.session() as session:
        logarithm(good)
        logarithm(good)
        logarithm(bad)
    codes = [[d.code for d in launch.diagnostics] for launch in session.launches]
    assert codes == [[], [], ["NKI-N003", "NKI-N002"]]


@nki.jit
def products(a, b, c, d):
    acc = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=acc, stationary=nl.load(a), moving=nl.load(b))
    nisa.nc_matmul(dst=acc, stationary=nl.load(c), moving=nl.load(d))
    out = nl.ndarray((64, 128), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=nl.copy(acc))
    return out


def test_products_run_on_one_thread_in_every_call(monkeypatch):
    threads = []
    compute = nc_matmul.compute

    def watched(self, *arrays):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return compute(self, *arrays)

    monkeypatch.setattr(nc_matmul, "compute", watched)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((64, n)).astype(np.float16) for n in (64, 128, 64, 128)]
    with threadpool_limits(4, "blas"):
        results = [products(*arrays) for _ in range(4)]
    assert all(np.array_equal(results[0], again) for again in results)
    assert len(threads) >= 4 * 2 and set(threads) == {1}
