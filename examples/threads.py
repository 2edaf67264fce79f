"""Threads: blocking work in an executor, and threads that report to the loop.

python examples/threads.py
"""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import veloop as asyncio


def digest(number):
    """Blocks, outside of the GIL."""
    return hashlib.pbkdf2_hmac("sha256", b"password", str(number).encode(), 100_000).hex()[:12]


def measure(loop, queue):
    """A thread of its own: it may touch the loop in one way only."""
    for value in range(3):
        time.sleep(0.02)
        loop.call_soon_threadsafe(queue.put_nowait, value)
    loop.call_soon_threadsafe(queue.put_nowait, None)


async def heartbeat(beats):
    while True:
        beats.append(None)
        await asyncio.sleep(0.005)


async def main():
    loop = asyncio.get_running_loop()
    beats = []
    heart = asyncio.create_task(heartbeat(beats))

    with ThreadPoolExecutor(4) as pool:
        jobs = [loop.run_in_executor(pool, digest, number) for number in range(4)]
        print("digests:", *await asyncio.gather(*jobs))
    print("sleeper:", await asyncio.to_thread(lambda: time.sleep(0.05) or "awake"))

    queue = asyncio.Queue()
    thread = threading.Thread(target=measure, args=(loop, queue))
    thread.start()
    while (value := await queue.get()) is not None:
        print("from the thread:", value)
    thread.join()

    heart.cancel()
    print("the loop was never blocked:", len(beats) > 10)


asyncio.run(main())
