"""For tests: an event loop whose clock jumps, so that an hour's timeout takes no time.

VirtualClockLoop is veloop's EventLoop in all but the clock. Where it would sleep until the next
timer it looks for I/O once more, and if there is none it sets its clock to that timer's time. In
manual mode the clock stands still until advance() moves it.

What must stay true: the clock never runs ahead of work that the loop knows to be under way
outside of it (threads of an executor, name look-ups, child processes, what hold() says) by more
than time really passes; and the loop does not hang where it can tell that nothing will wake it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import count
from typing import Any

from .loop import EventLoop
from .loop.handles import TimerHandle
from .loop.timers import LONGEST_SLEEP

__all__ = ("VirtualClockLoop", "new_event_loop")

_monotonic = time.monotonic

# How long (real seconds) a loop that nothing will wake waits for threads that it does not know.
_PATIENCE = 1.0


class VirtualClockLoop(EventLoop):
    """An event loop with a clock of its own, which goes by jumps.

    start: what time() returns at first, in seconds. manual: the clock stands still until
    advance() is called. grace: while sockets, pipes or watched descriptors are open, how many
    real seconds each jump waits for I/O that is still on its way.
    """

    def __init__(self, start: float = 0.0, *, manual: bool = False, grace: float = 0.001) -> None:
        for name, value in (("start", start), ("grace", grace)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}")
        if grace < 0:
            raise ValueError(f"grace must not be negative, got {grace!r}")
        super().__init__()
        self._now = float(start)
        self._manual = manual
        self._grace = float(grace)
        # advance() calls that wait: the time they wait for, a number to compare by, the future.
        self._advances: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count().__next__
        self._held = 0
        self._children: list[asyncio.SubprocessTransport] = []
        self._real_since = _monotonic()  # when the clock moved last, or work outside began
        self._until_complete = 0
        # Never due: with a timer pending the loop asks _sleep_time() before each sleep.
        self._timers.add(TimerHandle(math.inf, _never, (), self))

    def time(self) -> float:
        """The virtual clock, in seconds. It moves only between callbacks, never during one."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Let the clock go on by `seconds`, timer by timer.

        Returns when all that is due by then has happened and nothing is left to do at that
        time; advance(0) waits for the latter only. For manual mode, and allowed in the other.
        ValueError for what is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and not negative, got {seconds!r}")
        waiter = self.create_future()
        entry = (self._now + seconds, self._number(), waiter)
        heapq.heappush(self._advances, entry)
        try:
            await waiter
        finally:
            if entry in self._advances:  # cancelled
                self._advances.remove(entry)
                heapq.heapify(self._advances)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Something outside is at work meanwhile that the loop does not know of.

        A thread of the test's own, or a server in another process. Until the end of the block
        the clock stands still, unless a timer's time passes in reality.
        """
        self._work_begins()
        try:
            yield
        finally:
            self._work_ends()

    def _work_begins(self) -> None:
        if not self._is_held():
            self._real_since = _monotonic()
        self._held += 1

    def _work_ends(self, _: object = None) -> None:
        self._held -= 1

    # ------------------------------------------------------------------ how the clock moves

    def _sleep_time(self) -> float:
        """Move the clock instead of sleeping. -> how long (seconds) to sleep nevertheless."""
        now = self._now
        timer = self._timers.next_when()
        assert timer is not None  # there is the one that is never due
        if timer <= now:
            return 0.0
        # The ids of descriptors and processes are positive; 0 is the loop's own, for signals.
        if self._look(self._grace if any(self._driver.targets) else 0.0):
            return 0.0
        advances = self._advances
        target = advances[0][0] if advances else math.inf
        if self._manual and (not advances or timer > max(advances)[0]):
            when = target
        else:
            when = min(timer, target)
        if when == math.inf:
            return self._sleep_without_end()
        if self._is_held():
            left = when - now - (_monotonic() - self._real_since)
            if left > 0:
                return min(left, LONGEST_SLEEP)
        if when > now:
            self._now = when
            self._real_since = _monotonic()
        if target < timer:
            while advances and advances[0][0] <= when:
                waiter = heapq.heappop(advances)[2]
                if not waiter.done():
                    waiter.set_result(None)
        return 0.0

    def _sleep_without_end(self) -> float:
        """Only I/O or another thread can wake the loop now; RuntimeError if neither can."""
        if (
            not self._until_complete  # run_forever() is for who will call stop(), from a thread
            or self._is_held()
            or any(self._driver.targets)
            or self._signals.handlers
            or (threading.active_count() > 1 and self._look(_PATIENCE))
        ):
            return 0.0 if self._ready else -1.0
        why = "nothing is left that could wake the loop"
        when = self._timers.next_when()
        if when != math.inf:
            why = f"nobody calls advance(), and the next timer is due at {when} only"
        tasks = ", ".join(sorted(map(repr, asyncio.all_tasks(self)))) or "no task"
        raise RuntimeError(f"Deadlock at {self._now}: {why}; pending: {tasks}")

    def _is_held(self) -> bool:
        if self._children:
            self._children = [each for each in self._children if each.get_returncode() is None]
        return self._held > 0 or bool(self._children)

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future (or coroutine, in a task) is done; return or raise its result.

        RuntimeError, with the pending tasks, when it never will be: no timer is left, no
        descriptor is watched, no work is under way outside.
        """
        self._until_complete += 1
        try:
            return super().run_until_complete(future)
        finally:
            self._until_complete -= 1

    # ------------------------------------------------------------- work outside of the loop

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run func(*args) in an executor; the clock stands still until its future is done."""
        future = super().run_in_executor(executor, func, *args)
        self._work_begins()
        future.add_done_callback(self._work_ends)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shut the default executor down and wait, at most `timeout` real seconds."""
        with self.hold():
            await super().shutdown_default_executor(timeout)

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Look a name up; the clock stands still meanwhile."""
        with self.hold():
            return await super().getaddrinfo(*args, **kwargs)

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Look an address up; the clock stands still meanwhile."""
        with self.hold():
            return await super().getnameinfo(*args, **kwargs)

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Run a program; the clock stands still until it has ended."""
        return await self._watched(super().subprocess_exec(*args, **kwargs))

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        """Run a shell command; the clock stands still until it has ended."""
        return await self._watched(super().subprocess_shell(*args, **kwargs))

    async def _watched(self, starting: Any) -> Any:
        with self.hold():
            made = await starting
            self._children.append(made[0])
        return made


def _never() -> None:
    """The callback of the timer that is never due."""


def new_event_loop(
    start: float = 0.0, *, manual: bool = False, grace: float = 0.001
) -> VirtualClockLoop:
    """Return a new VirtualClockLoop, for run(main(), loop_factory=new_event_loop)."""
    return VirtualClockLoop(start, manual=manual, grace=grace)
