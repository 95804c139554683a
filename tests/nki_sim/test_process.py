"""What is asked of the machine this runs on."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from nki_isa.diagnostics import NkiError
from nki_sim import process


@pytest.mark.parametrize("chosen, value", [(None, 7), ("", 7), ("1", 1), ("12", 12), ("1_000", 1000)])
def test_a_positive_setting(monkeypatch, chosen, value):
    monkeypatch.delenv("NKI_SIM_MOST", raising=False)
    if chosen is not None:
        monkeypatch.setenv("NKI_SIM_MOST", chosen)
    assert process.positive_setting("NKI_SIM_MOST", 7) == value


@pytest.mark.parametrize("chosen", ["0", "-1", "1.5", "many", "\u0663"])
def test_a_setting_that_is_no_positive_number_is_refused(monkeypatch, chosen):
    monkeypatch.setenv("NKI_SIM_MOST", chosen)
    with pytest.raises(NkiError, match="NKI-L032.*NKI_SIM_MOST"):
        process.positive_setting("NKI_SIM_MOST", 7)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_left_is_less_than_there_is_and_enough_for_this_test():
    assert 16 << 20 < process.available_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "files, left",
    [
        ({}, None),
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   3 kB\n"}, 3072),
        ({"/proc/meminfo": "MemTotal: 9 kB\n"}, None),
        ({"/sys/fs/cgroup/memory.max": "5000\n", "/sys/fs/cgroup/memory.current": "1000\n"}, 4000),
        ({"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "1000\n"}, None),
        ({"/sys/fs/cgroup/memory.max": "900\n", "/sys/fs/cgroup/memory.current": "1000\n"}, 0),
        (
            {
                "/proc/meminfo": "MemAvailable: 3 kB\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "3000\n",
            },
            2000,
        ),
    ],
)
def test_memory_left_is_the_least_that_anybody_says(monkeypatch, files, left):
    def read_text(path, *_, **__):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", read_text)
        found = process.available_bytes()
    assert found == left


def test_the_collector_rests_inside_the_block_and_stays_as_it_was():
    assert gc.isenabled()
    with process.no_collection():
        with process.no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with process.no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def made_in_a_block(count):
    with process.no_collection():
        made = [[] for _ in range(count)]
    old = {id(thing) for thing in gc.get_objects(generation=2)}
    return {id(thing) in old for thing in made}


def test_very_many_objects_made_in_a_block_are_old_after_it(monkeypatch):
    monkeypatch.setattr(process, "_MANY", 1000)
    assert made_in_a_block(2000) == {True}
    assert gc.get_freeze_count() == 0
    assert made_in_a_block(500) == {False}


def test_what_others_have_frozen_stays_so(monkeypatch):
    monkeypatch.setattr(process, "_MANY", 1000)
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        assert made_in_a_block(2000) == {False}
        assert gc.get_freeze_count() >= frozen - 100  # all but what was freed since
    finally:
        gc.unfreeze()


def test_products_use_one_thread_inside_the_block():
    def threads():
        pools = ThreadpoolController().info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    before = threads()
    with process.one_thread():
        assert set(threads()) <= {1}
    assert threads() == before


def test_a_lazy_value_is_worked_out_once_for_each_object():
    made = []

    class Thing:
        @process.lazy
        def value(self):
            """What it is."""
            made.append(self)
            return len(made)

    one, other = Thing(), Thing()
    assert (one.value, one.value, other.value) == (1, 1, 2)
    assert made == [one, other]
    assert Thing.value.__doc__ == "What it is."


def test_numpy_is_as_before_after_arithmetic():
    usual, settings = np.getbufsize(), np.geterr()
    with pytest.raises(KeyError), process.arithmetic():
        assert np.getbufsize() < usual
        assert np.isnan(np.float32(np.inf) - np.float32(np.inf))  # no warning, which pytest makes an error
        raise KeyError
    assert np.getbufsize() == usual and np.geterr() == settings
