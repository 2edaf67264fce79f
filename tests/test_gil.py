"""Other threads go on while callbacks keep the loop busy."""

import asyncio
import contextlib
import functools
import os
import time

import pytest

from helpers import PATIENCE, WINDOWS
from tcp_helpers import run, turns


def switches(count=40):
    """Wait for the GIL that many times."""
    reader, writer = os.pipe()
    try:
        for _ in range(count):
            os.write(writer, b"x")
            os.read(reader, 1)
            time.sleep(0.0001)
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def a_pipe_watched(loop):
    """A pipe may be in blocking mode, and so the loop looks at it without the GIL."""
    reader, writer = os.pipe()
    run(loop, loop.connect_read_pipe(asyncio.Protocol, open(reader, "rb", 0)))
    try:
        yield
    finally:
        os.close(writer)
        run(loop, turns(5))


@pytest.mark.parametrize(
    "watching",
    [
        contextlib.nullcontext,
        pytest.param(
            a_pipe_watched,
            marks=pytest.mark.skipif(WINDOWS, reason="only pipes of CreateNamedPipe"),
        ),
    ],
)
def test_loop_that_is_always_busy_lets_threads_go_on(loop, watching):
    async def main():
        working = loop.create_task(asyncio.to_thread(switches))
        while not working.done():
            await asyncio.sleep(0)
        await working

    with watching(loop):
        run(loop, main())


def test_callbacks_without_any_python_let_threads_go_on(loop):
    # There is no Python function, in which CPython would give the GIL away.
    chain = functools.partial(loop.call_soon)
    chain.__setstate__((loop.call_soon, (chain,), {}, {}))
    timer = loop.call_later(PATIENCE / 2, loop.stop)
    working = loop.run_in_executor(None, switches)
    working.add_done_callback(lambda _: loop.stop())
    loop.call_soon(chain)
    loop.run_forever()
    timer.cancel()
    assert working.done()
    # The chain ends with its callback.
    chain.__setstate__((int, (), {}, {}))
    run(loop, turns())
