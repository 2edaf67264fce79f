"""Lock, Event, Condition, Semaphore, BoundedSemaphore, Barrier, on any asyncio loop.

What must stay true: who waits is woken in order of arrival; a wake-up is never lost, and never
given twice, whoever is cancelled and when; every operation takes constant time, also the leaving
of a cancelled waiter from the middle of ten thousand (see Waiters).

What need not wait creates no future, and is one coroutine: CPython runs those faster than
awaitables that are ready made, and nothing happens before it is awaited.

The classes are subclasses of asyncio's so that isinstance() and type checkers take them for those.
All that is public is their own code.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError, Future
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from .events import get_running_loop
from .exceptions import BrokenBarrierError

__all__ = ("Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore")

T = TypeVar("T")

_binding = threading.Lock()


class Bound(Protocol):
    """What belongs to the first loop on which somebody waits for it."""

    _loop: asyncio.AbstractEventLoop | None


def new_waiter(owner: Bound) -> Future[Any]:
    """A future to wait with; RuntimeError if others waited for `owner` on another loop."""
    loop = get_running_loop()
    if owner._loop is not loop:
        with _binding:  # two loops in two threads may both be the first
            if owner._loop is None:
                owner._loop = loop
        if owner._loop is not loop:
            raise RuntimeError(f"{owner!r} is bound to a different event loop")
    return loop.create_future()


def was_woken(waiter: Future[Any]) -> bool:
    """Whether this waiter got a wake-up, which it has to pass on if it cannot use it."""
    return waiter.done() and not waiter.cancelled()


class Waiters(deque["Future[Any]"]):
    """Who waits, in order of arrival. Who is cancelled leaves in constant time, from anywhere.

    deque.remove() would compare everybody in front. Instead, who leaves from the middle stays in
    the deque, as one of `gone`, until it comes to an end of it or half of the deque are such.
    And who was cancelled but has not run since, and so has not left, may be met by a waker: it is
    taken out then, and is one of `passed` until it leaves.
    """

    # Shared while they are empty: few queues ever need them.
    gone: set[Future[Any]] = set()
    passed: set[Future[Any]] = set()

    def wake_first(self) -> bool:
        """Take out the first who still waits and wake it; False if nobody waits."""
        while self:
            waiter = self.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
            self._pass_over(waiter)
        return False

    def wake_all(self) -> None:
        """Take out and wake all who still wait."""
        while self:
            waiter = self.popleft()
            if not waiter.done():
                waiter.set_result(None)
            else:
                self._pass_over(waiter)

    def all_cancelled(self) -> bool:
        """Whether nobody here is to be waited for.

        From the end: whoever asks is mostly the next to wait, and then found first.
        """
        for waiter in reversed(self):
            if not waiter.cancelled():
                return False
        return True

    def leave(self, waiter: Future[Any]) -> None:
        """Remove one who was added, was not woken by wake_first(), and does not wait any more."""
        if waiter in self.passed:
            self.passed.remove(waiter)
        elif not self:
            pass  # a Queue's _wakeup_next() may be another, which leaves no mark
        elif self[-1] is waiter:
            self.pop()
            while self and self[-1] in self.gone:
                self.gone.remove(self.pop())
        elif self[0] is waiter:
            self.popleft()
        elif not waiter.cancelled():
            self.remove(waiter)  # its coroutine was closed, and a waker could not tell
        else:
            self.gone = self.gone or set()
            self.gone.add(waiter)
            if 2 * len(self.gone) > len(self):
                gone, self.gone = self.gone, set()
                stay = [each for each in self if each not in gone]
                self.clear()
                self.extend(stay)

    def count_waiting(self) -> int:
        """How many have not left."""
        return len(self) - len(self.gone)

    def _pass_over(self, waiter: Future[Any]) -> None:
        if waiter in self.gone:
            self.gone.remove(waiter)
        else:
            self.passed = self.passed or set()
            self.passed.add(waiter)


def describe(owner: object, state: str, waiting: int) -> str:
    """A repr like those of asyncio's primitives."""
    waiters = f", waiters:{waiting}" if waiting else ""
    return f"<{object.__repr__(owner)[1:-1]} [{state}{waiters}]>"


class Lock(asyncio.Lock):
    """A mutex for tasks (asyncio.Lock): who waits gets it in order of arrival.

    Belongs to no task: any may release it. Use it as `async with lock:`.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _waiters: Waiters | None

    def __init__(self) -> None:
        self._locked = False
        self._waiters = None

    def __repr__(self) -> str:
        waiting = self._waiters.count_waiting() if self._waiters else 0
        return describe(self, "locked" if self._locked else "unlocked", waiting)

    def locked(self) -> bool:
        """Return whether somebody has the lock."""
        return self._locked

    async def acquire(self) -> Literal[True]:
        """Wait until the lock is free and those who came before had it; take it; return True."""
        waiters = self._waiters
        if not self._locked and (not waiters or waiters.all_cancelled()):
            self._locked = True
            return True
        waiter = new_waiter(self)
        if waiters is None:
            waiters = self._waiters = Waiters()
        waiters.append(waiter)
        try:
            await waiter
        except BaseException as exc:
            waiters.leave(waiter)
            # Perhaps it was this one's turn, or release() left it to this one to wake the next.
            if not self._locked and isinstance(exc, CancelledError):
                self._wake_first(waiters)
            raise
        waiters.popleft()
        self._locked = True
        return True

    def release(self) -> None:
        """Free the lock and wake who waits first; RuntimeError if nobody has the lock."""
        if not self._locked:
            raise RuntimeError("Lock is not acquired.")
        self._locked = False
        if self._waiters:
            self._wake_first(self._waiters)

    def _wake_first(self, waiters: Waiters) -> None:
        # The one that is woken stays the first until it runs, so that nobody overtakes it. If the
        # first is done it was woken before, or cancelled; then it wakes the next when it runs.
        while waiters:
            first = waiters[0]
            if not first.done():
                first.set_result(True)
                break
            if first not in waiters.gone:
                break
            waiters.gone.remove(waiters.popleft())

    async def __aenter__(self) -> None:
        if type(self) is Lock and not self._locked and not self._waiters:
            self._locked = True
        else:
            await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if type(self) is Lock and self._locked:
            self._locked = False
            if self._waiters:
                self._wake_first(self._waiters)
        else:
            self.release()


class Event(asyncio.Event):
    """A flag that tasks wait for (asyncio.Event); not set at first."""

    _loop: asyncio.AbstractEventLoop | None = None
    _waiters: Waiters

    def __init__(self) -> None:
        self._value = False
        self._waiters = Waiters()

    def __repr__(self) -> str:
        return describe(self, "set" if self._value else "unset", self._waiters.count_waiting())

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._value

    def set(self) -> None:
        """Set the flag: all who wait go on, even if it is cleared before they run."""
        if self._value:
            return
        self._value = True
        if self._waiters:
            self._waiters.wake_all()

    def clear(self) -> None:
        """Clear the flag: wait() waits again."""
        self._value = False

    async def wait(self) -> Literal[True]:
        """Wait until the flag is set; not at all if it is. Return True."""
        if self._value:
            return True
        waiter = new_waiter(self)
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if not was_woken(waiter):
                self._waiters.leave(waiter)
            raise
        return True


class Condition(asyncio.Condition):
    """A lock, and waiting for a notification by others who have the lock (asyncio.Condition).

    `lock` is a Lock that is shared with others, or an object with its methods; else a new one.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _waiters: Waiters

    def __init__(self, lock: asyncio.Lock | None = None) -> None:
        self._lock = Lock() if lock is None else lock
        # The lock's own methods: a call through the condition costs nothing more.
        self.locked = self._lock.locked  # type: ignore[method-assign]
        self.acquire = self._lock.acquire  # type: ignore[method-assign]
        self.release = self._lock.release  # type: ignore[method-assign]
        self._waiters = Waiters()

    def __repr__(self) -> str:
        return describe(
            self, "locked" if self.locked() else "unlocked", self._waiters.count_waiting()
        )

    async def wait(self) -> Literal[True]:
        """Release the lock, wait for a notification, take the lock again; return True.

        Has the lock when it ends, in whichever way. RuntimeError if nobody has it at first.
        """
        if not self.locked():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = new_waiter(self)
        waiters = self._waiters
        self.release()
        waiters.append(waiter)
        try:
            try:
                await waiter
            finally:
                if not was_woken(waiter):
                    waiters.leave(waiter)
                lock = self._lock
                if type(lock) is Lock and not lock._locked and not lock._waiters:
                    lock._locked = True
                else:
                    await self._acquire_again()
        except BaseException:
            if was_woken(waiter):
                self._notify(1)
            raise
        return True

    async def _acquire_again(self) -> None:
        """Take the lock, however often this task is cancelled; raise that only then."""
        cancelled = None
        while True:
            try:
                await self.acquire()
                break
            except CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = None  # its traceback refers to this frame

    async def wait_for(self, predicate: Callable[[], T]) -> T:
        """wait() until predicate() is true, and return what it is."""
        while not (result := predicate()):
            await self.wait()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake the first n who wait; they go on when they get the lock.

        RuntimeError if nobody has the lock.
        """
        if not self.locked():
            raise RuntimeError("cannot notify on un-acquired lock")
        self._notify(n)

    def notify_all(self) -> None:
        """Wake all who wait; RuntimeError if nobody has the lock."""
        self.notify(len(self._waiters))

    def _notify(self, n: int) -> None:
        waiters = self._waiters
        while n > 0 and waiters.wake_first():
            n -= 1

    async def __aenter__(self) -> None:
        lock = self._lock
        if type(lock) is Lock and not lock._locked and not lock._waiters:
            lock._locked = True
        else:
            await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()


class Semaphore(asyncio.Semaphore):
    """A counter that acquire() lowers and release() raises (asyncio.Semaphore).

    acquire() waits while it is 0. ValueError if it begins below 0.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _waiters: Waiters

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        self._value = value
        self._waiters = Waiters()
        # Waiters whose share is off the value already, and who have not run since. Whoever comes
        # now is to run after them.
        self._woken = 0

    def __repr__(self) -> str:
        state = "locked" if self.locked() else f"unlocked, value:{self._value}"
        return describe(self, state, self._waiters.count_waiting() + self._woken)

    def locked(self) -> bool:
        """Return whether acquire() would have to wait: nothing is left, or others come first."""
        if self._value == 0 or self._woken:
            return True
        return bool(self._waiters) and not self._waiters.all_cancelled()

    async def acquire(self) -> Literal[True]:
        """Wait until the counter is above 0 and it is this one's turn; lower it; return True."""
        waiters = self._waiters
        if self._value and not self._woken and (not waiters or waiters.all_cancelled()):
            self._value -= 1
            return True
        waiter = new_waiter(self)
        waiters.append(waiter)
        try:
            await waiter
        except BaseException as exc:
            if was_woken(waiter):
                self._woken -= 1
                self._value += 1
            else:
                waiters.leave(waiter)
            if isinstance(exc, CancelledError):
                self._hand_out()
            raise
        self._woken -= 1
        if self._value and waiters:
            self._hand_out()
        return True

    def release(self) -> None:
        """Raise the counter, which wakes whoever waits first. Never waits, needs no acquire()."""
        if self._waiters and self._waiters.wake_first():
            self._woken += 1  # and has its share: the counter stays what it was
        else:
            self._value += 1

    def _hand_out(self) -> None:
        """Wake those who had to queue up behind one that was woken, whatever the counter was."""
        while self._value > 0 and self._waiters.wake_first():
            self._value -= 1
            self._woken += 1

    async def __aenter__(self) -> None:
        if type(self) in _SEMAPHORES and self._value and not self._woken and not self._waiters:
            self._value -= 1
        else:
            await self.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()


class BoundedSemaphore(Semaphore, asyncio.BoundedSemaphore):
    """A Semaphore whose counter never gets above its first value (asyncio.BoundedSemaphore)."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._bound_value = value

    def release(self) -> None:
        """Raise the counter; ValueError if there were as many releases as acquires already."""
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        super().release()


# Whose acquire() is the one here; a subclass may have its own.
_SEMAPHORES = (Semaphore, BoundedSemaphore)


# The states of a Barrier, as its repr has them.
FILLING, DRAINING, RESETTING, BROKEN = "filling", "draining", "resetting", "broken"


class Barrier(asyncio.Barrier):
    """Lets tasks go on when `parties` of them wait (asyncio.Barrier), again and again.

    While those of one round leave (draining) who comes for the next one has to wait.
    ValueError if parties is below 1.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, parties: int) -> None:
        if parties < 1:
            raise ValueError("parties must be >= 1")
        self._parties = parties
        self._state = FILLING
        self._count = 0  # tasks of this round that did not leave yet
        self._waiters = Waiters()  # for a change of the state

    def __repr__(self) -> str:
        extra = "" if self.broken else f", waiters:{self.n_waiting}/{self._parties}"
        return describe(self, self._state + extra, 0)

    async def wait(self) -> int:
        """Wait until `parties` tasks do; return the number of this one among them, from 0.

        BrokenBarrierError if the barrier is broken, or gets so or is reset meanwhile.
        """
        while self._state in (DRAINING, RESETTING):
            await self._change()
        if self._state == BROKEN:
            raise BrokenBarrierError("Barrier aborted")
        index = self._count
        self._count += 1
        try:
            if index + 1 == self._parties:
                self._become(DRAINING)
            else:
                while self._state == FILLING:
                    await self._change()
                if self._state != DRAINING:
                    raise BrokenBarrierError("Abort or reset of barrier")
            return index
        finally:
            self._count -= 1
            if self._count == 0 and self._state in (DRAINING, RESETTING):
                self._become(FILLING)

    async def reset(self) -> None:
        """Begin anew: who waits gets BrokenBarrierError. A broken barrier works again."""
        self._become(RESETTING if self._count else FILLING)

    async def abort(self) -> None:
        """Break the barrier: BrokenBarrierError for all who wait or will, until reset()."""
        self._become(BROKEN)

    @property
    def parties(self) -> int:
        """How many tasks have to wait."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many tasks wait; 0 while those of the last round leave."""
        return self._count if self._state == FILLING else 0

    @property
    def broken(self) -> bool:
        """Whether abort() was called, and reset() not since."""
        return self._state == BROKEN

    async def _change(self) -> None:
        waiter = new_waiter(self)
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if not was_woken(waiter):
                self._waiters.leave(waiter)
            raise

    def _become(self, state: str) -> None:
        self._state = state
        self._waiters.wake_all()

    def __aenter__(self) -> Coroutine[Any, Any, int]:  # type: ignore[override]  # typeshed errs
        return self.wait()

    async def __aexit__(self, *exc_info: object) -> None:
        """Nothing to do: a task leaves the barrier when its wait() returns."""
