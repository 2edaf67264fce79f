"""Loops by hand: one that is made, set and closed, one in a thread, one that runs twice.

python examples/loops.py
"""

import threading

import veloop as asyncio


async def double(number):
    await asyncio.sleep(0)
    return number * 2


def by_hand():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        print("current:", asyncio.get_event_loop() is loop)
        loop.call_soon(print, "a callback")
        print("result:", loop.run_until_complete(double(4)))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    print("closed:", loop.is_closed())


def in_a_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    jobs = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(3)]
    print("from another thread:", [job.result(timeout=5) for job in jobs])
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def runs_twice():
    async def which():
        return asyncio.get_running_loop()

    with asyncio.Runner() as runner:
        print("the same loop:", runner.run(which()) is runner.run(which()))


by_hand()
in_a_thread()
runs_twice()
