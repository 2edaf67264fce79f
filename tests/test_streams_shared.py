"""stream_reader.py: reads of several tasks that get in each other's way."""

import asyncio

import pytest

from helpers import run
from tcp_helpers import turns


@pytest.mark.own_module_only("asyncio's goes on behind where it had looked, and misses it")
@pytest.mark.parametrize(
    "method, args",
    [("readline", ()), ("readuntil", (b"\n",)), ("readuntil", ((b"\n", b"\r\n"),))],
)
@pytest.mark.parametrize("size", [1, 5])
def test_separator_is_found_though_another_read_took_data(aio, loop, method, args, size):
    """Woken by data that is gone when it gets there, a read looks through everything anew."""

    async def main():
        reader = aio.StreamReader(loop=loop)
        reader.feed_data(b"aaaa")
        line = loop.create_task(getattr(reader, method)(*args))
        await turns()
        reader.feed_data(b"a")
        assert await reader.read(size) == b"a" * size
        reader.feed_data(b"\nb")
        rest = b"a" * (5 - size) + b"\n"
        assert await asyncio.wait_for(line, 10) == rest
        assert await reader.read(10) == b"b"

    run(loop, main())


@pytest.mark.parametrize("method, args", [("readline", ()), ("readuntil", (b"\n",))])
def test_line_in_small_pieces_behind_a_long_beginning(aio, loop, method, args):
    async def main():
        reader = aio.StreamReader(loop=loop, limit=2000)
        reader.feed_data(b"a" * 1000)
        line = loop.create_task(getattr(reader, method)(*args))
        await turns()
        for _ in range(500):
            reader.feed_data(b"b")
            await turns(1)
        reader.feed_data(b"\nc")
        assert await line == b"a" * 1000 + b"b" * 500 + b"\n"
        assert await reader.read(10) == b"c"

    run(loop, main())
