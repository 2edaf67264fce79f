"""Measures loops in parallel threads: how much more several do than one.

    python benchmarks/scaling.py [--loops veloop asyncio] [--threads 1 2] [--rounds 5]

Each thread runs a loop of its own, and all of them the same program, for the same time. With a GIL
the gain cannot be more than 1; without one it is at best the number of threads. Only whole
rounds are compared: in each, every loop is measured with every number of threads in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import sysconfig
import threading
import time
from typing import Any

from bench.loops import LOOPS, describe, factory, module
from programs import Program, check, primitives, scheduling

SIZE = 1024
BATCH = 200  # operations between two looks at the clock


async def echo(aio: Any, count: int) -> None:
    """Messages of 1 KiB to an echo server on the same loop, one after the other."""

    async def serve(reader: Any, writer: Any) -> None:
        while data := await reader.read(SIZE):
            writer.write(data)
        writer.close()

    server = await aio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await aio.open_connection(*server.sockets[0].getsockname()[:2])
    message = bytes(SIZE)
    for _ in range(count):
        writer.write(message)
        check(await reader.readexactly(SIZE) == message, "another message came back")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


PROGRAMS: dict[str, Program] = {
    "echo": echo,
    "create-task": primitives.PROGRAMS["create-task"],
    "queue": primitives.PROGRAMS["queue-unbounded"],
    "call-soon": scheduling.PROGRAMS["call-soon-chain"],
    "timers": scheduling.PROGRAMS["timer-cancel"],
}


def rate(loop: str, program: str, threads: int, seconds: float) -> float:
    """Operations per second of all threads together."""
    aio, done = module(loop), [0] * threads
    start = threading.Barrier(threads + 1)
    over = threading.Event()
    failures: list[BaseException] = []

    async def work(number: int) -> None:
        await PROGRAMS[program](aio, BATCH)  # imports, caches
        start.wait()
        while not over.is_set():
            await PROGRAMS[program](aio, BATCH)
            done[number] += BATCH

    def run(number: int) -> None:
        try:
            with asyncio.Runner(loop_factory=factory(loop)) as runner:
                runner.run(work(number))
        except BaseException as error:
            failures.append(error)
            start.abort()

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        start.wait()
        began = time.perf_counter()
        time.sleep(seconds)
        took, operations = time.perf_counter() - began, sum(done)
    except threading.BrokenBarrierError:
        took, operations = 1.0, 0
    over.set()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return operations / took


def has_gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled() if enabled is not None else not sysconfig.get_config_var("Py_GIL_DISABLED")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=["veloop", "asyncio"])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=[*PROGRAMS])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, the GIL is {'on' if has_gil() else 'off'}")
    for loop in options.loops:
        print(describe(loop))
    first, *more = options.threads
    print(f"\n{'program':12} {'loop':10} {f'op/s, {first}':>12}", end="")
    print("".join(f"{f'{threads} gain':>10}" for threads in more))
    for program in options.programs:
        rates: dict[str, list[list[float]]] = {loop: [] for loop in options.loops}
        for _ in range(options.rounds):
            for loop in options.loops:
                rates[loop].append(
                    [rate(loop, program, threads, options.seconds) for threads in options.threads]
                )
        for loop, rounds in rates.items():
            gains = [
                statistics.median(one[at] / one[0] for one in rounds)
                for at in range(1, len(options.threads))
            ]
            alone = statistics.median(one[0] for one in rounds)
            words = "".join(f"{gain:>10.2f}" for gain in gains)
            print(f"{program:12} {loop:10} {alone:>12,.0f}{words}", flush=True)


if __name__ == "__main__":
    main()
