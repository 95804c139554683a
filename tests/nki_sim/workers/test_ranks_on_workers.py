"""Launches over ranks on workers: the bits, times and findings of one process; workers that are lost.

Most tests hold their workers in this process; the last ones start a scheduler and workers of Dask.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiError
from nki_sim.workers.clusters import Lost
from nki_sim.workers.shard import Shard
from nki_tools import sweep

pytestmark = pytest.mark.filterwarnings("ignore::nki.uncaught.NkiWarning")


class Workers:
    """A cluster in this process.

    Args:
        count: of workers.
        dies: orders after which a worker is gone, counted over all.
    """

    def __init__(self, count, dies=()):
        self.alive = list(range(count))
        self.made, self.orders, self.dies, self.holding = count, 0, set(dies), 0

    def workers(self):
        return self.alive

    def hold(self, worker):
        return Held(self, worker)


class Held:
    def __init__(self, cluster, where):
        self.cluster, self.where, self.shard = cluster, where, Shard()
        cluster.holding += 1

    def do(self, orders):
        self.cluster.orders += 1
        if self.cluster.orders in self.cluster.dies:
            self.cluster.alive.remove(self.where)
            self.cluster.alive.append(self.cluster.made)
            self.cluster.made += 1
        gone = self.where not in self.cluster.alive
        answer = b"" if gone else self.shard.do(orders)

        def ask():
            if gone:
                raise Lost("the worker ended")
            return answer

        return ask

    def release(self):
        self.cluster.holding -= 1


@nki.jit
def kernel(x, groups, halves, turns):
    """Gathers, then reduces in groups of neighbours, again and again; the cores of a rank share the work."""
    core, cores = nl.program_id(0), nl.num_programs(0)
    rows = nl.ds(core * (x.shape[0] // cores), x.shape[0] // cores)
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    gathered = nl.ndarray((4 * x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm, name="gathered")
    reduced = nl.ndarray(gathered.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="reduced")
    nisa.dma_copy(dst=sent[rows], src=x[rows])
    for _ in range(turns):
        ncc.all_gather([sent], [gathered], groups, collective_dim=0)
        ncc.all_reduce([gathered], [reduced], halves, op=nl.add)
        tile = nl.ndarray((x.shape[0] // cores, x.shape[1]), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=reduced[rows])
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=0.3)
        nisa.dma_copy(dst=sent[rows], src=tile)
    nisa.dma_copy(dst=out[rows], src=sent[rows])
    return out


PARTS = np.random.default_rng(0).standard_normal((4, 32, 16), np.float32)
GROUPS = ncc.ReplicaGroup([[0, 1, 2, 3]])
HALVES = ncc.ReplicaGroup([[0, 3], [1, 2]])


def launched(workers=None, restarts=0, turns=2, cores=2, function=kernel):
    """Results, timelines and findings of a launch on four ranks."""
    with runtime.session(timing=True, workers=workers, restarts=restarts) as record:
        results = nki.simulate(function, ranks=4)[cores](lambda rank: (PARTS[rank], GROUPS, HALVES, turns))
    (launch,) = record.launches
    times = [core.timeline.format() for core in launch.cores]
    return [np.asarray(one).tobytes() for one in results], times, launch.diagnostics


@pytest.fixture(scope="module")
def here():
    return launched()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_bits_times_and_findings_are_those_of_one_process(here, count):
    assert launched(Workers(count)) == here


def test_instructions_of_timelines_are_those_of_the_programs():
    with runtime.session(timing=True, workers=Workers(2)) as record:
        nki.simulate(kernel, ranks=4)(lambda rank: (PARTS[rank], GROUPS, HALVES, 1))
    for core in record.launches[0].cores:
        assert {id(i) for i in core.timeline.instructions} <= {id(i) for i in core.program.walk()}


def test_arguments_that_are_written_change_on_workers_too():
    @nki.jit
    def doubled(x, groups):
        held = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="held")
        total = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="total")
        nisa.dma_copy(dst=held, src=x)
        ncc.all_reduce([held], [total], groups, op=nl.add)
        nisa.dma_copy(dst=x, src=total)
        return x

    arrays = [part.copy() for part in PARTS[:2]]
    with runtime.session(workers=Workers(2)):
        nki.simulate(doubled, ranks=2)(lambda rank: (arrays[rank], ncc.ReplicaGroup([[0, 1]])))
    np.testing.assert_array_equal(arrays[0], PARTS[0] + PARTS[1])
    np.testing.assert_array_equal(arrays[1], arrays[0])


@nki.jit
def unwritten(x, groups, halves, turns):
    """Sends a tile of which half was never written: what the checks say takes another run of all ranks."""
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    total = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="total")
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=tile[:, 0:8], src=x[:, 0:8])
    nisa.dma_copy(dst=sent, src=tile)
    ncc.all_reduce([sent], [total], groups, op=nl.add)
    columns = 16 if turns > 1 else 8
    nisa.dma_copy(dst=out[:, 0:columns], src=total[:, 0:columns])
    nisa.dma_copy(dst=out[:, 8:16], src=x[:, 8:16])
    return out


@pytest.mark.parametrize(("turns", "count"), [(1, 4), (2, 2)])
def test_what_checks_find_by_running_again_is_the_same(turns, count):
    ways = []
    for workers in (None, Workers(count)):
        try:
            ways.append(launched(workers, turns=turns, cores=1, function=unwritten))
        except NkiError as refused:
            ways.append([(d.code, d.message, d.span) for d in refused.diagnostics])
    assert ways[0] == ways[1]


@nki.jit
def ragged(x, groups, halves, turns):
    """Sends each rank as many elements as the data say; the second half of it is prepared before."""
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray((4 * x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray((3, 4), dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
    out = nl.ndarray(received.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    number = nl.ndarray((1, 12), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.memset(dst=number, value=turns)
    nisa.dma_copy(dst=counts.reshape((1, 12)), src=number)
    nisa.dma_copy(dst=sent, src=x)
    for k in range(4):
        nisa.dma_copy(dst=received[nl.ds(32 * k, 32)], src=x)
    prepared = ncc.all_to_all_v_prepare([sent], [received], groups, counts, False, False)
    ncc.all_to_all_v_trigger(prepared)
    ncc.all_to_all_v([sent], [received], groups, counts, False, False)
    nisa.dma_copy(dst=out, src=received)
    return out


def test_collectives_of_sizes_that_the_data_say():
    assert launched(Workers(3), turns=5, function=ragged) == launched(turns=5, function=ragged)


def test_a_deadlock_names_the_same_ranks():
    ways = []
    for workers in (None, Workers(3)):
        with pytest.raises(NkiError) as refused, runtime.session(workers=workers):
            nki.simulate(kernel, ranks=4)(lambda rank: (PARTS[rank], GROUPS, HALVES, 1 + rank // 3))
        ways.append([(d.code, d.message, d.span) for d in refused.value.diagnostics])
    assert ways[0] == ways[1] and ways[0][0][0] == "NKI-H020"


def test_what_a_rank_refuses_ends_the_launch():
    @nki.jit
    def outside(x, index, groups):
        at = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.dma_copy(dst=at, src=index)
        row = nl.ndarray((1, 16), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=row, src=x.ap(pattern=[[16, 1], [1, 16]], scalar_offset=at, indirect_dim=0))
        out = nl.ndarray((1, 16), dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out, src=row)
        return out

    ways = []
    for workers in (None, Workers(2)):
        with pytest.raises(NkiError) as refused, runtime.session(workers=workers):
            nki.simulate(outside, ranks=2)(
                lambda rank: (PARTS[rank], np.full((1, 1), 99 * rank, np.int32), GROUPS)
            )
        ways.append([(d.code, d.message, d.span) for d in refused.value.diagnostics])
    assert ways[0] == ways[1]


# --- workers that are lost


def test_a_lost_worker_is_an_error_that_names_its_ranks():
    cluster = Workers(2, dies=[6])
    with pytest.raises(NkiError) as lost:
        launched(cluster)
    (told,) = lost.value.diagnostics
    assert told.code == "NKI-L058" and "ranks 2 and 3 of the launch are lost: the worker 1" in told.message
    assert not cluster.holding
    assert "restarts=1" in told.help and told.notes[0].startswith("last met in all_")
    assert told.span.file == __file__


def test_a_lost_worker_is_replaced_at_any_time():
    expected, calm = launched(turns=1, cores=1), Workers(2)
    assert launched(calm, turns=1, cores=1) == expected
    for moment in range(1, calm.orders + 1, 2):
        cluster = Workers(2, dies=[moment])
        assert launched(cluster, restarts=1, turns=1, cores=1) == expected, moment
        assert cluster.made == 3 and not cluster.holding


def test_losses_beyond_the_restarts_end_the_launch(here):
    assert launched(Workers(2, dies=[3, 8]), restarts=2) == here
    with pytest.raises(NkiError, match="NKI-L058"):
        launched(Workers(2, dies=[3, 8]), restarts=1)


def test_a_cluster_without_workers_is_an_error():
    with pytest.raises(NkiError, match="NKI-L058"):
        launched(Workers(0))


@pytest.mark.parametrize("value", ["slurm", 3, "tcp://127.0.0.1:1"])
def test_what_is_no_cluster_is_refused(value):
    with pytest.raises(NkiError) as refused:
        launched(value)
    assert refused.value.diagnostics[0].code == "NKI-L032"


# --- a cluster of processes


def required(module):
    """The module; the test is skipped without it, unless the variable NKI_SIM_CLUSTER says ``required``."""
    if os.environ.get("NKI_SIM_CLUSTER") == "required":
        return __import__(module)
    return pytest.importorskip(module, reason="needs Dask: pip install 'nki-sim[dask]'")


class Dask:
    """A scheduler and workers of Dask on loopback, each a process of its own."""

    def __init__(self, folder, count):
        self._where = str(folder / "scheduler.json")
        self._started = [self._start("scheduler", "--port", "0")]
        self.workers, self.seen = {}, set()
        distributed = required("distributed")
        until = time.monotonic() + 120
        while not os.path.exists(self._where) and time.monotonic() < until:
            time.sleep(0.05)
        self.client = distributed.Client(scheduler_file=self._where)
        for _ in range(count):
            self.add()

    def _start(self, what, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", self._where]
        loopback = ("--host", "127.0.0.1", "--no-dashboard")
        return subprocess.Popen([*command, *loopback, *options], stderr=subprocess.DEVNULL)

    def add(self):
        """Another worker."""
        process = self._start("worker", "--no-nanny", "--nthreads", "1")
        self._started.append(process)
        (address,) = self._wait(lambda there: there - self.seen)
        self.seen.add(address)
        self.workers[address] = process

    def _wait(self, wanted):
        """What `wanted` gives for the addresses of the workers, as soon as it is something."""
        until = time.monotonic() + 120
        while not (found := wanted(set(self.client.nthreads()))):
            assert time.monotonic() < until, "the workers of the cluster do not change"
            time.sleep(0.05)
        return found

    def restore(self, count):
        """As many workers as that, when those killed are forgotten."""
        self._wait(lambda there: there == set(self.workers))
        while len(self.workers) < count:
            self.add()

    def kill(self, address):
        """End a worker at once."""
        self.workers.pop(address).send_signal(signal.SIGKILL)

    def close(self):
        self.client.close()
        for process in reversed(self._started):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    required("distributed")
    cluster = Dask(tmp_path_factory.mktemp("dask"), 2)
    yield cluster
    cluster.close()


@pytest.fixture
def killing(dask, monkeypatch):
    """Kills the worker of the first ranks when the launch goes on for the fourth time."""
    from nki_sim.workers.launch import _Team

    go, turns = _Team._go, []

    def counted(team, cores):
        turns.append(1)
        if len(turns) == 4:
            dask.kill(team.shards[0].held.where)
        go(team, cores)

    monkeypatch.setattr(_Team, "_go", counted)
    yield
    dask.restore(2)


def test_processes_give_the_bits_and_times_of_one(here, dask, monkeypatch):
    assert launched(dask.client) == here
    assert launched("dask") == here
    monkeypatch.setenv("NKI_SIM_WORKERS", dask.client.scheduler.address)
    assert launched() == here


def test_a_killed_process_ends_the_launch(dask, killing):
    with pytest.raises(NkiError) as lost:
        launched(dask.client)
    assert "ranks 0 and 1 of the launch are lost: the worker tcp://127.0.0.1:" in str(lost.value)


def test_a_killed_process_is_replaced(here, dask, killing):
    assert launched(dask.client, restarts=1) == here
    assert len(dask.workers) == 1


def test_a_sweep_on_processes_of_a_cluster_gives_the_same_rows(dask):
    @nki.jit
    def copied(x, width):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for k in range(x.shape[1] // width):
            nisa.dma_copy(dst=out[:, nl.ds(k * width, width)], src=x[:, nl.ds(k * width, width)])
        return out

    space = {"width": [1, 2, 4, 8, 16], "target": ["trn2", "trn3"]}
    alone = sweep(copied, space, {"x": PARTS[0]}, jobs=1)
    assert sweep(copied, space, {"x": PARTS[0]}, backend="dask").rows == alone.rows


@nki.jit
def by_counts(x, groups, halves, turns):
    """Each rank sends one row more to each next rank; what nobody sends to keeps its bytes."""
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    received = nl.ndarray((4 * x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm, name="received")
    counts = nl.ndarray((3, 4), dtype=nl.uint32, buffer=nl.shared_hbm, name="counts")
    out = nl.ndarray((4, x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
    told = nl.ndarray((1, 4), dtype=nl.uint32, buffer=nl.shared_hbm)
    table = nl.ndarray((1, 8), dtype=nl.uint32, buffer=nl.sbuf)
    for target in range(4):
        nisa.memset(table[:, target : target + 1], (target + 1) * x.shape[1])
        nisa.memset(table[:, 4 + target : 5 + target], target * x.shape[1])
    nisa.dma_copy(dst=counts[0:2], src=table.reshape((1, 2, 4)))
    nisa.dma_copy(dst=sent[0:8], src=x[0:8])
    prepared = ncc.all_to_all_v_prepare([sent], [received], groups, counts)
    ncc.all_to_all_v_trigger(prepared)
    for source in range(4):
        nisa.dma_copy(
            dst=out[source : source + 1], src=received[source * x.shape[0] : source * x.shape[0] + 1]
        )
    nisa.dma_copy(dst=told, src=counts[2:3])
    return out, told


def test_sizes_that_the_data_say():
    """What a rank uses of its tensors is told to the checks of its worker."""

    def run(workers):
        with runtime.session(timing=True, workers=workers) as record:
            results = nki.simulate(by_counts, ranks=4)(lambda rank: (PARTS[rank], GROUPS, HALVES, 1))
        (launch,) = record.launches
        return results, [core.timeline.format() for core in launch.cores], launch.diagnostics

    (one, times, found), (other, timed, told) = run(None), run(Workers(2))
    for rank in range(4):
        np.testing.assert_array_equal(one[rank][0], PARTS[:, rank])
        np.testing.assert_array_equal(one[rank][1], [[(rank + 1) * 16] * 4])
        for a, b in zip(one[rank], other[rank], strict=True):
            np.testing.assert_array_equal(a, b)
    assert times == timed and found == told
