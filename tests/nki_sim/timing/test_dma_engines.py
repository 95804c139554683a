"""The DMA engines by themselves: queues that take turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nki_sim.timing.dma_engines import DmaEngines, Work


def ends(engines, moving):
    return [engines.end(one) for one in moving]


def test_a_queue_serves_in_order():
    engines = DmaEngines()
    moving = [engines.book(0, begin, Work(10.0, 30.0, 1.0, True)) for begin in (0.0, 0.0, 10_000.0)]
    assert ends(engines, moving) == pytest.approx([300.0, 600.0, 10_300.0])


def test_queues_take_turns_row_by_row():
    """By hand: a row of 10 ns and one of 30 in turn; what is left of the longer has the engines alone."""
    engines = DmaEngines()
    short, long = (
        engines.book(0, 0.0, Work(5.0, 10.0, 1.0, True)),
        engines.book(1, 0.0, Work(10.0, 30.0, 1.0, True)),
    )
    assert ends(engines, [long, short]) == pytest.approx([350.0, 200.0])


def test_one_that_begins_later_takes_its_turns_from_then_on():
    """By hand: 3 of 10 rows have the engines alone, the other 7 wait for one of 10 ns each."""
    engines = DmaEngines()
    first, second = (
        engines.book(0, 0.0, Work(10.0, 30.0, 1.0, True)),
        engines.book(1, 90.0, Work(100.0, 10.0, 1.0, True)),
    )
    assert engines.end(first) == pytest.approx(90.0 + 7 * 40.0)
    assert engines.end(second) == pytest.approx(90.0 + 7 * 40.0 + 93 * 10.0)


def test_transfers_of_few_engines_leave_the_others_to_their_queue():
    engines = DmaEngines()
    moving = [engines.book(0, 0.0, Work(10.0, 30.0, 0.5, True)) for _ in range(4)]
    assert ends(engines, moving) == pytest.approx([300.0, 300.0, 600.0, 600.0])


def test_what_is_settled_is_not_held_up():
    """By hand: the second has what the first left of the time that is settled, and the rest after it."""
    engines = DmaEngines()
    first = engines.book(0, 1000.0, Work(10.0, 30.0, 1.0, True))
    assert engines.end(first) == pytest.approx(1300.0)
    second = engines.book(1, 600.0, Work(10.0, 100.0, 1.0, True))
    assert engines.end(second) == pytest.approx(1900.0)
    assert engines.end(first) == pytest.approx(1300.0)


def test_hbm_feeds_a_share_of_the_engines():
    """By hand: half of the engines is what HBM feeds; fewer, or transfers on chip, do not feel it."""
    for share, end in ((1.0, 600.0), (0.75, 450.0), (0.25, 300.0)):
        engines = DmaEngines(hbm=0.5)
        assert engines.end(engines.book(0, 0.0, Work(10.0, 30.0, share, True))) == pytest.approx(end)
    engines = DmaEngines(hbm=0.5)
    moving = [engines.book(queue, 0.0, Work(10.0, 30.0, 1.0, queue == 0)) for queue in range(2)]
    assert ends(engines, moving) == pytest.approx([600.0, 600.0])


def test_others_use_the_engines_while_a_transfer_waits_for_hbm():
    """By hand: a transfer takes 100 more alone; of two in a queue, the second waits while the first moves."""
    engines = DmaEngines()
    alone, later = (engines.book(0, begin, Work(10.0, 30.0, 1.0, True, 100.0)) for begin in (0.0, 1000.0))
    after = engines.book(0, 1000.0, Work(10.0, 30.0, 1.0, True, 100.0))
    assert ends(engines, [alone, later, after]) == pytest.approx([400.0, 1400.0, 1600.0])


def test_unshared_engines_are_alone():
    engines = DmaEngines(shared=False)
    assert ends(engines, [engines.book(0, 5.0, Work(10.0, 30.0, 1.0, True)) for _ in range(2)]) == [
        305.0,
        305.0,
    ]


jobs = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0, 5e4),
        st.floats(1, 60),
        st.floats(5, 200),
        st.sampled_from([1 / 16, 0.25, 0.5, 1.0]),
        st.integers(-1, 20),
    ),
    min_size=1,
    max_size=40,
)


@given(jobs)
@settings(max_examples=100, deadline=None)
def test_no_work_is_lost_or_done_early(jobs):
    """Whenever the ends are asked for: none is early, the last as late as all the work makes it."""
    engines, moving = DmaEngines(), []
    for *job, asked in jobs:
        moving.append(engines.book(*job[:2], Work(*job[2:], True)))
        if 0 <= asked < len(moving):
            engines.end(moving[asked])
    found = ends(engines, moving)
    for (_, begin, rows, row, _, _), end in zip(jobs, found, strict=True):
        assert end >= begin + rows * row - 1e-3
    works = [rows * row * share for _, _, rows, row, share, _ in jobs]
    first, last = min(job[1] for job in jobs), max(job[1] for job in jobs)
    alone = sum(rows * row for _, _, rows, row, _, _ in jobs)
    assert max(found) >= first + sum(works) - 1000.0  # settled time is given away by the microsecond
    assert max(found) <= last + alone + 1e-3


@given(jobs)
@settings(max_examples=50, deadline=None)
def test_a_queue_is_over_in_its_order(jobs):
    engines = DmaEngines()
    moving = [
        engines.book(*job[:2], Work(*job[2:], True)) for *job, _ in sorted(jobs, key=lambda job: job[1])
    ]
    found = ends(engines, moving)
    for queue in range(4):
        of_queue = [end for end, one in zip(found, moving, strict=True) if one.queue == queue]
        assert of_queue == sorted(of_queue)
