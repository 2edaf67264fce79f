"""The timers of a loop. Pure data: no clock and no I/O in here.

Most timers are timeouts: made in about the order in which they are due, and cancelled before. So
the times are cut in two at a boundary. What is due behind it lies in a list as it came, which
costs least. When all before it are gone the boundary moves behind that list, if it is sorted as it
is; else it is sorted, and its first half comes before the boundary. What is made later for a time
before that goes into a heap, of tuples, so that heapq compares numbers; if the heap grows larger
than the rest, one timer of a far time was taken for a boundary, and all are sorted anew.

Timers of the same time fire in the order of their creation. A cancelled timer lets go of its
callback at once; it goes itself when its turn comes, or when such are the majority.
"""

from __future__ import annotations

import operator
import sys
from collections import deque
from collections.abc import Callable

from .handles import TimerHandle
from .heap import heapify, heappop, heappush

_COMPACT_FROM = 100  # below this many, cancelled ones are not worth looking for

# A program may set timers in other threads; that is wrong, but with the GIL harmless. Without it,
# all are in the heap, for heapq's functions have a lock there.
_SORTS = getattr(sys, "_is_gil_enabled", lambda: True)()
_HEAP_MAX = 64 if _SORTS else sys.maxsize  # so many are no harm, though the rest be fewer

# A waking costs more than dozens of timers. So if that many are due within this time (seconds),
# they wait for its end. Cancelled ones count, which are half of all at most.
_CROWD = 32
_TOGETHER = 1e-3

# The longest sleep (seconds), as asyncio's MAXIMUM_SELECT_TIMEOUT: far beyond it libuv's
# arithmetic would overflow.
LONGEST_SLEEP = 24 * 3600.0

_LONG_AGO = float("-inf")
_when = operator.attrgetter("_when")


class Timers:
    __slots__ = ("_boundary", "_cancelled", "_far", "_heap", "_next", "_order")

    def __init__(self) -> None:
        self._next: list[TimerHandle] = []  # up to the boundary: sorted, the earliest last
        self._heap: list[tuple[float, int, TimerHandle]] = []  # before it, and made later
        self._far: list[TimerHandle] = []  # from it on
        self._boundary = float("-inf" if _SORTS else "inf")
        self._order = 0  # of the last one in the heap
        self._cancelled = 0

    @property
    def pending(self) -> int:
        """How many there are, cancelled ones too. Not a counter: other threads may add some."""
        return len(self._next) + len(self._heap) + len(self._far)

    def add(self, timer: TimerHandle) -> None:
        if timer._when >= self._boundary:
            self._far.append(timer)
        else:
            self._order = order = self._order + 1
            heappush(self._heap, (timer._when, order, timer))
        timer._scheduled = True

    def _sort(self) -> None:
        """Put the boundary behind all, if they are in order, or else into their middle.

        Until all is ready they stay where they are: a signal's handler may run here.
        """
        far = self._far
        while far:  # once, unless one comes or goes meanwhile
            size = len(far)
            if not _are_sorted(far):
                far.sort(key=_when)
                middle = (size + 1) // 2
                following, later = far[middle - 1 :: -1], far[middle:]
            elif len(far) != size:
                continue
            else:
                far.reverse()
                following, later = far, []
            if len(far) == size:
                break
        else:
            return
        self._next, self._far, self._boundary = following, later, following[0]._when
        for timer in far[size:]:  # that another thread has added since
            self.add(timer)
        del far[size:]

    def _empty_heap(self) -> None:
        """Sort all anew."""
        entries = sorted(self._heap)
        far = self._next[::-1] + [entry[2] for entry in entries] + self._far
        if len(far) == len(self._next) + len(self._heap) + len(self._far):  # else: another time
            self._next, self._heap, self._far, self._boundary = [], [], far, _LONG_AGO
            self._sort()

    def cancelled(self, timer: TimerHandle) -> bool:
        """`timer` is being cancelled. -> whether `compact` is worth the while."""
        if not timer._scheduled:
            return False
        self._cancelled += 1
        return self._cancelled > _COMPACT_FROM and self._cancelled * 2 > self.pending

    def compact(self, timer: TimerHandle) -> None:
        """Drop the cancelled timers; `timer` itself will be marked after this call."""
        # In place, for a signal's handler may do it while one of the methods below looks at them.
        self._next[:] = [each for each in self._next if _stays(each, timer)]
        self._far[:] = [each for each in self._far if _stays(each, timer)]
        self._heap[:] = [entry for entry in self._heap if _stays(entry[2], timer)]
        heapify(self._heap)
        self._cancelled = 0

    def next_when(self) -> float | None:
        """The time of the earliest live timer."""
        following, heap = self._next, self._heap
        while following or heap or self._far:
            if not (following or heap):
                self._sort()
                following = self._next
            elif following and not (heap and heap[0][0] < following[-1]._when):
                timer = following[-1]
                if not timer._cancelled:
                    return timer._when
                del following[-1]
                self._went(timer)
            else:
                when, _, timer = heap[0]
                if not timer._cancelled:
                    return when
                heappop(heap)
                self._went(timer)
        return None

    def _went(self, timer: TimerHandle) -> None:
        """A cancelled one has come to the front."""
        self._cancelled -= 1
        timer._scheduled = False

    def sleep_time(self, clock: Callable[[], float]) -> float:
        """Seconds until there is one to run; negative if there is none."""
        when = self.next_when()
        if when is None:
            return -1.0
        now = clock()  # not before: sorting takes a while
        seconds = when - now
        if not seconds > 0.0:
            return 0.0
        following = self._next
        if (
            seconds < _TOGETHER
            and len(following) >= _CROWD
            and following[-_CROWD]._when - now < _TOGETHER
        ):
            return _TOGETHER
        return seconds if seconds < LONGEST_SLEEP else LONGEST_SLEEP

    def pop_due(self, now: float, due: deque[TimerHandle]) -> None:
        """Move the timers that are due to `due`, in the order in which they fire."""
        if len(self._heap) > _HEAP_MAX and len(self._heap) > len(self._next) + len(self._far):
            self._empty_heap()
        following, heap = self._next, self._heap
        while following or heap or self._far:
            if not (following or heap):
                self._sort()
                following = self._next
                continue
            if following and not (heap and heap[0][0] < following[-1]._when):
                timer = following[-1]
                if timer._when > now:
                    break
                del following[-1]  # unlike a call this is no place for an interrupt
            else:
                if heap[0][0] > now:
                    break
                timer = heappop(heap)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._cancelled -= 1
            else:
                due.append(timer)

    def clear(self) -> None:
        for timer in (*self._next, *self._far, *(entry[2] for entry in self._heap)):
            timer._scheduled = False
        self._next.clear()
        self._far.clear()
        self._heap.clear()
        self._cancelled = 0


def _are_sorted(timers: list[TimerHandle]) -> bool:
    last = _LONG_AGO
    for timer in timers:
        if timer._when < last:
            return False
        last = timer._when
    return True


def _stays(timer: TimerHandle, gone: TimerHandle) -> bool:
    if timer._cancelled or timer is gone:
        timer._scheduled = False
        return False
    return True
