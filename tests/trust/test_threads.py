"""Threads, tasks and processes each run kernels as if they were alone."""

import asyncio
import contextvars
import importlib.util
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nki import runtime
from nki.launch import prepare
from nki_isa.diagnostics import NkiError

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

KERNELS = 50
HEAD = "import nki\nimport nki.isa as nisa\nimport nki.language as nl\n"
KERNEL = """

@nki.jit
def k{i}(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    for _ in range({i}):
        nisa.tensor_scalar(dst=t, data=t, op0=nl.add, operand0={i}.0)
    for _ in {loop}(3):
        nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=0.5)
    nisa.dma_copy(dst=out, src=t)
    return out
"""
DATA = np.arange(4 * 16, dtype=np.float32).reshape(4, 16)


def expected(i, data=DATA):
    return (data + i * i) / 8


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "many_kernels.py"
    loops = ("nl.dynamic_range", "range")
    path.write_text(HEAD + "".join(KERNEL.format(i=i, loop=loops[i % 2]) for i in range(KERNELS)))
    spec = importlib.util.spec_from_file_location("many_kernels", path)
    module = sys.modules["many_kernels"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield [getattr(module, f"k{i}") for i in range(KERNELS)]
    del sys.modules["many_kernels"]


def all_at_once(count, work):
    """Run `work(number)` in threads that start together; the first exception of any."""
    start, failed = threading.Barrier(count), []

    def run(number):
        start.wait()
        try:
            work(number)
        except BaseException as found:  # told to the test
            failed.append(found)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if failed:
        raise failed[0]


def test_8_threads_run_50_kernels_each(kernels):
    limit = sys.getrecursionlimit()

    def work(number):
        order = list(range(KERNELS))
        random.Random(number).shuffle(order)
        for i in order:
            data = DATA + number
            assert np.array_equal(kernels[i](data), expected(i, data)), i

    all_at_once(8, work)
    assert sys.getrecursionlimit() == limit


def test_errors_stay_in_their_thread(kernels):
    """Every other call is refused: its errors are its own, and nobody else's."""

    def work(number):
        for i in range(12):
            if (i + number) % 2:
                with pytest.raises(NkiError) as refused:
                    kernels[i](np.ones((129, 4 + number), np.float32))
                assert {d.code for d in refused.value.diagnostics} == {"NKI-V102"}
            else:
                assert np.array_equal(kernels[i](DATA), expected(i))

    all_at_once(6, work)


def test_a_session_is_of_its_thread(kernels):
    entered, done = threading.Event(), threading.Event()

    def work(number):
        if number == 0:
            with runtime.session(data=False) as session:
                entered.set()
                assert not np.any(kernels[3](DATA))
                assert done.wait(60)
            assert [launch.kernel for launch in session.launches] == ["k3"]
        else:
            assert entered.wait(60)
            for _ in range(10):
                assert np.array_equal(kernels[3](DATA), expected(3))
            done.set()

    all_at_once(2, work)


def test_a_session_can_be_handed_to_a_thread(kernels):
    with runtime.session(data=False) as session:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(kernels[2], DATA))
        thread.start()
        thread.join()
    assert [launch.kernel for launch in session.launches] == ["k2"]


def test_the_session_of_a_command_is_of_all_threads(kernels):
    with runtime.session_of_process(data=False) as session:
        all_at_once(3, lambda number: kernels[number](DATA))
    assert sorted(launch.kernel for launch in session.launches) == ["k0", "k1", "k2"]


def test_tasks_of_asyncio_have_their_own_sessions(kernels):
    async def task(number):
        results = []
        with runtime.session(data=number % 2 == 0) as session:
            for i in range(5):
                results.append(kernels[i](DATA))
                await asyncio.sleep(0)
        assert len(session.launches) == 5
        return [np.array_equal(result, expected(i)) for i, result in enumerate(results)]

    async def main():
        return await asyncio.gather(*(task(n) for n in range(6)))

    for number, right in enumerate(asyncio.run(main())):
        assert all(right[1:]) == (number % 2 == 0)


def test_kernels_run_in_an_executor(kernels):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, kernels[i], DATA) for i in range(8)))

    assert all(np.array_equal(r, expected(i)) for i, r in enumerate(asyncio.run(main())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("forks", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_child_forked_beside_running_kernels_runs_them_too(kernels, forks, tmp_path):
    """Threads specialize, replay and parse without pause; each child does all of it once."""
    stop = False
    text = HEAD + KERNEL.format(i=7, loop="range")

    def spin(number):
        turn = 0
        while not stop:
            turn += 1
            kernels[turn % 5](DATA)
            kernels[9](np.ones((4, 4 + turn % 40), np.float32))
            prepare.cache.forget(kernels[9].function)
            if number == 0:
                from nki.compiler.checker.check import check_text

                check_text(f"{text}# {turn}\n", str(tmp_path / "typed.py"))

    def child():
        from nki.compiler.checker.check import check_text

        right = all(np.array_equal(kernels[i](DATA), expected(i)) for i in (1, 2, 9, 30))
        return right and check_text(f"{text}# child\n", str(tmp_path / "typed.py")) == []

    threads = [threading.Thread(target=spin, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(forks):
            time.sleep(0.02)
            number = os.fork()
            if number == 0:
                status = 1
                try:
                    status = 0 if child() else 2
                finally:
                    os._exit(status)
            assert ended(number) == 0
    finally:
        stop = True
        for thread in threads:
            thread.join()


def ended(number):
    """The status of a child; one that hangs is ended."""
    for _ in range(6000):
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(number, 9)
    os.waitpid(number, 0)
    return "hangs"


SCRIPT = """
import multiprocessing, sys
import numpy as np
sys.path.insert(0, {folder!r})
from many_kernels import k4, k5

def work(i):
    return (k4, k5)[i % 2](np.ones((4, 16), np.float32)).sum()

if __name__ == "__main__":
    k4(np.ones((4, 16), np.float32))
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(sorted(set(pool.map(work, range(8)))))
"""


@pytest.mark.parametrize(
    "method", [m for m in ("spawn", "fork") if m in multiprocessing.get_all_start_methods()]
)
def test_pools_of_processes(kernels, method, tmp_path):
    folder = os.path.dirname(kernels[0].function.__code__.co_filename)
    script = tmp_path / "pools.py"
    script.write_text(SCRIPT.format(folder=folder, method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str([np.float32((1 + 16) / 8 * 64), np.float32((1 + 25) / 8 * 64)]), (
        done.stderr
    )
