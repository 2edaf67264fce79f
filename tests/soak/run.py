"""The soak test: everything at once, at random, for minutes; nothing may hang, leak or go wrong.

    ci/soak --minutes 10 --seed 1

builds the extension so that system calls can fail and runs this with 1 % of them failing
(--faults). Workers take random actions (actions.py) on one loop and cancel a fifth of
them at a random moment. Now and then all stop, and what the process then holds is written down:
descriptors, threads and libuv handles must be what they were in the beginning, and memory must
stop growing. The exit status tells; --loop asyncio is the control. That one may report a future's
exception that was never retrieved: the garbage collector sometimes comes to the future of asyncio's
StreamReaderProtocol before it comes to the protocol, whose __del__ would have seen to it.
"""

import argparse
import asyncio
import collections
import gc
import logging
import os
import random
import ssl
import statistics
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actions

WORKERS = 24
CANCELLED = 0.2  # the share of actions that are cancelled
PATIENCE = 60  # seconds that an action may take
PAUSE_EVERY = 15  # seconds of work between two measures
GROWTH = 4 << 20  # bytes that memory may grow in the second half

# How an action may fail when system calls fail. A TLS peer gone in the middle is no OSError.
FAULTS = (OSError, EOFError, ssl.SSLError)
# What the loop reports by itself then, as asyncio does.
REPORTED = (
    "socket.accept()",
    "SSL handshake failed",
    "SSL error in data received",
    "Fatal read error on pipe transport",
    "Fatal write error on pipe transport",
)


class Soak:
    def __init__(self, options, loop):
        self.options = options
        self.loop = loop
        self.counts = collections.Counter()
        self.failures = collections.Counter()
        self.problems = []
        self.samples = []

    # ------------------------------------------------------------------------------ work

    async def worker(self, world, number, until):
        rng = random.Random(f"{self.options.seed} {number} {len(self.samples)}")
        kinds, weights = list(actions.WEIGHTS), list(actions.WEIGHTS.values())
        while time.monotonic() < until:
            [kind] = rng.choices(kinds, weights)
            await self.act(world, kind, rng)

    async def act(self, world, kind, rng):
        task = asyncio.ensure_future(kind(world, random.Random(rng.random())))
        cancelled = rng.random() < CANCELLED
        if cancelled:
            await asyncio.wait([task], timeout=rng.expovariate(200))
            task.cancel()
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        if not done:
            self.problem(f"{kind.__name__} hangs: {task!r}\n{stack_of(task)}")
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            return
        self.counts[kind.__name__] += 1
        if task.cancelled():
            if not cancelled:
                self.problem(f"{kind.__name__} was cancelled by nobody")
            return
        exc = task.exception()
        if exc is None:
            return
        if self.options.faults and isinstance(exc, FAULTS):
            self.failures[type(exc).__name__] += 1
        else:
            self.problem(f"{kind.__name__}: {''.join(traceback.format_exception(exc))}")

    def problem(self, text):
        print("PROBLEM", text, flush=True)
        self.problems.append(text)

    def on_loop_error(self, loop, context):
        exc = context.get("exception")
        message = context["message"]
        if self.options.faults and isinstance(exc, FAULTS) and message.startswith(REPORTED):
            self.failures[message[:30]] += 1
            return
        self.problem(f"reported to the loop: {context}")
        if exc is not None:
            traceback.print_exception(exc)

    # --------------------------------------------------------------------------- measure

    async def measure(self):
        """What the process holds once everything came to rest."""
        before = None
        for _ in range(100):
            gc.collect()
            now = holdings()
            if before is not None and now[1:] == before[1:]:
                break
            before = now
            await asyncio.sleep(0.1)
        self.samples.append(now)
        memory, descriptors, number, handles = now
        print(
            f"{sum(self.counts.values()):8} actions  {sum(self.failures.values()):6} failed  "
            f"{memory / 2**20:7.1f} MiB  {descriptors} fds  {number} threads  {handles} handles",
            flush=True,
        )

    def judge(self):
        first = self.samples[0]
        for sample in self.samples[1:]:
            if sample[1:] != first[1:]:
                self.problem(f"descriptors, threads, handles: {first[1:]} -> {sample[1:]}")
                break
        memory = [sample[0] for sample in self.samples]
        half = len(memory) // 2
        if half >= 4:
            early = statistics.median(memory[half : half + half // 2])
            late = statistics.median(memory[-(half // 2) :])
            print(f"memory: {early / 2**20:.1f} MiB at half time, {late / 2**20:.1f} at the end")
            if late - early > GROWTH:
                self.problem(f"memory grows: {memory}")

    async def main(self):
        self.loop.set_exception_handler(self.on_loop_error)
        end = time.monotonic() + 60 * self.options.minutes
        with tempfile.TemporaryDirectory() as folder:
            world = actions.World(self.loop, folder)
            await world.start()
            # All threads that there will ever be, of the executor and of libuv's pool.
            barrier = threading.Barrier(min(32, (os.cpu_count() or 1) + 4))
            await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(barrier.parties)))
            await asyncio.gather(*(actions.names(world, None) for _ in range(20)))
            await self.work(world, min(end, time.monotonic() + 3))
            self.samples.clear()
            await self.measure()
            while time.monotonic() < end:
                await self.work(world, min(end, time.monotonic() + PAUSE_EVERY))
                await self.measure()
            await world.stop()

    async def work(self, world, until):
        await asyncio.gather(*(self.worker(world, n, until) for n in range(WORKERS)))


def holdings():
    """(bytes of memory, descriptors, threads, libuv handles)"""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    handles = 0
    if "veloop" in sys.modules:
        from veloop._uv import lib

        handles = lib.vl_live_handles()
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    return memory, len(os.listdir("/proc/self/fd")), threading.active_count(), handles


def stack_of(task):
    return "".join("".join(traceback.format_stack(frame, 1)) for frame in task.get_stack())


class Log(logging.Handler):
    """Everything that asyncio or veloop logs as an error is a problem."""

    def __init__(self, soak):
        super().__init__(logging.ERROR)
        self.soak = soak

    def emit(self, record):
        self.soak.problem(f"logged: {record.getMessage()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=0.0, help="share of system calls that fail")
    parser.add_argument("--loop", choices=("veloop", "asyncio"), default="veloop")
    options = parser.parse_args()
    if options.faults:
        os.environ["VELOOP_FAULT_RATE"] = f"{options.faults}:{options.seed}"
    if options.loop == "veloop":
        import veloop

        # Streams, tasks and children of veloop's own as well. Only now, for the environment says
        # how many calls are to fail.
        actions.asyncio = veloop
        loop = veloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    soak = Soak(options, loop)
    logging.getLogger("asyncio").addHandler(Log(soak))
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_: soak.problem(f"warning: {message}")
    sys.unraisablehook = lambda args: soak.problem(f"unraisable: {args}")
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(soak.main())
    soak.judge()
    for name, count in sorted(soak.counts.items()):
        print(f"{count:8} {name}")
    print("failed by faults:", dict(soak.failures))
    print(f"{len(soak.problems)} problems")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
