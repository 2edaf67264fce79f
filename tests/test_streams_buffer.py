"""stream_reader.py: what is in the buffer, what is copied, and when the transport is paused."""

import asyncio

import pytest

from helpers import run
from stream_helpers import Line, left, pending
from tcp_helpers import pattern, turns


@pytest.fixture
def line(aio, loop):
    return Line(aio, loop)


# ------------------------------------------------------------ what is fed, what is in the buffer


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_fed_data_is_returned_as_bytes(loop, line, kind):
    line.reader.feed_data(kind(b"data\n"))
    result = run(loop, line.reader.readline())
    assert result == b"data\n"
    assert type(result) is bytes


def test_fed_bytearray_may_change_afterwards(loop, line):
    data = bytearray(b"data")
    line.reader.feed_data(data)
    data[:] = b"xxxx"
    assert run(loop, line.reader.read(10)) == b"data"


def test_empty_data_wakes_nobody(loop, line):
    async def main():
        task = await pending(loop, line.reader.read(10))
        line.reader.feed_data(b"")
        await line.deliver(b"")
        await turns()
        assert not task.done()
        await line.deliver(b"x")
        assert await task == b"x"

    run(loop, main())


@pytest.mark.own_module_only("asyncio's copies")
def test_chunk_that_satisfies_a_read_is_handed_over_itself(aio, loop, line):
    chunk = b"x" * 1000 + b"\n"
    for coro in (
        lambda: line.reader.read(5000),
        lambda: line.reader.readexactly(1001),
        lambda: line.reader.readline(),
        lambda: line.reader.readuntil(b"x\n"),
        lambda: line.reader.read(1001),
    ):
        line.reader.feed_data(chunk)
        assert run(loop, coro()) is chunk


def test_buffer_shows_and_takes_what_is_unread(loop, line):
    # Private in asyncio, and still used by libraries that hand a stream over.
    reader = line.reader
    reader.feed_data(b"abcdef")
    assert run(loop, reader.read(1)) == b"a"
    assert reader._buffer == b"bcdef"
    del reader._buffer[:2]
    reader._buffer.extend(b"gh")
    assert run(loop, reader.read(3)) == b"def"
    assert len(reader._buffer) == 2
    reader._buffer = bytearray(b"xyz\n")
    assert run(loop, reader.readline()) == b"xyz\n"
    reader.feed_data(b"gone")
    reader._buffer.clear()
    reader.feed_eof()
    assert run(loop, reader.read()) == b""


def test_old_data_is_not_copied_for_each_small_piece(aio, loop):
    # A line that comes byte by byte: quadratic copying would take minutes.
    line = Line(aio, loop, limit=1 << 22)
    line.reader.feed_data(b"x" * (1 << 20))
    for _ in range(20_000):
        line.reader.feed_data(b"y")
    line.reader.feed_data(b"\n")
    assert len(run(loop, line.reader.readline())) == (1 << 20) + 20_001


# ------------------------------------------------------------ large reads out of many chunks

LARGE = pattern(300_000)


async def delivered(line, data=LARGE, size=50_000):
    for start in range(0, len(data), size):
        await line.deliver(data[start : start + size])
        await turns()


@pytest.mark.parametrize("size", [700, 50_000])
def test_large_readexactly_and_what_is_left(loop, line, size):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) - 10))
        await delivered(line, size=size)
        assert await task == LARGE[:-10]
        assert await line.reader.read(100) == LARGE[-10:]

    run(loop, main())


def test_large_read_to_the_end(loop, line):
    async def main():
        task = await pending(loop, line.reader.read())
        await delivered(line)
        await line.end()
        assert await task == LARGE

    run(loop, main())


def test_large_readexactly_at_the_end_gives_all_with_the_error(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) + 1))
        await delivered(line)
        await line.end()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await task
        assert (caught.value.partial, caught.value.expected) == (LARGE, len(LARGE) + 1)

    run(loop, main())


def test_cancelled_large_readexactly_keeps_what_came(loop, line):
    async def main():
        task = await pending(loop, line.reader.readexactly(len(LARGE) + 1))
        await delivered(line)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await line.reader.readexactly(len(LARGE)) == LARGE

    run(loop, main())


@pytest.mark.own_module_only("asyncio's loses what it had collected")
def test_failed_large_read_to_the_end_keeps_what_came(loop, line):
    async def main():
        task = await pending(loop, line.reader.read())
        await delivered(line)
        line.reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError):
            await task
        assert left(line.reader) == LARGE

    run(loop, main())


# ------------------------------------------------------------ pausing the transport


def test_transport_pauses_beyond_twice_the_limit_and_resumes_at_the_limit(aio, loop):
    line = Line(aio, loop, limit=4)
    line.reader.feed_data(b"12345678")
    assert line.wire.calls == []
    line.reader.feed_data(b"9")
    line.reader.feed_data(b"0")
    assert line.wire.calls == ["pause"]
    run(loop, line.reader.read(5))
    assert line.wire.calls == ["pause"]
    run(loop, line.reader.read(1))
    assert line.wire.calls == ["pause", "resume"]
    run(loop, line.reader.read(1))
    assert line.wire.calls == ["pause", "resume"]


def test_one_large_chunk_pauses_and_one_large_read_resumes(aio, loop):
    async def main():
        line = Line(aio, loop, limit=4)
        task = await pending(loop, line.reader.readexactly(1))
        await line.deliver(b"0123456789")
        await task
        assert line.wire.calls == ["pause"]
        assert await line.reader.read(100) == b"123456789"
        assert line.wire.calls == ["pause", "resume"]

    run(loop, main())


def test_transport_that_cannot_pause_is_not_asked_again(aio, loop):
    line = Line(aio, loop, limit=1)
    asked = []

    def pause_reading():
        asked.append(1)
        raise NotImplementedError

    line.wire.pause_reading = pause_reading
    for _ in range(3):
        line.reader.feed_data(b"1234")
    assert len(asked) == 1
    assert run(loop, line.reader.readexactly(12)) == b"1234" * 3
