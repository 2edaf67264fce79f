"""The loop's own methods, with as little as possible of tasks in between: (aio, n) does n
operations."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from programs import Aio, Program, Wrong, check

BATCH = 1000  # callbacks or timers at a time
THREAD_BATCH = 100
FIRE_WITHIN = 0.001  # seconds over which the timers of a batch are spread


def nothing() -> None:
    """A callback."""


async def call_soon_chain(aio: Aio, n: int) -> None:
    """Each callback schedules the next: a turn of the loop per call."""
    loop = aio.get_running_loop()
    done = loop.create_future()
    left = n

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done
    check(left == 0, "callbacks ran too often")


async def in_batches(aio: Aio, n: int, batch: int, schedule: Aio) -> None:
    """Has `schedule(callback)` called `batch` times, then waits for the last callback; n in all."""
    loop = aio.get_running_loop()
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1
        if ran == wanted:
            done.set_result(None)

    for start in range(0, n, batch):
        wanted = min(start + batch, n)
        done = loop.create_future()
        for _ in range(wanted - start):
            schedule(count)
        await done
    check(ran == n, "callbacks were lost or ran twice")


async def call_soon_bulk(aio: Aio, n: int) -> None:
    await in_batches(aio, n, BATCH, aio.get_running_loop().call_soon)


async def threadsafe_own(aio: Aio, n: int) -> None:
    """From the loop's own thread."""
    await in_batches(aio, n, THREAD_BATCH, aio.get_running_loop().call_soon_threadsafe)


async def threadsafe(aio: Aio, n: int) -> None:
    """From another thread, which waits after each batch until the last callback of it has run."""
    loop = aio.get_running_loop()
    finished = loop.create_future()
    ran = 0
    answer = threading.Event()

    def count() -> None:
        nonlocal ran
        ran += 1

    def last() -> None:
        count()
        answer.set()

    def call() -> None:
        for start in range(0, n, THREAD_BATCH):
            for _ in range(min(THREAD_BATCH, n - start) - 1):
                loop.call_soon_threadsafe(count)
            answer.clear()
            loop.call_soon_threadsafe(last)
            answer.wait()
        loop.call_soon_threadsafe(finished.set_result, None)

    thread = threading.Thread(target=call)
    thread.start()
    await finished
    thread.join()
    check(ran == n, "callbacks were lost or ran twice")


async def timer_cancel(aio: Aio, n: int) -> None:
    """Timers that never fire, cancelled at once: what a timeout around a fast operation does."""
    loop = aio.get_running_loop()
    for start in range(0, n, BATCH):
        for _ in range(min(BATCH, n - start)):
            loop.call_later(60, nothing).cancel()
        await aio.sleep(0)


async def timer_fire(aio: Aio, n: int) -> None:
    loop = aio.get_running_loop()
    number = 0

    def schedule(callback: Aio) -> None:
        nonlocal number
        number += 1
        loop.call_later(number % BATCH * (FIRE_WITHIN / BATCH), callback)

    await in_batches(aio, n, BATCH, schedule)


async def getaddrinfo(aio: Aio, n: int, host: str) -> None:
    loop = aio.get_running_loop()
    for _ in range(n):
        found = await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM, family=socket.AF_INET)
        if found[0][4] != ("127.0.0.1", 80):
            raise Wrong(f"{host} is not {found}")


async def getaddrinfo_numeric(aio: Aio, n: int) -> None:
    await getaddrinfo(aio, n, "127.0.0.1")


async def getaddrinfo_localhost(aio: Aio, n: int) -> None:
    await getaddrinfo(aio, n, "localhost")


def create_and_close(new_event_loop: Callable[[], Any], n: int) -> None:
    for _ in range(n):
        new_event_loop().close()


PROGRAMS: dict[str, Program] = {
    "call-soon-chain": call_soon_chain,
    "call-soon-bulk": call_soon_bulk,
    "threadsafe-own": threadsafe_own,
    "threadsafe": threadsafe,
    "timer-cancel": timer_cancel,
    "timer-fire": timer_fire,
    "getaddrinfo-numeric": getaddrinfo_numeric,
    "getaddrinfo-localhost": getaddrinfo_localhost,
}
