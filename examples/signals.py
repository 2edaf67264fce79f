"""Signals: a service that reloads on one signal and ends in order on others.

python examples/signals.py           signals itself
python examples/signals.py --wait    waits for yours: kill -HUP, kill -TERM, Ctrl-C
"""

import os
import signal
import sys

import veloop as asyncio

RELOAD = getattr(signal, "SIGHUP", None) or signal.SIGBREAK  # the latter on Windows


async def work():
    try:
        while True:
            await asyncio.sleep(0.05)
    finally:
        print("worker: cleaned up")


async def main():
    loop = asyncio.get_running_loop()
    end = asyncio.Event()

    def stop(signum):
        print(f"{signal.Signals(signum).name}: ending")
        end.set()

    loop.add_signal_handler(RELOAD, print, "reloading")
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    if "--wait" in sys.argv:
        print(f"process {os.getpid()} waits", flush=True)
    else:
        loop.call_later(0.1, signal.raise_signal, RELOAD)
        loop.call_later(0.2, signal.raise_signal, signal.SIGTERM)

    worker = asyncio.create_task(work())
    await end.wait()
    worker.cancel()
    await asyncio.wait([worker])
    print("bye")


asyncio.run(main())
