"""Timers: call_later, a periodic task, a timeout, and how late they are.

python examples/timers.py
"""

import veloop as asyncio


async def tick(every, log):
    """Call `log` at regular times, whatever the calls take."""
    loop = asyncio.get_running_loop()
    when = loop.time()
    while True:
        log("tick")
        when += every
        await asyncio.sleep(when - loop.time())


async def main():
    loop = asyncio.get_running_loop()
    start = loop.time()

    def log(what):
        print(f"{loop.time() - start:5.2f} s  {what}")

    loop.call_later(0.15, log, "call_later")
    loop.call_at(start + 0.25, log, "call_at")
    loop.call_later(0.35, log, "never seen").cancel()
    try:
        async with asyncio.timeout(0.45):
            await tick(0.1, log)
    except TimeoutError:
        log("timeout")

    late = []
    for _ in range(100):
        due = loop.time() + 0.001
        await asyncio.sleep(0.001)
        late.append(loop.time() - due)
    print(f"100 sleeps of 1 ms: none early: {min(late) >= 0}, worst {max(late) * 1e3:.2f} ms late")


asyncio.run(main())
