"""The timer heap. Pure data: no clock and no I/O in here.

Entries are tuples, so that heapq compares numbers and never calls back into Python, and timers
of the same time fire in the order of their creation. A cancelled timer lets go of its callback
at once; its entry goes when it comes to the top, or when such entries are the majority.
"""

from __future__ import annotations

from collections import deque

from .handles import TimerHandle
from .heap import heapify, heappop, heappush

_COMPACT_FROM = 100  # below this many entries, cancelled ones are not worth looking for


class Timers:
    __slots__ = ("_cancelled", "_order", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, TimerHandle]] = []
        self._order = 0  # of the last one
        self._cancelled = 0

    def add(self, timer: TimerHandle) -> None:
        self._order = order = self._order + 1
        heappush(self.heap, (timer._when, order, timer))
        timer._scheduled = True

    def cancelled(self, timer: TimerHandle) -> bool:
        """`timer` is being cancelled. -> whether `compact` is worth the while."""
        if not timer._scheduled:
            return False
        self._cancelled += 1
        return self._cancelled > _COMPACT_FROM and self._cancelled * 2 > len(self.heap)

    def compact(self, timer: TimerHandle) -> None:
        """Drop the entries of cancelled timers; `timer` itself will be marked after this call."""
        timer._scheduled = False
        live = []
        for entry in self.heap:
            if entry[2]._cancelled or entry[2] is timer:
                entry[2]._scheduled = False
            else:
                live.append(entry)
        heapify(live)
        self.heap = live
        self._cancelled = 0

    def next_when(self) -> float | None:
        """The time of the earliest live timer."""
        heap = self.heap
        while heap:
            when, _, timer = heap[0]
            if not timer._cancelled:
                return when
            self._pop()
        return None

    def pop_due(self, now: float, due: deque[TimerHandle]) -> None:
        """Move the timers that are due to `due`, in the order in which they fire."""
        heap = self.heap
        while heap and not heap[0][0] > now:  # so that a NaN does not stay for ever
            timer = self._pop()
            if not timer._cancelled:
                due.append(timer)

    def _pop(self) -> TimerHandle:
        timer: TimerHandle = heappop(self.heap)[2]
        timer._scheduled = False
        if timer._cancelled:
            self._cancelled -= 1
        return timer

    def clear(self) -> None:
        for _, _, timer in self.heap:
            timer._scheduled = False
        self.heap.clear()
        self._cancelled = 0
