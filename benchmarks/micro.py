"""Measures one program in a process of its own: the rows without a client.

    python benchmarks/micro.py LOOP PROGRAM [--seconds S] [--warmup S]   prints one line of JSON

The warm-up also finds out how many operations fill the measured time. CPU time is this process's,
all threads, without its children: theirs is not the loop's doing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.loops import LOOPS, factory, module
from programs import Program, figures, primitives, processes, scheduling

PROGRAMS: dict[str, Program] = {
    **primitives.PROGRAMS,
    **scheduling.PROGRAMS,
    **processes.PROGRAMS,
}
OUTSIDE = {"loop": scheduling.create_and_close}  # programs that run beside any loop

ENOUGH = 0.7  # share of the wanted time that a sample has to take
GROWTH = 8  # times as many operations from run to run, at most

Measured = dict[str, Any]  # the fields of bench.sample.Sample


def waited() -> int:
    """Nanoseconds in which the main thread was ready to run and had no core."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/schedstat") as schedstat:
        return int(schedstat.read().split()[1])


@dataclass
class Meter:
    """Reads the clocks; the difference of two is a sample."""

    clock: float
    cpu: int
    times: os.times_result
    waited: int

    @classmethod
    def read(cls) -> Meter:
        return cls(time.perf_counter(), time.process_time_ns(), os.times(), waited())

    def since(self, before: Meter, operations: int) -> Measured:
        seconds = self.clock - before.clock
        user = self.times.user - before.times.user
        system = self.times.system - before.times.system
        return {
            "operations": operations,
            "seconds": seconds,
            "cpu_ns": self.cpu - before.cpu,
            # Sampled at the clock tick, unlike the total, which it divides.
            "user_share": user / (user + system) if user + system else None,
            "disturbed": (self.waited - before.waited) / seconds / 1e9,
        }


def measure(run: Callable[[int], Measured], seconds: float, warmup: float) -> Measured:
    """The first run that takes about so long. Those before it are the warm-up: each tells how many
    operations the next one needs, but the first operations of a process tell wrong."""
    operations, spent = 1, 0.0
    while True:
        result = run(operations)
        took = result["seconds"]
        if took >= seconds * ENOUGH and spent >= warmup:
            return result
        spent += took
        operations = max(1, min(operations * GROWTH, int(operations * seconds / took)))


def inside(loop: str, program: str) -> Callable[[int], Measured]:
    """How to measure a program that is a coroutine."""
    aio = module(loop)

    async def timed(operations: int) -> Measured:
        gc.collect()
        before = Meter.read()
        await PROGRAMS[program](aio, operations)
        return Meter.read().since(before, operations)

    def run(operations: int) -> Measured:
        with aio.Runner(loop_factory=factory(loop)) as runner:
            result: Measured = runner.run(timed(operations))
            return result

    return run


def outside(loop: str, program: str) -> Callable[[int], Measured]:
    def run(operations: int) -> Measured:
        gc.collect()
        before = Meter.read()
        OUTSIDE[program](factory(loop), operations)
        return Meter.read().since(before, operations)

    return run


def figure(loop: str, program: str, seconds: float) -> Measured:
    aio = module(loop)
    with aio.Runner(loop_factory=factory(loop)) as runner:
        before = Meter.read()
        found = runner.run(figures.FIGURES[program](aio, seconds))
        taken = Meter.read().since(before, 1)
    return {"operations": 1, "seconds": taken["seconds"], "figure": found}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("program", choices=[*PROGRAMS, *OUTSIDE, *figures.FIGURES])
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--warmup", type=float, default=0.1)
    options = parser.parse_args()
    loop, program = options.loop, options.program
    try:
        if program in figures.FIGURES:
            result = figure(loop, program, options.seconds)
        else:
            run = outside(loop, program) if program in OUTSIDE else inside(loop, program)
            result = measure(run, options.seconds, options.warmup)
    except NotImplementedError as error:
        result = {"unsupported": str(error) or "NotImplementedError"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
