"""Locks, events, conditions, semaphores, barriers: who may go on, and when.

python examples/primitives.py
"""

import veloop as asyncio


async def deposit(account, lock, amount):
    async with lock:  # nobody reads the balance between these two lines
        balance = account["balance"]
        await asyncio.sleep(0)
        account["balance"] = balance + amount


async def runner(name, start, line, log):
    await start.wait()
    log.append(f"{name} runs")
    return name, await line.wait()  # until all three are there


async def consumer(condition, stock):
    async with condition:
        await condition.wait_for(lambda: stock)
        return stock.pop()


async def main():
    account, lock = {"balance": 0}, asyncio.Lock()
    await asyncio.gather(*(deposit(account, lock, amount) for amount in range(10)))
    print("balance:", account["balance"], "locked:", lock.locked())

    start, line, log = asyncio.Event(), asyncio.Barrier(3), []
    runners = [asyncio.create_task(runner(name, start, line, log)) for name in "ABC"]
    await asyncio.sleep(0)
    print("before the start:", log)
    start.set()
    positions = await asyncio.gather(*runners)
    print(", ".join(log), "; places: ", sorted(p for _, p in positions), sep="")

    condition, stock = asyncio.Condition(), []
    buyer = asyncio.create_task(consumer(condition, stock))
    await asyncio.sleep(0)
    async with condition:
        stock.append("a loaf")
        condition.notify()
    print("bought:", await buyer)

    gate = asyncio.BoundedSemaphore(1)
    await gate.acquire()
    gate.release()
    try:
        gate.release()
    except ValueError as error:
        print("error:", error)


asyncio.run(main())
