"""Tasks, locks, queues and timeouts, without input or output: (aio, n) does n operations."""

from __future__ import annotations

from programs import Aio, Program, check

MANY = 10  # tasks of one gather() or TaskGroup, and contenders for a lock
BURST = 100  # items in a queue without limit


async def nothing() -> None:
    """Ends without ever being suspended."""


async def sleep(aio: Aio, n: int) -> None:
    for _ in range(n):
        await aio.sleep(0)


async def create_task(aio: Aio, n: int) -> None:
    for _ in range(n):
        await aio.create_task(nothing())


async def gather(aio: Aio, n: int) -> None:
    for _ in range(n):
        results = await aio.gather(*[nothing() for _ in range(MANY)])
        check(len(results) == MANY, "gather() lost a result")


async def task_group(aio: Aio, n: int) -> None:
    tasks = []
    for _ in range(n):
        async with aio.TaskGroup() as group:
            tasks = [group.create_task(nothing()) for _ in range(MANY)]
        check(all(task.done() for task in tasks), "the TaskGroup ended before its tasks")


async def timeout(aio: Aio, n: int) -> None:
    for _ in range(n):
        async with aio.timeout(60):
            await nothing()


async def wait_for(aio: Aio, n: int) -> None:
    for _ in range(n):
        await aio.wait_for(aio.sleep(0), 60)


async def queue_unbounded(aio: Aio, n: int) -> None:
    """Bursts of items; the producer goes on when the consumer has taken the last one."""
    queue = aio.Queue()

    async def consume() -> int:
        total = 0
        for _ in range(n):
            total += await queue.get()
            queue.task_done()
        return total

    consumer = aio.create_task(consume())
    for number in range(n):
        await queue.put(number)
        if number % BURST == BURST - 1:
            await queue.join()
    check(await consumer == n * (n - 1) // 2, "the queue lost an item")


async def queue_one(aio: Aio, n: int) -> None:
    """Room for one item: both sides have to wait for each other."""
    queue = aio.Queue(1)

    async def consume() -> int:
        total = 0
        for _ in range(n):
            total += await queue.get()
        return total

    consumer = aio.create_task(consume())
    for number in range(n):
        await queue.put(number)
    check(await consumer == n * (n - 1) // 2, "the queue lost an item")


async def uncontended(aio: Aio, lock: Aio, n: int) -> None:
    for _ in range(n):
        async with lock:
            pass
    check(not lock.locked(), "the lock is still held")


async def contended(aio: Aio, lock: Aio, n: int, at_once: int) -> None:
    """Each holder gives the others a turn, so that every one of them has to wait for the lock."""
    inside = most = 0

    async def work(times: int) -> None:
        nonlocal inside, most
        for _ in range(times):
            async with lock:
                inside += 1
                most = max(most, inside)
                await aio.sleep(0)
                inside -= 1

    shares = [n // MANY + (number < n % MANY) for number in range(MANY)]
    await aio.gather(*[work(times) for times in shares])
    check(most <= at_once and inside == 0, "the lock let in too many")


async def lock_free(aio: Aio, n: int) -> None:
    await uncontended(aio, aio.Lock(), n)


async def lock_contended(aio: Aio, n: int) -> None:
    await contended(aio, aio.Lock(), n, at_once=1)


async def semaphore_free(aio: Aio, n: int) -> None:
    await uncontended(aio, aio.Semaphore(2), n)


async def semaphore_contended(aio: Aio, n: int) -> None:
    await contended(aio, aio.Semaphore(2), n, at_once=2)


async def event(aio: Aio, n: int) -> None:
    """Two tasks wake each other in turn; an operation is one of these wake-ups."""
    ping, pong = aio.Event(), aio.Event()
    woken = 0

    async def answer(times: int) -> None:
        nonlocal woken
        for _ in range(times):
            await ping.wait()
            ping.clear()
            woken += 1
            pong.set()

    pairs = (n + 1) // 2
    other = aio.create_task(answer(pairs))
    for _ in range(pairs):
        ping.set()
        await pong.wait()
        pong.clear()
        woken += 1
    await other
    check(woken == 2 * pairs, "an event woke nobody")


async def condition(aio: Aio, n: int) -> None:
    """Two tasks take turns; an operation is one notify() and the wake-up that it brings."""
    changed = aio.Condition()
    turn = 0

    async def play(mine: int, times: int) -> None:
        nonlocal turn
        for _ in range(times):
            async with changed:
                while turn % 2 != mine:
                    await changed.wait()
                turn += 1
                changed.notify()

    pairs = (n + 1) // 2
    await aio.gather(play(0, pairs), play(1, pairs))
    check(turn == 2 * pairs, "a notification was lost")


PROGRAMS: dict[str, Program] = {
    "sleep": sleep,
    "create-task": create_task,
    "gather": gather,
    "task-group": task_group,
    "timeout": timeout,
    "wait-for": wait_for,
    "queue-unbounded": queue_unbounded,
    "queue-1": queue_one,
    "lock": lock_free,
    "lock-contended": lock_contended,
    "semaphore": semaphore_free,
    "semaphore-contended": semaphore_contended,
    "event": event,
    "condition": condition,
}
