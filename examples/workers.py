"""Workers that share queues: jobs by priority, a pool of connections, the newest news first.

python examples/workers.py
"""

import veloop as asyncio


async def worker(name, jobs, pool, done):
    while True:
        priority, job = await jobs.get()
        async with pool:  # at most two work at a time
            await asyncio.sleep(0.001)
            done.append((priority, job, name))
        jobs.task_done()


async def by_priority():
    jobs = asyncio.PriorityQueue()
    for priority, job in [(3, "sweep"), (1, "put out the fire"), (2, "answer the phone")]:
        jobs.put_nowait((priority, job))
    done = []
    pool = asyncio.Semaphore(2)
    workers = [asyncio.create_task(worker(n, jobs, pool, done)) for n in ("Ada", "Bob", "Cy")]
    await jobs.join()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    for priority, job, name in sorted(done):
        print(f"{priority}: {name} had to {job}")


async def produce(queue, items):
    for item in items:
        await queue.put(item)  # waits while the queue is full
    await queue.put(None)


async def in_order():
    queue = asyncio.Queue(maxsize=2)
    producer = asyncio.create_task(produce(queue, range(5)))
    items = []
    while (item := await queue.get()) is not None:
        items.append(item)
    await producer
    print("first in, first out:", *items)

    stack = asyncio.LifoQueue()
    for item in range(3):
        stack.put_nowait(item)
    print("last in, first out:", *[stack.get_nowait() for _ in range(stack.qsize())])


async def main():
    await by_priority()
    await in_order()


asyncio.run(main())
