"""Waiting for tasks: all, the first, each as it is done, not too long, not to be disturbed.

python examples/waiting.py
"""

import veloop as asyncio


async def answer(value, turns=0):
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def never():
    await asyncio.get_running_loop().create_future()


async def main():
    print("all:", await asyncio.gather(answer("a"), answer("b"), answer("c")))

    quick, slow = asyncio.create_task(answer("quick")), asyncio.create_task(never())
    done, pending = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
    print("the first:", [task.result() for task in done], "pending:", len(pending))
    slow.cancel()
    try:
        await slow
    except asyncio.CancelledError:
        print("the other was cancelled:", slow.cancelled())

    print("as they end:", end="")
    for next_one in asyncio.as_completed([answer(3, 9), answer(1, 1), answer(2, 4)]):
        print("", await next_one, end="")
    print()

    for limit in (0.01, 5):
        try:
            job = never() if limit < 1 else answer("yes")
            print("in time:", await asyncio.wait_for(job, limit))
        except asyncio.TimeoutError:
            print("too late")
    async with asyncio.timeout(5) as deadline:
        await answer("yes")
    print("expired:", deadline.expired())

    inner = asyncio.ensure_future(answer("saved", 5))
    outer = asyncio.ensure_future(asyncio.shield(inner))
    await asyncio.sleep(0)
    outer.cancel()
    print("shielded:", await inner)

    current = asyncio.current_task()
    print("alone again:", asyncio.all_tasks() == {current}, isinstance(current, asyncio.Task))


asyncio.run(main())
