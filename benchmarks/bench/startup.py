"""What a program has to pay before its first line of asyncio: import, first loop, end."""

from __future__ import annotations

import os
import subprocess
import time

from bench.loops import LOOPS, Column
from bench.machine import pinned
from bench.row import Row, Settings
from bench.sample import Failed, Sample, Unsupported

AT_LEAST = 3  # processes per sample


def startup(row: Row, column: Column, settings: Settings) -> Sample:
    """CPU time of whole processes, the interpreter's own start with them."""
    if not hasattr(os, "wait4"):
        raise Unsupported("needs os.wait4()")
    loop = LOOPS[column.loop]
    home, _, factory = loop.factory.partition(":")
    lines = [
        f"import {loop.module} as asyncio, {home} as home",
        "async def main(): await asyncio.sleep(0); print('done')",
        f"with asyncio.Runner(loop_factory=home.{factory}) as runner: runner.run(main())",
    ]
    command = [column.python, "-c", "\n".join(lines)]
    environment = column.environment()

    def run() -> tuple[float, float]:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        # It says a word and ends, so neither pipe can fill up. wait4() is not portable, but tells
        # the times of this one child.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with process.stdout, process.stderr:
            if process.returncode != 0 or process.stdout.read() != "done\n":
                last = process.stderr.read().strip().splitlines()[-1:]
                raise Failed(last[0] if last else f"exit status {process.returncode}")
        return usage.ru_utime, usage.ru_stime

    times: list[tuple[float, float]] = []
    with pinned(settings.cores.server if settings.cores else None):
        run()  # the first one may have to compile, or to read files from the disk
        begin = time.perf_counter()
        while len(times) < AT_LEAST or time.perf_counter() < begin + row.seconds:
            times.append(run())
    user, system = (sum(part) for part in zip(*times, strict=True))
    return Sample(
        operations=len(times),
        seconds=time.perf_counter() - begin,
        cpu_ns=int((user + system) * 1e9),
        user_share=user / (user + system),
    )
