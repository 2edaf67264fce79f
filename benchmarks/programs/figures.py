"""Programs whose figure is not CPU time: (aio, seconds) gives it after about that time."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time

from programs import Aio, Figure, check

TIMERS = 100_000
APART = 0.0017  # seconds between timers: no multiple of a millisecond, so loops that round show it


def resident() -> int:
    """Bytes of memory that this process has."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise NotImplementedError(f"the memory of a process: {error}") from None
    return int(psutil.Process().memory_info().rss)


async def timer_memory(aio: Aio, seconds: float) -> float:
    """Bytes per timer that is pending."""
    loop = aio.get_running_loop()
    handles: list[object] = [None] * TIMERS
    gc.collect()
    before = resident()
    for number in range(TIMERS):
        handles[number] = loop.call_later(3600 + number, print, number)
    await aio.sleep(0)
    grown = resident() - before
    check(all(handles) and grown > 0, "no timer was made")
    return grown / TIMERS


async def lateness(aio: Aio, seconds: float) -> list[float]:
    """How far from their time timers fire on an idle loop, in us; too early counts like too late.

    By the clock of the system, as some loops keep a coarser one of their own.
    """
    loop = aio.get_running_loop()
    count = max(100, int(seconds / APART))
    off: list[float] = []
    done = loop.create_future()

    def fire(due: float) -> None:
        off.append(abs(time.monotonic() - due) * 1e6)
        if len(off) == count:
            done.set_result(None)

    for number in range(1, count + 1):
        delay = number * APART
        loop.call_later(delay, fire, time.monotonic() + delay)
    await done
    return off


async def lateness_p50(aio: Aio, seconds: float) -> float:
    return statistics.median(await lateness(aio, seconds))


async def lateness_p99(aio: Aio, seconds: float) -> float:
    off = sorted(await lateness(aio, seconds))
    return off[len(off) * 99 // 100]


FIGURES: dict[str, Figure] = {
    "timer-memory": timer_memory,
    "lateness-p50": lateness_p50,
    "lateness-p99": lateness_p99,
}
