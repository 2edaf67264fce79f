"""Queue, PriorityQueue and LifoQueue, with shutdown() on every Python.

What must stay true: a put() wakes one getter and a get() one putter, in order of arrival; who is
cancelled after it was woken passes that on; what need not wait creates no future and calls as few
methods as it can; every operation takes constant time (but for the heap's).

As in asyncio, a subclass may override _init, _get and _put, and any public method: put() and get()
call put_nowait(), get_nowait(), full() and empty() where a subclass has its own.

The classes are subclasses of asyncio's so that isinstance() and type checkers take them for those.
All that is public is their own code.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import QueueEmpty, QueueFull
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVar

from .locks import Waiters, new_waiter, was_woken

if sys.version_info >= (3, 13):
    from asyncio import QueueShutDown
else:

    class QueueShutDown(Exception):
        """There is nothing more to get from a queue, or to be put on it: shutdown() was called."""


if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

__all__ = ("LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull", "QueueShutDown")

T = TypeVar("T")
P = TypeVar("P", bound="SupportsRichComparison")

# What put() and get() do on their own, unless a subclass has another one of these.
_SHORT_CUTS = ("qsize", "empty", "full", "put_nowait", "get_nowait", "_wakeup_next")


class Queue(asyncio.Queue[T]):
    """First in, first out (asyncio.Queue).

    put() waits while there are `maxsize` items; with 0 or less there may be any number.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _plain = True  # are all of _SHORT_CUTS those of Queue?

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._plain = all(getattr(cls, name) is getattr(Queue, name) for name in _SHORT_CUTS)

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._getters = Waiters()
        self._putters = Waiters()
        self._joiners: Waiters | None = None
        self._unfinished_tasks = 0
        self._is_shutdown = False
        self._init(maxsize)

    # For subclasses: where the items are.

    def _init(self, maxsize: int) -> None:
        self._queue: Any = deque()

    def _get(self) -> T:
        item: T = self._queue.popleft()
        return item

    def _put(self, item: T) -> None:
        self._queue.append(item)

    def _wakeup_next(self, waiters: Waiters) -> None:
        """Wake who came first of those who still wait."""
        waiters.wake_first()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._format()}>"

    def _format(self) -> str:
        parts = [f"maxsize={self._maxsize!r}"]
        if getattr(self, "_queue", None):
            parts.append(f"_queue={list(self._queue)!r}")
        if self._getters:
            parts.append(f"_getters[{self._getters.count_waiting()}]")
        if self._putters:
            parts.append(f"_putters[{self._putters.count_waiting()}]")
        if self._unfinished_tasks:
            parts.append(f"tasks={self._unfinished_tasks}")
        if self._is_shutdown:
            parts.append("shutdown")
        return " ".join(parts)

    def qsize(self) -> int:
        """Return the number of items."""
        return len(self._queue)

    @property
    def maxsize(self) -> int:
        """How many items there may be; any number if it is 0 or less."""
        return self._maxsize

    def empty(self) -> bool:
        """Return whether there is no item."""
        return not self._queue

    def full(self) -> bool:
        """Return whether there are `maxsize` items."""
        return 0 < self._maxsize <= self.qsize()

    async def put(self, item: T) -> None:
        """Wait until the queue is not full, and put the item on it.

        QueueShutDown if shutdown() was called, or is while this waits.
        """
        plain = self._plain
        while 0 < self._maxsize <= len(self._queue) if plain else self.full():
            if self._is_shutdown:
                raise QueueShutDown
            waiter = new_waiter(self)
            self._putters.append(waiter)
            try:
                await waiter
            except BaseException:
                if not was_woken(waiter):
                    self._putters.leave(waiter)
                elif not self.full():
                    self._wakeup_next(self._putters)
                raise
        if not plain:
            return self.put_nowait(item)
        if self._is_shutdown:
            raise QueueShutDown
        self._put(item)
        self._unfinished_tasks += 1
        if self._getters:
            self._wakeup_next(self._getters)

    def put_nowait(self, item: T) -> None:
        """Put the item on the queue; QueueFull, or QueueShutDown, if that cannot be done now."""
        if self._is_shutdown:
            raise QueueShutDown
        plain = self._plain
        if 0 < self._maxsize <= len(self._queue) if plain else self.full():
            raise QueueFull
        self._put(item)
        self._unfinished_tasks += 1
        if self._getters or not plain:
            self._wakeup_next(self._getters)

    async def get(self) -> T:
        """Wait until there is an item, remove it and return it.

        QueueShutDown if there is none and shutdown() was called, or is while this waits.
        """
        plain = self._plain
        while not self._queue if plain else self.empty():
            if self._is_shutdown:
                raise QueueShutDown
            waiter = new_waiter(self)
            self._getters.append(waiter)
            try:
                await waiter
            except BaseException:
                if not was_woken(waiter):
                    self._getters.leave(waiter)
                elif not self.empty():
                    self._wakeup_next(self._getters)
                raise
        if not plain:
            return self.get_nowait()
        item = self._get()
        if self._putters:
            self._wakeup_next(self._putters)
        return item

    def get_nowait(self) -> T:
        """Remove and return an item; QueueEmpty, or QueueShutDown, if there is none."""
        plain = self._plain
        if not self._queue if plain else self.empty():
            raise QueueShutDown if self._is_shutdown else QueueEmpty
        item = self._get()
        if self._putters or not plain:
            self._wakeup_next(self._putters)
        return item

    def task_done(self) -> None:
        """Say that the work on an item that was got is done, for join().

        ValueError if that was said for every item that was put already.
        """
        if self._unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self._unfinished_tasks -= 1
        if self._unfinished_tasks == 0:
            self._finish()

    async def join(self) -> None:
        """Wait until task_done() was called for every item that was put; not at all if it was."""
        if self._unfinished_tasks > 0:
            waiter = new_waiter(self)
            if self._joiners is None:
                self._joiners = Waiters()
            self._joiners.append(waiter)
            try:
                await waiter
            except BaseException:
                if not was_woken(waiter):
                    self._joiners.leave(waiter)
                raise

    def _finish(self) -> None:
        if self._joiners:
            self._joiners.wake_all()

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue: put() raises QueueShutDown from now on, and get() when it is empty.

        With `immediate` it is emptied, as if each item had been got and was done. All who wait
        in put() and get() go on.
        """
        self._is_shutdown = True
        if immediate:
            while not self.empty():
                self._get()
                if self._unfinished_tasks > 0:
                    self._unfinished_tasks -= 1
            if self._unfinished_tasks == 0:
                self._finish()
        self._getters.wake_all()
        self._putters.wake_all()


class PriorityQueue(Queue[P], asyncio.PriorityQueue[P]):
    """A queue that returns the smallest item first (asyncio.PriorityQueue).

    Items are often tuples of a priority and the data, which must be comparable, too.
    """

    def _init(self, maxsize: int) -> None:
        self._queue: list[P] = []

    def _get(self) -> P:
        return heappop(self._queue)

    def _put(self, item: P) -> None:
        heappush(self._queue, item)


class LifoQueue(Queue[T], asyncio.LifoQueue[T]):
    """A queue that returns the newest item first (asyncio.LifoQueue)."""

    def _init(self, maxsize: int) -> None:
        self._queue: list[T] = []

    def _get(self) -> T:
        return self._queue.pop()

    def _put(self, item: T) -> None:
        self._queue.append(item)
