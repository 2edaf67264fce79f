"""Child processes: (aio, n) does n operations."""

from __future__ import annotations

import random

from programs import Aio, Program, check

TEN_MEGABYTES = random.Random(1).randbytes(10_000_000)


async def spawn(aio: Aio, n: int) -> None:
    for _ in range(n):
        process = await aio.create_subprocess_exec("true")
        check(await process.wait() == 0, "the child did not succeed")


async def communicate(aio: Aio, n: int) -> None:
    pipe = aio.subprocess.PIPE
    for _ in range(n):
        process = await aio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        output, _ = await process.communicate(TEN_MEGABYTES)
        check(output == TEN_MEGABYTES, "the child's output is not what went in")
        check(process.returncode == 0, "the child did not succeed")


PROGRAMS: dict[str, Program] = {"spawn": spawn, "communicate": communicate}
