"""timers.py and heap.py: the order of timers in plain Python; the accelerator has its own."""

import heapq
import random
import threading
from collections import deque

import pytest

from helpers import PATIENCE
from veloop.loop import heap, timers
from veloop.loop.handles import TimerHandle

pytestmark = pytest.mark.veloop_only("calls the classes themselves")

sorts = pytest.mark.skipif(not timers._SORTS, reason="without the GIL all are in the heap")


# ------------------------------------------------------------ the sorting in plain Python


class Interrupting(float):
    """A time at whose comparison something happens, as a signal may come at any."""

    happens = None

    def __lt__(self, other):
        happens, Interrupting.happens = Interrupting.happens, None
        if happens is not None:
            happens()
        return float.__lt__(self, other)


@pytest.fixture
def sorting(loop):
    ours = timers.Timers()
    handles = [TimerHandle(Interrupting(n // 2), print, (n,), loop) for n in range(1000)]
    for handle in handles:
        ours.add(handle)
    yield ours, handles
    Interrupting.happens = None
    ours.clear()


def left_in_order(ours):
    due = deque()
    ours.pop_due(1e9, due)
    assert ours.pending == 0
    return [handle._args[0] for handle in due]


def interrupt():
    raise KeyboardInterrupt


@sorts
def test_interrupt_while_timers_are_sorted_loses_none(sorting):
    ours, _ = sorting
    Interrupting.happens = interrupt
    with pytest.raises(KeyboardInterrupt):
        ours.next_when()
    assert left_in_order(ours) == list(range(1000))


@sorts
def test_timers_are_cancelled_while_they_are_sorted(sorting):
    ours, handles = sorting

    def cancel():
        for handle in handles[100:900]:
            if ours.cancelled(handle):
                ours.compact(handle)
            handle._cancelled = True

    Interrupting.happens = cancel
    assert ours.next_when() == 0.0
    assert left_in_order(ours) == [*range(100), *range(900, 1000)]


@sorts
def test_clock_is_read_after_the_sorting(sorting):
    ours, _ = sorting
    happened = []
    Interrupting.happens = lambda: happened.append("sorted")
    ours.sleep_time(lambda: happened.append("clock") or -1.0)
    assert happened == ["sorted", "clock"]


# ------------------------------------------------------------ the heap of other Pythons


@pytest.mark.parametrize("seed", range(20))
def test_heap_in_python_gives_what_heapq_gives(seed):
    rng = random.Random(seed)
    ours, theirs = [], []
    for order in range(rng.choice([1, 2, 3, 50, 500])):
        entry = (rng.choice([0.0, 1.0, rng.random()]), order, None)
        heap.push(ours, entry)
        heapq.heappush(theirs, entry)
        if rng.random() < 0.4:
            assert heap.pop(ours) == heapq.heappop(theirs)
        if rng.random() < 0.01:
            heap.heapify(ours)
    assert [heap.pop(ours) for _ in range(len(ours))] == sorted(theirs)


def test_timers_that_threads_add_at_once_are_all_counted(loop):
    ours = timers.Timers()
    ready = threading.Barrier(4)

    def add():
        ready.wait(PATIENCE)
        for number in range(5000):
            ours.add(TimerHandle(float(number), print, (), loop))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    due = deque()
    assert ours.pending == 20_000
    ours.pop_due(5000.0, due)
    assert len(due) == 20_000
    assert ours.pending == 0
